"""The Writer: the one task that drains the Intake and offers batches to the lanes."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import cast

from asynctrace.core import codec
from asynctrace.core.level import Level
from asynctrace.core.record import RawRecord
from asynctrace.core.run import RunContext
from asynctrace.core.slice import SLICE, Slice
from asynctrace.pipeline import awaited
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.intake import INTAKE_FULL, Barrier, Intake
from asynctrace.pipeline.lane import Lane

DEFAULT_LINGER = 0.005
"""Seconds between the first record of a burst and the first look at it: more records, fewer wake-ups."""

UNFINISHABLE = "not encodable"


class Writer:
    """Drains, finishes, offers; gives way to the event loop after every slice.

    Args:
        intake: where the records are.
        finisher: puts them into canonical form.
        lanes: the pipeline's own list, which may change while the writer runs.
        linger: seconds to wait for more records after a wake-up.
        tend: called between two slices, and once a second: what a journal keeps is compared with what is safe.
    """

    def __init__(
        self,
        intake: Intake,
        finisher: Finisher,
        lanes: list[Lane],
        linger: float,
        tend: Callable[[], None] = lambda: None,
    ) -> None:
        self._tend = tend
        self._intake = intake
        self._finisher = finisher
        self._lanes = lanes
        self._linger = linger
        self._lingering: asyncio.Future[None] | None = None
        self._hurry = False
        self._untold = 0  # dropped at the Intake since the stream was last told
        self._interrupt: BaseException | None = None  # came while records were being offered

    async def run(self) -> None:
        """Drain for ever."""
        while True:
            await self._intake.wait()
            await self._wait_for_more()
            await self.drain()
            self._tend()

    def hurry(self) -> None:
        """End the linger: somebody waits for what is in the queue."""
        self._hurry = True
        if self._lingering is not None and not self._lingering.done():
            self._lingering.set_result(None)

    def rehome(self) -> None:
        """Forget the event loop that is gone."""
        self._lingering = None

    async def drain(self) -> None:
        """Offer everything that is in the queue."""
        while self._intake.waiting:
            await self.wait_for_lanes()
            self.step()
            self._tend()
            await asyncio.sleep(0)
        self._hurry = False

    def finish(self) -> None:
        """Offer everything that is in the queue, without giving way; no more records come in meanwhile."""
        while self._intake.waiting or self._intake.close_gaps():
            self.step()

    def step(self) -> None:
        """Take one slice, finish it, offer it; never awaits.

        An interrupt (Ctrl-C on a bare loop) in between costs no record: what was not offered goes back.
        """
        self._count_dropped()
        items = self._intake.get_batch(SLICE)
        done = 0
        try:
            if self._intake.barriers:
                for index, item in enumerate(items):
                    if isinstance(item, Barrier):
                        self._offer(cast("Sequence[RawRecord]", items[done:index]))
                        done = index + 1
                        self._intake.barrier_reached()
                        item.reached()
            raws = cast("Sequence[RawRecord]", items[done:])
            self._offer(raws)
            done = len(items)
            self._intake.took(done, self._finisher.take_size())
            if self._untold and raws and not self._intake.crowded:
                count, self._untold = self._untold, 0
                self.tell_drops(INTAKE_FULL, count, raws[-1].run)
        finally:
            if done < len(items):
                self._intake.put_back(items[done:])
        if self._interrupt is not None:
            interrupt, self._interrupt = self._interrupt, None
            raise interrupt

    def tell_drops(self, reason: str, count: int, run: RunContext, lane: str | None = None) -> None:
        """Say in the stream that records are missing from it, in the run of the last one that is."""
        fields = {"count": count, "reason": reason, "lane": lane}
        here = sys._getframe()
        self._intake.append(
            RawRecord(
                int(Level.WARNING),
                run,
                None,
                "asynctrace.dropped",
                codec.pack(fields),
                here.f_code,
                here.f_lasti,
            )
        )
        if not self._intake.pending:
            self._intake.wake()

    def _count_dropped(self) -> None:
        if dropped := self._intake.take_dropped():
            self._untold += dropped
            self._skip(dropped, INTAKE_FULL)

    def _skip(self, count: int, reason: str) -> None:
        self._finisher.skip(count)
        for lane in self._lanes:
            lane.skip(count, reason)

    def _offer(self, raws: Sequence[RawRecord]) -> None:
        if not raws:
            return
        first = self._finisher.next_seq
        try:
            records = self._finisher.finish(raws)
        except BaseException as error:
            self._finisher.next_seq = first
            if not isinstance(error, Exception):
                raise
            self._offer_singly(raws, error)
            return
        if isinstance(records, Slice):
            records.is_shared = len(self._lanes) > 1
        numbered = awaited.number(self._intake, raws, first) if self._intake.claims else None
        if numbered:
            for lane in self._lanes:
                lane.watch.expect(numbered)
        for lane in self._lanes:
            try:
                lane.offer(records, self._finisher.next_seq)
            except BaseException as error:  # an interrupt: the other lanes get theirs all the same
                self._interrupt = error
        if numbered:
            awaited.offered(self._intake, numbered)

    def _offer_singly(self, raws: Sequence[RawRecord], error: Exception) -> None:
        """One record cannot be finished, which is a bug of ours: it must not take its neighbours with it."""
        if len(raws) > 1:
            for raw in raws:
                self._offer([raw])
            return
        diagnostics.say(
            logging.ERROR, ("finish", type(error).__name__), "a record cannot be finished: %r", error
        )
        self._skip(1, UNFINISHABLE)
        awaited.unfinishable(self._intake, raws[0], UNFINISHABLE)

    async def _wait_for_more(self) -> None:
        if self._linger and not self._hurry:
            loop = asyncio.get_running_loop()
            self._lingering = lingering = loop.create_future()
            timer = loop.call_later(self._linger, _end, lingering)
            try:
                await lingering
            finally:
                timer.cancel()
                if self._lingering is lingering:  # else a writer at another home lingers now
                    self._lingering = None

    async def wait_for_lanes(self, left: Callable[[], float] = lambda: inf) -> None:
        """Wait for the lanes that are behind, as long as they make progress.

        Args:
            left: seconds that it may go on.
        """
        while (behind := [lane for lane in self._lanes if lane.is_waited_for]) and (most := left()):
            progress = [lane.progress for lane in behind]
            patience = min(most, max(lane.options.patience for lane in behind))
            end = monotonic() + patience
            for lane in behind:
                with suppress(TimeoutError):
                    async with asyncio.timeout(max(0.0, end - monotonic())):
                        await lane.room.wait()
            for lane, before in zip(behind, progress, strict=True):
                if not lane.room.is_set() and lane.progress == before:
                    lane.lag()


def _end(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
