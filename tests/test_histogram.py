"""Histograms: every value in its bucket, and nothing more than buckets."""

import random

import pytest

from asynctrace import Record
from asynctrace.pipeline.histogram import DELAY_BOUNDS, SIZE_BOUNDS, Delays, Histogram, HistogramStats
from asynctrace.testing import ManualClock, make_record

NOW = 1_700_000_000_000_000_000


def made(*seconds_ago: float) -> list[Record]:
    return [make_record(n, time_ns=NOW - round(ago * 1e9)) for n, ago in enumerate(seconds_ago)]


def test_bounds_ascend_on_a_log_scale() -> None:
    assert DELAY_BOUNDS[:4] == (0.001, 0.002, 0.005, 0.01)
    assert (DELAY_BOUNDS[-1], len(DELAY_BOUNDS)) == (1000.0, 19)
    assert list(DELAY_BOUNDS) == sorted(DELAY_BOUNDS)
    assert (SIZE_BOUNDS[0], SIZE_BOUNDS[-1]) == (1.0, 4096.0)


def test_a_value_is_in_the_bucket_whose_bound_it_does_not_exceed() -> None:
    histogram = Histogram((1.0, 2.0, 4.0))
    for value in (0.0, 1.0, 1.5, 2.0, 4.0, 4.5, 100.0):
        histogram.add(value)

    assert histogram.stats() == HistogramStats((1.0, 2.0, 4.0), (2, 2, 1, 2), 113.0)


def test_delays_are_from_the_call_until_now() -> None:
    delays = Delays(ManualClock(NOW))
    delays.safe(made(0.0, 0.001, 0.0015, 0.05, 1000.0, 1000.1))
    delays.safe([])

    stats = delays.stats()
    assert stats.bounds == DELAY_BOUNDS
    assert {n: count for n, count in enumerate(stats.counts) if count} == {0: 2, 1: 1, 5: 1, 18: 1, 19: 1}
    assert stats.total == pytest.approx(2000.1525)


@pytest.mark.parametrize("seed", range(10))
def test_counting_many_at_once_counts_each(seed: int) -> None:
    draw = random.Random(seed)
    records = made(*(10 ** draw.uniform(-5, 4) for _ in range(draw.randrange(1, 500))))
    delays, singly = Delays(ManualClock(NOW)), Histogram(DELAY_BOUNDS)

    delays.safe(records)
    for record in records:
        singly.add((NOW - record.time_ns) / 1e9)

    assert delays.stats().counts == singly.stats().counts
    assert delays.stats().total == pytest.approx(singly.stats().total)


def test_a_clock_that_was_set_back_gives_no_negative_delay() -> None:
    delays = Delays(ManualClock(NOW))
    delays.safe(made(-5.0, 0.5))

    assert delays.stats().count == 2
    assert delays.stats().total == 0.5


def test_quantiles_are_upper_bounds() -> None:
    stats = HistogramStats((1.0, 2.0, 5.0), (50, 40, 9, 1), 150.0)

    assert (stats.count, stats.mean) == (100, 1.5)
    assert [stats.quantile(part) for part in (0.0, 0.5, 0.51, 0.9, 0.99, 1.0)] == [
        *(1.0, 1.0, 2.0, 2.0, 5.0),
        float("inf"),
    ]
    empty = Histogram((1.0,)).stats()
    assert (empty.count, empty.mean, empty.quantile(0.5)) == (0, None, None)
    with pytest.raises(ValueError, match=r"part: 1\.5"):
        stats.quantile(1.5)
