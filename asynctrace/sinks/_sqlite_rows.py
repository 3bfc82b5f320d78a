"""A record as one row, and a row as a record.

``datetime`` and ``created_at`` both hold the moment of the record, ``YYYY-MM-DD HH:MM:SS.ffffff`` in UTC: the
documents sort by ``created_at``, and its default, the second of the insert, would leave the records of one
batch in any order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from asynctrace.core import timestamp
from asynctrace.core.codec import to_json
from asynctrace.core.decoding import RecordDecoder
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record
from asynctrace.core.run import COLUMN_FIELDS, RunContext, split_fields
from asynctrace.errors import ConfigurationError

Row = tuple[object, ...]

SHARED = ("process", "hostname", "ip_address", "python_version", "package_version", "producer")
"""Columns that are the same for all rows of one process and producer: bound once a statement."""

_RUN = ("run_id", "cut_id", "trace_id", "attempt")
NEEDED = (*_RUN, "level", "message", "datetime", "thread", "filename", "lineno", "seq")
"""The columns that every row fills, in the order of the row; the optional ones follow."""

OPTIONAL = (
    "parent_run_id",
    "run_name",
    "span_id",
    "parent_span_id",
    "memory_usage_mb",
    "cpu_usage_percent",
    "duration_ms",
    "status",
    "task",
    "exception_type",
    "exception_message",
    "stack_trace",
    *COLUMN_FIELDS,
    "metadata",
    "kind",
)

_COLUMN_FIELDS = frozenset(COLUMN_FIELDS)
_NO_COLUMNS: Row = (None,) * len(COLUMN_FIELDS)
_LABELS = tuple(LABELS.get(number) for number in range(max(LABELS) + 1))
_KINDS = tuple(
    None if kind is Kind.LOG else kind.label for kind in Kind
)  # by number: hashing an enum is slow
_NO_EXCEPTION: Row = (None, None, None)
_CACHED = 10_000  # handles whose part of the row is kept; programs that make many must not grow this for ever


class HandlePart:
    """What all records of one handle have in common."""

    __slots__ = ("columns", "context", "metadata", "name", "parent_run_id", "root", "run", "values")

    def __init__(self, context: RunContext) -> None:
        run = context.run
        self.context = context  # kept alive, so that no other handle gets its identity
        self.run: Row = (run.run_id, run.cut_id, run.trace_id, run.attempt)
        self.parent_run_id = run.parent_run_id
        self.name = run.name
        self.columns = _columns(context.columns)
        self.metadata = to_json(context.metadata).decode() if context.metadata else None
        self.root = span_texts(run.span_id, run.parent_span_id)
        self.values: Row = (*self.run, self.parent_run_id, self.name, *self.columns)


class RowEncoder:
    """Makes rows; keeps what the records of one handle have in common. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._parts: dict[int, HandlePart] = {}

    def encode(self, records: Sequence[Record]) -> list[Row]:
        """For each record the values of :data:`NEEDED` and :data:`OPTIONAL`, in that order.

        Neighbours share most of what they say: what is the same as for the record before is not made again.

        Raises:
            TypeError: a value is not in canonical form, as are ValueError, KeyError and IndexError.
        """
        rows: list[Row] = []
        if not records:
            return rows
        context, site = records[0].context, None
        part = self._parts.get(id(context)) or self._new_part(context)
        span_id = parent_span_id = -1
        span = parent = filename = lineno = None
        for record in records:
            if record.context is not context:
                context = record.context
                part = self._parts.get(id(context)) or self._new_part(context)
            if record.site is not site:
                site = record.site
                filename, lineno = site.filename, site.lineno
            if record.span_id != span_id or record.parent_span_id != parent_span_id:
                span_id, parent_span_id = record.span_id, record.parent_span_id
                span, parent = span_texts(span_id, parent_span_id)
            own = record.own_fields
            if not own:
                columns, metadata = part.columns, part.metadata
            elif _COLUMN_FIELDS.isdisjoint(own):
                columns = part.columns
                metadata = to_json({**context.metadata, **own} if context.metadata else own).decode()
            else:
                filled, rest = split_fields(context, own)
                columns, metadata = _columns(filled), to_json(rest).decode() if rest else None
            usage, status, exception = record.usage, record.status, record.exception
            rows.append(
                (
                    *part.run,
                    _LABELS[record.level],
                    record.message,
                    timestamp.to_text(record.time_ns),
                    record.thread,
                    filename,
                    lineno,
                    record.seq,
                    part.parent_run_id,
                    part.name,
                    span,
                    parent,
                    usage.memory_mb if usage is not None else None,
                    usage.cpu_percent if usage is not None else None,
                    record.duration_ms,
                    status.label if status is not None else None,
                    record.task,
                    *(_NO_EXCEPTION if exception is None else _exception(exception)),
                    *columns,
                    metadata,
                    _KINDS[record.kind],
                )
            )
        return rows

    def part(self, context: RunContext) -> HandlePart:
        """What all records of the handle have in common."""
        return self._parts.get(id(context)) or self._new_part(context)

    def _new_part(self, context: RunContext) -> HandlePart:
        if len(self._parts) >= _CACHED:
            self._parts.clear()
        part = self._parts[id(context)] = HandlePart(context)
        return part


