"""The Overflow: a lane's side of its spool, as the home loop sees it.

While it is ``active``, what the lane delivers comes from the disk, and newcomers go to the disk behind it: that keeps
the order. Blocking calls are made by a thread of its own, one at a time; what they gave is taken on the home loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, Protocol

from asynctrace.core.batch import Batch
from asynctrace.pipeline.backlog import Load, Waiter
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.spool import Reading, Spool, Writing
from asynctrace.pipeline.stream_queue import Adopted, Position
from asynctrace.worker import Worker

PATIENCE = 1.0
"""Seconds that the end of a loop or of the process waits for a call that the thread is in."""


class Recovery(Protocol):
    """Brings what killed processes left in journals to the spools, once for all lanes."""

    @property
    def is_needed(self) -> bool:
        """Whether there may be something, after one look at the disk."""

    def run(self) -> None:
        """Do it, unless it has been done; blocks. A failure is said, not raised."""


class Overflow:
    """What of one lane is on disk, and what is on its way there or back.

    Args:
        spool: the lane's.
        worker: the lane's thread for blocking calls.
        recovery: brings what is in journals to the spool, before that is adopted.
    """

    def __init__(self, spool: Spool, worker: Worker, recovery: Recovery | None = None) -> None:
        self._recovery = recovery
        self.active = False
        self.spooled = 0
        self.adopted = 0
        self.replayed = 0
        self.writing: Load | None = None  # on its way to the disk
        self._spool = spool
        self._worker = worker
        self._write: Future[Writing] | None = None
        self._read: Future[Reading] | None = None
        self._adoption: Future[Adopted] | None = None
        self._looked = False
        self._last_read = 0  # records
        self._told_through: dict[str, int] = {}  # by stream, the id up to which was counted what is given up
        self._delivered: Position | None = None  # to be acknowledged with the next reading
        self._waiters: deque[tuple[Position, list[Waiter]]] = deque()
        self._newest: Position | None = None
        self._newest_at_read: Position | None = None
        self._sync_at = 0.0  # when the next fsync may be asked for

    # -- from dead processes ---------------------------------------------------------------------------------

    async def adopt(self, *, again: bool = False) -> Adopted:
        """Take over what dead processes left; when there is nothing, after one look at the disk.

        Args:
            again: also if that was done before.
        """
        if again:
            self._looked = False
        recovers = self._recovery is not None and self._recovery.is_needed
        if self._looked or not (recovers or self._spool.is_there()):
            self._looked = True
            return Adopted()
        if self._adoption is None:
            self._adoption = self._worker.submit(self._recover_and_adopt)
        await until_ended(self._adoption)
        self._looked = True
        return self._take_adopted()

    def _recover_and_adopt(self) -> Adopted:
        if self._recovery is not None:
            self._recovery.run()
        return self._spool.adopt()

    def _take_adopted(self) -> Adopted:
        adoption, self._adoption = self._adoption, None
        if adoption is None:  # taken by who ended the loop meanwhile
            return Adopted()
        found = adoption.result()
        self.adopted += found.adopted
        self.replayed += found.replayed
        self.spooled += found.adopted + found.replayed
        self.active = self.active or not self._spool.exhausted
        return found

    # -- to the disk -----------------------------------------------------------------------------------------

    def write(self, load: Load, then: Callable[[], None]) -> None:
        """Have the load written behind everything else; ``then`` is called in the thread, to say that it ended."""
        self.active = True
        self.writing = load
        with suppress(RuntimeError):  # no thread starts any more: it stays here until the end, which is near
            self._write = self._worker.submit(self._spool.append, load.batch)
            self._write.add_done_callback(lambda _: then())

    def written(self) -> tuple[Load, Writing | Exception] | None:
        """The load whose writing ended, and how; None while it goes on or when there is none."""
        load, write = self.writing, self._write
        if load is None or write is None or not write.done():
            return None
        self.writing = self._write = None
        try:
            writing = write.result()
        except Exception as error:
            return load, error
        self._keep(load, writing)
        self._sync_later()
        return load, writing

    def _sync_later(self) -> None:
        """What nothing more is written behind must survive a power failure too, within the interval."""
        loop, interval = asyncio._get_running_loop(), self._spool.fsync_interval
        if loop is not None and interval and monotonic() >= self._sync_at:
            self._sync_at = monotonic() + interval
            loop.call_later(interval, self._sync_soon)

    def _sync_soon(self) -> None:
        with suppress(RuntimeError):  # no thread starts any more: closing the spool syncs it
            self._worker.submit(self._sync)

    def _sync(self) -> None:
        try:
            self._spool.sync()
        except OSError as error:
            diagnostics.say(
                logging.WARNING,
                ("fsync", str(self._spool.directory)),
                "%s: what waits there may not survive a power failure: %s",
                self._spool.directory,
                error,
            )

    def _keep(self, load: Load, writing: Writing) -> None:
        self.spooled += writing.kept
        self._newest = writing.position or self._newest
        if load.waiters and self._newest is not None:
            self._waiters.append((self._newest, load.waiters))
            load.waiters = []

    def put_first(self, loads: Sequence[Load]) -> Future[None]:
        """Have the loads written before everything else; done when they are there, see :meth:`first_written`.

        Raises:
            RuntimeError: no thread starts any more.
        """
        return self._worker.submit(self._put_first, [load.batch for load in loads])

    def _put_first(self, batches: Sequence[Batch]) -> None:
        self._acknowledge()
        self._spool.rewind()
        self._spool.put_first(batches)

    def first_written(self, load: Load) -> Writing:
        """A load of :meth:`put_first` is there."""
        self.active = True
        self.spooled += len(load.batch)
        return Writing(len(load.batch), None)

    async def until_written(self) -> None:
        """Wait for the writing that is going on."""
        if self._write is not None:
            await until_ended(self._write)

    # -- back from the disk ----------------------------------------------------------------------------------

    async def read(self, limit: int, max_bytes: int) -> Reading:
        """The next batch, after what was delivered has been acknowledged.

        Cancelled, it gives the same batch when it is called again.

        Raises:
            OSError: the spool cannot be read.
        """
        if self._read is None:
            self._newest_at_read = self._newest
            self._read = self._worker.submit(self._acknowledge_and_read, limit, max_bytes)
        await until_ended(self._read)
        done, self._read = self._read, None
        reading = done.result()
        self.spooled -= reading.damaged
        self._last_read = len(reading.batch)
        if reading.position is not None and not self._told(reading.position):
            self._told_through[reading.position.stream] = reading.position.id
            self.spooled -= reading.expired + reading.foreign
            return reading
        return replace(reading, expired=0, foreign=0)

    @property
    def grew(self) -> bool:
        """Whether anything was written since the last reading began: it may not have seen that."""
        return self._newest is not self._newest_at_read

    def _told(self, position: Position) -> bool:
        """Whether what was given up before that position has been counted: it was read before a rewind."""
        return position.id <= self._told_through.get(position.stream, 0)

    def _acknowledge_and_read(self, limit: int, max_bytes: int) -> Reading:
        self._acknowledge()
        return self._spool.read(limit, max_bytes)

    def _acknowledge(self) -> None:
        delivered = self._delivered
        if delivered is None:
            return
        try:
            self._spool.acknowledge(delivered)
        except TimeoutError:  # the spool is busy
            raise
        except OSError as error:  # on a disk that takes nothing, reading goes on all the same
            diagnostics.say(
                logging.WARNING,
                ("acknowledgement", str(self._spool.directory)),
                "%s: what is delivered cannot be noted, and may come again after a crash: %s",
                self._spool.directory,
                error,
            )
        if self._delivered is delivered:
            self._delivered = None

    def settle(self, load: Load, count: int) -> list[Waiter]:
        """So many records of the load are safe, dead or dropped; who waited for it and all before."""
        self.spooled -= count
        if load.position is None:
            return []
        self._delivered = load.position
        waiters: list[Waiter] = []
        while self._waiters and _reached(self._waiters[0][0], load.position):
            waiters += self._waiters.popleft()[1]
        return waiters

    # -- the end ---------------------------------------------------------------------------------------------

    def put_away(
        self, older: Sequence[Load], newer: Sequence[Load], rest: Sequence[Load] = ()
    ) -> list[tuple[Load, Writing | Exception]]:
        """Write down what is left in memory, with plain blocking calls; what was not acknowledged will come again.

        Args:
            older: loads that belong before everything on disk.
            newer: loads that belong behind it.
            rest: what was last read from the disk, or what is left of it.

        Returns:
            Each load and what became of it.
        """
        outcomes: list[tuple[Load, Writing | Exception]] = []
        for future in (self._adoption, self._read, self._write):
            if future is not None:
                with suppress(LateError, Exception):  # what it gave is looked at below, and by `written`
                    future.result(PATIENCE)
        with suppress(Exception):
            self._take_adopted()
        self._read = None
        if (ended := self.written()) is not None:
            outcomes.append(ended)
        elif self.writing is not None:
            newer = [self.writing, *newer]  # the thread hangs, or the interpreter has stopped it
            self.writing = self._write = None
        try:
            self._acknowledge()
            self._keep_rest(rest)
            self._spool.rewind()
            self._spool.put_first([load.batch for load in older])
        except OSError as error:
            outcomes += [(load, error) for load in older]
        else:
            for load in older:
                outcomes.append((load, Writing(len(load.batch), None)))
                self.spooled += len(load.batch)
        for load in newer:
            try:
                writing = self._spool.append(load.batch)
            except OSError as error:
                outcomes.append((load, error))
            else:
                self._keep(load, writing)
                outcomes.append((load, writing))
        self.active = self.active or self.spooled > 0
        return outcomes

    def _keep_rest(self, rest: Sequence[Load]) -> None:
        """Of a reading that was settled in part, have only the rest come again."""
        if not rest or sum(len(load.batch) for load in rest) == self._last_read:
            return
        self._spool.put_first([load.batch for load in rest])
        for load in rest:
            if load.position is not None:
                self._spool.acknowledge(load.position)

    def take_waiters(self) -> list[Waiter]:
        """Everybody who waits for what is on disk: it is safe there, and nobody delivers it now."""
        waiters = [waiter for _, waiting in self._waiters for waiter in waiting]
        self._waiters.clear()
        return waiters

    def release(self) -> None:
        """Let other lanes and processes adopt what is on disk.

        Raises:
            OSError: the spool does not answer.
        """
        self._acknowledge()
        self._spool.close()
        self.active = False


def _reached(wanted: Position, position: Position) -> bool:
    return (wanted.stream, wanted.id) <= (
        position.stream,
        position.id,
    )  # streams are named by when they were begun


async def until_ended(future: Future[Any]) -> None:
    """Wait until the call ended; a cancellation leaves it running, for it cannot be taken back."""
    while not future.done():
        waiting = asyncio.wrap_future(future)
        waiting.add_done_callback(
            lambda ended: ended.cancelled() or ended.exception()
        )  # who takes it, raises it
        await asyncio.wait({waiting})
