"""Reading files of JSON lines, as far as they go."""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Callable, Iterable, Iterator
from itertools import islice
from typing import ParamSpec, TypeVar

import msgspec

from asynctrace.core.batch import Mark
from asynctrace.core.decoding import MARK_KIND, RecordDecoder, mark_of
from asynctrace.core.numbers import Numbers
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import StoreError
from asynctrace.worker import Worker

P = ParamSpec("P")
T = TypeVar("T")

_CHUNK = 1 << 20  # bytes a read
_TAIL = 4096  # bytes that hold the last line of most files
_PULLED = 250  # items a thread hop
_TOLD_PROBLEMS = 10  # of one file; a file of garbage must not fill a listing
_RECORD_START = b'{"seq":'
_ESCAPED = frozenset('"\\/')  # JSON may write them in two ways
_MARK_START = b'{"kind":"%b"' % MARK_KIND.encode()


class _Key(msgspec.Struct):
    producer: str
    seq: int


_decode_key = msgspec.json.Decoder(_Key).decode


class Lines:
    """One file of lines, read from its beginning to its present end.

    Args:
        path: the file; a missing one is empty.
        decoder: shared by the files of one store.
    """

    def __init__(self, path: str, decoder: RecordDecoder | None = None) -> None:
        self._path = path
        self._name = os.path.basename(path)
        self._decoder = decoder or RecordDecoder()
        self._problems: list[str] = []
        self._more_problems = 0

    def records(self) -> Iterator[Record]:
        """The records; what cannot be read becomes a problem."""
        return (record for _, record in self.raw() if record is not None)

    def records_of(self, run_id: str) -> Iterator[Record]:
        """The records of one run; looks for no problems elsewhere."""
        # Decoding a line costs a hundred times as much as seeing that the id is not in it.
        part = (
            run_id.encode() if run_id.isascii() and run_id.isprintable() and not _ESCAPED & {*run_id} else b""
        )
        for line in self._lines():
            if part in line:
                for _, record in self._read((line,)):
                    if record is not None and record.run_id == run_id:
                        yield record

    def raw(self) -> Iterator[tuple[bytes, Record | None]]:
        """Each line without its end, with its record; None for marks and for what cannot be read."""
        yield from self._read(self._lines())

    def _read(self, lines: Iterable[bytes]) -> Iterator[tuple[bytes, Record | None]]:
        for number, line in enumerate(lines, 1):
            if not line or line.startswith(_MARK_START):
                yield line, None
                continue
            try:
                record: Record | None = self._decoder.from_json(line)
            except ValueError:
                self._tell(f"{self._name}: line {number} torn")
                record = self._rescue(line)
            yield line, record

    def marks(self) -> Iterator[Mark]:
        """The marks."""
        for number, line in enumerate(self._lines(), 1):
            if line.startswith(_MARK_START):
                try:
                    yield mark_of(line)
                except ValueError:
                    self._tell(f"{self._name}: line {number} torn")

    def keys(self) -> Iterator[tuple[str, int]]:
        """The key of each record; looks at nothing else in a line that is whole."""
        for line in self._lines():
            if line and not line.startswith(_MARK_START):
                try:
                    key = _decode_key(line)
                except ValueError:
                    rescued = self._rescue(line)
                    if rescued is not None:
                        yield rescued.producer, rescued.seq
                else:
                    yield key.producer, key.seq

    def last(self) -> Record | None:
        """The last record that can be read, without reading all that is before it."""
        try:
            with open(self._path, "rb", buffering=0) as file:
                size, taken = os.fstat(file.fileno()).st_size, 0
                while taken < size:
                    taken = min(size, max(_TAIL, 8 * taken))
                    file.seek(size - taken)
                    for line in reversed(file.read(taken).split(b"\n")):
                        try:
                            return self._decoder.from_json(line)
                        except ValueError:
                            continue
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error
        return None

    def problems(self) -> tuple[str, ...]:
        """What could not be read so far."""
        if not self._more_problems:
            return tuple(self._problems)
        return (*self._problems, f"{self._name}: {self._more_problems} more torn lines")

    def _lines(self) -> Iterator[bytes]:
        try:
            with open(self._path, "rb", buffering=0) as file:
                rest = b""
                while chunk := file.read(_CHUNK):
                    *lines, rest = (rest + chunk).split(b"\n")
                    yield from lines
                if rest:
                    yield rest
        except FileNotFoundError:
            return
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error

    def _rescue(self, line: bytes) -> Record | None:
        # A writer that died in the middle of a line leaves its half before the next writer's whole line. The
        # start of a record is no part of a string (there the quotes are escaped), only of nested metadata.
        start = line.find(_RECORD_START, 1)
        while start > 0:
            try:
                return self._decoder.from_json(line[start:])
            except ValueError:
                start = line.find(_RECORD_START, start + 1)
        return None

    def _tell(self, problem: str) -> None:
        if len(self._problems) < _TOLD_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more_problems += 1


class LineReader(ABC):
    """What the readers of lines have in common: blocking work on a thread of their own.

    Args:
        name: for the thread.
    """

    def __init__(self, name: str) -> None:
        self._worker = Worker(f"asynctrace {name}")

    async def find(self, run_id: str) -> RunSummary | None:
        """The one run, or None when the store does not hold it.

        Raises:
            StoreError: the store is not there or cannot be read.
        """
        return await self._worker.run(self._find, run_id)

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
            raise StoreError(f"{self!r}: {error}") from error

    async def aclose(self) -> None:
        """End the reader's thread; a second call does nothing."""
        self._worker.shutdown()

    @abstractmethod
    def _find(self, run_id: str) -> RunSummary | None:
        """On the thread: what ``find`` answers."""

    @abstractmethod
    def _numbers(self) -> Iterator[Numbers]:
        """On the thread: what ``numbers`` tells."""

    @abstractmethod
    def _prune(self, older_than_ns: int) -> int:
        """On the thread: what ``prune`` does."""

    async def _pull(
        self, make: Callable[P, Iterator[T]], /, *args: P.args, **kwargs: P.kwargs
    ) -> AsyncIterator[T]:
        items = make(*args, **kwargs)
        while part := await self._worker.run(lambda: list(islice(items, _PULLED))):
            for item in part:
                yield item


def pruned_marks(keys: Iterable[tuple[str, int]]) -> Iterator[Mark]:
    """Marks that explain removed records: one a producer, over the range of its numbers that went."""
    numbers: dict[str, list[int]] = {}
    for producer, seq in keys:
        numbers.setdefault(producer, []).append(seq)
    for producer, gone in numbers.items():
        yield Mark(producer, min(gone), max(gone), admitted=0, pruned=len(gone))
