"""Entries: payloads one behind the other in a file, each with a header that lets it be found again behind damage.

The header holds a mark, the length, a checksum over all the rest, the entry's id and whether it counts as a record. Ids
are given one after another, so a gap tells how many entries were lost.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from typing import NamedTuple
from zlib import crc32

_MARK = b"\0ATE"  # JSON holds no raw NUL: the mark stands nowhere but at the start of an entry
_HEADER = struct.Struct(">4sIIQB")  # mark, length of the payload, checksum, id, counts as a record
_COVERED = struct.Struct(">IQB")  # what the checksum covers besides the payload

HEADER_BYTES = _HEADER.size


class Entry(NamedTuple):
    """One payload, as it comes back.

    Args:
        id: its place in the order.
        counted: whether it counts as a record.
        payload: the bytes that were appended.
    """

    id: int
    counted: bool
    payload: bytes


def pack(number: int, counted: bool, payload: bytes) -> tuple[bytes, bytes]:
    """Header and payload, to be written one behind the other."""
    checksum = crc32(payload, crc32(_COVERED.pack(len(payload), number, counted)))
    return _HEADER.pack(_MARK, len(payload), checksum, number, counted), payload


def unpack(data: bytes) -> Iterator[tuple[Entry, int]]:
    """Every whole entry with the offset behind it; what is no entry is skipped up to the next mark."""
    start, newest = data.find(_MARK), 0
    while 0 <= start <= len(data) - HEADER_BYTES:
        _, length, checksum, number, counted = _HEADER.unpack_from(data, start)
        stop = start + HEADER_BYTES + length
        payload = data[start + HEADER_BYTES : stop]
        whole = (
            len(payload) == length
            and crc32(payload, crc32(_COVERED.pack(length, number, counted))) == checksum
        )
        if whole and number > newest:
            newest = number
            yield Entry(number, bool(counted), payload), stop
            start = stop if data.startswith(_MARK, stop) else data.find(_MARK, stop)
        else:
            start = data.find(_MARK, start + 1)


def is_torn(data: bytes, start: int) -> bool:
    """Whether the rest is the beginning of an entry: what a kill in the middle of a write leaves."""
    if len(data) - start < HEADER_BYTES:
        return True
    mark, length, *_ = _HEADER.unpack_from(data, start)
    return bool(mark == _MARK and start + HEADER_BYTES + length > len(data))
