"""Records as lines of JSON, put together from parts that are encoded once per run, call site, second …

Keys without a value are left out. Encoding a dict of all columns costs several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from json.encoder import encode_basestring
from typing import Any

from asynctrace.core import timestamp
from asynctrace.core.codec import to_json, to_json_lines
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record, Usage
from asynctrace.core.run import COLUMN_FIELDS, RunContext, split_fields
from asynctrace.core.site import Site
from asynctrace.core.timestamp import THREE_DIGITS

_COLUMN_FIELDS = frozenset(COLUMN_FIELDS)
_LEVELS = {
    level: f'","level":"{label}","mode":"{"stderr" if level >= Level.ERROR else "stdout"}","message":'
    for level, label in LABELS.items()
}
_SECOND = 1_000_000_000
_LOG = Kind.LOG


def json_line(record: Record) -> bytes:
    """The record as one JSON object, without a line end; kept on the record for the next lane."""
    return record.json or json_lines((record,))[0]


def json_lines(records: Sequence[Record]) -> list[bytes]:
    """Each record as one JSON object, without a line end; kept on the records for the next lane.

    Neighbours share most of what they say: what is the same as for the record before is not looked up again.
    """
    lines = [record.json for record in records if record.json is not None]
    if len(lines) == len(records):  # another lane has asked before
        return lines
    lines = []
    context = site = usage = kind = producer = None
    head = run_text = site_text = usage_text = thread_text = span_text = ""
    thread = span_id = parent_span_id = second = -1
    messages = _texts([record.message for record in records])
    own_fields = _texts([record.own_fields for record in records])
    # Not strict: a line end is behind the last one, too.
    for record, message, fields_text in zip(records, messages, own_fields, strict=False):
        own_line = record.json
        if own_line is not None:
            lines.append(own_line)
            continue
        micros = (record.time_ns - second) // 1000
        if not 0 <= micros < 1_000_000 or record.kind is not kind or record.producer != producer:
            second = record.time_ns // _SECOND * _SECOND
            micros = (record.time_ns - second) // 1000
            kind, producer = record.kind, record.producer
            head = _head(producer, kind, second)
        if record.context is not context:
            context = record.context
            run_text = _run_text(context)
            bound = bool(context.fields)
        if record.site is not site:
            site = record.site
            site_text = site.json or _site_text(site)
        if record.thread != thread:
            thread = record.thread
            thread_text = f',"thread":{thread}'
        if record.span_id != span_id or record.parent_span_id != parent_span_id:
            span_id, parent_span_id = record.span_id, record.parent_span_id
            span_text = _span_text(span_id, parent_span_id)
        if record.usage is not usage:
            usage = record.usage
            usage_text = _usage_text(usage)
        own = record.own_fields
        if not own:
            fields_text = context.fields_json or _bound_text(context)
        elif bound or not _COLUMN_FIELDS.isdisjoint(own):
            fields_text = _fields_text(context, own)
        else:
            fields_text = f',"metadata":{fields_text}}}'
        rare = "" if kind is _LOG and record.exception is None else _rare_text(record)
        millis, micros = divmod(micros, 1000)
        line = (
            f'{{"seq":{record.seq}{head}{THREE_DIGITS[millis]}{THREE_DIGITS[micros]}{_LEVELS[record.level]}{message}'
            f"{site_text}{thread_text}{span_text}{usage_text}{rare}{run_text}{fields_text}"
        ).encode()
        record.json = line
        lines.append(line)
    return lines


def _texts(values: Sequence[Any]) -> list[str]:
    """Each value as JSON; one call of the encoder for all, for JSON holds no raw line end."""
    return to_json_lines(values).decode().split("\n")


def _head(producer: str, kind: Kind, second: int) -> str:
    return f',"producer":"{producer}","kind":"{kind.label}","datetime":"{timestamp.to_text(second)[:-6]}'


def _span_text(span_id: int, parent_span_id: int) -> str:
    span = f',"span_id":"{span_id:016x}"' if span_id else ""
    return f'{span},"parent_span_id":"{parent_span_id:016x}"' if parent_span_id else span


def _usage_text(usage: Usage | None) -> str:
    if usage is None:
        return ""
    return f',"memory_usage_mb":{usage.memory_mb},"cpu_usage_percent":{usage.cpu_percent}'


def _rare_text(record: Record) -> str:
    parts: dict[str, Any] = {}
    if record.duration_ms is not None:
        parts["duration_ms"] = record.duration_ms
    if record.status is not None:
        parts["status"] = record.status.label
    if record.task is not None:
        parts["task"] = record.task
    if record.exception is not None:
        parts["exception_type"] = record.exception.type
        parts["exception_message"] = record.exception.message
        parts["stack_trace"] = record.exception.stack
    return _members(parts)


def _site_text(site: Site) -> str:
    site.json = f',"filename":{encode_basestring(site.filename)},"lineno":{site.lineno}'
    return site.json


def _run_text(context: RunContext) -> str:
    if context.json is None:
        run = context.run
        constant = {
            "run_id": run.run_id,
            "parent_run_id": run.parent_run_id,
            "run_name": run.name,
            "attempt": run.attempt,
            "cut_id": run.cut_id,
            "trace_id": run.trace_id,
        }
        context.json = _members({name: value for name, value in constant.items() if value is not None})
    process = context.run.process
    return context.json + (process.json or _process_text(process))


def _process_text(process: ProcessInfo) -> str:
    process.json = _members(
        {
            "process": process.pid,
            "hostname": process.hostname,
            "ip_address": process.ip_address,
            "python_version": process.python_version,
            "package_version": process.package_version,
        }
    )
    return process.json


def _bound_text(context: RunContext) -> str:
    context.fields_json = _fields_text(context, {})
    return context.fields_json


def _fields_text(context: RunContext, own: dict[str, Any]) -> str:
    columns, metadata = split_fields(context, own)
    return f'{_members(columns)},"metadata":{to_json(metadata).decode()}}}'


def _members(values: dict[str, Any]) -> str:
    """The members of a JSON object, each behind a comma."""
    return f",{to_json(values).decode()[1:-1]}" if values else ""
