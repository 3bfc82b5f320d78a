"""The Losses of a lane, told to the people who look after the program: how many in all, and why."""

from __future__ import annotations

import asyncio
import logging
from dataclasses import dataclass

from asynctrace.pipeline import diagnostics


@dataclass(slots=True)
class _Sum:
    """What was lost for one cause."""

    count: int = 0
    untold: int = 0
    reason: str = ""


class Losses:
    """Says each cause at once, then once a minute how many there are by now, and at the end what was not said yet.

    Args:
        lane: the lane's name.
    """

    def __init__(self, lane: str) -> None:
        self._lane = lane
        self._sums: dict[tuple[str, ...], _Sum] = {}
        self._held = False
        self._timer: asyncio.TimerHandle | None = None

    def dropped(self, count: int, reason: str) -> None:
        """So many records were given up; there are few such reasons, and each is told by itself."""
        self._add(("dropped", reason), count, reason)

    def rejected(self, count: int, reason: str) -> None:
        """So many records were rejected for good; a sink has as many reasons as records, and the last one is told."""
        self._add(("rejected for good",), count, reason)

    def hold(self) -> None:
        """The end comes: add up until :meth:`tell`, so that each cause is one line."""
        self._held = True

    def tell(self) -> None:
        """Say whatever has not been said yet."""
        self._held = False
        self.rehome()
        for cause, lost in self._sums.items():
            self._say(cause, lost)

    def rehome(self) -> None:
        """Forget the event loop that is gone."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _add(self, cause: tuple[str, ...], count: int, reason: str) -> None:
        lost = self._sums.setdefault(cause, _Sum())
        lost.count += count
        lost.untold += count
        lost.reason = reason
        if not self._held:
            self._say_what_is_due()

    def _say_what_is_due(self) -> None:
        for cause, lost in self._sums.items():
            if lost.untold and diagnostics.diagnostics.is_due(("lost", self._lane, *cause)):
                self._say(cause, lost)
        loop = asyncio._get_running_loop()
        if loop is not None and self._timer is None and any(lost.untold for lost in self._sums.values()):
            self._timer = loop.call_later(diagnostics.INTERVAL, self._limit_ended)

    def _limit_ended(self) -> None:
        self._timer = None
        self._say_what_is_due()

    def _say(self, cause: tuple[str, ...], lost: _Sum) -> None:
        if not lost.untold:
            return
        message = f"lane {self._lane}: {lost.count} record(s) {cause[0]}: {lost.reason}"
        if lost.untold < lost.count:
            message += f" (in all; {lost.untold} since the last message)"
        lost.untold = 0
        diagnostics.diagnostics.speak(logging.WARNING, message)
