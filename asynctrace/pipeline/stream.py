"""A Stream: what one process spooled for one lane, from one start to one end; the name tells when it began."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from asynctrace.pipeline.claim import Claim
from asynctrace.pipeline.segments import Segments

FROM_LANE, FROM_DEAD_LETTERS = "lane", "dead"
"""Where a stream comes from; the end of its name."""


class Stream:
    """A directory of segments that is claimed by this process.

    Args:
        path: the directory.
        segments: in it.
        claim: on it.
    """

    def __init__(self, path: Path, segments: Segments, claim: Claim) -> None:
        self.path = path
        self.segments = segments
        self.damage_told = 0
        self._claim = claim

    @property
    def origin(self) -> str:
        """Where its records come from."""
        return FROM_DEAD_LETTERS if self.path.name.endswith(FROM_DEAD_LETTERS) else FROM_LANE

    @property
    def begun(self) -> int:
        """What it is sorted by: the wall clock of its beginning, or more, to stand behind what was there."""
        return int(self.path.name.partition("-")[0])

    def new_damage(self) -> int:
        """Records lost to damage since this was last asked."""
        new, self.damage_told = self.segments.damaged - self.damage_told, self.segments.damaged
        return new

    def close(self) -> None:
        """Let others have it."""
        self.segments.close()
        self._claim.release()

    def remove(self) -> None:
        """Delete it; files kept aside stay."""
        self.segments.remove()
        self._claim.release()
        with suppress(OSError):  # files kept aside are still in it
            self.path.rmdir()


def new_name(begun: int, origin: str) -> str:
    """A name that no other stream has."""
    return f"{begun:020d}-{os.urandom(4).hex()}-{origin}"


def streams(directory: Path) -> Sequence[Path]:
    """The streams of a lane, oldest first.

    Raises:
        OSError: the directory cannot be read.
    """
    return sorted(path for path in directory.iterdir() if path.is_dir())
