"""The decision when to try again, without a clock."""

import pytest

from asynctrace import RetryPolicy


def bound(policy: RetryPolicy, attempt: int) -> float | None:
    return policy.delay(attempt, uniform=lambda low, high: high)


def test_the_bound_of_the_pause_doubles_up_to_the_ceiling() -> None:
    policy = RetryPolicy(base=0.5, ceiling=3.0)
    assert [bound(policy, attempt) for attempt in range(1, 6)] == [0.5, 1.0, 2.0, 3.0, 3.0]


def test_ten_thousand_failures_are_no_overflow() -> None:
    assert bound(RetryPolicy(), 10_000) == RetryPolicy().ceiling


def test_the_jitter_is_full() -> None:
    asked: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        asked.append((low, high))
        return 0.25

    assert RetryPolicy(base=1.0).delay(1, uniform=uniform) == 0.25
    assert asked == [(0.0, 1.0)]
    drawn = {RetryPolicy(base=1.0).delay(1) for _ in range(50)}
    assert len(drawn) == 50
    assert all(pause is not None and 0.0 <= pause <= 1.0 for pause in drawn)


def test_a_destination_that_asks_for_more_gets_it_beyond_the_ceiling() -> None:
    assert RetryPolicy(ceiling=1.0).delay(1, retry_after=60.0) == 60.0
    assert RetryPolicy(base=5.0).delay(1, retry_after=1.0, uniform=max) == 5.0


@pytest.mark.parametrize(("attempt", "gives_up"), [(1, False), (2, False), (3, True), (4, True)])
def test_attempts_are_counted(attempt: int, gives_up: bool) -> None:
    assert (RetryPolicy(attempts=3).delay(attempt) is None) is gives_up


def test_the_pause_that_would_end_after_the_total_is_not_begun() -> None:
    policy = RetryPolicy(base=1.0, total=10.0)
    assert policy.delay(1, elapsed=8.9, uniform=max) == 1.0
    assert policy.delay(1, elapsed=9.1, uniform=max) is None
    assert policy.delay(1, elapsed=0.0, retry_after=11.0) is None
