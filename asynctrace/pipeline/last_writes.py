"""The last writes of a lane: plain blocking calls of a local sink, when no event loop will run for it any more."""

from __future__ import annotations

import asyncio
from functools import partial
from time import monotonic

from asynctrace.pipeline.backlog import Backlog, Load
from asynctrace.pipeline.delivery import Delivery
from asynctrace.pipeline.escape import held_in
from asynctrace.pipeline.last_resort import call_in_daemon
from asynctrace.pipeline.settlement import Settlement
from asynctrace.pipeline.spillway import Cut, Spillway
from asynctrace.ports import LocalSink, Sink

FAILED = "last write failed"


class LastWrites:
    """Writes what is in memory; what fails goes to the spool, if there is one. Other sinks have none.

    Args:
        sink: of the lane.
        backlog: of the lane.
        settlement: of the lane.
        spillway: of the lane.
        delivery: of the lane; reads the sink's answers.
        cut: takes the next load from the backlog.
    """

    def __init__(
        self,
        sink: Sink | LocalSink,
        backlog: Backlog,
        settlement: Settlement,
        spillway: Spillway,
        delivery: Delivery,
        cut: Cut,
    ) -> None:
        self._sink = sink if isinstance(sink, LocalSink) else None
        self._backlog = backlog
        self._settlement = settlement
        self._spillway = spillway
        self._delivery = delivery
        self._cut = cut

    async def write(self, end: float) -> bool:
        """Write in a thread that may be left behind; whether none failed.

        Args:
            end: monotonic seconds after which none is begun or waited for.
        """
        while self._sink is not None and (load := self._next()) is not None and monotonic() < end:
            try:
                async with asyncio.timeout(end - monotonic()):
                    with held_in():
                        await call_in_daemon(partial(self._sink.write_now, load.batch))
            except TimeoutError:
                return True  # it may still succeed
            except Exception as error:
                if not self._is_settled(load, error):
                    return False
            else:
                self._settlement.settle(load)
        return True

    def write_now(self) -> bool:
        """Write in this thread; whether none failed."""
        while self._sink is not None and (load := self._next()) is not None:
            try:
                with held_in():
                    self._sink.write_now(load.batch)
            except Exception as error:  # the last resort has no second try
                if not self._is_settled(load, error):
                    return False
            else:
                self._settlement.settle(load)
        return True

    def _next(self) -> Load | None:
        """What is in hand, then, unless the disk holds what comes before, the rest."""
        hand = self._settlement.hand
        if not hand and self._backlog and not self._spillway.active:
            hand.append(self._cut())
        return hand[0] if hand and not hand[0].on_disk else None

    def _is_settled(self, load: Load, error: Exception) -> bool:
        """Whether the load is settled all the same; otherwise the spool takes it, and what comes after it."""
        if self._delivery.last_write_failed(load, error):
            return True
        if self._spillway.find() is not None:
            return False
        self._settlement.give_up(load, FAILED)
        return True
