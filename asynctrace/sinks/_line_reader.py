"""A LineReader: answers questions about a store of JSON lines."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from os import PathLike
from typing import ParamSpec, TypeVar

from asynctrace.core.batch import Mark
from asynctrace.core.numbers import Numbers
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import StoreError
from asynctrace.sinks._paths import checked_path
from asynctrace.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

_PULLED = 250  # items a thread hop
_TOLD_PROBLEMS = 20  # a store of garbage must not fill a terminal


class LineReader(ABC):
    """What the readers of lines have in common: blocking work on a thread of their own.

    Args:
        path: of the file, or the directory.

    Raises:
        ConfigurationError: that is no path.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = checked_path(path)
        self._worker = Worker(f"asynctrace {self!r}")
        self._problems: dict[str, None] = {}
        self._more_problems = False

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._path!r})"

    def __str__(self) -> str:
        return self._path

    def runs(self, query: Query = EVERYTHING) -> AsyncIterator[RunSummary]:
        """Runs with at least one record that the query admits, newest first by their last record.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return self._pull(self._runs, query)

    def records(self, run_id: str, query: Query = EVERYTHING) -> AsyncIterator[Record]:
        """Records of one run that the query admits, oldest first.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return self._pull(self._records, run_id, query)

    async def find(self, run_id: str) -> RunSummary | None:
        """The one run, or None when the store does not hold it.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return await self._worker.run(self._find, run_id)

    def marks(self) -> AsyncIterator[Mark]:
        """All marks, in the order they were written.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return self._pull(self._marks)

    def numbers(self) -> AsyncIterator[Numbers]:
        """The keys of all lines that hold a record, as ranges; a record that was written twice is told twice.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return self._pull(self._numbers)

    async def prune(self, older_than_ns: int) -> int:
        """Remove runs whose newest record is older than the stamp; marks tell what went.

        Args:
            older_than_ns: wall-clock stamp, nanoseconds since the epoch.

        Returns:
            How many records went.

        Raises:
            StoreError: the store is not there, or something could not be removed.
        """
        try:
            return await self._worker.run(self._prune, older_than_ns)
        except OSError as error:
            raise StoreError(f"{error.filename or self}: {error.strerror or error}") from error

    async def used_bytes(self) -> int:
        """Bytes of all files of the store, as they lie on the disk.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        try:
            return await self._worker.run(self._used_bytes)
        except OSError as error:
            raise StoreError(f"{error.filename or self}: {error.strerror or error}") from error

    def problems(self) -> tuple[str, ...]:
        """What the questions so far could not read, unless a run that they found tells it; in words."""
        return (*self._problems, "… and more") if self._more_problems else tuple(self._problems)

    async def aclose(self) -> None:
        """End the reader's thread; a second call does nothing."""
        self._worker.shutdown()

    @abstractmethod
    def _runs(self, query: Query) -> Iterator[RunSummary]:
        """On the thread: what ``runs`` tells."""

    @abstractmethod
    def _records(self, run_id: str, query: Query) -> Iterator[Record]:
        """On the thread: what ``records`` tells."""

    @abstractmethod
    def _find(self, run_id: str) -> RunSummary | None:
        """On the thread: what ``find`` answers."""

    @abstractmethod
    def _marks(self) -> Iterator[Mark]:
        """On the thread: what ``marks`` tells."""

    @abstractmethod
    def _numbers(self) -> Iterator[Numbers]:
        """On the thread: what ``numbers`` tells."""

    @abstractmethod
    def _used_bytes(self) -> int:
        """On the thread: what ``used_bytes`` answers."""

    @abstractmethod
    def _prune(self, older_than_ns: int) -> int:
        """On the thread: what ``prune`` does."""

    def _note(self, problems: Iterable[str]) -> None:
        """On the thread: have ``problems`` tell these, too."""
        for problem in problems:
            if problem in self._problems:
                continue
            if len(self._problems) < _TOLD_PROBLEMS:
                self._problems[problem] = None
            else:
                self._more_problems = True

    async def _pull(
        self, make: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        items = make(*args, **kwargs)
        while part := await self._worker.run(lambda: list(islice(items, _PULLED))):
            for item in part:
                yield item


def size_of(path: str) -> int:
    """Bytes of a file; 0 when it is gone."""
    try:
        return os.stat(path).st_size
    except FileNotFoundError:
        return 0
