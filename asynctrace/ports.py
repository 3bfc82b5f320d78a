"""The contracts between the pipeline and what third parties write, on one page."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable
from typing import Literal, Protocol, runtime_checkable

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.numbers import Numbers
from asynctrace.core.query import Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary


@runtime_checkable
class Sink(Protocol):
    """A destination of records. One lane calls it, one call at a time, always on the lane's event loop.

    A sink knows nothing of retries, timeouts or queues: it says what happened by the error it raises, and the
    lane acts. Its ``repr`` names the destination without secrets.
    """

    async def open(self) -> None:
        """Called once before the first ``write``, and again after it failed.

        Also called on another event loop or in a forked child without ``aclose`` in between: then the sink
        forgets what it holds, without using or closing it, and starts afresh.

        Raises:
            TransientSinkError: the destination is away; the lane calls again later.
            PermanentSinkError: it will never open.
        """

    async def write(self, batch: Batch) -> None:
        """Make the batch safe: when this returns, its records survive the death of the process.

        The same batch may come again: a record whose ``(producer, seq)`` is already there is not stored twice.

        Raises:
            TransientSinkError: not stored; the same batch may succeed later.
            BatchTooLargeError: not stored; smaller batches may be.
            PermanentSinkError: not stored, and never will be.
            PartialWriteError: all but the named records are stored, and the marks.
        """

    async def aclose(self) -> None:
        """Release what the sink holds; a second call does nothing."""


Safety = Literal["memory", "process", "disk"]
"""What a record survives once its sink took it: nothing, the death of the process, or a loss of power too."""


class LocalSink(ABC):
    """A sink whose destination is on this machine: its lane lingers for milliseconds, not a second.

    It adds one verb, for the moments when no event loop can run any more, and says what its records survive.
    """

    safety: Safety = "process"
    """What a record survives once the sink took it."""

    @abstractmethod
    async def open(self) -> None: ...

    @abstractmethod
    async def write(self, batch: Batch) -> None: ...

    @abstractmethod
    async def aclose(self) -> None: ...

    @abstractmethod
    def write_now(self, batch: Batch) -> None:
        """Make the batch safe with plain blocking calls; any thread, no event loop, other writers may be active.

        Called when the loop is gone or going: end of ``asyncio.run``, interpreter exit. Needs no ``open``; also
        works between ``open`` and ``aclose`` and after ``aclose``.

        Raises:
            SinkError: as ``write``.
        """


@runtime_checkable
class Reader(Protocol):
    """The side of a store that answers questions. Every method may be called without ``open``."""

    def runs(self, query: Query) -> AsyncIterator[RunSummary]:
        """Runs with at least one record that the query admits, newest first.

        Raises:
            StoreError: the store is not there or holds something else.
        """

    def records(self, run_id: str, query: Query) -> AsyncIterator[Record]:
        """All records of one run that the query admits, structural ones included, oldest first.

        Yields nothing when the run is not there.

        Raises:
            StoreError: the store is not there or holds something else.
        """

    async def find(self, run_id: str) -> RunSummary | None:
        """The one run, or None when the store does not hold it.

        Raises:
            StoreError: the store is not there or holds something else.
        """

    def marks(self) -> AsyncIterator[Mark]:
        """All marks, oldest first; for ``verify``."""

    def numbers(self) -> AsyncIterator[Numbers]:
        """The keys of all records, structural ones included, as ranges in any order; for ``verify``.

        A record that is stored twice is told twice. :func:`asynctrace.core.numbers.in_ranges` makes ranges of keys.

        Raises:
            StoreError: the store is not there or holds something else.
        """

    async def prune(self, older_than_ns: int) -> int:
        """Remove runs whose newest record is older than the wall-clock stamp; how many records went."""

    async def aclose(self) -> None:
        """Release what the reader holds; a second call does nothing."""


AnySink = Sink | LocalSink
"""A destination of either kind."""


@runtime_checkable
class SizedReader(Reader, Protocol):
    """A reader that also tells how much room its store takes, so that retention can bound it."""

    async def used_bytes(self) -> int:
        """Bytes that the records take; what is free for new ones inside the store does not count.

        Raises:
            StoreError: the store is not there or cannot be read.
        """


@runtime_checkable
class CandidReader(Reader, Protocol):
    """A reader that also tells what it came across and could not read."""

    def problems(self) -> tuple[str, ...]:
        """What the questions so far could not read, unless a run that they found tells it; in words."""


@runtime_checkable
class BulkReader(Reader, Protocol):
    """A reader of a store that is read from end to end for each question: it also gives all records in one go."""

    def all_records(self) -> AsyncIterator[Record]:
        """The records of all runs, structural ones included, each once, in the order they were written.

        Raises:
            StoreError: the store is not there or holds something else.
        """


Processor = Callable[[Record], Record | None]
"""Looks at a finished record in the writer, before redaction: gives it back, another one, or None to filter it."""
