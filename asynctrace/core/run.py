"""What one Trace covers, and what its handles say about every record."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from asynctrace.core.codec import to_json
from asynctrace.core.ids import cut_id
from asynctrace.core.process import ProcessInfo

COLUMN_FIELDS = (
    "workflow_name",
    "stage_name",
    "job_name",
    "user_id",
    "tenant_id",
    "environment",
    "error_code",
    "tags",
)
"""Fields that fill the column of their name; every other field stays in ``metadata``."""

COLUMN_FIELD_SET = frozenset(COLUMN_FIELDS)
"""The same, to look into."""


class Run:
    """One attempt of one run: its ids and the process it runs in.

    Args:
        run_id: given or made; any text.
        parent_run_id: the run that started this one.
        name: what people call it.
        trace_id: W3C trace id, 128 bits; a child run shares its parent's.
        span_id: the run's own root span, 64 bits: records outside any span belong to it.
        parent_span_id: the span, of another run or service, under which this run stands; 0 when none.
        attempt: names this attempt; a retry of the same run id has another.
        level: the lowest level that the run asks for; a lane with a level of its own may ask for more.
        process: the process that runs it.
    """

    __slots__ = (
        "attempt",
        "cut_id",
        "level",
        "name",
        "parent_run_id",
        "parent_span_id",
        "process",
        "run_id",
        "span_id",
        "trace_id",
    )

    def __init__(
        self,
        run_id: str,
        *,
        trace_id: int,
        span_id: int,
        process: ProcessInfo,
        parent_run_id: str | None = None,
        parent_span_id: int = 0,
        name: str | None = None,
        attempt: str = "",
        level: int = 0,
    ) -> None:
        self.run_id = run_id
        self.parent_run_id = parent_run_id
        self.name = name
        self.trace_id = f"{trace_id:032x}"
        self.span_id = span_id
        self.parent_span_id = parent_span_id
        self.attempt = attempt
        self.level = level
        self.process = process
        self.cut_id = cut_id(run_id)


class RunContext:
    """A run together with the fields bound to one handle; shared by all records of that handle.

    Args:
        run: the run.
        fields: bound fields in canonical form; they are on every record, the record's own win.
    """

    __slots__ = (
        "bound_json",
        "columns",
        "fields",
        "fields_json",
        "journaled_in",
        "json",
        "key",
        "metadata",
        "redacted",
        "root_json",
        "run",
    )

    def __init__(self, run: Run, fields: Mapping[str, Any]) -> None:
        self.run = run
        self.key = 0  # given by the journal
        self.journaled_in: object = None  # the segment of the journal that says what the key stands for
        self.redacted = False  # set by the redactor, which looks at it once
        self.replace_fields(fields)

    def replace_fields(self, fields: Mapping[str, Any]) -> None:
        """Bind these fields instead, before any of its records has been encoded."""
        self.fields = dict(fields)
        self.columns, self.metadata = _split(self.fields)
        self.json: str | None = None  # filled by the encoder, once per handle
        self.bound_json: str | None = None
        self.fields_json: str | None = None
        self.root_json: bytes | None = None


def split_fields(bound: RunContext, own: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    """Bound and own fields together, as (column fields, metadata)."""
    if not own:
        return bound.columns, bound.metadata
    if COLUMN_FIELD_SET.isdisjoint(own):
        return bound.columns, {**bound.metadata, **own}
    return _split({**bound.fields, **own})


def _split(fields: Mapping[str, Any]) -> tuple[dict[str, str], dict[str, Any]]:
    columns: dict[str, str] = {}
    metadata: dict[str, Any] = {}
    for name, value in fields.items():
        if name not in COLUMN_FIELD_SET:
            metadata[name] = value
        elif value is not None:  # None is a column without a value
            columns[name] = value if isinstance(value, str) else to_json(value).decode()
    return columns, metadata
