"""The ledger: what became of every record, lane by lane, to the record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

from asynctrace.pipeline.breaker import BreakerState
from asynctrace.pipeline.histogram import SIZE_BOUNDS, Delays, Histogram, HistogramStats


@dataclass(frozen=True, slots=True)
class LaneStats:
    """One lane's page of the ledger; all counts in records.

    ``emitted + adopted + replayed = delivered + filtered + pending + spooled + dead + dropped``

    Args:
        lane: the lane's name.
        sink: the sink, as it shows itself (without secrets).
        emitted: given to the pipeline since the lane exists.
        delivered: safe in the sink.
        filtered: held back by the lane's rule or by a processor.
        pending: in memory, on their way.
        pending_bytes: bytes of them, see :mod:`asynctrace.core.size`.
        spooled: on disk, waiting.
        dead: rejected by the sink for good.
        dropped: given up by policy, by reason.
        adopted: taken over from a dead process.
        replayed: taken from dead letters.
        batches: successful writes.
        failed: failed writes, retries included.
        retries: writes tried again.
        last_error: the last failure in words, or None.
        lagging: whether the writer has stopped waiting for this lane.
        breaker: ``open`` while nothing is tried after failures, ``half-open`` when one probe goes through.
        delays: seconds from the call that made a record until it was safe; None when nobody counted.
        batch_sizes: records in each successful write; None when nobody counted.
    """

    lane: str
    sink: str
    emitted: int = 0
    delivered: int = 0
    filtered: int = 0
    pending: int = 0
    spooled: int = 0
    dead: int = 0
    dropped: Mapping[str, int] = field(default_factory=dict)
    adopted: int = 0
    replayed: int = 0
    batches: int = 0
    failed: int = 0
    retries: int = 0
    last_error: str | None = None
    lagging: bool = False
    breaker: BreakerState = "closed"
    delays: HistogramStats | None = None
    batch_sizes: HistogramStats | None = None
    pending_bytes: int = 0

    @property
    def balanced(self) -> bool:
        """Whether the equation holds."""
        settled = self.delivered + self.filtered + self.pending + self.spooled + self.dead
        return self.emitted + self.adopted + self.replayed == settled + sum(self.dropped.values())

    @property
    def lost(self) -> int:
        """Records that are in no store and on no disk, and never will be: dead or dropped."""
        return self.dead + sum(self.dropped.values())


@dataclass(frozen=True, slots=True)
class PipelineStats:
    """A snapshot of one pipeline.

    Args:
        producer: the id under which this pipeline numbers its records.
        emitted: records given to the pipeline, dropped ones included.
        queued: records in the Intake.
        dropped: records that found the Intake full.
        lanes: one page a lane.
        unprotected: records that the journal did not take, for it was full or could not be written.
        approximate: True when the home loop did not answer and the counts may be torn.
        started_ns: wall clock of when the counting began; 0 when nobody knows.
    """

    producer: str
    emitted: int
    queued: int
    dropped: int
    lanes: tuple[LaneStats, ...]
    approximate: bool = False
    started_ns: int = 0
    unprotected: int = 0

    @property
    def balanced(self) -> bool:
        """Whether every lane's equation holds."""
        return all(lane.balanced for lane in self.lanes)


class LaneCounts:
    """The counters of one lane; touched on the lane's home loop only."""

    __slots__ = (
        "batch_sizes",
        "batches",
        "dead",
        "delays",
        "delivered",
        "dropped",
        "failed",
        "filtered",
        "last_error",
        "offered",
        "retries",
        "taken",
    )

    def __init__(self) -> None:
        self.taken = 0  # every number the writer gave out, dropped and filtered ones included
        self.offered = 0  # admitted to the backlog
        self.delivered = 0
        self.filtered = 0
        self.dead = 0
        self.dropped: Counter[str] = Counter()
        self.batches = 0
        self.failed = 0
        self.retries = 0
        self.last_error: str | None = None
        self.delays = Delays()
        self.batch_sizes = Histogram(SIZE_BOUNDS)
