"""What deleted files of lines held, in one small file beside those that stay: without it, ``verify`` would say loss."""

from __future__ import annotations

import os
from collections.abc import Iterable

import msgspec

from asynctrace.core.batch import Mark
from asynctrace.core.decoding import mark_line, mark_of
from asynctrace.sinks._marks import merged
from asynctrace.sinks._replacement import replacing

_PRODUCERS = 1_000  # of whom it is told, those heard of last; 200 bytes each


class _Head(msgspec.Struct):
    deleted: int


def path_of(path: str) -> str:
    """The small file that belongs to a file of lines: ``traces.pruned.jsonl`` to ``traces.jsonl``."""
    stem, suffix = os.path.splitext(path)
    return f"{stem}.pruned{suffix}"


def add(path: str, deleted: int, marks: Iterable[Mark]) -> None:
    """Add what must be told of one more file; one process at a time, the files in the order of their numbers.

    Args:
        path: the small file.
        deleted: number of the file; one that was told of before is not told of again.
        marks: its marks, and what it held.

    Raises:
        OSError: it cannot be written, and is as before.
    """
    if deleted <= last_deleted(path):
        return
    before = _read(path)
    lines = [msgspec.json.encode(_Head(deleted)) + b"\n"]
    lines += [mark_line(mark) + b"\n" for mark in merged([*map(mark_of, before[1:]), *marks], _PRODUCERS)]
    with replacing(path) as file:
        file.write(b"".join(lines))


def last_deleted(path: str) -> int:
    """The number of the last file that the small file tells of; 0 when there is none.

    Raises:
        OSError: it cannot be read.
    """
    before = _read(path)
    return msgspec.json.decode(before[0], type=_Head).deleted if before else 0


def _read(path: str) -> list[bytes]:
    try:
        with open(path, "rb") as file:
            return file.read().splitlines()
    except FileNotFoundError:
        return []
