"""A record as one line of JSON, put together from parts that are encoded once per run, handle and call site.

Keys without a value are left out. Encoding a dict of all columns costs four times as much.
"""

from __future__ import annotations

from typing import Any

from asynctrace.core import timestamp
from asynctrace.core.codec import to_json
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record
from asynctrace.core.run import COLUMN_FIELDS, RunContext, split_fields
from asynctrace.core.site import Site

_COLUMN_FIELDS = frozenset(COLUMN_FIELDS)
_LEVELS = {
    level: b'","level":"%b","mode":"%b","message":'
    % (label.encode(), b"stderr" if level >= Level.ERROR else b"stdout")
    for level, label in LABELS.items()
}
_KINDS = {kind: b',"kind":"%b","datetime":"' % kind.label.encode() for kind in Kind}


def json_line(record: Record) -> bytes:
    """The record as one JSON object, without a line end; kept on the record for the next lane."""
    if record.json is None:
        record.json = _encode(record)
    return record.json


def _encode(record: Record) -> bytes:
    context, site = record.context, record.site
    run_json = context.json or _run_json(context)
    process = context.run.process
    process_json = process.json or _process_json(process)
    site_json = site.json or _site_json(site)
    return b"".join(
        (
            b'{"seq":%d' % record.seq,
            b',"producer":"%b"' % record.producer.encode(),
            _KINDS[record.kind],
            timestamp.to_text(record.time_ns).encode(),
            _LEVELS[record.level],
            to_json(record.message),
            site_json,
            b',"thread":%d' % record.thread,
            _rare_json(record),
            run_json,
            process_json,
            _fields_json(context, record.own_fields),
            b"}",
        )
    )


def _rare_json(record: Record) -> bytes:
    parts: dict[str, Any] = {}
    if record.span_id:
        parts["span_id"] = f"{record.span_id:016x}"
    if record.parent_span_id:
        parts["parent_span_id"] = f"{record.parent_span_id:016x}"
    if record.usage is not None:
        parts["memory_usage_mb"] = record.usage.memory_mb
        parts["cpu_usage_percent"] = record.usage.cpu_percent
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
    return b"," + to_json(parts)[1:-1] if parts else b""


def _site_json(site: Site) -> bytes:
    site.json = b',"filename":%b,"lineno":%d' % (to_json(site.filename), site.lineno)
    return site.json


def _run_json(context: RunContext) -> bytes:
    run = context.run
    constant = {
        "run_id": run.run_id,
        "parent_run_id": run.parent_run_id,
        "run_name": run.name,
        "attempt": run.attempt,
        "cut_id": run.cut_id,
        "trace_id": run.trace_id,
    }
    context.json = b"," + to_json({name: value for name, value in constant.items() if value is not None})[1:-1]
    return context.json


def _process_json(process: ProcessInfo) -> bytes:
    constant = {
        "process": process.pid,
        "hostname": process.hostname,
        "ip_address": process.ip_address,
        "python_version": process.python_version,
        "package_version": process.package_version,
    }
    process.json = b"," + to_json(constant)[1:-1]
    return process.json


def _fields_json(context: RunContext, own: dict[str, Any]) -> bytes:
    if not context.fields:
        if not own:
            return b',"metadata":{}'
        if _COLUMN_FIELDS.isdisjoint(own):
            return b',"metadata":' + to_json(own)
    columns, metadata = split_fields(context, own)
    head = b"," + to_json(columns)[1:-1] if columns else b""
    return head + b',"metadata":' + to_json(metadata)
