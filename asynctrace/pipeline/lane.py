"""A Lane: one sink's backlog and its delivery."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from time import monotonic

from asynctrace.core.batch import Mark
from asynctrace.core.record import Record
from asynctrace.core.slice import first_of
from asynctrace.pipeline.admission import Admission
from asynctrace.pipeline.backlog import Backlog, Load, Waiter
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.delivery import Delivery
from asynctrace.pipeline.diagnostics import say_of_lane
from asynctrace.pipeline.last_writes import FAILED, LastWrites
from asynctrace.pipeline.ledger import LaneCounts, LaneStats
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.settlement import Settlement, TellDrops
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.spillway import Spillway
from asynctrace.pipeline.tally import Tally
from asynctrace.pipeline.watch import Watch
from asynctrace.ports import LocalSink, Sink

LAST_RESORT = 1.0
"""Seconds beyond the deadline for a local store that did not answer: its blocking write may still succeed."""

_TO_THE_DISK = 0.2
"""Seconds beyond that for what follows: the spool, the sink's own end."""

_SHELVE_AFTER = 0.5
"""Seconds that a sink has for records that somebody wants to be safe at least on disk."""

LOOK_INTERVAL = 60.0
"""Seconds after which an idle lane looks again for what dead processes left on disk."""


class Lane:
    """Delivers to one sink what the writer offers, in order.

    ``offer`` never awaits and never raises. One task at a time, on the home loop, runs :meth:`run`, to which
    :meth:`end_by` gives an end. A batch is owned until it is safe or settled otherwise.

    Args:
        name: unique in its pipeline.
        sink: where the records go.
        options: how.
        producer: of the pipeline; for the marks.
        next_seq: the number of the next record that the lane may see.
        tell_drops: called on the home loop when room has returned.
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
        self._next_seq = next_seq
        self._wake = asyncio.Event()
        self._deadline: Deadline | None = None  # of the end that has begun
        self._limit: asyncio.Timeout | None = None  # of the delivery that is going on
        self._hurry = False
        self._shelving = False
        self._look: asyncio.TimerHandle | None = None
        self._look_is_due = False
        self._shelter = shelter
        self._say = partial(say_of_lane, name)
        self.safety = options.safety or (sink.safety if isinstance(sink, LocalSink) else "process")
        self.watch = Watch(name, sink, self.safety, self.counts, producer)
        self._tally = Tally(producer, next_seq)
        self._backlog = Backlog(options, self._tally)
        self._settlement = Settlement(
            name,
            sink,
            options,
            self.counts,
            self._tally,
            self._backlog,
            shelter,
            tell_drops,
            self._made_safe,
            self.watch,
        )
        self._spillway = Spillway(
            name, options, self._backlog, self._settlement, shelter, self._cut, lambda: self._wake.set()
        )
        self._admission = Admission(name, options)
        self._delivery = Delivery(name, sink, options, self.counts, self._settlement)
        self._last_writes = LastWrites(
            sink, self._backlog, self._settlement, self._spillway, self._delivery, self._cut
        )

    # -- the writer's side -----------------------------------------------------------------------------------

    def offer(self, records: Sequence[Record], next_seq: int) -> None:
        """Take what the lane admits.

        Args:
            records: finished records; numbers missing among them were filtered or dropped before.
            next_seq: one more than the highest number given out so far.
        """
        counts, options = self.counts, self.options
        admitted, interrupt = records, None
        if self.sifting or self._admission.has_rule:
            try:
                admitted = [record for record in records if self._admission.admits(record)]
            except BaseException as error:  # an interrupt in the user's rule: all are kept, then it goes on
                interrupt = error
        given = next_seq - self._next_seq
        self._next_seq = next_seq
        counts.taken += given
        if held_back := given - len(admitted):
            counts.filtered += held_back
            self._tally.held_back(held_back)
        if self.watch:
            self.watch.admitted(admitted)
        self._backlog.extend(admitted)
        if self._tally.size(next_seq) >= options.mark_every:
            self._end_range()
        if self._backlog.behind:
            self.room.clear()
        if options.when_full == "spill":
            self._spillway.spill()
        if self._backlog.held and not self._lets_wait:
            self._press()
        self._wake.set()
        if interrupt is not None:
            raise interrupt

    def skip(self, count: int, reason: str) -> None:
        """So many numbers were used up by records that never came here: dropped, not filtered."""
        self._next_seq += count
        self.counts.taken += count
        self.counts.dropped[reason] += count

    def admits(self, record: Record) -> bool:
        """Whether the lane's rule takes the record."""
        return self._admission.admits(record)

    def hurry(self) -> None:
        """End the linger and the pause before a retry: somebody waits for the records."""
        self._hurry = True
        self._wake.set()
        self._delivery.hurry()

    def settled(self, then: Callable[[], None]) -> None:
        """Call it when everything offered so far is safe, dead or dropped, and its marks are written."""
        self._end_range()
        if self._backlog or self._settlement.hand or self._tally.owes or self._spillway.active:
            self._backlog.add_waiter(Waiter(then))
            self.hurry()
        else:
            then()

    def shelve_soon(self) -> None:
        """Somebody waits for the records offered so far to be in the sink or on disk; the sink has a moment for it."""
        # Without a loop everything is being put away already.
        loop = asyncio._get_running_loop()
        if loop is not None and self._shelter is not None:
            loop.call_later(_SHELVE_AFTER, self._shelve, self._wake)

    def _shelve(self, wake: asyncio.Event) -> None:
        if self._wake is wake and self.watch.wants_disk:  # else this home has been left
            self._shelving = True
            self._delivery.interrupt()
            wake.set()

    @property
    def pending(self) -> int:
        """Records in memory."""
        return self._backlog.waiting + self._backlog.held + self._settlement.in_hand

    @property
    def is_waited_for(self) -> bool:
        """Whether the writer should wait for ``room``: the lane is behind, and gets on."""
        return not self.lagging and not self.room.is_set() and self._gets_on

    @property
    def _gets_on(self) -> bool:
        """Whether there will be room, by the policy, if the sink or the disk answers."""
        policy = self.options.when_full
        return policy == "wait" or (policy == "spill" and self._spillway.is_taking)

    @property
    def _lets_wait(self) -> bool:
        """Whether what finds no room may wait for it, because the writer does."""
        if asyncio._get_running_loop() is None:  # the end: the writer hands over what is in memory anyway
            return self.options.when_full in ("wait", "spill")
        return not self.lagging and self._gets_on

    def lag(self) -> None:
        """The writer does not wait any longer."""
        self.lagging = True
        if self._backlog.held:
            self._press()

    def _press(self) -> None:
        if dropped := self._backlog.press():
            self._settlement.no_room(dropped)

    @property
    def pending_bytes(self) -> int:
        """Bytes of them."""
        backlog = self._backlog
        return backlog.size + backlog.held_size + self._settlement.hand_size + self._spillway.size

    @property
    def progress(self) -> int:
        """Grows with every settled write; the writer's patience looks at it."""
        return self._settlement.progress

    def rehome(self) -> None:
        """Forget the event loop that is gone; the backlog, who waits for it, and the counts stay."""
        self.room, self._wake = asyncio.Event(), asyncio.Event()
        self.room.set()
        self.lagging = self._hurry = self._shelving = False
        self._deadline = self._limit = None  # whoever was ending there will not come back
        self._spillway.rehome()
        self._delivery.rehome()
        self._settlement.losses.rehome()

    # -- delivery --------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver, first what dead processes left; once :meth:`end_by` has set a deadline, what there still is.

        A write that is going on then comes to its own end, unless the deadline comes first: a write that was broken
        off would have to be repeated, and its sink may have the batch by then. What is not safe at the deadline goes
        to the spool; a local store gets a last, blocking write before that, in a thread that may be left behind. Then
        the sink is closed.
        """
        limit, wake = asyncio.timeout(None), self._wake
        try:
            async with limit:
                self._limit = limit
                self.follow_deadline()
                await self._spillway.adopt()
                self._look_later()
                while self._deadline is None:
                    await self._gather(wake)
                    await self._deliver(wake)
                await self._deliver(wake)
                if self._tally.owes:
                    self._settlement.hand.append(self._cut())
                    await self._deliver(wake)
        except TimeoutError:
            if self._deadline is None:
                raise
        finally:
            if self._look is not None:
                self._look.cancel()
            if self._limit is limit:
                self._limit = None
        await self._end(self._deadline)

    def _look_later(self) -> None:
        self._look_is_due = False
        if self._shelter is not None:
            self._look = asyncio.get_running_loop().call_later(LOOK_INTERVAL, self._look_now)

    def _look_now(self) -> None:
        self._look_is_due = True
        self._wake.set()

    def _check_home(self, wake: asyncio.Event) -> None:
        """This home may have been left, and its loop go on a while: then the lane is served at the next one."""
        if self._wake is not wake:
            raise asyncio.CancelledError

    async def _gather(self, wake: asyncio.Event) -> None:
        hand, spillway = self._settlement.hand, self._spillway
        while not self._backlog and not hand and not spillway.active:
            if self._deadline is not None:
                return
            if self._look_is_due:  # processes may have died meanwhile
                await spillway.adopt(again=True)
                self._look_later()
                continue
            wake.clear()
            await wake.wait()
            self._check_home(wake)
        if self.options.linger and not hand and not spillway.active:
            end = monotonic() + self.options.linger
            while not self._backlog.ripe and not self._hurries and (left := end - monotonic()) > 0:
                wake.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(left):
                        await wake.wait()
                self._check_home(wake)

    @property
    def _hurries(self) -> bool:
        return self._hurry or self._deadline is not None

    async def _deliver(self, wake: asyncio.Event) -> None:
        """Empty the hand, the disk and the backlog; what is too little for a batch goes on lingering."""
        hand, spillway = self._settlement.hand, self._spillway
        while hand or self._backlog or spillway.active:
            if self._shelving:
                self._shelving = False
                self._delivery.resume()
                await spillway.shelve()
            if not hand and (load := await spillway.take()) is not None:
                hand.append(load)
            if hand:
                await self._delivery.attempt(hand[0])
                self._check_home(wake)
                if self._limit is not None and self._limit.expired():
                    raise TimeoutError  # the sink ended its write all the same
            lingers = self.options.linger and not self._hurries and not self._backlog.ripe
            if lingers and not hand and not spillway.active:
                return
        self._hurry = False

    def _cut(self, *, for_disk: bool = False) -> Load:
        load = self._backlog.cut(for_disk=for_disk)
        self._settlement.in_hand += len(load.batch)
        if not self.room.is_set() and self._backlog.caught_up:
            self.lagging = False
            self.room.set()
        return load

    def _made_safe(self) -> None:
        if self._deadline is not None and isinstance(self.sink, LocalSink):
            self._deadline.extend()
            self.follow_deadline()

    # -- the end ---------------------------------------------------------------------------------------------

    def end_by(self, deadline: Deadline) -> None:
        """Have :meth:`run` come to its end: now if there is nothing to deliver, by the deadline otherwise."""
        self._end_range()
        self._deadline = deadline
        self._delivery.close_by(deadline)
        self._wake.set()
        self.follow_deadline()

    def follow_deadline(self) -> None:
        """The deadline of :meth:`end_by` is new, or has been moved."""
        if self._deadline is not None and self._limit is not None and not self._limit.expired():
            self._limit.reschedule(asyncio.get_running_loop().time() + self._deadline.left())

    @property
    def grace(self) -> float:
        """Seconds beyond the deadline in which :meth:`run` still may end by itself."""
        return _TO_THE_DISK + (LAST_RESORT if isinstance(self.sink, LocalSink) else 0.0)

    async def _end(self, deadline: Deadline) -> None:
        self._settlement.losses.hold()
        went_well = await self._last_writes.write(monotonic() + deadline.left() + LAST_RESORT)
        self._spillway.put_away("not delivered in time" if went_well else FAILED)
        self._settlement.losses.tell()
        if self._shelter is not None:
            await self._shelter.settle()
        await self._delivery.aclose(deadline)

    def finish_now(self) -> None:
        """Deliver what there is with plain blocking calls; what cannot be goes to the spool."""
        self._end_range()
        self._settlement.losses.hold()
        went_well = self._last_writes.write_now()
        self._spillway.put_away("loop ended" if went_well else FAILED)
        self._settlement.losses.tell()
        if self._shelter is not None:
            self._shelter.settle_now()

    def abandon(self, reason: str) -> None:
        """Spool what is left: the sink hangs, and nobody waits for it any more."""
        self._delivery.rehome()  # what it may answer later is nobody's
        self._settlement.losses.hold()
        self._spillway.put_away(reason)
        self._settlement.losses.tell()

    def say(self, message: str, *args: object) -> None:
        """Tell the people who look after the program, once a while."""
        self._say(None, message, *args)

    def release(self) -> None:
        """Let other lanes and processes adopt what is on disk; the lane is at its end."""
        if self._shelter is not None:
            try:
                self._shelter.release()
            except OSError as error:
                self._say(error, "the spool cannot be closed: %r", error)
        self._settlement.losses.tell()
        self.watch.end()

    def _end_range(self) -> None:
        ended = self._tally.end_range(self._next_seq)
        if ended is not None:
            self._backlog.end_range(ended)

    # -- for the journal -------------------------------------------------------------------------------------

    @property
    def key(self) -> str | None:
        """The lane's name in the state directory; None when it keeps nothing there."""
        return self._shelter.key if self._shelter is not None else None

    @property
    def safe(self) -> int:
        """Every number below is safe, or settled otherwise, as far as the lane has seen them."""
        loads = [load for load in self._settlement.hand if not load.on_disk] + self._spillway.in_memory
        firsts = [first_of(load.batch.parts[0]) for load in loads if len(load.batch)]
        oldest = self._backlog.oldest
        return min([self._next_seq, *firsts, *([oldest] if oldest is not None else [])])

    def end_range(self) -> None:
        """Have a mark written for what came so far."""
        self._end_range()
        self._wake.set()

    @property
    def stored_marks(self) -> Mark:
        """What the marks in the store add up to."""
        return self._tally.stored_sum

    # -- the ledger ------------------------------------------------------------------------------------------

    def stats(self, queued: int) -> LaneStats:
        """The lane's page; ``queued`` records wait in the Intake."""
        counts, overflow = self.counts, self._spillway.overflow
        return LaneStats(
            lane=self.name,
            sink=repr(self.sink),
            emitted=counts.taken + queued,
            delivered=counts.delivered,
            filtered=counts.filtered,
            pending=self.pending + queued,
            pending_bytes=self.pending_bytes,
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
            breaker=self._delivery.breaker.state,
            delays=counts.delays.stats(),
            batch_sizes=counts.batch_sizes.stats(),
        )
