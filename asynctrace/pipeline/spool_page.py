"""What waits on disk for one destination, to look at and to delete, without being its lane."""

from __future__ import annotations

import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from asynctrace.pipeline.claim import exclusively, is_free
from asynctrace.pipeline.segments import Segments
from asynctrace.pipeline.stream import streams

_LOCK_TIMEOUT = 1.0  # seconds to wait for another process that adopts


@dataclass(frozen=True, slots=True)
class SpoolStats:
    """What waits on disk for one destination.

    Args:
        lane: the kind of the sink and a digest of its destination.
        records: waiting.
        size: bytes.
        in_use: how many of the records a living process holds.
        damaged: records lost to damage.
    """

    lane: str
    records: int
    size: int
    in_use: int
    damaged: int


def look(directory: Path) -> SpoolStats:
    """What a lane has on disk, without touching it.

    Args:
        directory: of the lane, named as it is.

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
    return SpoolStats(directory.name, records, size, in_use, damaged)


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
                with suppress(FileNotFoundError):  # its process ended just now, and had delivered everything
                    shutil.rmtree(path)
    return purged
