"""What one lane has on disk, to look at and to delete, without being that lane."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

from asynctrace.pipeline.claim import exclusively, is_free
from asynctrace.pipeline.segments import Segments
from asynctrace.pipeline.stream import streams

_LOCK_TIMEOUT = 1.0  # seconds to wait for another process that adopts


@dataclass(frozen=True, slots=True)
class SpoolPage:
    """What one lane has on disk.

    Args:
        lane: the lane's directory name: its kind and a part of its destination's digest.
        records: waiting.
        size: bytes.
        in_use: how many of the records belong to a process that lives.
        damaged: records lost to damage.
    """

    lane: str
    records: int
    size: int
    in_use: int
    damaged: int


def look(directory: Path) -> SpoolPage:
    """What a lane has on disk, without touching it.

    Raises:
        OSError: the directory cannot be read.
    """
    records = size = in_use = damaged = 0
    for path in streams(directory):
        segments = Segments(path)
        segments.look()
        records += segments.held
        size += segments.size
        damaged += segments.damaged
        in_use += 0 if is_free(path) else segments.held
    return SpoolPage(directory.name, records, size, in_use, damaged)


def purge(directory: Path) -> int:
    """Delete what no living process holds; how many records went.

    Raises:
        OSError: the directory cannot be written.
    """
    purged = 0
    with exclusively(directory, _LOCK_TIMEOUT) as gained:
        for path in streams(directory) if gained else ():
            if is_free(path):
                segments = Segments(path)
                segments.look()
                purged += segments.held
                shutil.rmtree(path)
    return purged
