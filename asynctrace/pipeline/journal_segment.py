"""A Segment of a journal: a file of fixed size in memory, written by any thread in one C call."""

from __future__ import annotations

import mmap
import os
import struct
from collections.abc import Callable
from contextlib import suppress
from copy import copy
from pathlib import Path
from types import CodeType
from zlib import crc32

from asynctrace.pipeline.journal_entries import EVENT, MARK, RECORD, SEALED

SUFFIX = ".ring"

Sites = dict[int, dict[int, int]]
"""Keys of the call sites whose entries are in a segment, by the address of the code object and the instruction in it:
two look-ups cost half of one by their sum, which would have to be made for each record."""

_HEADER = struct.Struct(">8sQI")  # what it is, its place in the order, checksum of both
_MAGIC = b"ATJRNL1\n"
_CLEANED = 1 << 16  # bytes zeroed in one call: it holds every other thread up
_RECORDS = (RECORD, EVENT, SEALED)
_ZEROS = bytes(_CLEANED)


class Segment:
    """Takes entries until it is full.

    ``write`` is the map's own method: under the interpreter's lock it reserves room and copies in one step. What it has
    no room for raises ValueError. All room is allocated beforehand, else a full disk would kill the process.

    Args:
        path: of the file, which must not be there yet.
        size: bytes.

    Raises:
        OSError: the disk has no room, or cannot be written.
    """

    def __init__(self, path: Path, size: int) -> None:
        self.path = path
        self.size = size
        self.write: Callable[[bytes], object] = len  # until it begins
        self.sites: Sites = {}
        self.codes: list[CodeType] = []
        """Keeps those whose addresses are in ``sites``."""
        self.spans: set[int] = set()
        """Spans whose entries are in it."""
        self.newest_span: object = None
        """The one that was told of last: most records are of it, and to compare is quicker than to look up."""
        self.last_number = 0
        """No higher number had been given out when the next segment was begun."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _allocate(self._file, size)
            self._map = mmap.mmap(self._file, size)
        except BaseException:
            os.close(self._file)
            path.unlink(missing_ok=True)
            raise
        self._clean()  # touches each page now, not in the caller's thread

    def again(self) -> Segment:
        """The same file for other entries, all zeros; another object, for handles remember what they told to which."""
        fresh = copy(self)
        fresh.sites, fresh.codes, fresh.spans, fresh.newest_span = {}, [], set(), None
        fresh.last_number, fresh.write = 0, len
        fresh._clean()
        return fresh

    def _clean(self) -> None:
        """Make it all zeros; blocks for a millisecond per megabyte, other threads for less."""
        for start in range(0, self.size, _CLEANED):
            self._map[start : start + _CLEANED] = _ZEROS[: self.size - start]

    def begin(self, place: int) -> None:
        """Take entries from now on.

        Args:
            place: in the order of the segments.
        """
        self._map.seek(0)
        self._map.write(_header(place))
        self.write = self._map.write

    def sync(self) -> None:
        """Have the disk hold what was written so far; blocks, but no other thread.

        Raises:
            OSError: it does not.
        """
        if self._file < 0:  # removed: nobody needs it
            return
        if hasattr(os, "fdatasync"):
            os.fdatasync(self._file)
        else:
            self._map.flush()

    def contents(self) -> bytes:
        """What was written so far."""
        return self._map[_HEADER.size :]

    def remove(self) -> None:
        """Delete the file; the map stays for a thread that may still write."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


class NoSegment:
    """Stands for a segment while there is none: refuses, so that the journal looks for one."""

    def __init__(self) -> None:
        self.sites: Sites = {}
        self.codes: list[CodeType] = []
        self.spans: set[int] = set()
        self.newest_span: object = None

    def write(self, data: bytes) -> object:
        """Raises ValueError, as a segment that is full."""
        raise ValueError


class LostSegment(NoSegment):
    """Stands for a segment while nothing can be journaled: counts what would have been.

    Attributes:
        lost: records that were not written.
    """

    def __init__(self) -> None:
        super().__init__()
        self.lost = 0

    def write(self, data: bytes) -> object:
        """Count it, if it is a record."""
        self.lost += data is not MARK and data[1] in _RECORDS
        return 0


def segment_place(path: Path) -> int | None:
    """The place of a segment in the order; None when it holds nothing, or is something else.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        head = file.read(_HEADER.size)
    if len(head) < _HEADER.size:
        return None
    place = int(_HEADER.unpack(head)[1])
    return place if head == _header(place) else None


def read_segment(path: Path) -> bytes:
    """The contents of a segment.

    Raises:
        OSError: it cannot be read.
    """
    with open(path, "rb") as file:
        file.seek(_HEADER.size)
        return file.read()


def _header(place: int) -> bytes:
    return _HEADER.pack(_MAGIC, place, crc32(_MAGIC + place.to_bytes(8, "big")))


def _allocate(file: int, size: int) -> None:
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file, 0, size)
        return
    for start in range(0, size, _CLEANED):  # macOS
        os.write(file, _ZEROS[: size - start])
