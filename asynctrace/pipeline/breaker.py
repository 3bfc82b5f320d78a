"""A CircuitBreaker: when a destination that is away is left alone; a plain decision, with a clock passed in."""

from __future__ import annotations

import random
from collections.abc import Callable
from time import monotonic
from typing import Literal

from asynctrace.core.allowed import is_positive, is_whole
from asynctrace.errors import ConfigurationError

BreakerState = Literal["closed", "open", "half-open"]
"""``closed``: tries go through. ``open``: nothing is tried. ``half-open``: one probe goes through, or is on its way."""

SCATTER = 0.1
"""Up to this part longer is it open, by chance: processes that lost one back end together do not probe in step."""


class CircuitBreaker:
    """Opens after so many failures in a row; after a while one probe decides whether it closes or stays open.

    Args:
        failures: in a row; None: it never opens.
        cooldown: seconds that it stays open before a probe; above 0.
        now: monotonic seconds.
        uniform: picks a number between two others; tests pass their own.

    Raises:
        ConfigurationError: an argument is none of these.

    Example:
        >>> clock = iter([0.0, 1.0, 30.0, 30.0]).__next__
        >>> breaker = CircuitBreaker(1, 30.0, now=clock, uniform=min)
        >>> breaker.failed()
        >>> breaker.wait(), breaker.wait(), breaker.state
        (29.0, 0.0, 'half-open')
    """

    def __init__(
        self,
        failures: int | None,
        cooldown: float,
        *,
        now: Callable[[], float] = monotonic,
        uniform: Callable[[float, float], float] = random.uniform,
    ) -> None:
        if failures is not None and not is_whole(failures, 1):
            raise ConfigurationError("failures", failures, "a whole number above 0, or None")
        if not is_positive(cooldown):
            raise ConfigurationError("cooldown", cooldown, "a number of seconds above 0")
        self._failures = failures
        self._cooldown = cooldown
        self._now = now
        self._uniform = uniform
        self._in_a_row = 0
        self._open_until: float | None = None
        self._probing = False

    @property
    def state(self) -> BreakerState:
        """What it does with the next try."""
        if self._open_until is None:
            return "closed"
        return "half-open" if self._probing or self._now() >= self._open_until else "open"

    def wait(self) -> float:
        """Seconds until a try may be made; 0: now. Who gets 0 makes it, and tells how it ended."""
        if self._open_until is None:
            return 0.0
        if self._probing:  # one at a time
            return self._cooldown
        if (left := self._open_until - self._now()) > 0:
            return left
        self._probing = True
        return 0.0

    def answered(self) -> None:
        """The destination took the records, or said what is wrong with them: it is there."""
        self._in_a_row = 0
        self._open_until = None
        self._probing = False

    def failed(self, retry_after: float | None = None) -> None:
        """The destination did not answer, or has no time.

        Args:
            retry_after: seconds that it asked for; it is open at least so long.
        """
        self._in_a_row += 1
        if self._probing or (self._failures is not None and self._in_a_row >= self._failures):
            cooldown = max(self._cooldown, retry_after or 0.0)
            self._open_until = self._now() + self._uniform(cooldown, cooldown * (1 + SCATTER))
        self._probing = False

    def broken_off(self) -> None:
        """The try was cancelled and tells nothing: the next one is the probe."""
        self._probing = False

    def half_open(self) -> None:
        """There is no later: let one probe through at once."""
        if self._open_until is not None:
            self._open_until = self._now()
