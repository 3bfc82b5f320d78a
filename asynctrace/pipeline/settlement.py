"""The Settlement: what a lane has in hand, and the one place where its records find their end."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

from asynctrace.core.record import Record
from asynctrace.core.run import RunContext
from asynctrace.errors import PartialWriteError, SinkError
from asynctrace.pipeline.backlog import Backlog, Load
from asynctrace.pipeline.ledger import LaneCounts
from asynctrace.pipeline.losses import Losses
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.reasons import in_words, with_stack
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.spool import Writing
from asynctrace.pipeline.tally import Tally
from asynctrace.pipeline.watch import Watch
from asynctrace.ports import LocalSink, Sink

TellDrops = Callable[[str, str, int, RunContext], None]
"""Called with the lane's name, the reason, how many, and the run of the last one."""

_SPOOL_FULL = "spool full"


class Settlement:
    """Counts what becomes of every record of a lane, corrects the marks, and tells who waits.

    Args:
        lane: the lane's name.
        sink: named in dead letters.
        options: of the lane.
        counts: of the lane.
        tally: of the lane.
        backlog: of the lane; drops are told in the stream when it is half empty again.
        shelter: where dead letters and what is on disk are; None: nowhere.
        tell_drops: see :data:`TellDrops`.
        made_safe: called when the sink has made records safe.
        watch: told what becomes of records that somebody waits for.
    """

    def __init__(
        self,
        lane: str,
        sink: Sink | LocalSink,
        options: LaneOptions,
        counts: LaneCounts,
        tally: Tally,
        backlog: Backlog,
        shelter: Shelter | None,
        tell_drops: TellDrops | None,
        made_safe: Callable[[], None],
        watch: Watch,
    ) -> None:
        self.hand: list[
            Load
        ] = []  # one list for ever: taken from the backlog or the disk, not settled yet; first one first
        self.in_hand = 0  # records that have left the backlog and are in memory only
        self.progress = 0  # grows with every settled write; the writer's patience looks at it
        self._lane = lane
        self._sink = sink
        self._full = f"lane full ({options.when_full})"
        self._counts = counts
        self._tally = tally
        self._backlog = backlog
        self._shelter = shelter
        self._tell_drops = tell_drops
        self._made_safe = made_safe
        self._watch = watch
        self._untold = 0  # dropped for want of room since the stream was last told
        self._untold_run: RunContext | None = None
        self.losses = Losses(lane)

    def owes_marks(self) -> bool:
        """Whether marks wait for a batch to carry them."""
        return self._tally.owes

    @property
    def hand_size(self) -> int:
        """Bytes of the records in hand."""
        return sum(load.batch.size for load in self.hand)

    # -- before they were in hand ----------------------------------------------------------------------------

    def no_room(self, dropped: Sequence[Record]) -> None:
        """The backlog was full: these were dropped by the lane's policy."""
        self._count_dropped(len(dropped), self._full)
        self._untold += len(dropped)
        self._untold_run = dropped[-1].context
        if self._watch:
            self._watch.lost(dropped, self._full)

    def dropped_from_disk(self, count: int, reason: str, newest: int, producer: str) -> None:
        """So many records of the spool will not be delivered."""
        self._count_dropped(count, reason)
        if newest:
            self._tally.lost_up_to(newest, count, producer)

    def disk_is_empty(self) -> None:
        """Everything that was on disk has been given back, or is damaged."""
        self._watch.disk_is_empty()

    # -- in hand ---------------------------------------------------------------------------------------------

    def spooled(self, load: Load, writing: Writing) -> None:
        """The load, which was in memory, is on disk now."""
        self.in_hand -= len(load.batch)
        self.progress += 1
        self._tally.stored(load.batch.marks)
        if writing.refused:
            self._count_dropped(len(writing.refused), _SPOOL_FULL)
            self._tally.lost(writing.refused)
            self._watch.lost(writing.refused, _SPOOL_FULL)
        if self._watch:
            self._watch.spooled(load.batch.records)
        for waiter in load.waiters:  # those who wait for the sink are with the overflow now
            waiter.done()

    def settle(
        self,
        load: Load,
        *,
        rejected: Set[int] = frozenset(),
        kept: int = 0,
        dead: Mapping[str, Sequence[Record]] | None = None,
    ) -> None:
        """The sink took the load, but for the rejected places; so many are kept for another try, the rest is dead."""
        if load not in self.hand:  # settled meanwhile: a hung write was left behind and came back
            return
        batch, counts = load.batch, self._counts
        stored = (
            [record for place, record in enumerate(batch) if place not in rejected] if rejected else batch
        )
        delivered = len(stored)
        counts.delivered += delivered
        counts.batches += bool(delivered or batch.marks)
        if delivered:
            counts.delays.safe(stored)
            counts.batch_sizes.add(delivered)
            self._made_safe()
            if self._watch:
                self._watch.safe(stored)
        for reason, records in (dead or {}).items():
            self._count_dead(records, reason)
        if batch.marks and not load.on_disk:
            self._tally.stored(batch.marks)
        self._let_go(
            load, lost=[record for records in (dead or {}).values() for record in records], kept=kept
        )

    def reject(
        self, load: Load, error: PartialWriteError, rejected: Set[int], again: Set[int] = frozenset()
    ) -> None:
        """The sink took the load but for the rejected places, of which some are kept for another try."""
        reasons = {rejection.index: rejection.reason for rejection in error.rejections}
        dead: dict[str, list[Record]] = {}
        for place in sorted(rejected - again):
            dead.setdefault(in_words(reasons[place]), []).append(load.batch[place])
        self.settle(load, rejected=rejected, kept=len(again), dead=dead)

    def bury(self, load: Load, reason: str, error: Exception) -> None:
        """The sink took nothing of the load and never will, for a reason without secrets."""
        if load not in self.hand:
            return
        surprise = not isinstance(error, SinkError)
        self._count_dead(load.batch.records, reason, with_stack(error) if surprise else "")
        self._tally.not_stored(load.batch.marks)
        self._let_go(load, lost=load.batch.records)

    def give_up(self, load: Load, reason: str) -> None:
        """Nobody will try the load again, and nothing can keep it."""
        if load not in self.hand:
            return
        count = len(load.batch)
        if count:
            self._count_dropped(count, reason)
            self._watch.lost(load.batch.records, reason)
        self._tally.not_stored(load.batch.marks)
        self._let_go(load, lost=load.batch.records)

    def _count_dropped(self, count: int, reason: str) -> None:
        self._counts.dropped[reason] += count
        self.losses.dropped(count, reason)

    def _count_dead(self, records: Sequence[Record], reason: str, traceback: str = "") -> None:
        self._counts.dead += len(records)
        if records:
            self.losses.rejected(len(records), reason)
            self._watch.lost(records, reason)
            if self._shelter is not None:
                self._shelter.bury(
                    records, sink=in_words(repr(self._sink)), reason=reason, traceback=traceback
                )

    def _let_go(self, load: Load, lost: Sequence[Record], kept: int = 0) -> None:
        self._tally.passed(load.batch.marks)
        if lost:
            self._tally.lost(lost)
        self.hand.remove(load)
        waiters = load.waiters
        if not load.on_disk:
            self.in_hand -= len(load.batch) - kept
        elif self._shelter is not None and (overflow := self._shelter.overflow) is not None:
            waiters = waiters + overflow.settle(load, len(load.batch) - kept)
        self.progress += 1
        for waiter in waiters:
            waiter.done()
        if self._untold and self._tell_drops is not None and self._backlog.half_empty:
            count, self._untold = self._untold, 0
            assert self._untold_run is not None
            self._tell_drops(self._lane, self._full, count, self._untold_run)
