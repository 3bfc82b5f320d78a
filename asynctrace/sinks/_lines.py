"""Lines: a file of JSON lines, read as far as it goes."""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator
from contextlib import suppress
from typing import BinaryIO

import msgspec

from asynctrace.core.batch import Mark
from asynctrace.core.decoding import MARK_KIND, RecordDecoder, mark_of
from asynctrace.core.record import Record
from asynctrace.errors import StoreError
from asynctrace.sinks._rotation import GZIPPED, opened, opened_one, rotated

_CHUNK = 1 << 20  # bytes a read
_TAIL = 4096  # bytes that hold the last line of most files
_TOLD_PROBLEMS = 10  # of one file; a file of garbage must not fill a listing
_RECORD_START = b'{"seq":'
_ESCAPED = frozenset('"\\/')  # JSON may write them in two ways
_MARK_START = b'{"kind":"%b"' % MARK_KIND.encode()


_Place = tuple[str, int]
"""Name of a file and number of a line in it."""


class _Key(msgspec.Struct):
    producer: str
    seq: int


_decode_key = msgspec.json.Decoder(_Key).decode


class Lines:
    """A file of lines with those that were rotated away before it, read from the beginning to the present end.

    Args:
        path: the file; a missing one is empty.
        decoder: shared by the files of one store.
    """

    def __init__(self, path: str, decoder: RecordDecoder | None = None) -> None:
        self._path = path
        self._open = opened
        self._decoder = decoder or RecordDecoder()
        self._problems: list[str] = []
        self._more_problems = 0

    @classmethod
    def of_one(cls, path: str) -> Lines:
        """The lines of that file alone, compressed or not."""
        lines = cls(path)
        lines._open = opened_one
        return lines

    def records(self) -> Iterator[Record]:
        """The records; what cannot be read becomes a problem."""
        return (record for _, record in self.raw() if record is not None)

    def records_of(self, run_id: str) -> Iterator[Record]:
        """The records of one run; looks for no problems elsewhere."""
        # Decoding a line costs a hundred times as much as seeing that the id is not in it.
        part = (
            run_id.encode() if run_id.isascii() and run_id.isprintable() and not _ESCAPED & {*run_id} else b""
        )
        for place, line in self._lines():
            if part in line:
                record = self._record(place, line)
                if record is not None and record.run_id == run_id:
                    yield record

    def raw(self) -> Iterator[tuple[bytes, Record | None]]:
        """Each line without its end, with its record; None for marks and for what cannot be read."""
        for place, line in self._lines():
            yield line, self._record(place, line)

    def record_in(self, line: bytes) -> Record | None:
        """The record of one line without its end; None for a mark and for what cannot be read."""
        return self._record((os.path.basename(self._path), 0), line)

    def _record(self, place: _Place, line: bytes) -> Record | None:
        if not line or mark_in(line) is not None:
            return None
        try:
            return self._decoder.from_json(line)
        except ValueError:
            self._tell_torn(place)
            return self._rescue(line)

    def marks(self) -> Iterator[Mark]:
        """The marks."""
        for place, line in self._lines():
            if (mark := mark_in(line)) is not None:
                yield mark
            elif line and not line.startswith(_RECORD_START):
                self._tell_torn(place)

    def keys(self) -> Iterator[tuple[str, int]]:
        """The key of each record; looks at nothing else in a line that is whole."""
        for _, line in self._lines():
            if line and mark_in(line) is None:
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
            if (last := self._last_of(self._path)) is not None:
                return last
            before = rotated(self._path)  # the file has just made way for a new one
            return self._last_of(before[-1]) if before else None
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror}") from error

    def _last_of(self, path: str) -> Record | None:
        if path.endswith(GZIPPED):
            last = None
            for last in Lines.of_one(path).records():  # noqa: B007  # only the last one counts
                pass
            return last
        try:
            with open(path, "rb", buffering=0) as file:
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
        return None

    def problems(self) -> tuple[str, ...]:
        """What could not be read so far."""
        if not self._more_problems:
            return tuple(self._problems)
        return (*self._problems, f"{os.path.basename(self._path)}: {self._more_problems} more torn lines")

    def _lines(self) -> Iterator[tuple[_Place, bytes]]:
        try:
            for path, file in self._open(self._path):
                yield from self._lines_of(os.path.basename(path), file)
        except OSError as error:
            raise StoreError(f"{self._path}: {error.strerror or error}") from error

    def _lines_of(self, name: str, file: BinaryIO) -> Iterator[tuple[_Place, bytes]]:
        number, rest = 0, b""
        try:
            while chunk := file.read(_CHUNK):
                *lines, rest = (rest + chunk).split(b"\n")
                for number, line in enumerate(lines, number + 1):  # noqa: B020  # it goes on where it was
                    yield (name, number), line
        except (EOFError, zlib.error, gzip.BadGzipFile) as error:
            self._tell(f"{name}: damaged behind line {number}: {error}")
        if rest:
            yield (name, number + 1), rest

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

    def _tell_torn(self, place: _Place) -> None:
        self._tell(f"{place[0]}: line {place[1]} torn")

    def _tell(self, problem: str) -> None:
        if len(self._problems) < _TOLD_PROBLEMS:
            self._problems.append(problem)
        else:
            self._more_problems += 1


def mark_in(line: bytes) -> Mark | None:
    """The mark of one line without its end; None for a record and for what cannot be read."""
    if line.startswith(_MARK_START):
        with suppress(ValueError):
            return mark_of(line)
    return None
