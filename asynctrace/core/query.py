"""What a reader is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from asynctrace.core.record import Kind, Record


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that a record must meet, all of them; the default admits everything.

    Args:
        level: the lowest level number, 0 for all. Structural records pass this test.
        since_ns: wall-clock stamp, inclusive.
        until_ns: wall-clock stamp, exclusive.
        text: the message contains it, whatever the case (ASCII case folding).
        name: the run's name or its ``workflow_name`` is this.
        fields: each named field (bound or own, columns included) has this value.
        limit: at most so many runs, or records of one run; None for all.
    """

    level: int = 0
    since_ns: int | None = None
    until_ns: int | None = None
    text: str | None = None
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None

    def admits(self, record: Record) -> bool:
        """Whether the record meets every condition but the limit."""
        if record.kind is Kind.LOG and record.level < self.level:
            return False
        if self.since_ns is not None and record.time_ns < self.since_ns:
            return False
        if self.until_ns is not None and record.time_ns >= self.until_ns:
            return False
        if self.text is not None and self.text.lower() not in record.message.lower():
            return False
        own = record.fields
        if self.name is not None and self.name not in (record.context.run.name, own.get("workflow_name")):
            return False
        return all(name in own and own[name] == value for name, value in self.fields.items())


EVERYTHING = Query()
