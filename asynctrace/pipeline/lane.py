"""A Lane: one sink's backlog and its delivery."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping, Sequence, Set
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic
from traceback import format_exception

from asynctrace.core.batch import Batch
from asynctrace.core.record import Kind, Record
from asynctrace.core.run import RunContext
from asynctrace.errors import (
    BatchTooLargeError,
    LaneFailure,
    PartialWriteError,
    PermanentSinkError,
    SinkClosedError,
    SinkError,
    TransientSinkError,
)
from asynctrace.pipeline.backlog import Backlog, Load, Waiter
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.diagnostics import diagnostics, redactor
from asynctrace.pipeline.last_resort import call_in_daemon
from asynctrace.pipeline.ledger import LaneCounts, LaneStats
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.overflow import Overflow
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.spool import Writing
from asynctrace.pipeline.tally import Tally
from asynctrace.pipeline.undisturbed import undisturbed
from asynctrace.ports import LocalSink, Sink

LAST_RESORT = 1.0
"""Seconds beyond the deadline for a local store that did not answer: its blocking write may still succeed."""

_LAST_WRITE = "last write failed"

_DISK_REST = 1.0
"""Seconds before a spool that could not be written or read is tried again."""

TellDrops = Callable[["Lane", str, int, RunContext], None]


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
        tell_drops: called on the home loop when room has returned, with reason, count and the run concerned.
        shelter: where what cannot be delivered is kept; None: nowhere.
    """

    def __init__(
        self,
        name: str,
        sink: Sink | LocalSink,
        options: LaneOptions,
        producer: str,
        next_seq: int,
        tell_drops: TellDrops | None = None,
        shelter: Shelter | None = None,
    ) -> None:
        self.name = name
        self.sink = sink
        self.options = options
        self.counts = LaneCounts()
        self.room = asyncio.Event()
        self.room.set()
        self.lagging = False
        self.sifting = options.level is not None  # set by the pipeline when any of its lanes has a level
        self.progress = 0  # grows with every settled write; the writer's patience looks at it
        self._tally = Tally(producer, next_seq)
        self._backlog = Backlog(options, self._tally)
        self._hand: list[Load] = []  # taken from the backlog, not settled yet; first one first
        self._in_hand = 0  # records in them
        self._next_seq = next_seq
        self._wake = asyncio.Event()
        self._nudge = asyncio.Event()
        self._closing: tuple[Deadline, asyncio.Timeout] | None = None
        self._hurry = False
        self._opened = False
        self._homes = 0  # how many homes it has left
        self._shelter = shelter
        self._overflow: Overflow | None = None  # once it was needed
        self._unwritten: Load | None = None  # newer than what is on disk, which does not take it now
        self._disk_rests = False  # after it took nothing
        self._tell_drops = tell_drops
        self._untold = 0  # dropped for want of room since the stream was last told
        self._untold_run: RunContext | None = None

    # -- the writer's side -----------------------------------------------------------------------------------

    def offer(self, records: Sequence[Record], next_seq: int) -> None:
        """Take what the lane admits.

        Args:
            records: finished records; numbers missing among them were filtered or dropped before.
            next_seq: one more than the highest number given out so far.
        """
        counts, options = self.counts, self.options
        admitted, interrupt = records, None
        if self.sifting or options.admit is not None:
            try:
                admitted = [record for record in records if self._admits(record)]
            except BaseException as error:  # an interrupt in the user's rule: all are kept, then it goes on
                interrupt = error
        given = next_seq - self._next_seq
        self._next_seq = next_seq
        counts.taken += given
        if held_back := given - len(admitted):
            counts.filtered += held_back
            self._tally.held_back(held_back)
        if dropped := self._backlog.extend(admitted):
            counts.dropped[self._full] += len(dropped)
            self._untold += len(dropped)
            self._untold_run = dropped[-1].context
        if self._tally.size(next_seq) >= options.mark_every:
            self._end_range()
        if self._backlog.waiting >= options.high_water:
            self.room.clear()
        if options.when_full == "spill":
            self._spill()
        self._wake.set()
        if interrupt is not None:
            raise interrupt

    def skip(self, count: int, reason: str) -> None:
        """So many numbers were used up by records that never came here: dropped, not filtered."""
        self._next_seq += count
        self.counts.taken += count
        self.counts.dropped[reason] += count

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

    def hurry(self) -> None:
        """End the linger and the pause before a retry: somebody waits for the records."""
        self._hurry = True
        self._wake.set()
        self._nudge.set()

    def settled(self, then: Callable[[], None]) -> None:
        """Call it when everything offered so far is safe, dead or dropped, and its marks are written."""
        self._end_range()
        if self._backlog or self._hand or self._tally.owes or self._spooling:
            self._backlog.add_waiter(Waiter(then))
            self.hurry()
        else:
            then()

    @property
    def pending(self) -> int:
        """Records in memory."""
        return self._backlog.waiting + self._in_hand

    def rehome(self) -> None:
        """Forget the event loop that is gone; the backlog, who waits for it, and the counts stay."""
        self.room, self._wake, self._nudge = asyncio.Event(), asyncio.Event(), asyncio.Event()
        self.room.set()
        self._homes += 1
        self.lagging = self._opened = self._hurry = self._disk_rests = False

    # -- delivery --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver for ever; first what dead processes left."""
        await self._adopt()
        while True:
            await self._gather()
            await self._deliver()

    async def finish(self, deadline: Deadline) -> None:
        """Deliver what there is until the deadline; what is not safe then goes to the spool.

        A local store gets a last, blocking write before that, in a thread that may be left behind.
        """
        self._end_range()
        self._hurry = True
        with suppress(TimeoutError):
            async with asyncio.timeout(deadline.left()) as limit:
                self._closing = (deadline, limit)
                await self._adopt()  # a short life may not have come to it
                await self._deliver()
                if self._tally.owes:
                    self._hand.append(self._cut())
                    await self._deliver()
        self._closing = None
        end = monotonic() + deadline.left() + LAST_RESORT
        reason = "not delivered in time"
        if isinstance(self.sink, LocalSink):
            while (load := self._next_last()) is not None and monotonic() < end:
                try:
                    async with asyncio.timeout(end - monotonic()):
                        await call_in_daemon(partial(self.sink.write_now, load.batch))
                except TimeoutError:
                    break
                except Exception as error:
                    if not self._after_last_write(load, error):
                        reason = _LAST_WRITE
                        break
                else:
                    self._settle(load)
        self._put_away(reason)
        if self._shelter is not None:
            await self._shelter.settle()

    def finish_now(self) -> None:
        """Deliver what there is with plain blocking calls; what cannot be goes to the spool."""
        self._end_range()
        reason = "loop ended"
        if isinstance(self.sink, LocalSink):
            while (load := self._next_last()) is not None:
                try:
                    self.sink.write_now(load.batch)
                except Exception as error:  # the last resort has no second try
                    if not self._after_last_write(load, error):
                        reason = _LAST_WRITE
                        break
                else:
                    self._settle(load)
        self._put_away(reason)
        if self._shelter is not None:
            self._shelter.settle_now()

    def abandon(self, reason: str) -> None:
        """Spool what is left: the sink hangs, and nobody waits for it any more."""
        self._put_away(reason)

    def release(self) -> None:
        """Let other lanes and processes adopt what is on disk; the lane is at its end."""
        if self._shelter is not None:
            try:
                self._shelter.release()
            except OSError as error:
                self._say(error, "the spool cannot be closed: %r", error)

    def _next_last(self) -> Load | None:
        """The next load for a last write: what is in hand, then, unless the disk holds what comes before, the rest."""
        if not self._hand and self._backlog and not self._spooling:
            self._hand.append(self._cut())
        return self._hand[0] if self._hand and not self._hand[0].on_disk else None

    def _after_last_write(self, load: Load, error: Exception) -> bool:
        """Whether the load is settled all the same."""
        self._failed(error)
        if isinstance(error, PartialWriteError):
            self._reject(load, error, _indices(error, load.batch))
        elif isinstance(error, PermanentSinkError):
            self._bury(load, str(error), error)
        elif self._find_overflow() is not None:
            return False  # the spool takes it, and what comes after it
        else:
            self._give_up(load, _LAST_WRITE)
        return True

    # -- the spool -------------------------------------------------------------------------------------------

    @property
    def _spooling(self) -> bool:
        return self._overflow is not None and self._overflow.active

    def _find_overflow(self) -> Overflow | None:
        if self._overflow is None and self._shelter is not None:
            self._overflow = self._shelter.overflow
        return self._overflow

    async def _adopt(self) -> None:
        overflow = self._find_overflow()
        if overflow is None:
            return
        try:
            found = await overflow.adopt()
        except Exception as error:  # a disk that cannot be read must not keep new records from their sink
            self._say(error, "what earlier processes left cannot be read: %r", error)
            return
        if found.damaged:
            self._say(None, "%d record(s) that earlier processes left are damaged", found.damaged)

    def _spill(self) -> None:
        """Move the backlog to the disk, if that is where it belongs; one load is on its way at a time."""
        if not self._spooling and self._backlog.waiting < self.options.high_water:
            return
        loop, overflow = asyncio._get_running_loop(), self._find_overflow()
        if loop is None or overflow is None or overflow.writing is not None or self._disk_rests:
            if overflow is None and self._shelter is not None:
                self._shelter.complain()
            return
        load, self._unwritten = self._unwritten, None
        if load is None and self._backlog:
            load = self._cut()
        if load is not None:
            overflow.write(load, partial(_call_on, loop, self._spilled))

    def _spilled(self) -> None:
        """On the home loop: a load is on disk, or the disk did not take it."""
        ended = self._overflow.written() if self._overflow is not None else None
        if ended is None:
            return
        load, outcome = ended
        if isinstance(outcome, Writing):
            self._keep_written(load, outcome)
            self._spill()
        else:  # it stays in memory, and is tried again after a while
            self._say(outcome, "the spool takes nothing: %r", outcome)
            self._unwritten = load
            self._disk_rests = True
            asyncio.get_running_loop().call_later(_DISK_REST, self._disk_rested)
        self._wake.set()

    def _disk_rested(self) -> None:
        self._disk_rests = False
        if self._spooling:
            self._spill()

    def _keep_written(self, load: Load, writing: Writing) -> None:
        """The ledger's side of a load that went to the disk."""
        self._in_hand -= len(load.batch)
        self.progress += 1
        if writing.refused:
            self._drop(
                len(writing.refused), "spool full", writing.refused[-1].seq, writing.refused[-1].producer
            )
        for waiter in load.waiters:  # those who wait for the sink are with the overflow now
            waiter.done()

    async def _take(self) -> None:
        """Put the next load in hand; from the disk as long as that holds any."""
        overflow = self._overflow
        if overflow is None or not overflow.active:
            self._hand.append(self._cut())
            return
        try:
            reading = await overflow.read(self.options.max_records)
        except Exception as error:
            self._say(error, "the spool cannot be read: %r", error)
            await asyncio.sleep(_DISK_REST)
            return
        for count, reason in (
            (reading.expired, "spool: too old"),
            (reading.foreign, "spool: not understood"),
            (reading.damaged, "spool: damaged"),
        ):
            if count:
                self._drop(count, reason, reading.newest, reading.producer)
        if reading.position is not None:
            self._hand.append(Load(reading.batch, on_disk=True, position=reading.position))
        elif overflow.writing is not None:
            await overflow.until_written()
            self._spilled()
        elif self._unwritten is not None:
            self._hand.append(self._unwritten)
            self._unwritten = None
        elif not overflow.grew:
            overflow.active = False

    def _drop(self, count: int, reason: str, newest: int, producer: str) -> None:
        self.counts.dropped[reason] += count
        self._say(None, "%d record(s) dropped: %s", count, reason)
        if newest:
            self._tally.lost(newest, count, producer)

    def _put_away(self, reason: str) -> None:
        """Have nothing in memory any more: what cannot be delivered goes to the disk, or is dropped."""
        older = [load for load in self._hand if not load.on_disk]
        if self._spooling or (not older and not self._backlog and self._unwritten is None):
            newer = []
        else:
            older, newer = [], older  # nothing on disk is newer than what was in hand
        if self._unwritten is not None:
            newer.append(self._unwritten)
            self._unwritten = None
        self._hand = []
        while self._backlog:
            newer.append(self._cut())
        if not older and not newer and not self._spooling:
            return
        overflow = self._find_overflow()
        if overflow is None:
            if self._shelter is not None:
                self._shelter.complain()
            self._hand = newer
            while self._hand:
                self._give_up(self._hand[0], reason)
            return
        for load, outcome in overflow.put_away(older, newer):
            if isinstance(outcome, Writing):
                self._keep_written(load, outcome)
            else:
                self._say(outcome, "the spool takes nothing: %r", outcome)
                self._hand.append(load)
        if overflow.spooled:
            self._say(None, "%d record(s) wait on disk: %s", overflow.spooled, reason)
        while self._hand:
            self._give_up(self._hand[0], reason)
        for waiter in overflow.take_waiters():  # safe on disk, and nobody goes on delivering them now
            waiter.done()

    async def aclose(self, deadline: Deadline) -> None:
        """Close the sink within the deadline."""
        try:
            async with asyncio.timeout(max(0.1, deadline.left())):
                await self.sink.aclose()
        except Exception as error:  # whatever the driver does, the program goes on
            self._say(error, "closing failed: %r", error)
        self._opened = False

    async def _gather(self) -> None:
        while not self._backlog and not self._hand and not self._spooling:
            self._wake.clear()
            await self._wake.wait()
        if self.options.linger and not self._hand and not self._spooling:
            end = monotonic() + self.options.linger
            while (
                self._backlog.waiting < self.options.trigger
                and not self._hurry
                and (left := end - monotonic()) > 0
            ):
                self._wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await self._wake.wait()

    async def _deliver(self) -> None:
        """Empty the hand, the disk and the backlog; what is too little for a batch goes on lingering."""
        while self._hand or self._backlog or self._spooling:
            if not self._hand:
                await self._take()
            if self._hand:
                await self._try(self._hand[0])
            lingers = self.options.linger and not self._hurry and self._backlog.waiting < self.options.trigger
            if lingers and not self._hand and not self._spooling:
                return
        self._hurry = False

    def _cut(self) -> Load:
        load = self._backlog.cut()
        self._in_hand += len(load.batch)
        if self._backlog.waiting <= self.options.high_water // 2 and not self.room.is_set():
            self.lagging = False
            self.room.set()
        return load

    async def _try(self, load: Load) -> None:
        """One write. Afterwards the load is settled, replaced by its rest, or, after a pause, still there."""
        batch = load.batch
        if not batch.records and not batch.marks:
            self._settle(load)
            return
        if load.started is None:
            load.started = monotonic()
        try:
            await self._write(batch)
        except BatchTooLargeError as error:
            self._failed(error)
            self._halve(load, error)
        except PartialWriteError as error:
            self._failed(error)
            if (rest := self._keep_rest(load, error)) is not None:
                await self._pause(rest, error)
        except PermanentSinkError as error:
            self._failed(error)
            self._bury(load, str(error), error)
        except Exception as error:  # TransientSinkError and surprises
            self._failed(error)
            if not isinstance(error, (TransientSinkError, SinkClosedError)):
                load.surprises += 1
            if load.surprises >= self.options.surprises:
                logging.getLogger("asynctrace").debug("lane %s: surprise", self.name, exc_info=error)
                self._bury(load, repr(error), error)
            else:
                await self._pause(load, error)
        else:
            self._settle(load)

    async def _write(self, batch: Batch) -> None:
        limit, homes = asyncio.timeout(self.options.write_timeout), self._homes
        try:
            async with limit:
                if not self._opened:
                    await self.sink.open()
                    self._opened = True
                await self.sink.write(batch)
            if homes != self._homes:  # this loop stood still, and another home took over meanwhile
                raise asyncio.CancelledError
        except RuntimeError as error:
            # When the interpreter ends, Python 3.12 starts no thread any more, and executors refuse.
            if "shutdown" not in str(error) or not isinstance(self.sink, LocalSink):
                raise
            self.sink.write_now(batch)
        except OSError as error:  # a TimeoutError is one
            late = f"no answer within {self.options.write_timeout} s"
            raise TransientSinkError(late if limit.expired() else repr(error)) from error

    async def _pause(self, load: Load, error: Exception) -> None:
        """Wait before the next try of the load, or give it up."""
        assert load.started is not None
        load.attempts += 1
        retry_after = error.retry_after if isinstance(error, TransientSinkError) else None
        elapsed = monotonic() - load.started
        pause = self.options.retry.delay(load.attempts, elapsed=elapsed, retry_after=retry_after)
        if pause is None:
            self._bury(load, f"retries used up: {error}", error)
            return
        self.counts.retries += 1
        if retry_after is not None:  # the destination asked to be left alone: nobody hurries that
            await asyncio.sleep(pause)
            return
        self._nudge.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._nudge.wait()

    def _halve(self, load: Load, error: BatchTooLargeError) -> None:
        records = load.batch.records
        if len(records) <= 1:
            self._bury(load, str(error), error)
            return
        middle = len(records) // 2
        self._hand[0:1] = [
            Load(Batch(records[:middle]), started=load.started, on_disk=load.on_disk),
            replace(load, batch=Batch(records[middle:], load.batch.marks), attempts=0, surprises=0),
        ]

    def _keep_rest(self, load: Load, error: PartialWriteError) -> Load | None:
        """Settle what was stored or rejected for good; what is to be tried again stays first in hand."""
        batch = load.batch
        rejected = _indices(error, batch)
        again = {r.index for r in error.rejections if r.retryable} & rejected
        if not again:
            self._reject(load, error, rejected)
            return None
        rest = replace(load, batch=Batch([batch[index] for index in sorted(again)]), attempts=0, surprises=0)
        if len(again) == len(batch):
            rest.attempts = load.attempts  # no progress: the pauses go on growing
        load.waiters, load.position = [], None
        self._hand.insert(1, rest)
        self._reject(load, error, rejected, again)
        return rest

    def _reject(
        self, load: Load, error: PartialWriteError, rejected: Set[int], again: Set[int] = frozenset()
    ) -> None:
        """The sink took the load but for the rejected places, of which some are kept for another try."""
        reasons = {rejection.index: rejection.reason for rejection in error.rejections}
        dead: dict[str, list[Record]] = {}
        for place in sorted(rejected - again):
            dead.setdefault(reasons[place], []).append(load.batch[place])
        self._settle(load, rejected=rejected, kept=len(again), dead=dead)

    # -- the ledger ------------------------------------------------------------------------------------------

    def _settle(
        self,
        load: Load,
        *,
        rejected: Set[int] = frozenset(),
        kept: int = 0,
        dead: Mapping[str, Sequence[Record]] | None = None,
    ) -> None:
        """The sink took the load, but for the rejected places; so many are kept for another try, the rest is dead."""
        if load not in self._hand:  # settled meanwhile: a hung write was left behind and came back
            return
        batch, counts = load.batch, self.counts
        lost = len(rejected) - kept
        stored = (
            [record for place, record in enumerate(batch) if place not in rejected]
            if rejected
            else batch.records
        )
        delivered = len(stored)
        counts.delivered += delivered
        counts.batches += bool(delivered or batch.marks)
        if delivered:
            counts.delays.safe(stored)
            counts.batch_sizes.add(delivered)
        if delivered and self._closing is not None and isinstance(self.sink, LocalSink):
            deadline, limit = self._closing
            deadline.extend()
            if not limit.expired():
                limit.reschedule(asyncio.get_running_loop().time() + deadline.left())
        for reason, records in (dead or {}).items():
            self._count_dead(records, reason)
        self._drop_hand(load, lost=lost, kept=kept)

    def _bury(self, load: Load, reason: str, error: Exception) -> None:
        """The sink took nothing of the load and never will."""
        if load not in self._hand:
            return
        surprise = not isinstance(error, SinkError)
        self._count_dead(load.batch.records, reason, "".join(format_exception(error)) if surprise else "")
        self._tally.not_stored(load.batch.marks)
        self._drop_hand(load, lost=len(load.batch))

    def _count_dead(self, records: Sequence[Record], reason: str, traceback: str = "") -> None:
        self.counts.dead += len(records)
        if records:
            self._say(None, "%d record(s) rejected for good: %s", len(records), reason)
            if self._shelter is not None:
                self._shelter.bury(records, sink=repr(self.sink), reason=reason, traceback=traceback)

    def _give_up(self, load: Load, reason: str) -> None:
        if load not in self._hand:
            return
        count = len(load.batch)
        if count:
            self.counts.dropped[reason] += count
            self._say(None, "%d record(s) dropped: %s", count, reason)
        self._tally.not_stored(load.batch.marks)
        self._drop_hand(load, lost=count)

    def _drop_hand(self, load: Load, lost: int, kept: int = 0) -> None:
        if lost:
            newest = load.batch.records[-1]
            self._tally.lost(newest.seq, lost, newest.producer)
        self._hand.remove(load)
        waiters = load.waiters
        if not load.on_disk:
            self._in_hand -= len(load.batch) - kept
        elif self._overflow is not None:
            waiters = waiters + self._overflow.settle(load, len(load.batch) - kept)
        self.progress += 1
        for waiter in waiters:
            waiter.done()
        if (
            self._untold
            and self._tell_drops is not None
            and self._backlog.waiting <= self.options.capacity // 2
        ):
            count, self._untold = self._untold, 0
            assert self._untold_run is not None
            self._tell_drops(self, self._full, count, self._untold_run)

    @property
    def _full(self) -> str:
        return f"lane full ({self.options.when_full})"

    def _failed(self, error: Exception) -> None:
        answered = isinstance(error, SinkError) and not isinstance(
            error, (PermanentSinkError, SinkClosedError)
        )
        self._opened = self._opened and answered
        self.counts.failed += 1
        self.counts.last_error = redactor.redact_text(f"{type(error).__name__}: {error}")
        self._say(error, "write failed: %r", error)

    def _say(self, error: Exception | None, message: str, *args: object) -> None:
        diagnostics.say(
            logging.WARNING, (self.name, type(error).__name__, message), f"lane {self.name}: {message}", *args
        )

    def _end_range(self) -> None:
        ended = self._tally.end_range(self._next_seq)
        if ended is not None:
            self._backlog.end_range(ended)

    def stats(self, queued: int) -> LaneStats:
        """The lane's page; ``queued`` records wait in the Intake."""
        counts, overflow = self.counts, self._overflow
        return LaneStats(
            lane=self.name,
            sink=repr(self.sink),
            emitted=counts.taken + queued,
            delivered=counts.delivered,
            filtered=counts.filtered,
            pending=self.pending + queued,
            spooled=overflow.spooled if overflow is not None else 0,
            adopted=overflow.adopted if overflow is not None else 0,
            replayed=overflow.replayed if overflow is not None else 0,
            dead=counts.dead,
            dropped=dict(counts.dropped),
            batches=counts.batches,
            failed=counts.failed,
            retries=counts.retries,
            last_error=counts.last_error,
            lagging=self.lagging,
            delays=counts.delays.stats(),
            batch_sizes=counts.batch_sizes.stats(),
        )

    def failure(self, queued: int) -> LaneFailure | None:
        """What is not settled yet, if anything; ``queued`` records wait in the Intake."""
        unsafe = self.pending + queued
        return (
            LaneFailure(self.name, self.counts.last_error or "not delivered in time", unsafe)
            if unsafe
            else None
        )


def _call_on(loop: asyncio.AbstractEventLoop, function: Callable[[], None]) -> None:
    with suppress(RuntimeError):  # closed: the next home, or the end, looks for itself
        loop.call_soon_threadsafe(undisturbed, function)


def _indices(error: PartialWriteError, batch: Batch) -> set[int]:
    """The positions that the sink rejected, as far as they are in the batch."""
    return {rejection.index for rejection in error.rejections if 0 <= rejection.index < len(batch)}
