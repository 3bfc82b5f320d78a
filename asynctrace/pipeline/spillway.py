"""The Spillway: when a lane's records go over to its disk, and when they come back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import replace
from functools import partial
from random import uniform
from typing import Protocol

from asynctrace.core.batch import Batch
from asynctrace.pipeline.backlog import Backlog, Load
from asynctrace.pipeline.diagnostics import say_of_lane
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.overflow import PATIENCE, Overflow, until_ended
from asynctrace.pipeline.settlement import Settlement
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.spool import Writing
from asynctrace.pipeline.undisturbed import undisturbed

_DISK_REST = 1.0
"""Seconds before a spool that could not be written or read is tried again."""

_GATHER = 0.05, 0.15
"""Seconds that newcomers gather before they follow to the disk, at least and at most: each trip has a thread compete
with the event loop for the interpreter, and what other lanes have encoded meanwhile need not be encoded again. By
chance, so that the threads of several lanes do not compete all at once."""

_ENOUGH = 1_024
"""Records that do not wait for that."""


class Cut(Protocol):
    """Takes the next load from the backlog."""

    def __call__(self, *, for_disk: bool = False) -> Load: ...


class Spillway:
    """Moves loads between a lane's backlog, its hand and its spool; keeps their order.

    Args:
        lane: the lane's name.
        options: of the lane.
        backlog: of the lane.
        settlement: of the lane.
        shelter: where the spool is; None: there is none.
        cut: takes the next load from the backlog.
        wake: called on the home loop when there may be something to deliver.
    """

    def __init__(
        self,
        lane: str,
        options: LaneOptions,
        backlog: Backlog,
        settlement: Settlement,
        shelter: Shelter | None,
        cut: Cut,
        wake: Callable[[], None],
    ) -> None:
        self.overflow: Overflow | None = None  # once it was needed
        self._options = options
        self._backlog = backlog
        self._settlement = settlement
        self._shelter = shelter
        self._cut = cut
        self._wake = wake
        self._unwritten: Load | None = None  # newer than what is on disk, which does not take it now
        self._rests = False  # the disk, after it took nothing
        self._gathering: asyncio.TimerHandle | None = None
        self._say = partial(say_of_lane, lane)

    @property
    def active(self) -> bool:
        """Whether what is to be delivered next comes from the disk, and newcomers go there."""
        return self.overflow is not None and self.overflow.active

    @property
    def size(self) -> int:
        """Bytes of the records on their way to the disk."""
        return sum(load.batch.size for load in self.in_memory)

    @property
    def in_memory(self) -> list[Load]:
        """Loads on their way to the disk."""
        writing = self.overflow.writing if self.overflow is not None else None
        return [load for load in (self._unwritten, writing) if load is not None]

    @property
    def is_taking(self) -> bool:
        """Whether the disk is taking what it is given, so that there will be room soon."""
        return self.overflow is not None and self.overflow.writing is not None and not self._rests

    def rehome(self) -> None:
        """Forget the event loop that is gone."""
        self._rests = False
        if self._gathering is not None:
            self._gathering.cancel()
            self._gathering = None

    def find(self) -> Overflow | None:
        """The lane's side of its spool; None when there is nothing to write to."""
        if self.overflow is None and self._shelter is not None:
            self.overflow = self._shelter.overflow
        return self.overflow

    async def adopt(self, *, again: bool = False) -> None:
        """Take over what dead processes left, once, or again: what those left that have died since."""
        overflow = self.find()
        if overflow is None:
            return
        try:
            found = await overflow.adopt(again=again)
        except Exception as error:  # a disk that cannot be read must not keep new records from their sink
            self._say(error, "what earlier processes left cannot be read: %r", error)
            return
        if found.error is not None:
            self._say(found.error, "not all that earlier processes left can be read: %r", found.error)
        if found.damaged:
            self._say(None, "%d record(s) that earlier processes left are damaged", found.damaged)

    # -- over to the disk ------------------------------------------------------------------------------------

    def spill(self, *, wanted: bool = False) -> None:
        """Move the backlog to the disk, if that is where it belongs; one load is on its way at a time.

        Args:
            wanted: whether somebody waits for it to be there, however little it is.
        """
        if not self.active and not self._backlog.high and not wanted:
            return
        loop, overflow = asyncio._get_running_loop(), self.find()
        if loop is not None and not wanted and not self._backlog.high and self._backlog.waiting < _ENOUGH:
            if self._gathering is None:
                self._gathering = loop.call_later(uniform(*_GATHER), undisturbed, self._gathered)
            return
        if loop is None or overflow is None or overflow.writing is not None or self._rests:
            if overflow is None and self._shelter is not None:
                self._shelter.complain()
            return
        load, self._unwritten = self._unwritten, None
        if load is None and self._backlog:
            load = self._cut(for_disk=True)
        if load is not None:
            overflow.write(load, partial(_call_on, loop, self._written))

    def _gathered(self) -> None:
        self._gathering = None
        if self.active:
            self.spill(wanted=True)

    async def shelve(self) -> None:
        """Have what is in memory on the disk, for somebody waits for that, and the sink does not take it now.

        Called by the lane's task between two tries.
        """
        overflow, hand = self.find(), self._settlement.hand
        if overflow is None or self._rests:
            return
        if hand and not any(load.on_disk for load in hand):
            loads = list(hand)
            with suppress(RuntimeError):  # no thread starts any more: the end, which is near, writes it down
                written = overflow.put_first(loads)
                try:
                    await until_ended(written)
                finally:  # also when the lane is stopped meanwhile: the call cannot be taken back
                    self._shelved(overflow, loads, written)
        self.spill(wanted=True)

    def _shelved(self, overflow: Overflow, loads: Sequence[Load], written: Future[None]) -> None:
        try:
            written.result(PATIENCE)
        except Exception as error:
            self._say(error, "the spool takes nothing: %r", error)
            return
        for load in loads:
            self._settlement.hand.remove(load)
            self._settlement.spooled(load, overflow.first_written(load))

    def _written(self) -> None:
        """On the home loop: a load is on disk, or the disk did not take it."""
        ended = self.overflow.written() if self.overflow is not None else None
        if ended is None:
            return
        load, outcome = ended
        if isinstance(outcome, Writing):
            self._settlement.spooled(load, outcome)
            self.spill()
        else:  # it stays in memory, and is tried again after a while
            self._say(outcome, "the spool takes nothing: %r", outcome)
            self._unwritten = load
            self._rests = True
            asyncio.get_running_loop().call_later(_DISK_REST, self._rested)
        self._wake()

    def _rested(self) -> None:
        self._rests = False
        if self.active:
            self.spill()

    # -- and back --------------------------------------------------------------------------------------------

    async def take(self) -> Load | None:
        """The next load, from the disk as long as that holds any; None: look again."""
        overflow = self.overflow
        if overflow is None or not overflow.active:
            return self._cut()
        try:
            reading = await overflow.read(self._options.max_records, self._options.max_bytes)
        except Exception as error:
            self._say(error, "the spool cannot be read: %r", error)
            await asyncio.sleep(_DISK_REST)
            return None
        for count, reason in (
            (reading.expired, "spool: too old"),
            (reading.foreign, "spool: not understood"),
            (reading.damaged, "spool: damaged"),
        ):
            if count:
                self._settlement.dropped_from_disk(count, reason, reading.newest, reading.producer)
        if reading.position is not None:
            return Load(reading.batch, on_disk=True, position=reading.position)
        if overflow.writing is not None:
            await overflow.until_written()
            self._written()
        elif self._unwritten is not None:
            first, self._unwritten = _split(self._unwritten, self._options.max_records)
            return first
        elif not overflow.grew:
            overflow.active = False
            self._settlement.disk_is_empty()
        return None

    # -- the end ---------------------------------------------------------------------------------------------

    def put_away(self, reason: str) -> None:
        """Have nothing in memory any more: what cannot be delivered goes to the disk, or is dropped."""
        settlement = self._settlement
        older = [load for load in settlement.hand if not load.on_disk]
        rest = [load for load in settlement.hand if load.on_disk]
        if self.active or (not older and not self._backlog and self._unwritten is None):
            newer = []
        else:
            older, newer = [], older  # nothing on disk is newer than what was in hand
        if self._unwritten is not None:
            newer.append(self._unwritten)
            self._unwritten = None
        settlement.hand.clear()
        while self._backlog or settlement.owes_marks():
            newer.append(self._cut())
        if not older and not newer and not self.active:
            return
        overflow = self.find()
        if overflow is None:
            if self._shelter is not None:
                self._shelter.complain()
            settlement.hand += newer
        else:
            self._put_away(overflow, older, newer, rest)
            if settlement.owes_marks():  # there was no room for records that a mark on disk promises
                self._put_away(overflow, [], [self._cut()], [])
            if overflow.spooled:
                self._say(None, "%d record(s) wait on disk: %s", overflow.spooled, reason)
        while settlement.hand:
            settlement.give_up(settlement.hand[0], reason)
        for waiter in overflow.take_waiters() if overflow is not None else ():
            waiter.done()  # safe on disk, and nobody goes on delivering them now

    def _put_away(
        self, overflow: Overflow, older: Sequence[Load], newer: Sequence[Load], rest: Sequence[Load]
    ) -> None:
        for load, outcome in overflow.put_away(older, newer, rest):
            if isinstance(outcome, Writing):
                self._settlement.spooled(load, outcome)
            else:
                self._say(outcome, "the spool takes nothing: %r", outcome)
                self._settlement.hand.append(load)


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # closed: the next home, or the end, looks for itself
        loop.call_soon_threadsafe(undisturbed, function)


def _split(load: Load, most: int) -> tuple[Load, Load | None]:
    """What the sink may be given at once, and what is left."""
    records = load.batch.records
    if len(records) <= most:
        return load, None
    return Load(Batch(records[:most])), replace(load, batch=Batch(records[most:], load.batch.marks))
