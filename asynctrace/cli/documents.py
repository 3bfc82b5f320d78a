"""Documents: runs, spans and records as JSON."""

from __future__ import annotations

import dataclasses
import json
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import asynctrace

if TYPE_CHECKING:
    from asynctrace import Record, RunSummary, SpanNode

_PROCESS_FACTS = ("process_started", "boot_id")  # on a run's start record, for telling whether it still lives


def to_json(document: Any, *, indent: int | None = 2) -> str:
    """The document as ASCII JSON with a line end; no character of it can drive a terminal."""
    return json.dumps(document, indent=indent) + "\n"


def run_document(summary: RunSummary) -> dict[str, Any]:
    """A run in one object; moments are ISO 8601 in UTC, durations milliseconds."""
    document = dataclasses.asdict(summary)
    return {
        **document,
        "status": summary.status.label,
        "started": iso(summary.started_ns),
        "ended": iso(summary.ended_ns),
        "problems": list(summary.problems),
    }


def span_document(node: SpanNode, parent: SpanNode | None, attempt: int) -> dict[str, Any]:
    """A span without what is in it: spans refer to their parents, so that no depth is too deep.

    Args:
        node: the span; the root of an attempt stands for the run itself.
        parent: the span around it.
        attempt: which attempt, from 1.
    """
    start, end = node.start, node.end
    exception = end.exception if end is not None else None
    return {
        "span_id": f"{node.span_id:016x}",
        "parent_span_id": f"{parent.span_id:016x}" if parent is not None else None,
        "attempt": attempt,
        "name": node.name,
        "status": node.status.label,
        "started": iso(start.time_ns) if start is not None else None,
        "duration_ms": node.duration_ms,
        "task": start.task if start is not None else None,
        "fields": own_fields(start) if start is not None else {},
        "records": len(node.records),
        "exception_type": exception.type if exception is not None else None,
        "exception_message": exception.message if exception is not None else None,
        "stack_trace": exception.stack if exception is not None else None,
    }


def own_fields(start: Record) -> dict[str, Any]:
    """The fields of a start record, without what asynctrace itself says there."""
    if start.kind is not asynctrace.Kind.RUN_START:
        return start.fields
    return {name: value for name, value in start.fields.items() if name not in _PROCESS_FACTS}


def record_document(record: Record) -> dict[str, Any]:
    """A record by the names of its columns."""
    return record.to_dict()


def iso(time_ns: int) -> str:
    """A wall-clock stamp as ISO 8601 in UTC, to the microsecond."""
    seconds, rest = divmod(time_ns, 1_000_000_000)
    moment = datetime.fromtimestamp(seconds, UTC).replace(microsecond=rest // 1000)
    return moment.isoformat(timespec="microseconds")
