"""One line of JSON back to a record; what :mod:`asynctrace.core.encoding` wrote reads back equal.

Records of one run share their :class:`RunContext`, records of one place their :class:`Site`. Bound and own
fields are one object in the line, so all of them come back as the record's own.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from asynctrace.core import timestamp
from asynctrace.core.batch import Mark
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import LABELS
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record, Status, Usage
from asynctrace.core.run import COLUMN_FIELDS, Run, RunContext
from asynctrace.core.site import Site

MARK_KIND = "mark"
"""The ``kind`` of a line that holds a mark in place of a record."""

_CACHED = 10_000  # a store with more runs or places than this must not fill the memory

_LEVELS = {label: level for level, label in LABELS.items()}
_KINDS = {kind.label: kind for kind in Kind}
_STATUSES = {status.label: status for status in Status}


class _Line(Struct):
    # All of Record.to_dict but what follows from the rest: mode and cut_id.
    producer: str
    seq: int
    kind: str
    run_id: str
    level: str
    message: str
    datetime: str
    trace_id: str
    process: int
    thread: int
    filename: str = ""
    lineno: int = 0
    parent_run_id: str | None = None
    run_name: str | None = None
    attempt: str = ""
    duration_ms: float | int | None = None
    status: str | None = None
    task: str | None = None
    memory_usage_mb: float | int | None = None
    cpu_usage_percent: float | int | None = None
    span_id: str | None = None
    parent_span_id: str | None = None
    exception_type: str | None = None
    exception_message: str | None = None
    stack_trace: str | None = None
    hostname: str = ""
    ip_address: str = ""
    python_version: str = ""
    package_version: str = ""
    workflow_name: str | None = None
    stage_name: str | None = None
    job_name: str | None = None
    user_id: str | None = None
    tenant_id: str | None = None
    environment: str | None = None
    error_code: str | None = None
    tags: str | None = None
    metadata: dict[str, Any] = {}


class _MarkLine(Mark, frozen=True, tag_field="kind", tag=MARK_KIND):
    pass


_mark_encoder = msgspec.json.Encoder()
_mark_decoder = msgspec.json.Decoder(_MarkLine)


class RecordDecoder:
    """Reads the lines of one store; keeps what its records have in common.

    Not safe for two threads at once.
    """

    def __init__(self) -> None:
        self._decode = msgspec.json.Decoder(_Line).decode
        self._contexts: dict[tuple[object, ...], RunContext] = {}
        self._sites: dict[tuple[str, int], Site] = {}

    def from_json(self, line: bytes | str) -> Record:
        """The record of one line of :func:`asynctrace.core.encoding.json_line`.

        Raises:
            ValueError: the line is torn or tells something else.
        """
        return self._record(self._decode(line), len(line))

    def from_dict(self, columns: Mapping[str, Any]) -> Record:
        """The record of what :meth:`Record.to_dict` gave; keys that are None may be missing.

        Raises:
            ValueError: a needed key is missing or a value is of another type.
        """
        return self._record(msgspec.convert(columns, _Line), 0)

    def _record(self, line: _Line, size: int) -> Record:
        own = line.metadata
        for name in COLUMN_FIELDS:
            value = getattr(line, name)
            if value is not None:
                own[name] = value
        try:
            return Record(
                line.producer,
                line.seq,
                _KINDS[line.kind],
                timestamp.from_text(line.datetime),
                _LEVELS[line.level],
                self._context(line),
                int(line.span_id, 16) if line.span_id else 0,
                int(line.parent_span_id, 16) if line.parent_span_id else 0,
                line.message,
                own,
                self._site(line.filename, line.lineno),
                line.thread,
                _usage(line),
                size,
                _exception(line),
                line.duration_ms,
                _STATUSES[line.status] if line.status is not None else None,
                line.task,
            )
        except KeyError as error:
            raise ValueError(f"unknown kind, level or status {error}") from error

    def _context(self, line: _Line) -> RunContext:
        process = (line.process, line.hostname, line.ip_address, line.python_version, line.package_version)
        key = (line.run_id, line.attempt, line.parent_run_id, line.run_name, line.trace_id, *process)
        context = self._contexts.get(key)
        if context is None:
            run = Run(
                line.run_id,
                trace_id=int(line.trace_id, 16),
                span_id=0,  # no line tells it; the RUN_START record carries it as its own
                process=ProcessInfo(*process),
                parent_run_id=line.parent_run_id,
                name=line.run_name,
                attempt=line.attempt,
            )
            if len(self._contexts) >= _CACHED:
                self._contexts.clear()
            context = self._contexts[key] = RunContext(run, {})
        return context

    def _site(self, filename: str, lineno: int) -> Site:
        site = self._sites.get((filename, lineno))
        if site is None:
            if len(self._sites) >= _CACHED:
                self._sites.clear()
            site = self._sites[filename, lineno] = Site(filename, lineno)
        return site


def _usage(line: _Line) -> Usage | None:
    if line.memory_usage_mb is None or line.cpu_usage_percent is None:
        return None
    return Usage(line.memory_usage_mb, line.cpu_usage_percent)


def _exception(line: _Line) -> ExceptionInfo | None:
    if line.exception_type is None:
        return None
    return ExceptionInfo(line.exception_type, line.exception_message or "", line.stack_trace or "")


def mark_line(mark: Mark) -> bytes:
    """The mark as one JSON object with the kind :data:`MARK_KIND`, without a line end."""
    fields = {name: getattr(mark, name) for name in Mark.__struct_fields__}
    return _mark_encoder.encode(_MarkLine(**fields))


def mark_of(line: bytes) -> Mark:
    """The mark of one line of :func:`mark_line`.

    Raises:
        ValueError: the line is torn or tells something else.
    """
    fields = _mark_decoder.decode(line)
    return Mark(*(getattr(fields, name) for name in Mark.__struct_fields__))
