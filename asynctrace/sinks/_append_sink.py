"""What the sinks that append to files have in common: the thread, the closing, the same batch again."""

from __future__ import annotations

import asyncio
import errno
import logging
import os
import threading
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from typing import Literal, ParamSpec, TypeVar, get_args

from asynctrace.core.allowed import is_choice, is_whole
from asynctrace.core.batch import Batch, Mark
from asynctrace.core.record import Record
from asynctrace.errors import ConfigurationError, SinkClosedError, TransientSinkError
from asynctrace.ports import LocalSink
from asynctrace.sinks._files import AppendFiles, translate
from asynctrace.sinks._rotation import NEVER, Rotation
from asynctrace.sinks._tidying import Explain, tidy
from asynctrace.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

Parts = defaultdict[str, list[bytes]]
"""path → whole lines, each with its line end."""

Durability = Literal["process", "disk"]
"""What lines survive: the death of the process, or a loss of power too (one fsync a file and batch)."""

_PATIENCE = 1.0  # seconds that a blocking write waits for a thread that was left behind
_TIDYING = 1.0  # seconds that closing waits for rotated files to be tidied; the next process goes on with it
_logger = logging.getLogger("asynctrace")


class AppendSink(LocalSink):
    """Adds lines to files under one directory, one thread hop a batch.

    Stored at least once: the same batch right again adds nothing, and after a failure only what is missing.
    A batch that comes again after others, or from another sink object, adds its lines a second time; readers
    drop such doubles by ``(producer, seq)``. Files have no unique key that could do more.

    Args:
        directory: made when it is missing.
        max_open_files: descriptors that stay open.
        durability: see :data:`Durability`.
        rotation: when a file makes way for a new one, and what becomes of it.

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(
        self, directory: str, *, max_open_files: int, durability: Durability, rotation: Rotation = NEVER
    ) -> None:
        if not is_whole(max_open_files, 1):
            raise ConfigurationError("max_open_files", max_open_files, "a whole number from 1")
        if not is_choice(durability, get_args(Durability)):
            raise ConfigurationError("durability", durability, " or ".join(get_args(Durability)))
        self._directory = directory
        self._max_open_files = max_open_files
        self.safety = durability
        self._sync = durability == "disk"
        self._rotation = rotation
        self._appender: _Appender | None = None
        self._progress = _Progress()

    @abstractmethod
    def _collect(self, records: Sequence[Record], parts: Parts) -> None:
        """Add the lines of some records to the parts."""

    @abstractmethod
    def _collect_marks(self, batch: Batch, parts: Parts) -> None:
        """Add the lines of the batch's marks to the parts."""

    @abstractmethod
    def _explain(self, path: str, marks: Sequence[Mark]) -> None:
        """Keep the marks that tell of a rotated file which is about to be deleted; on a thread of its own.

        Raises:
            OSError: they could not be written.
        """

    def _tidied_when_opened(self) -> Sequence[str]:
        """Files whose rotated ones an earlier process may have left untidied."""
        return ()

    async def open(self) -> None:
        """Make the directory and get ready to write.

        Raises:
            TransientSinkError: the directory cannot be made now.
            PermanentSinkError: it cannot be made at all: no permission, a file stands in its place.
        """
        if self._appender is not None:
            self._appender.abandon()
        tidier = _Tidier(self._rotation, self._explain, repr(self))
        appender = self._appender = _Appender(self._new_files(tidier.tidy), tidier, repr(self))
        if not self._progress.is_ours:
            self._progress = _Progress()
        try:
            await appender.call(os.makedirs, self._directory, exist_ok=True)
        except OSError as error:
            raise translate(error, self._directory) from error
        for path in self._tidied_when_opened():
            tidier.tidy(path)

    async def write(self, batch: Batch) -> None:
        """Append the batch; when this returns its lines survive as ``durability`` says.

        Raises:
            TransientSinkError: disk full, quota, input/output error.
            PermanentSinkError: no permission, read-only, a file where a folder is needed.
            SinkClosedError: before ``open`` or after ``aclose``.
        """
        appender = self._appender
        if appender is None:
            raise SinkClosedError(f"{self!r} is not open")
        parts: Parts = defaultdict(list)
        async for part in batch.slices():
            self._collect(part, parts)
        self._collect_marks(batch, parts)
        if not parts:
            return
        try:
            await appender.call(self._progress.append, appender.files, batch, parts, -1)
        except OSError as error:
            raise translate(error, self._directory) from error

    async def aclose(self) -> None:
        """Close the files after what is being written; a second call does nothing."""
        appender, self._appender = self._appender, None
        if appender is not None:
            try:
                await appender.call(appender.files.close)
            except TransientSinkError:
                appender.files.close()  # no thread can start any more, so none runs
            finally:
                appender.worker.shutdown()
                self._progress = _Progress()  # nobody is at it any more
                await appender.tidier.end()

    def write_now(self, batch: Batch) -> None:
        """Append the batch by plain calls on descriptors of its own; what a thread that was left behind has written of
        it, and goes on writing for at most a second, is not written again.

        Raises:
            TransientSinkError, PermanentSinkError: as ``write``.
        """
        parts: Parts = defaultdict(list)
        self._collect(batch.records, parts)
        self._collect_marks(batch, parts)
        if not parts:
            return
        if not self._progress.is_ours:
            self._progress = _Progress()
        files = self._new_files()
        try:
            self._progress.append(files, batch, parts, _PATIENCE)
        except OSError as error:
            raise translate(error, self._directory) from error
        finally:
            files.close()

    def _new_files(self, told: Callable[[str], None] | None = None) -> AppendFiles:
        return AppendFiles(
            self._directory,
            max_open=self._max_open_files,
            sync=self._sync,
            rotation=self._rotation,
            told=told,
        )


