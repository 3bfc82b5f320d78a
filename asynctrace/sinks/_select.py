"""Which runs and records a query gets, and in what order: one answer for all stores that are read by line."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import replace

from asynctrace.core.query import Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunFold, RunSummary
from asynctrace.sinks._liveness import derive_status


class RunScan:
    """One run on its way through a scan: its fold, and whether the query wants it.

    The same record may come twice; the second is passed over.
    """

    def __init__(self, query: Query) -> None:
        self._query = query
        self._fold = RunFold()
        self._seen = Seen()
        self.admitted = False
        self.is_empty = True

    def add(self, record: Record) -> None:
        """Take one record of the run."""
        if self._seen.before(record):
            return
        self._fold.add(record)
        self.is_empty = False
        if not self.admitted and self._query.admits(record):
            self.admitted = True

    def summary(self, problems: Iterable[str]) -> RunSummary:
        """The run; one whose process is gone without an end is INTERRUPTED."""
        summary, process = self._fold.summary(problems), self._fold.process
        status = derive_status(
            summary.status,
            hostname=process.hostname,
            pid=process.pid,
            started=process.started,
            boot=process.boot,
        )
        return replace(summary, status=status)


class Seen:
    """Keys of the records that went by."""

    def __init__(self) -> None:
        self._numbers: dict[str, set[int]] = {}

    def before(self, record: Record) -> bool:
        """Whether this record went by already; from now on it has."""
        numbers = self._numbers.get(record.producer)
        if numbers is None:
            self._numbers[record.producer] = {record.seq}
            return False
        count = len(numbers)
        numbers.add(record.seq)
        return len(numbers) == count


def newest_first(summaries: Iterable[RunSummary], query: Query) -> list[RunSummary]:
    """By the last record of the run; as many as the query wants."""
    ordered = sorted(summaries, key=lambda summary: (summary.ended_ns, summary.run_id), reverse=True)
    return ordered[: query.limit]


def in_order(records: Iterable[Record], query: Query) -> list[Record]:
    """Those the query admits, oldest first, each once; as many as the query wants."""
    seen = Seen()
    admitted: Iterator[Record] = (
        record for record in records if query.admits(record) and not seen.before(record)
    )
    if query.limit is None:
        return sorted(admitted, key=_age)
    return heapq.nsmallest(query.limit, admitted, key=_age)


def _age(record: Record) -> tuple[int, str, int]:
    return record.time_ns, record.producer, record.seq