def span_texts(span_id: int, parent_span_id: int) -> tuple[str | None, str | None]:
    """The ids of a span and of the one above it as text."""
    return f"{span_id:016x}" if span_id else None, f"{parent_span_id:016x}" if parent_span_id else None


def _exception(exception: ExceptionInfo) -> Row:
    return (exception.type, exception.message, exception.stack)


def shared_values(process: ProcessInfo, producer: str) -> Row:
    """The values of :data:`SHARED`."""
    return (
        process.pid,
        process.hostname,
        process.ip_address,
        process.python_version,
        process.package_version,
        producer,
    )


def _columns(filled: Mapping[str, str]) -> Row:
    return tuple(map(filled.get, COLUMN_FIELDS)) if filled else _NO_COLUMNS


READ = (*SHARED, *NEEDED, *OPTIONAL)
"""The columns that a record is made of, in the order in which a reader selects them."""

_DEFAULTS = {
    "producer": "",
    "kind": Kind.LOG.label,
    "trace_id": f"{0:032x}",
    "attempt": "",
    "hostname": "",
    "ip_address": "",
    "python_version": "",
    "package_version": "",
}


def selection(table: str, present: Sequence[str]) -> str:
    """The SQL expressions for :data:`READ` on a table that may have been made by another tool."""
    return ", ".join(name if name in present else _missing(name) for name in READ)


def _missing(name: str) -> str:
    # Without a number of our own, the order of the inserts is the order of the records.
    return f"id AS {name}" if name == "seq" else f"NULL AS {name}"


class RowDecoder:
    """Makes records of rows of :data:`READ`. Not safe for two threads at once."""

    def __init__(self) -> None:
        self._decoder = RecordDecoder()

    def decode(self, row: Row) -> Record:
        """The record that was written; a row of another tool as well as it can be told."""
        columns: dict[str, Any] = {
            name: value for name, value in zip(READ, row, strict=True) if value is not None
        }
        if (metadata := columns.get("metadata")) is not None:
            columns["metadata"] = metadata_of(metadata)
        try:
            return self._decoder.from_dict({**_DEFAULTS, **columns})
        except ValueError:
            return self._decoder.from_dict(_mended(columns))


def metadata_of(text: object) -> dict[str, Any]:
    """The fields in a ``metadata`` column; what another tool wrote there comes back under that name."""
    try:
        value = msgspec.json.decode(text if isinstance(text, str | bytes) else str(text))
    except ValueError:
        value = text
    return value if isinstance(value, dict) else {"metadata": value}


def _mended(columns: Mapping[str, Any]) -> dict[str, Any]:
    """What another tool wrote, with a usable value wherever its own is none."""
    mended: dict[str, Any] = {**_DEFAULTS}
    for name, value in columns.items():
        if name in _NUMBERS:
            if isinstance(value, int | float):
                mended[name] = value
        elif name == "metadata":
            mended[name] = value
        else:
            mended[name] = value if isinstance(value, str) else str(value)
    mended["level"] = _level(mended.get("level"))
    mended["datetime"] = _moment(mended.get("datetime"))
    mended["status"] = None
    for name in _HEX:
        if not _is_hex(mended.get(name)):
            mended[name] = _DEFAULTS.get(name)
    for name in ("process", "thread", "lineno", "seq"):
        mended.setdefault(name, 0)
    for name in ("run_id", "message", "filename"):
        mended.setdefault(name, "")
    return mended


_NUMBERS = frozenset(
    {"process", "thread", "lineno", "seq", "memory_usage_mb", "cpu_usage_percent", "duration_ms"}
)
_HEX = ("trace_id", "span_id", "parent_span_id")


def _level(text: object) -> str:
    try:
        return Level.parse(text).label
    except ConfigurationError:
        return Level.INFO.label


def _moment(text: object) -> str:
    try:
        return timestamp.to_text(timestamp.from_text(str(text)))
    except ValueError:
        return timestamp.to_text(0)


def _is_hex(text: object) -> bool:
    try:
        return int(str(text), 16) >= 0
    except ValueError:
        return False
