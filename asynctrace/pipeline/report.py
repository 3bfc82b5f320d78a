"""What became of records, lane by lane: the answer of a flush and of a receipt."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asynctrace.errors import LaneFailure
from asynctrace.pipeline.ledger import LaneStats
from asynctrace.ports import Safety

NOT_IN_TIME = "not delivered in time"


@dataclass(frozen=True, slots=True)
class LaneReport:
    """What became of records in one lane; all counts in records.

    Args:
        lane: the lane's name.
        sink: the sink, as it shows itself (without secrets).
        safe: the sink took them.
        spooled: on disk, waiting for the sink.
        pending: in memory, on their way.
        lost: rejected for good, or dropped by policy.
        safety: what those that the sink took survive: the death of the process, a loss of power (``disk``), or,
            in sinks that keep nothing, neither (``memory``).
        reason: the last failure of the lane in words, or None.
    """

    lane: str
    sink: str
    safe: int
    spooled: int
    pending: int
    lost: int
    safety: Safety
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class FlushReport:
    """What a flush left behind; true when everything emitted before it is settled.

    Args:
        lanes: each lane, with its counts since it exists.
        done: whether the flush came to its end in time. Then what is pending was emitted later.
    """

    lanes: tuple[LaneReport, ...]
    done: bool

    @property
    def failures(self) -> tuple[LaneFailure, ...]:
        """The lanes that hold records in memory for which the flush did not wait any longer."""
        if self.done:
            return ()
        return tuple(
            LaneFailure(lane.lane, lane.reason or NOT_IN_TIME, lane.pending)
            for lane in self.lanes
            if lane.pending
        )

    @property
    def ok(self) -> bool:
        """Whether everything that was emitted before the flush is settled: safe, on disk, or counted as lost."""
        return not self.failures

    def __bool__(self) -> bool:
        return self.ok


def report_of(stats: LaneStats, safety: Safety) -> LaneReport:
    """One page of the ledger in the words of a report."""
    return LaneReport(
        lane=stats.lane,
        sink=stats.sink,
        safe=stats.delivered,
        spooled=stats.spooled,
        pending=stats.pending,
        lost=stats.lost,
        safety=safety,
        reason=stats.last_error,
    )


def joined(reports: Iterable[FlushReport]) -> FlushReport:
    """One report of several pipelines."""
    reports = tuple(reports)
    lanes = tuple(lane for report in reports for lane in report.lanes)
    return FlushReport(lanes, all(report.done for report in reports))
