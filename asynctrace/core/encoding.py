"""Records as lines of JSON, put together from parts that are encoded once per run, call site, second …

Keys without a value are left out. Encoding a dict of all columns costs several times as much.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import repeat
from json.encoder import encode_basestring
from typing import Any

from asynctrace.core import timestamp
from asynctrace.core.codec import to_json, to_json_lines
from asynctrace.core.context import SpanContext, span_of
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, RawRecord, Record, Usage
from asynctrace.core.run import COLUMN_FIELD_SET, RunContext, split_fields
from asynctrace.core.site import Site
from asynctrace.core.slice import Slice, parent_of
from asynctrace.core.timestamp import SECOND_NS, THREE_DIGITS, have_nineteen_digits, micros_of_lines

_LEVELS = {
    level: f'","level":"{label}","mode":"{"stderr" if level >= Level.ERROR else "stdout"}","message":'
    for level, label in LABELS.items()
}
_LEVEL_BYTES = {level: text.encode() for level, text in _LEVELS.items()}
_FIRST, _END = b'{"seq":', b"}\n"
_THOUSAND = 1000
_THREE_DIGITS = [text.encode() for text in THREE_DIGITS]
_LOG = Kind.LOG


def json_line(record: Record) -> bytes:
    """The record as one JSON object, without a line end; kept on the record for the next lane."""
    return record.json or json_lines((record,))[0]


def json_lines(records: Sequence[Record]) -> list[bytes]:
    """Each record as one JSON object, without a line end; kept for the next lane."""
    block = _block_of(records)
    return block[:-1].split(b"\n") if block is not None else _lines_of_records(records)


def json_block(records: Sequence[Record]) -> bytes:
    """The same, each with a line end behind it, in one piece."""
    block = _block_of(records)
    return block if block is not None else b"\n".join([*_lines_of_records(records), b""])


def json_lines_with_ends(records: Sequence[Record]) -> list[bytes]:
    """Each record as one JSON object with a line end; for who needs each line, and shares the records with nobody."""
    if isinstance(records, Slice) and records.block is None and not records.is_shared:
        columns = _columns(records, b"")
        if columns is not None:
            records.let_go_of_fields()
            return [*map(b"".join, zip(*columns, repeat(_END), strict=False))]
    return [line + b"\n" for line in json_lines(records)]


def _block_of(records: Sequence[Record]) -> bytes | None:
    if not isinstance(records, Slice):
        return None
    if records.block is None:
        records.block = _joined_block(records)
        if records.block is not None:
            records.let_go_of_fields()
    return records.block


def _joined_block(part: Slice) -> bytes | None:
    """The lines of the slice, joined of what it is made of; None where that takes a closer look."""
    columns = _columns(part, _END)
    if columns is None:
        return None
    pieces = [b""] * (len(part) * len(columns))
    for place, column in enumerate(columns):
        pieces[place :: len(columns)] = column
    pieces[0] = pieces[0].removeprefix(_END)
    pieces.append(_END)
    return b"".join(pieces)


def _columns(part: Slice, before: bytes) -> list[list[bytes]] | None:
    """What the lines are made of but for their ends, the first pieces of all, the second ones, …; None as above.

    What every record has of its own (time, fields) comes from one call of the encoder, which puts no raw line end into
    any of them; loops look only for what changes from neighbour to neighbour.

    Args:
        before: stands before each line.
    """
    raws, count = part.raws, len(part)
    if part.is_made or not part.is_simple:
        return None
    times = part.times_ns
    ordered = sorted(times)  # they nearly are, so it is one pass
    oldest, newest = ordered[0], ordered[-1]
    if not have_nineteen_digits(oldest, newest):
        return None
    *fields, _ = to_json_lines(part.fields).split(b"\n")  # behind the last line end there is an empty text
    if any(handle.metadata for handle in part.contexts):
        fields = [
            _continued(text) if raw.run.metadata else text for text, raw in zip(fields, raws, strict=True)
        ]
    columns = [
        *_numbers(part.first, count, before + _FIRST),
        _heads(part.producer, times, oldest, newest),
        list(micros_of_lines(to_json_lines(times), count)),
        _middles(part, raws[:1]) * count if _are_alike(raws) else _middles(part, raws),
        fields,
    ]
    for place, line in zip(part.special, _lines_of_records([*part.special.values()]), strict=True):
        for column in columns:
            column[place] = b""
        columns[0][place] = before + line[:-1]
    return columns


def _numbers(first: int, count: int, opening: bytes) -> tuple[list[bytes], list[bytes]]:
    """For each record the beginning of its line, and the last digits of its number, which follow there."""
    if first < _THOUSAND:
        *digits, _ = to_json_lines(range(first, first + count)).split(b"\n")
        return [opening] * count, digits
    beginnings, digits = [], []
    while left := count - len(digits):
        thousands, rest = divmod(first + len(digits), _THOUSAND)
        ends = _THREE_DIGITS[rest : rest + left]
        beginnings += [b"%b%d" % (opening, thousands)] * len(ends)
        digits += ends
    return beginnings, digits


def _are_alike(raws: Sequence[RawRecord]) -> bool:
    """Whether they differ in number, time and own fields only."""
    first = raws[0]
    message, code, lasti, level = first.message, first.code, first.lasti, first.level
    run, span, thread = first.run, first.span, first.thread
    for raw in raws:
        if (
            raw.message is not message
            or raw.code is not code
            or raw.lasti != lasti
            or raw.level != level
            or raw.run is not run
            or raw.span is not span
            or raw.thread != thread
        ):
            return False
    return True


def _middles(part: Slice, raws: Sequence[RawRecord]) -> list[bytes]:
    """For each record what stands between its microseconds and its own fields."""
    messages = list({raw.message for raw in raws})
    message_texts = dict(zip(messages, to_json_lines(messages).split(b"\n"), strict=False))
    resolve, usage_text = part.sites.resolve, _usage_text(part.usage)
    context = span = code = message = None
    opening = near = far = middle = b""
    lasti = thread = level = -1
    middles: list[bytes] = []
    for raw in raws:
        if raw.lasti != lasti or raw.code is not code or raw.message is not message or raw.level != level:
            message, level, code, lasti = raw.message, raw.level, raw.code, raw.lasti
            site = resolve(code, lasti)
            opening = b"%b%b%b" % (_LEVEL_BYTES[level], message_texts[message], site.json or _site_text(site))
            middle = b""
        if raw.span is not span or raw.run is not context:
            context, span = raw.run, raw.span
            far = _far_text(context, span)
            middle = b""
        if raw.thread != thread:
            thread = raw.thread
            near = f',"thread":{thread}{usage_text}'.encode()
            middle = b""
        middles.append(middle := middle or opening + near + far)
    return middles


def _heads(producer: str, times: Sequence[int], oldest: int, newest: int) -> list[bytes]:
    """For each record what stands between its number and its microseconds."""
    if oldest // SECOND_NS == newest // SECOND_NS:
        return [_head(producer, _LOG, oldest).encode()] * len(times)
    seconds = [time_ns // SECOND_NS for time_ns in times]
    heads = {second: _head(producer, _LOG, second * SECOND_NS).encode() for second in set(seconds)}
    return [heads[second] for second in seconds]


def _continued(fields: bytes) -> bytes:
    """A JSON object as further members of one that is open."""
    return b"}" if fields == b"{}" else b"," + fields[1:]


def _lines_of_records(records: Sequence[Record]) -> list[bytes]:
    lines = [record.json for record in records if record.json is not None]
    if len(lines) == len(records):  # another lane has asked before
        return lines
    lines = []
    context = site = usage = kind = producer = None
    head = near = far = ""
    thread = span_id = parent_span_id = second = -1
    messages = _texts([record.message for record in records])
    own_fields = _texts([record.own_fields for record in records])
    for record, message, fields in zip(records, messages, own_fields, strict=False):
        own_line = record.json
        if own_line is not None:
            lines.append(own_line)
            continue
        micros = (record.time_ns - second) // 1000
        if not 0 <= micros < 1_000_000 or record.kind is not kind or record.producer != producer:
            second = record.time_ns // SECOND_NS * SECOND_NS
            micros = (record.time_ns - second) // 1000
            kind, producer = record.kind, record.producer
            head = _head(producer, kind, second)
        if record.site is not site or record.thread != thread or record.usage is not usage:
            site, thread, usage = record.site, record.thread, record.usage
            near = f'{(site.json or _site_text(site)).decode()},"thread":{thread}{_usage_text(usage)}'
        if (
            record.context is not context
            or record.span_id != span_id
            or record.parent_span_id != parent_span_id
        ):
            context, span_id, parent_span_id = record.context, record.span_id, record.parent_span_id
            far = f"{_span_text(span_id, parent_span_id)}{context.json or _run_text(context)}"
        own = record.own_fields
        if not own:
            fields = context.fields_json or _bound_text(context)
        elif context.fields or not COLUMN_FIELD_SET.isdisjoint(own):
            fields = _fields_text(context, own)
        else:
            fields = f',"metadata":{fields}'
        rare = "" if kind is _LOG and record.exception is None else _rare_text(record)
        millis, micros = divmod(micros, 1000)
        line = (
            f'{{"seq":{record.seq}{head}{THREE_DIGITS[millis]}{THREE_DIGITS[micros]}{_LEVELS[record.level]}{message}'
            f"{near}{rare}{far}{fields}}}"
        ).encode()
        record.json = line
        lines.append(line)
    return lines


def _texts(values: Sequence[Any]) -> list[str]:
    """Each value as JSON; one call of the encoder for all, for JSON holds no raw line end."""
    return to_json_lines(values).decode().split("\n")


def _head(producer: str, kind: Kind, second: int) -> str:
    return f',"producer":"{producer}","kind":"{kind.label}","datetime":"{timestamp.to_text(second)[:-6]}'


def _far_text(context: RunContext, span: SpanContext | None) -> bytes:
    """What the records of one handle in one span have in common, up to where their own fields follow."""
    run = context.run
    if span is not None and span.run is not run:
        span = span_of(run, span)
    if span is None:
        if context.root_json is None:
            context.root_json = _with_span(context, run.span_id, run.parent_span_id)
        return context.root_json
    return _with_span(context, span.span_id, parent_of(span))


def _with_span(context: RunContext, span_id: int, parent_span_id: int) -> bytes:
    bound = context.bound_json
    if bound is None:
        metadata = to_json(context.metadata).decode()
        # With bound metadata the object is left open: own fields are its next members.
        bound = f'{_members(context.columns)},"metadata":{metadata[:-1] if context.metadata else ""}'
        context.bound_json = bound
    return f"{_span_text(span_id, parent_span_id)}{context.json or _run_text(context)}{bound}".encode()


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


def _site_text(site: Site) -> bytes:
    site.json = f',"filename":{encode_basestring(site.filename)},"lineno":{site.lineno}'.encode()
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
        process = run.process
        run_text = _members({name: value for name, value in constant.items() if value is not None})
        context.json = run_text + (process.json or _process_text(process))
    return context.json


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
    return f'{_members(columns)},"metadata":{to_json(metadata).decode()}'


def _members(values: dict[str, Any]) -> str:
    """The members of a JSON object, each behind a comma."""
    return f",{to_json(values).decode()[1:-1]}" if values else ""
