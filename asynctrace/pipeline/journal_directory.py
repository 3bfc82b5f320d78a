"""A JournalDirectory: where one journal is kept, whose it is, and what it says about itself."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from time import time_ns

import msgspec

from asynctrace.pipeline.claim import Claim, exclusively
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.journal_segment import SUFFIX, Segment
from asynctrace.pipeline.private import make_private, sync_directory
from asynctrace.pipeline.state_directory import StateDirectory

DONE = "done-"
"""Begins the name of a file that says which lane has what it was meant to have; its key follows."""

_FACTS = "journal.json"

_LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process that recovers."""


class Facts(msgspec.Struct):
    """What a journal belongs to.

    Args:
        producer: who gave its numbers.
        lanes: keys of the lanes in the state directory; without those that keep nothing there.
        begun: wall clock, nanoseconds.
    """

    producer: str
    lanes: list[str]
    begun: int


class JournalDirectory:
    """Made when it is opened, in the first place that can be written. One call at a time.

    Args:
        state: knows the places.
        producer: who gives the numbers.
        durability: what has to survive.

    Attributes:
        path: the directory; None before it is open, or when it has been removed.
    """

    def __init__(self, state: StateDirectory, producer: str, durability: Durability) -> None:
        self.path: Path | None = None
        self._state = state
        self._producer = producer
        self._durability = durability
        self._lanes: list[str] = []
        self._claim: Claim | None = None

    def open(self) -> bool:
        """Make it, unless it is there; whether there is a place for it.

        Raises:
            OSError: no place can be written.
        """
        if self.path is not None:
            return True
        places = self._state.journals()
        for place in places:
            try:
                self._open_below(place)
            except OSError as error:
                failed = error
            else:
                return True
        if places:
            raise failed
        self._state.complain()
        return False

    def _open_below(self, above: Path) -> None:
        make_private(above)
        path = above / f"{time_ns():020d}-{os.urandom(4).hex()}"
        with exclusively(above, _LOCK_TIMEOUT) as gained:  # nobody may recover it before it is claimed
            if not gained:
                raise TimeoutError(f"{above} is locked by another process")
            path.mkdir(mode=0o700)
            self._claim = Claim.take(path)
        self.path = path
        self._tell_facts()

    def serve(self, lanes: Sequence[str]) -> None:
        """Tell for which lanes the journal is kept, now or when it is opened.

        Raises:
            OSError: it could not be written down.
        """
        self._lanes = list(lanes)
        self._tell_facts()

    def _tell_facts(self) -> None:
        if self.path is None:
            return
        facts = Facts(self._producer, self._lanes, int(self.path.name.partition("-")[0]))
        new = self.path / f"{_FACTS}.new"
        with open(new, "wb") as file:
            file.write(msgspec.json.encode(facts))
            if self._durability == "disk":
                file.flush()
                os.fsync(file.fileno())
        new.replace(self.path / _FACTS)

    def new_segment(self, size: int) -> Segment:
        """A segment of so many bytes, without entries.

        Raises:
            OSError: the disk has no room, or cannot be written.
        """
        assert self.path is not None
        segment = Segment(self.path / f"{os.urandom(8).hex()}{SUFFIX}", size)
        if self._durability == "disk":
            sync_directory(self.path)
        return segment

    def remove(self) -> None:
        """Leave nothing behind; a second call does nothing."""
        path, self.path = self.path, None
        if path is not None:
            remove_journal(path)
        if self._claim is not None:
            self._claim.release()
        if path is not None:
            with suppress(OSError):
                path.rmdir()


def read_facts(directory: Path) -> Facts | None:
    """What the journal of that directory belongs to; None when it does not say so, or nobody can read it."""
    try:
        return msgspec.json.decode((directory / _FACTS).read_bytes(), type=Facts)
    except (OSError, msgspec.DecodeError):
        return None


def remove_journal(directory: Path) -> None:
    """Delete what a journal left, but for the claim."""
    for pattern in (f"*{SUFFIX}", f"{_FACTS}*", f"{DONE}*"):
        for path in directory.glob(pattern):
            with suppress(OSError):
                path.unlink(missing_ok=True)
