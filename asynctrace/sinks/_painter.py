"""A record as a line that people read: time, level, message, fields, place."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from asynctrace.core.codec import to_json
from asynctrace.core.level import LABELS, Level
from asynctrace.core.record import Kind, Record, Status
from asynctrace.sinks._printable import indented, printable

_DIM, _BOLD, _RED, _GREEN, _YELLOW, _CYAN = "2", "1", "31", "32", "33", "36"
_LEVEL_COLORS = {
    Level.DEBUG: _DIM,
    Level.INFO: _GREEN,
    Level.WARNING: _YELLOW,
    Level.ERROR: _RED,
    Level.CRITICAL: f"{_BOLD};{_RED}",
}
_STARTS = (Kind.RUN_START, Kind.SPAN_START)
_INDENT = "  "
_MARGIN = " " * 14  # what follows a record's first line stands under its level
_MESSAGE_WIDTH = 32  # fields of short messages stand in one column
_DEEPEST = 20  # levels that are shown by indentation
_OPEN_SPANS = 10_000  # spans that never end must not fill the memory
_SECONDS_FROM, _MINUTES_FROM = 1_000.0, 60_000.0  # milliseconds


class Painter:
    """Turns records into text. It remembers open spans, to show what is inside of what.

    Args:
        color: whether to colour with ANSI codes (ECMA-48, SGR).
    """

    def __init__(self, *, color: bool) -> None:
        self._color = color
        self._depths: dict[int, int] = {}

    def line(self, record: Record) -> str:
        """The record with its line end; stacks and further lines of the message are indented."""
        depth = self._depth(record)
        label = LABELS[record.level].upper()
        parts = [
            self._paint(_clock(record.time_ns), _DIM),
            self._paint(f"{label:<8}", _LEVEL_COLORS[Level(record.level)]),
            f"{_INDENT * min(depth, _DEEPEST)}{self._message(record)}",
        ]
        fields = "" if record.kind is Kind.RUN_START else self._fields(record.fields)
        place = (
            f"({record.site.filename.rpartition('/')[2]}:{record.site.lineno})"
            if record.site.filename
            else ""
        )
        if fields:
            parts.append(" " + fields)
        if place and record.kind is Kind.LOG:
            parts.append(self._paint(" " + printable(place), _DIM))
        text = " ".join(parts)
        if record.exception is not None:
            stack = record.exception.stack or f"{record.exception.type}: {record.exception.message}"
            text += "\n" + _MARGIN + self._paint(indented(printable(stack.rstrip()), _MARGIN), _RED)
        return text + "\n"

    def _depth(self, record: Record) -> int:
        if record.kind is Kind.LOG:
            return self._depths.get(record.span_id, -1) + 1
        if record.kind is Kind.SPAN_END or record.kind is Kind.RUN_END:
            return self._depths.pop(record.span_id, 0)
        depth = self._depths.get(record.parent_span_id, -1) + 1
        if len(self._depths) >= _OPEN_SPANS:
            self._depths.clear()
        self._depths[record.span_id] = depth
        return depth

    def _message(self, record: Record) -> str:
        message = indented(printable(record.message), _MARGIN)
        if record.kind is Kind.LOG:
            return f"{message:<{_MESSAGE_WIDTH}}" if record.fields else message
        run = record.context.run
        if record.kind in (Kind.RUN_START, Kind.RUN_END):
            message = " ".join(printable(part) for part in (run.name, run.run_id) if part)
            message = indented(message, _MARGIN)
        if record.kind in _STARTS:
            return f"{self._paint('▶', _CYAN)} {self._paint(message, _BOLD)}"
        ended = record.status if record.status is not None else Status.OK
        color = _GREEN if ended is Status.OK else _RED
        took = f" {_duration(record.duration_ms)}" if record.duration_ms is not None else ""
        return (
            f"{self._paint('■', color)} {self._paint(message, _BOLD)}{took} {self._paint(ended.label, color)}"
        )

    def _fields(self, fields: Mapping[str, Any]) -> str:
        return " ".join(
            f"{self._paint(_one_line(name), _CYAN)}={_value(value)}" for name, value in fields.items()
        )

    def _paint(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._color else text


def _clock(time_ns: int) -> str:
    seconds, rest = divmod(time_ns, 1_000_000_000)
    return f"{time.strftime('%H:%M:%S', time.localtime(seconds))}.{rest // 1_000_000:03d}"


def _value(value: Any) -> str:
    if isinstance(value, str) and value and not any(mark in value for mark in ' ="'):
        return _one_line(value)
    return _one_line(to_json(value).decode())


def _one_line(text: str) -> str:
    return printable(text).replace("\n", "\\n").replace("\t", "\\t")


def _duration(milliseconds: float) -> str:
    if milliseconds < _SECONDS_FROM:
        return f"{milliseconds:.1f} ms"
    if milliseconds < _MINUTES_FROM:
        return f"{milliseconds / 1000:.2f} s"
    minutes, rest = divmod(milliseconds / 1000, 60)
    return f"{minutes:.0f} min {rest:.0f} s"
