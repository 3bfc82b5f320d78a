"""A Deadline: how long closing goes on."""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic


class Deadline:
    """Passes after so many seconds in which no local store has made progress.

    Several processes that close at once on one SQLite file must wait for each other: as long as records become safe,
    giving up would lose them for nothing. A destination that is away makes no progress.

    Args:
        seconds: how long.
        now: monotonic seconds.

    Example:
        >>> clock = iter([0.0, 4.0, 6.0]).__next__
        >>> deadline = Deadline(5.0, now=clock)
        >>> deadline.extend()
        >>> deadline.left()
        3.0
    """

    def __init__(self, seconds: float, now: Callable[[], float] = monotonic) -> None:
        self._seconds = seconds
        self._now = now
        self._at = now() + seconds

    def extend(self) -> None:
        """A local store has made progress."""
        self._at = self._now() + self._seconds

    def hasten(self) -> None:
        """Somebody is impatient: it has passed, whatever progress is made."""
        self._seconds = 0.0
        self._at = self._now()

    def left(self, grace: float = 0.0) -> float:
        """Seconds until it passes, 0 when it has.

        Args:
            grace: seconds that are granted beyond it.
        """
        return max(0.0, self._at + grace - self._now())
