"""The Writer: the one task that drains the Intake and offers batches to the lanes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic
from typing import cast

from asynctrace.core.batch import SLICE
from asynctrace.core.record import RawRecord
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.intake import Barrier, Intake
from asynctrace.pipeline.lane import Lane

DEFAULT_LINGER = 0.005
"""Seconds between the first record of a burst and the first look at it: more records, fewer wake-ups."""


class Writer:
    """Drains, finishes, offers; gives way to the event loop after every slice.

    Args:
        intake: where the records are.
        finisher: puts them into canonical form.
        lanes: the pipeline's own list, which may change while the writer runs.
        linger: seconds to wait for more records after a wake-up.
    """

    def __init__(self, intake: Intake, finisher: Finisher, lanes: list[Lane], linger: float) -> None:
        self._intake = intake
        self._finisher = finisher
        self._lanes = lanes
        self._linger = linger
        self._lingering: asyncio.Future[None] | None = None
        self._hurry = False

    async def run(self) -> None:
        """Drain for ever."""
        while True:
            await self._intake.wait()
            await self._wait_for_more()
            await self.drain()

    def hurry(self) -> None:
        """End the linger: somebody waits for what is in the queue."""
        self._hurry = True
        if self._lingering is not None and not self._lingering.done():
            self._lingering.set_result(None)

    async def drain(self) -> None:
        """Offer everything that is in the queue."""
        while self._intake.records or self._intake.dropped_untold:
            await self._wait_for_lanes()
            self.step()
            await asyncio.sleep(0)
        self._hurry = False

    def step(self) -> None:
        """Take one slice, finish it, offer it; never awaits."""
        items = self._intake.get_batch(SLICE)
        if dropped := self._intake.take_dropped():
            self._finisher.skip(dropped)
            for lane in self._lanes:
                lane.before_offer_dropped(dropped)
        if self._intake.barriers:
            start = 0
            for index, item in enumerate(items):
                if isinstance(item, Barrier):
                    self._offer(cast("Sequence[RawRecord]", items[start:index]))
                    start = index + 1
                    self._intake.barriers -= 1
                    item.reached()
            items = items[start:]
        self._offer(cast("Sequence[RawRecord]", items))

    def _offer(self, raws: Sequence[RawRecord]) -> None:
        if raws:
            records = self._finisher.finish(raws)
            for lane in self._lanes:
                lane.offer(records, self._finisher.next_seq)

    async def _wait_for_more(self) -> None:
        if self._linger and not self._hurry:
            loop = asyncio.get_running_loop()
            self._lingering = loop.create_future()
            timer = loop.call_later(self._linger, _end, self._lingering)
            try:
                await self._lingering
            finally:
                timer.cancel()
                self._lingering = None

    async def _wait_for_lanes(self) -> None:
        """Wait for the lanes that are behind, as long as they make progress."""
        while behind := [lane for lane in self._lanes if not lane.room.is_set() and _waited_for(lane)]:
            progress = [lane.progress for lane in behind]
            patience = max(lane.options.patience for lane in behind)
            end = monotonic() + patience
            for lane in behind:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, end - monotonic())):
                        await lane.room.wait()
            for lane, before in zip(behind, progress, strict=True):
                if not lane.room.is_set() and lane.progress == before:
                    lane.lagging = True


def _waited_for(lane: Lane) -> bool:
    return lane.options.when_full == "wait" and not lane.lagging


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
