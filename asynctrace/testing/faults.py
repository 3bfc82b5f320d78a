"""What can go wrong at one write: the words of a :class:`asynctrace.testing.ScriptedSink`'s script."""

from __future__ import annotations

import asyncio
import errno
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from asynctrace.core.batch import Batch
from asynctrace.core.record import Record
from asynctrace.errors import (
    BatchTooLargeError,
    PartialWriteError,
    PermanentSinkError,
    Rejection,
    TransientSinkError,
)

Keep = Callable[[Sequence[Record]], None]


class Fault(Protocol):
    """One write as it goes: what is stored, and how it ends. Any such callable may stand in a script."""

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        """Act.

        Args:
            batch: what the lane writes.
            keep: stores records of the batch; the marks are stored when this returns.

        Raises:
            Exception: how the write ends.
        """


@dataclass(frozen=True, slots=True)
class Fine:
    """Nothing goes wrong."""

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        keep(batch.records)


@dataclass(frozen=True, slots=True)
class Slow:
    """The answer takes its time.

    Args:
        seconds: how long.
        then: what comes of it.
    """

    seconds: float
    then: Fault = field(default_factory=Fine)

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        await asyncio.sleep(self.seconds)
        await self.then(batch, keep)


@dataclass(frozen=True, slots=True)
class Hang:
    """No answer ever comes, and nothing is stored: the write ends when it is cancelled."""

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        await asyncio.get_running_loop().create_future()


@dataclass(frozen=True, slots=True)
class Away:
    """Nobody answers: :class:`TransientSinkError`.

    Args:
        message: of the error.
    """

    message: str = "connection refused"

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        raise TransientSinkError(self.message)


@dataclass(frozen=True, slots=True)
class RateLimited:
    """Status 429: :class:`TransientSinkError`, with the time that ``Retry-After`` asks for.

    Args:
        retry_after: seconds; None when the answer does not say.
    """

    retry_after: float | None = None

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        raise TransientSinkError("429 Too Many Requests", retry_after=self.retry_after)


@dataclass(frozen=True, slots=True)
class TooLarge:
    """Status 413: :class:`BatchTooLargeError` for batches over a size; smaller ones are taken.

    Args:
        most: records that are taken at once; 0 refuses any batch.
    """

    most: int = 0

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        if len(batch) > self.most:
            raise BatchTooLargeError(f"413 Content Too Large: {len(batch)} records, at most {self.most}")
        keep(batch.records)


@dataclass(frozen=True, slots=True)
class Refused:
    """Status 401: :class:`PermanentSinkError`.

    Args:
        message: of the error.
    """

    message: str = "401 Unauthorized"

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        raise PermanentSinkError(self.message)


@dataclass(frozen=True, slots=True, init=False)
class Partial:
    """Some records are refused, their neighbours stored: :class:`PartialWriteError`.

    Args:
        indices: positions in the batch, from 0; those beyond its end are passed over.
        retryable: whether they may be taken later.
    """

    indices: tuple[int, ...]
    retryable: bool

    def __init__(self, *indices: int, retryable: bool = False) -> None:
        object.__setattr__(self, "indices", indices)
        object.__setattr__(self, "retryable", retryable)

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        refused = [index for index in self.indices if index < len(batch)]
        keep([record for index, record in enumerate(batch) if index not in refused])
        if refused:
            raise PartialWriteError([Rejection(index, "refused", self.retryable) for index in refused])


@dataclass(frozen=True, slots=True)
class DiskFull:
    """The disk has no room left: ``OSError`` with ``ENOSPC``.

    Args:
        after: records that still found room.
    """

    after: int = 0

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        keep(batch.records[: self.after])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@dataclass(frozen=True, slots=True)
class Crash:
    """The destination dies in the middle of the write: ``ConnectionResetError``.

    Args:
        after: records that it has stored by then; with None all of them, only the answer is lost.
    """

    after: int | None = 0

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        keep(batch.records[: self.after])
        raise ConnectionResetError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))


@dataclass(frozen=True, slots=True)
class Surprise:
    """An error that no sink should raise: a bug in it, or in its driver.

    Args:
        error: what is raised.
    """

    error: Exception = field(default_factory=lambda: RuntimeError("surprise"))

    async def __call__(self, batch: Batch, keep: Keep) -> None:
        raise self.error
