"""A Lane: one sink's backlog and its delivery."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from time import monotonic

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, Record
from asynctrace.errors import (
    BatchTooLargeError,
    LaneFailure,
    PartialWriteError,
    PermanentSinkError,
    SinkError,
    TransientSinkError,
)
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.ledger import LaneCounts, LaneStats
from asynctrace.pipeline.options import LaneOptions
from asynctrace.ports import LocalSink, Sink

_RESERVED = 10
"""One part in so many of the backlog is kept for level error and above."""


@dataclass(slots=True)
class _Waiter:
    """Somebody who waits until the lane has settled so many records."""

    settled: int
    future: asyncio.Future[None]


class Lane:
    """Delivers to one sink what the writer offers, in order.

    ``offer`` never awaits and never raises. One task at a time, on the home loop, runs :meth:`run` or
    :meth:`finish`. A batch is owned until it is safe or settled otherwise.

    Args:
        name: unique in its pipeline.
        sink: where the records go.
        options: how.
        producer: of the pipeline; for the marks.
        next_seq: the number of the next record that the lane may see.
    """

    def __init__(self, name: str, sink: Sink | LocalSink, options: LaneOptions, producer: str, next_seq: int) -> None:
        self.name = name
        self.sink = sink
        self.options = options
        self.counts = LaneCounts()
        self.room = asyncio.Event()
        self.room.set()
        self.lagging = False
        self.sifting = options.level is not None  # set by the pipeline when any of its lanes has a level
        self.progress = 0  # grows with every settled write; the writer's patience looks at it
        self._backlog: deque[Record | Mark] = deque()
        self._waiting = 0  # records (not marks) in the backlog
        self._current: list[Batch] = []  # taken from the backlog, not settled yet; first one first
        self._in_hand = 0
        self._admitted = 0  # records that entered the backlog, ever
        self._producer = producer
        self._mark_from = next_seq
        self._mark_base = (0, 0)
        self._next_seq = next_seq
        self._wake = asyncio.Event()
        self._hurry = False
        self._opened = False
        self._waiters: list[_Waiter] = []
        self._told_drops = 0

    # -- the writer's side -----------------------------------------------------------------------------------

    def offer(self, records: Sequence[Record], next_seq: int) -> None:
        """Take what the lane admits.

        Args:
            records: finished records; numbers missing among them were filtered or dropped before.
            next_seq: one more than the highest number given out so far.
        """
        counts, options = self.counts, self.options
        given = next_seq - self._next_seq
        self._next_seq = next_seq
        counts.taken += given
        admitted = records
        if self.sifting or options.admit is not None:
            admitted = [record for record in records if self._admits(record)]
        counts.filtered += given - len(admitted)
        if self._waiting + len(admitted) > options.capacity - options.capacity // _RESERVED:
            for record in admitted:
                self._offer_to_full(record)
        else:
            self._backlog.extend(admitted)
            self._waiting += len(admitted)
            self._admitted += len(admitted)
        if next_seq - self._mark_from >= options.mark_every:
            self._append_mark()
        if self._waiting >= options.high_water:
            self.room.clear()
        self._wake.set()

    def before_offer_dropped(self, count: int) -> None:
        """Numbers that were used up at the Intake: they count as dropped here, not as filtered."""
        self._next_seq += count
        self.counts.taken += count
        self.counts.dropped["intake full"] += count

    def _admits(self, record: Record) -> bool:
        if record.kind is not Kind.LOG:
            return True
        level = self.options.level
        if record.level < (record.context.run.level if level is None else level):
            return False
        if self.options.admit is None:
            return True
        try:
            return bool(self.options.admit(record))
        except Exception as error:  # the user's rule: when in doubt the record is kept
            self._say(error, "the rule %r raised %r; the record is admitted", self.options.admit, error)
            return True

    def _offer_to_full(self, record: Record) -> None:
        options = self.options
        room = options.capacity if record.level >= Level.ERROR else options.capacity - options.capacity // _RESERVED
        if self._waiting >= room and (options.when_full != "drop_oldest" or not self._drop_oldest()):
            self.counts.dropped[f"lane full ({options.when_full})"] += 1
            return
        self._backlog.append(record)
        self._waiting += 1
        self._admitted += 1

    def _drop_oldest(self) -> bool:
        for index, item in enumerate(self._backlog):
            if isinstance(item, Record) and item.level < Level.ERROR:
                del self._backlog[index]
                self._waiting -= 1
                self.counts.dropped["lane full (drop_oldest)"] += 1
                return True
        return False

    def hurry(self) -> None:
        """End the linger: somebody waits for the records."""
        self._hurry = True
        self._wake.set()

    def settled(self) -> asyncio.Future[None]:
        """Done when everything offered so far is safe, dead or dropped."""
        self._append_mark()
        future = asyncio.get_running_loop().create_future()
        if self.pending == 0 and not self._backlog and not self._current:
            future.set_result(None)
        else:
            self._waiters.append(_Waiter(self._admitted, future))
            self.hurry()
        return future

    @property
    def pending(self) -> int:
        """Records in memory."""
        return self._waiting + self._in_hand

    def rehome(self) -> None:
        """Forget the event loop that is gone; the backlog and the counts stay."""
        self.room, self._wake = asyncio.Event(), asyncio.Event()
        self.room.set()
        self.lagging = self._opened = False
        for waiter in self._waiters:
            with suppress(RuntimeError):  # its loop is closed: nobody waits there
                waiter.future.get_loop().call_soon_threadsafe(waiter.future.cancel)
        self._waiters.clear()

    # -- delivery --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver for ever."""
        while True:
            await self._gather()
            await self._deliver_all(None)

    async def finish(self, deadline: float) -> None:
        """Deliver what there is; what is not safe at the deadline (monotonic seconds) stays."""
        self._append_mark()
        self._hurry = True
        with suppress(TimeoutError):
            async with asyncio.timeout(max(0.0, deadline - monotonic())):
                await self._deliver_all(deadline)

    def finish_now(self) -> None:
        """Deliver what there is with plain blocking calls, or count it as dropped."""
        self._append_mark()
        self._take_backlog()
        while self._current:
            batch = self._current[0]
            if not isinstance(self.sink, LocalSink):
                self._give_up(batch, "loop ended")
                continue
            try:
                self.sink.write_now(batch)
            except PartialWriteError as error:
                self._settle(batch, dead=len(error.rejections), reason=str(error))
            except Exception as error:  # the last resort has no second try
                self._failed(error)
                self._give_up(batch, "last write failed")
            else:
                self._settle(batch)

    def abandon(self, reason: str) -> None:
        """Count what is left as dropped, for a lane that will never write again."""
        self._take_backlog()
        while self._current:
            self._give_up(self._current[0], reason)

    async def aclose(self, deadline: float) -> None:
        """Close the sink within the deadline (monotonic seconds)."""
        try:
            async with asyncio.timeout(max(0.1, deadline - monotonic())):
                await self.sink.aclose()
        except Exception as error:  # whatever the driver does, the program goes on
            self._say(error, "closing failed: %r", error)

    async def _gather(self) -> None:
        while not self._backlog and not self._current:
            self._wake.clear()
            await self._wake.wait()
        if self.options.linger and not self._current:
            end = monotonic() + self.options.linger
            while self._waiting < self.options.trigger and not self._hurry and (left := end - monotonic()) > 0:
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wake.wait()

    async def _deliver_all(self, deadline: float | None) -> None:
        while self._current or self._backlog:
            if not self._current:
                self._current.append(self._cut())
            await self._deliver(deadline)
            if self.options.linger and not self._hurry and self._waiting < self.options.trigger:
                return
        self._hurry = False

    def _cut(self) -> Batch:
        options, waiting = self.options, self._waiting
        most = min(waiting, options.max_records)
        if waiting > options.short:
            most = 1 << (most.bit_length() - 1)
        records: list[Record] = []
        marks: list[Mark] = []
        popleft = self._backlog.popleft
        while self._backlog and (len(records) < most or isinstance(self._backlog[0], Mark)):
            item = popleft()
            if isinstance(item, Mark):
                marks.append(item)
            else:
                records.append(item)
        self._waiting -= len(records)
        self._in_hand += len(records)
        if not self.room.is_set() and self._waiting < options.high_water // 2:
            self.lagging = False
            self.room.set()
        return Batch(records, marks)

    def _take_backlog(self) -> None:
        while self._backlog:
            self._current.append(self._cut())

    async def _deliver(self, deadline: float | None) -> None:
        """See the first batch in hand through, however many tries that takes."""
        attempt, surprises, started = 0, 0, monotonic()
        while self._current:
            batch = self._current[0]
            attempt += 1
            try:
                await self._write(batch)
            except BatchTooLargeError as error:
                self._failed(error)
                attempt = 0
                if len(batch) > 1:
                    middle = len(batch) // 2
                    self._current[0:1] = [
                        Batch(batch.records[:middle]),
                        Batch(batch.records[middle:], batch.marks),
                    ]
                else:
                    self._settle(batch, dead=1, reason=str(error))
                    return
            except PartialWriteError as error:
                self._failed(error)
                if self._keep_rest(batch, error):
                    return
                attempt = 0
            except PermanentSinkError as error:
                self._failed(error)
                self._settle(batch, dead=len(batch), reason=str(error))
                return
            except Exception as error:  # TransientSinkError and surprises
                self._failed(error)
                retry_after = None
                if isinstance(error, TransientSinkError):
                    retry_after = error.retry_after
                else:
                    surprises += 1
                    if surprises >= self.options.surprises:
                        logging.getLogger("asynctrace").debug("lane %s: surprise", self.name, exc_info=error)
                        self._settle(batch, dead=len(batch), reason=repr(error))
                        return
                pause = self.options.retry.delay(
                    attempt, elapsed=monotonic() - started, retry_after=retry_after
                )
                if pause is None:
                    self._settle(batch, dead=len(batch), reason=f"retries used up: {error}")
                    return
                self.counts.retries += 1
                await asyncio.sleep(pause)
            else:
                self._settle(batch)
                return

    async def _write(self, batch: Batch) -> None:
        try:
            async with asyncio.timeout(self.options.write_timeout):
                if not self._opened:
                    await self.sink.open()
                    self._opened = True
                await self.sink.write(batch)
        except TimeoutError as error:
            raise TransientSinkError(f"no answer within {self.options.write_timeout} s") from error
        except OSError as error:
            raise TransientSinkError(str(error)) from error

    def _keep_rest(self, batch: Batch, error: PartialWriteError) -> bool:
        """Settle what was stored or rejected for good; True when nothing is left to try again."""
        again = {r.index for r in error.rejections if r.retryable}
        dead = sum(not r.retryable for r in error.rejections)
        rest = Batch([record for index, record in enumerate(batch) if index in again])
        self._settle(batch, dead=dead, kept=len(rest), reason=str(error))
        if not len(rest):
            return True
        self._in_hand += len(rest)
        self._current.insert(0, rest)
        return False

    # -- the ledger ------------------------------------------------------------------------------------------

    def _settle(self, batch: Batch, *, dead: int = 0, kept: int = 0, reason: str = "") -> None:
        counts = self.counts
        self._current.remove(batch)
        self._in_hand -= len(batch)
        delivered = len(batch) - dead - kept
        counts.delivered += delivered
        if delivered or not batch.records:
            counts.batches += 1
        self.progress += 1
        if dead:
            counts.dead += dead
            self._append_loss(batch, dead)
            self._say(None, "%d record(s) rejected for good: %s", dead, reason)
        self._release()

    def _give_up(self, batch: Batch, reason: str) -> None:
        self._current.remove(batch)
        self._in_hand -= len(batch)
        if len(batch):
            self.counts.dropped[reason] += len(batch)
            self._say(None, "%d record(s) dropped: %s", len(batch), reason)
        self._release()

    def _failed(self, error: Exception) -> None:
        self._opened = self._opened and isinstance(error, SinkError) and not isinstance(error, PermanentSinkError)
        self.counts.failed += 1
        self.counts.last_error = f"{type(error).__name__}: {error}"
        self._say(error, "write failed: %r", error)

    def _say(self, error: Exception | None, message: str, *args: object) -> None:
        diagnostics.say(
            logging.WARNING, (self.name, type(error).__name__, message), f"lane %s: {message}", self.name, *args
        )

    def _release(self) -> None:
        settled = self._admitted - self.pending
        for waiter in [w for w in self._waiters if w.settled <= settled]:
            self._waiters.remove(waiter)
            if not waiter.future.done():
                waiter.future.set_result(None)

    def _append_mark(self) -> None:
        first, last = self._mark_from, self._next_seq - 1
        if last < first:
            return
        filtered, dropped = self.counts.filtered, self.counts.dropped.total()
        mark = Mark(
            producer=self._producer,
            first=first,
            last=last,
            admitted=last - first + 1 - (filtered - self._mark_base[0]) - (dropped - self._mark_base[1]),
            filtered=filtered - self._mark_base[0],
            dropped=dropped - self._mark_base[1],
        )
        self._mark_from = self._next_seq
        self._mark_base = (filtered, dropped)
        self._backlog.append(mark)

    def _append_loss(self, batch: Batch, dead: int) -> None:
        """Correct the mark that already counted these records as admitted."""
        self._backlog.append(
            Mark(self._producer, batch.records[0].seq, batch.records[-1].seq, admitted=-dead, dropped=dead)
        )

    def stats(self, queued: int) -> LaneStats:
        """The lane's page; ``queued`` records wait in the Intake."""
        counts = self.counts
        return LaneStats(
            lane=self.name,
            sink=repr(self.sink),
            emitted=counts.taken + queued,
            delivered=counts.delivered,
            filtered=counts.filtered,
            pending=self.pending + queued,
            dead=counts.dead,
            dropped=dict(counts.dropped),
            batches=counts.batches,
            failed=counts.failed,
            retries=counts.retries,
            last_error=counts.last_error,
            lagging=self.lagging,
        )

    def failure_since(self, lost: int) -> LaneFailure | None:
        """What was lost beyond the given count, or is still pending."""
        now = self.counts.dead + self.counts.dropped.total() - lost
        unsafe = now + self.pending
        if not unsafe:
            return None
        return LaneFailure(self.name, self.counts.last_error or "not delivered in time", unsafe)


