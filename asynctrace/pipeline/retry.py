"""When to try again: a plain decision, with no clock and no I/O in it."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from math import inf

from asynctrace.core.allowed import is_number, is_positive, is_whole
from asynctrace.pipeline.rules import Rules, check

DEFAULT_BASE = 0.1
DEFAULT_CEILING = 30.0


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter: each pause is uniform between 0 and a growing bound.

    Source: M. Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015 ("full jitter").

    Args:
        base: seconds; the bound of the first pause.
        ceiling: seconds; no pause is longer, unless the destination asks for it.
        attempts: give up after so many tries; None: never, the records wait.
        total: seconds after which the lane gives up on a batch; None: never.

    Raises:
        ConfigurationError: a value is none of these.

    >>> RetryPolicy(base=1.0, ceiling=8.0).delay(attempt=5, uniform=max)
    8.0
    """

    base: float = DEFAULT_BASE
    ceiling: float = DEFAULT_CEILING
    attempts: int | None = None
    total: float | None = None

    def __post_init__(self) -> None:
        check("RetryPolicy", self, _RULES)

    def delay(
        self,
        attempt: int,
        *,
        elapsed: float = 0.0,
        retry_after: float | None = None,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> float | None:
        """Seconds to pause after the given failed attempt, or None to give up.

        Args:
            attempt: number of the try that failed, from 1.
            elapsed: seconds since the first try.
            retry_after: seconds that the destination asked for; the pause is never shorter.
            uniform: picks a number between two others; tests pass their own.
        """
        if self.attempts is not None and attempt >= self.attempts:
            return None
        bound = min(self.ceiling, self.base * 2.0 ** min(attempt - 1, 60))
        pause = uniform(0.0, bound)
        if retry_after is not None:
            pause = max(pause, retry_after)
        if self.total is not None and elapsed + pause > self.total:
            return None
        return pause


_RULES: Rules = (
    (("base", "ceiling"), is_number, "a number of seconds from 0"),
    (("attempts",), lambda value: value is None or is_whole(value, 1), "a whole number above 0, or None"),
    (
        ("total",),
        lambda value: value is None or is_positive(value, inf),
        "a number of seconds above 0, or None",
    ),
)
