"""A SegmentFile: one file of entries. What cannot be read in it is counted, and whoever reads goes on behind it."""

from __future__ import annotations

import errno
from dataclasses import dataclass
from pathlib import Path

from asynctrace.pipeline.entries import HEADER_BYTES, Entry, is_torn, unpack

SUFFIX = ".seg"

_READ_TRIES = 3  # before a file that cannot be read is given up
_PASSING = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN, errno.EINTR)  # the file is not at fault


@dataclass(slots=True, eq=False)
class SegmentFile:
    """What is known of one file.

    Args:
        path: of the file.
        last: id of the last entry in it.
        size: bytes.
        unread: counted entries that were not given to the reader yet.
        offset: where the reader goes on.
        damaged: whether anything in it was lost.
        failures: to read it.
    """

    path: Path
    last: int
    size: int = 0
    unread: int = 0
    offset: int = 0
    damaged: bool = False
    failures: int = 0

    @property
    def is_read(self) -> bool:
        """Whether the reader has been given all of it."""
        return self.offset >= self.size

    def read_on(self, acknowledged: int) -> tuple[list[Entry], int]:
        """What the reader was not given yet, and how many counted entries of it are lost.

        Args:
            acknowledged: entries up to that id are not given again.

        Raises:
            OSError: it cannot be read now; after some tries it counts as lost.
        """
        start = self.offset
        try:
            data = _read_part(self.path, start, self.size)
        except OSError as error:
            self.failures += error.errno not in _PASSING
            if self.failures < _READ_TRIES and not isinstance(error, FileNotFoundError):
                raise
            data, self.damaged = b"", True
        self.offset = self.size
        entries = [entry for entry, _ in unpack(data) if acknowledged < entry.id <= self.last]
        lost = max(0, self.unread - sum(entry.counted for entry in entries))
        self.unread = 0
        self.damaged = self.damaged or lost > 0
        return entries, lost


def name_of(first: int) -> str:
    """The name of a file that begins with the entry of that id: files sort as their entries do."""
    return f"{first:016x}{SUFFIX}"


def take_stock(path: Path, acknowledged: int) -> tuple[SegmentFile, int, int]:
    """The file, the id of its first entry, and how many of its entries are lost.

    Args:
        path: of the file.
        acknowledged: entries up to that id are done with.

    Raises:
        OSError: it can be read later.
    """
    segment = SegmentFile(path, last=0)
    first = lost = end = 0
    data = _read_or_none(path)
    if data is None:
        segment.damaged = True
        return segment, 0, 0  # the gap before the next file tells how many
    segment.size = len(data)
    for entry, stop in unpack(data):
        if segment.last:
            lost += entry.id - segment.last - 1
        else:
            first = entry.id
            lost += max(0, entry.id - _first_id(path, entry.id))
        segment.damaged = segment.damaged or stop - end != HEADER_BYTES + len(entry.payload)
        segment.last, end = entry.id, stop
        segment.unread += entry.counted and entry.id > acknowledged
    if end < len(data) and not is_torn(data, end):
        segment.damaged = True
        lost += 1
    return segment, _first_id(path, first), lost


def _first_id(path: Path, otherwise: int) -> int:
    try:
        return int(path.stem, 16)
    except ValueError:
        return otherwise


def _read_part(path: Path, start: int, stop: int) -> bytes:
    with open(path, "rb") as file:
        file.seek(start)
        return file.read(stop - start)


def _read_or_none(path: Path) -> bytes | None:
    """What the file holds; None when it is gone or cannot be read.

    Raises:
        OSError: it can be read later.
    """
    for _ in range(_READ_TRIES):
        try:
            return path.read_bytes()
        except FileNotFoundError:
            break
        except OSError as error:
            if error.errno in _PASSING:
                raise
    return None
