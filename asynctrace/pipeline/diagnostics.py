"""The SDK's own voice: ``logging.getLogger("asynctrace")``, at most once a minute for one cause."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextvars import ContextVar
from time import monotonic

from asynctrace.core.redaction import Redactor

logger = logging.getLogger("asynctrace")

redactor = Redactor()
"""For what the SDK says of itself: errors of drivers may hold the URL they were given."""

INTERVAL = 60.0
"""Seconds between two messages of one cause; a dead back end would otherwise fill the log it cannot take."""

speaking: ContextVar[bool] = ContextVar("asynctrace_speaking", default=False)
"""True while the SDK itself logs: our own handlers must not feed that back."""


class Diagnostics:
    """Says each cause once an interval and counts the rest."""

    def __init__(self, now: Callable[[], float] = monotonic) -> None:
        self._now = now
        self._last: dict[tuple[str, ...], tuple[float, int]] = {}

    def say(self, level: int, cause: tuple[str, ...], message: str, *args: object) -> None:
        """Log the message unless the same cause was logged within the interval.

        Args:
            level: a number of :mod:`logging`.
            cause: what counts as the same, for example (lane, class of the error).
            message: %-format.
            args: for the format.
        """
        _, suppressed = self._last.get(cause, (0.0, 0))
        if not self.is_due(cause):
            return
        if suppressed:
            message += f" ({suppressed} more since the last message)"
        self.speak(level, message, *args)

    def is_due(self, cause: tuple[str, ...]) -> bool:
        """Whether the cause may be said now, which begins its next interval; otherwise it is counted."""
        now = self._now()
        last, suppressed = self._last.get(cause, (float("-inf"), 0))
        due = now - last >= INTERVAL
        self._last[cause] = (now, 0) if due else (last, suppressed + 1)
        return due

    def speak(self, level: int, message: str, *args: object) -> None:
        """Log the message, whatever was said before.

        Args:
            level: a number of :mod:`logging`.
            message: %-format, if there are arguments.
            args: for the format.
        """
        token = speaking.set(True)
        try:
            logger.log(level, "%s", redactor.redact_text(message % args if args else message))
        finally:
            speaking.reset(token)


diagnostics = Diagnostics()


def say_of_lane(lane: str, error: Exception | None, message: str, *args: object) -> None:
    """Warn of what a lane came across.

    Args:
        lane: its name.
        error: its class is part of the cause.
        message: %-format.
        args: for the format.
    """
    diagnostics.say(logging.WARNING, (lane, type(error).__name__, message), f"lane {lane}: {message}", *args)
