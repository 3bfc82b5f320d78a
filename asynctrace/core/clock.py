"""Time, passed in wherever a decision depends on it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Where time comes from; tests pass one that they move by hand."""

    def time_ns(self) -> int:
        """Wall clock, nanoseconds since the epoch."""

    def monotonic(self) -> float:
        """Seconds that never go back; for durations and deadlines."""


class SystemClock:
    """The clock of the machine."""

    time_ns = staticmethod(time.time_ns)
    monotonic = staticmethod(time.monotonic)


SYSTEM_CLOCK = SystemClock()
