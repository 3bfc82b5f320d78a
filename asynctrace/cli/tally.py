"""Tally: a store's runs and records, counted."""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field
from itertools import count
from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli.documents import iso

if TYPE_CHECKING:
    from asynctrace import Record, RunSummary

_KEPT_SPANS = 1_000  # the slowest, whatever --limit says
_KEPT_ERRORS = 100_000  # different messages; a message with a number in it must not fill the memory


@dataclass(slots=True)
class NameTally:
    """All spans of one name.

    Args:
        spans: how many ended.
        failed: how many of them not with ok.
        total_ms: how long they took together.
        longest_ms: how long the slowest took.
    """

    spans: int = 0
    failed: int = 0
    total_ms: float = 0.0
    longest_ms: float = 0.0


@dataclass(slots=True)
class Tally:
    """What is in a store, added up run by run."""

    runs: Counter[str] = field(default_factory=Counter)
    levels: Counter[str] = field(default_factory=Counter)
    errors: Counter[str] = field(default_factory=Counter)
    names: dict[str, NameTally] = field(default_factory=dict)
    started_spans: int = 0
    first_ns: int | None = None
    last_ns: int | None = None
    problems: list[str] = field(default_factory=list)
    _slowest: list[tuple[float, int, Record]] = field(default_factory=list)
    _numbers: count[int] = field(default_factory=count)

    def add_run(self, summary: RunSummary) -> None:
        """Count a run."""
        self.runs[summary.status.label] += 1
        self.first_ns = (
            summary.started_ns if self.first_ns is None else min(self.first_ns, summary.started_ns)
        )
        self.last_ns = summary.ended_ns if self.last_ns is None else max(self.last_ns, summary.ended_ns)
        self.problems += [f"{summary.run_id}: {problem}" for problem in summary.problems]

    def add(self, record: Record) -> None:
        """Count a record."""
        kind = record.kind
        if kind is asynctrace.Kind.LOG:
            self.levels[asynctrace.Level(record.level).label] += 1
            if record.level >= asynctrace.Level.ERROR:
                self._add_error(record)
        elif kind is asynctrace.Kind.SPAN_START:
            self.started_spans += 1
        elif kind is asynctrace.Kind.SPAN_END:
            self._add_span(record, record.duration_ms or 0.0)

    def _add_error(self, record: Record) -> None:
        said = record.message
        if record.exception is not None:
            said += f": {record.exception.type}"
        if said in self.errors or len(self.errors) < _KEPT_ERRORS:
            self.errors[said] += 1

    def _add_span(self, record: Record, took_ms: float) -> None:
        name = self.names.setdefault(record.message, NameTally())
        name.spans += 1
        name.failed += record.status is not asynctrace.Status.OK
        name.total_ms += took_ms
        name.longest_ms = max(name.longest_ms, took_ms)
        item = (took_ms, next(self._numbers), record)
        if len(self._slowest) < _KEPT_SPANS:
            heapq.heappush(self._slowest, item)
        elif took_ms > self._slowest[0][0]:
            heapq.heapreplace(self._slowest, item)

    def slowest(self, limit: int | None) -> list[Record]:
        """The end records of the slowest spans, the slowest first."""
        ordered = sorted(self._slowest, key=lambda item: item[:2], reverse=True)
        return [record for _, _, record in ordered[:limit]]

    def document(self, limit: int | None) -> dict[str, Any]:
        """The tally as JSON objects; lists have at most ``limit`` items."""
        return {
            "runs": {"total": self.runs.total(), **self.runs},
            "records": {"total": self.levels.total(), **self.levels},
            "spans": self.started_spans,
            "first": iso(self.first_ns) if self.first_ns is not None else None,
            "last": iso(self.last_ns) if self.last_ns is not None else None,
            "errors": [{"message": said, "count": number} for said, number in self.errors.most_common(limit)],
            "span_names": [
                {
                    "name": name,
                    "spans": tally.spans,
                    "failed": tally.failed,
                    "total_ms": tally.total_ms,
                    "longest_ms": tally.longest_ms,
                }
                for name, tally in self.by_total(limit)
            ],
            "slowest_spans": [
                {
                    "name": record.message,
                    "duration_ms": record.duration_ms,
                    "status": record.status.label if record.status is not None else None,
                    "run_id": record.run_id,
                    "span_id": f"{record.span_id:016x}",
                }
                for record in self.slowest(limit)
            ],
            "problems": self.problems,
        }

    def by_total(self, limit: int | None) -> list[tuple[str, NameTally]]:
        """Names of spans, that which took longest in all first."""
        return sorted(self.names.items(), key=lambda item: item[1].total_ms, reverse=True)[:limit]
