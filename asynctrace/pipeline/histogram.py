"""Histograms of fixed buckets: how long delivery takes, and how big batches are."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from asynctrace.core.batch import Batch
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.record import Record

DELAY_BOUNDS = tuple(
    float(f"{step}e{power}") for power in range(-3, 4) for step in (1, 2, 5) if (power, step) <= (3, 1)
)
"""Seconds: 1, 2 and 5 of each power of ten from a millisecond to a quarter of an hour."""

_DELAY_BOUNDS_NS = tuple(round(bound * 1_000_000_000) for bound in DELAY_BOUNDS)

SIZE_BOUNDS = tuple(float(1 << power) for power in range(13))
"""Records: the powers of two from 1 to 4,096."""


@dataclass(frozen=True, slots=True)
class HistogramStats:
    """A snapshot of a histogram.

    Args:
        bounds: the upper bound of each bucket, ascending; a value that equals it is in the bucket.
        counts: values in each bucket, one more than there are bounds: the last is for what is above them all.
        total: the sum of all values.
    """

    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    total: float = 0.0

    @property
    def count(self) -> int:
        """How many values."""
        return sum(self.counts)

    @property
    def mean(self) -> float | None:
        """The mean; None without any value."""
        return self.total / self.count if self.count else None

    def quantile(self, part: float) -> float | None:
        """A value below which at least that part of all values is, as exact as the buckets are.

        Args:
            part: from 0 to 1.

        Returns:
            the upper bound of the bucket: at most 2.5 times too much; infinity above the last bound; None without
            any value.

        Raises:
            ValueError: the part is not from 0 to 1.

        >>> HistogramStats((1.0, 2.0, 5.0), (50, 49, 1, 0)).quantile(0.99)
        2.0
        """
        if not 0 <= part <= 1:
            raise ValueError(f"part: {part!r} cannot be used; allowed: 0 to 1")
        needed = max(1.0, part * self.count)
        reached = 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            reached += count
            if reached >= needed:
                return bound
        return None


class Histogram:
    """Counts values in buckets.

    Args:
        bounds: the upper bound of each bucket, ascending.
    """

    __slots__ = ("_bounds", "_counts", "_total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = tuple(bounds)
        self._counts = [0] * (len(self._bounds) + 1)
        self._total = 0.0

    def add(self, value: float) -> None:
        """Count a value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self._total += value

    def stats(self) -> HistogramStats:
        """What has been counted so far."""
        return HistogramStats(self._bounds, tuple(self._counts), self._total)


class Delays:
    """How long records took from the call that made them until they were safe.

    Args:
        clock: of the same wall as the records' own.
    """

    __slots__ = ("_clock", "_counts", "_total_ns")

    def __init__(self, clock: Clock = SYSTEM_CLOCK) -> None:
        self._clock = clock
        self._counts = [0] * (len(DELAY_BOUNDS) + 1)
        self._total_ns = 0

    def safe(self, records: Sequence[Record]) -> None:
        """These records are safe now; a wall clock that was set back meanwhile makes no delay negative."""
        if not records:
            return
        now = self._clock.time_ns()
        # They are nearly in order, so sorting is one pass; then a bucket costs time, a record hardly any.
        times = sorted(
            records.times_ns if isinstance(records, Batch) else [record.time_ns for record in records]
        )
        if times[-1] > now:
            times = [min(time_ns, now) for time_ns in times]
        self._total_ns += len(times) * now - sum(times)
        waiting = len(times)  # so many, the oldest, are in no bucket yet
        for bucket, bound_ns in enumerate(_DELAY_BOUNDS_NS):
            beyond = bisect_left(times, now - bound_ns, 0, waiting)
            self._counts[bucket] += waiting - beyond
            waiting = beyond
            if not waiting:
                return
        self._counts[-1] += waiting

    def stats(self) -> HistogramStats:
        """What has been counted so far, in seconds."""
        return HistogramStats(DELAY_BOUNDS, tuple(self._counts), self._total_ns / 1_000_000_000)
