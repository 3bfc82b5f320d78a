"""A clock that stands still until a test moves it."""

from __future__ import annotations

_START_NS = 1_700_000_000_000_000_000  # 2023-11-14 22:13:20 UTC


class ManualClock:
    """Both times of :class:`asynctrace.core.clock.Clock`, moved by hand.

    Args:
        time_ns: wall clock at the beginning, nanoseconds since the epoch.
        monotonic: monotonic clock at the beginning, in seconds.

    >>> clock = ManualClock()
    >>> clock.advance(1.5)
    >>> clock.monotonic()
    1.5
    """

    def __init__(self, time_ns: int = _START_NS, monotonic: float = 0.0) -> None:
        self._time_ns = time_ns
        self._monotonic = monotonic

    def time_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch."""
        return self._time_ns

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return self._monotonic

    def advance(self, seconds: float) -> None:
        """Let time pass on both clocks.

        Raises:
            ValueError: the seconds are negative; the monotonic clock never goes back.
        """
        if seconds < 0:
            raise ValueError(f"seconds: {seconds!r} cannot pass; allowed: 0 or more")
        self._monotonic += seconds
        self._time_ns += round(seconds * 1_000_000_000)

    def set_time_ns(self, time_ns: int) -> None:
        """Set the wall clock alone, backwards too, as a machine does that hears from a time server."""
        self._time_ns = time_ns