class _Appender:
    """What belongs to one ``open``: it is left as it is when the sink opens again elsewhere."""

    def __init__(self, files: AppendFiles, tidier: _Tidier, name: str) -> None:
        self.files = files
        self.tidier = tidier
        self.worker = Worker(f"asynctrace {name}")
        self._process = os.getpid()

    async def call(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        try:
            return await self.worker.run(fn, *args, **kwargs)
        except RuntimeError as error:
            raise TransientSinkError(f"no thread can start: {error}") from error

    def abandon(self) -> None:
        """Nobody waits for it any more. In a forked child its thread and its descriptors are the parent's."""
        if os.getpid() != self._process:
            return
        try:
            self.worker.submit(self.files.close)
        except RuntimeError:
            pass  # the interpreter ends, and with it the descriptors
        self.worker.shutdown()
        self.tidier.abandon()


class _Progress:
    """How far the last batch has come, whichever thread goes on with it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process = os.getpid()
        self._last: object = None
        self._done: dict[str, int] = {}

    @property
    def is_ours(self) -> bool:
        """Whether no thread of a parent process may hold the lock."""
        return self._process == os.getpid()

    def append(self, files: AppendFiles, batch: Batch, parts: Parts, patience: float) -> None:
        """Append what is missing of the batch; blocks.

        Args:
            patience: seconds that another thread is waited for; -1: for ever.
        """
        if not self._lock.acquire(timeout=patience):
            raise TimeoutError(errno.ETIMEDOUT, "another write has not come to its end")
        try:
            if batch.identity != self._last:
                self._last, self._done = batch.identity, {}
            files.append(_joined(parts), self._done)
        finally:
            self._lock.release()


class _Tidier:
    """Tidies rotated files on a thread of its own, so that no write waits for it."""

    def __init__(self, rotation: Rotation, explain: Explain, name: str) -> None:
        self._rotation = rotation
        self._explain = explain
        self._worker = Worker(f"asynctrace rotation {name}")
        self._last: Future[None] | None = None

    def tidy(self, path: str) -> None:
        """Soon; any thread."""
        if self._rotation.tidies:
            try:
                self._last = self._worker.submit(self._tidy, path)
            except RuntimeError:
                pass  # the interpreter ends; the next process goes on with it

    def _tidy(self, path: str) -> None:
        try:
            tidy(path, self._rotation, self._explain)
        except Exception as error:  # nobody waits for it
            _logger.warning("the rotated files of %s cannot be tidied: %s", path, error)

    async def end(self) -> None:
        """Wait for what was begun, for a moment."""
        if self._last is not None:
            _, unfinished = await asyncio.wait({asyncio.wrap_future(self._last)}, timeout=_TIDYING)
            for future in unfinished:
                future.cancel()
        self._worker.shutdown()

    def abandon(self) -> None:
        self._worker.shutdown()


def _joined(parts: Mapping[str, list[bytes]]) -> dict[str, bytes]:
    return {path: b"".join(lines) for path, lines in parts.items()}
