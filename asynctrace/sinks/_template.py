"""The text format string of log files, checked once and then filled for every record."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from operator import attrgetter
from string import Formatter
from typing import Any

from asynctrace.core.decoding import RecordDecoder
from asynctrace.core.level import LABELS, Level
from asynctrace.core.record import RawRecord, Record
from asynctrace.core.slice import Slice
from asynctrace.errors import ConfigurationError
from asynctrace.sinks._printable import indented, printable

MARGIN = "    "
"""Stands before every line but the first of one record: no message can pass for another record."""

_SAMPLE: dict[str, Any] = {
    "producer": "0123456789abcdef",
    "seq": 1,
    "kind": "log",
    "run_id": "run",
    "level": "info",
    "message": "text",
    "datetime": "2023-11-14 22:13:20.123456",
    "trace_id": "1" * 32,
    "process": 1,
    "thread": 1,
}
_NUMBERS = ("duration_ms", "memory_usage_mb", "cpu_usage_percent")

_QUICK: dict[str, Callable[[Record], Any]] = {
    "datetime": attrgetter("datetime"),
    "message": attrgetter("message"),
    "level": lambda record: LABELS[record.level],
    "mode": attrgetter("mode"),
    "process": attrgetter("context.run.process.pid"),
    "thread": attrgetter("thread"),
    "run_id": attrgetter("context.run.run_id"),
    "cut_id": attrgetter("context.run.cut_id"),
    "filename": attrgetter("site.filename"),
    "lineno": attrgetter("site.lineno"),
}


_MOVING = ("datetime", "message")  # differ from record to record
_STILL: dict[str, Callable[[RawRecord], Any]] = {
    "level": lambda raw: LABELS[raw.level],
    "mode": lambda raw: "stderr" if raw.level >= Level.ERROR else "stdout",
    "process": attrgetter("run.run.process.pid"),
    "thread": attrgetter("thread"),
    "run_id": attrgetter("run.run.run_id"),
    "cut_id": attrgetter("run.run.cut_id"),
}


class Template:
    """A format string over the keys of :meth:`Record.to_dict`.

    Args:
        text: for example ``"{datetime} ({process:5d}, {thread:5d}) {message}"``. A key without a value gives
            ``""``.

    Raises:
        ConfigurationError: a key is unknown, or a format does not fit its key.
    """

    def __init__(self, text: str) -> None:
        if not isinstance(text, str):
            raise ConfigurationError("format", text, "a format string")
        self.text = text
        self._fields: list[tuple[str, str, str, str]] = []  # literal before it, key, format, conversion
        columns: dict[str, Any] = RecordDecoder().from_dict(_SAMPLE).to_dict()
        try:
            parsed = list(Formatter().parse(text))
        except ValueError as error:
            raise ConfigurationError("format", text, f"a format string ({error})") from error
        pattern = ""
        for literal, key, form, conversion in parsed:
            pattern += literal.replace("{", "{{").replace("}", "}}")
            if key is None:
                self._fields.append((literal, "", "", ""))
                continue
            if key not in columns:
                raise ConfigurationError("format", text, "the keys " + ", ".join(columns))
            self._fields.append((literal, key, form or "", conversion or ""))
            pattern += "{" + (f"!{conversion}" if conversion else "") + (f":{form}" if form else "") + "}"
        self._names = [key for _, key, _, _ in self._fields if key]
        self._pattern = pattern.format
        self._getters = tuple(_QUICK[name] for name in self._names if name in _QUICK)
        self._quick = len(self._getters) == len(self._names)
        self._moving = [name for name in self._names if name in _MOVING]
        self._is_plain = all(
            key in _STILL or (key in _MOVING and not form and not conversion)
            for _, key, form, conversion in self._fields
            if key
        )
        self._tells_run = not {"run_id", "cut_id"}.isdisjoint(self._names)
        self._tells_stack = "stack_trace" in self._names
        self._check(columns)

    def _check(self, columns: dict[str, Any]) -> None:
        sample = {key: "" if value is None else value for key, value in columns.items()}
        sample |= dict.fromkeys(_NUMBERS, 1.5)
        for key, form, conversion in {field[1:] for field in self._fields if field[1]}:
            try:
                f"{{{'!' + conversion if conversion else ''}:{form}}}".format(sample[key])
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise ConfigurationError(
                    "format", self.text, f"a format that fits {key} ({error})"
                ) from error

    def _fill_quickly(self, record: Record) -> str:
        return self._pattern(*[get(record) for get in self._getters])

    def fill(self, record: Record) -> str:
        """The record as one line of text with its line end; more lines stand behind a margin."""
        line = self._fill_quickly(record) if self._quick else self._fill_any(record)
        if record.exception is not None and record.exception.stack and not self._tells_stack:
            line = f"{line}\n{record.exception.stack.rstrip()}"
        if not line.isprintable():
            line = indented(printable(line), MARGIN)
        return line + "\n"

    def fill_slice(self, part: Slice) -> list[bytes]:
        """The same for each record of the slice, as bytes; none of them is made if that can be."""
        raws = part.raws
        if (
            part.is_made
            or part.special
            or not self._is_plain
            or not _are_printable({raw.message for raw in raws})
        ):
            return [self.fill(record).encode() for record in part]
        columns = [
            part.datetimes if name == "datetime" else [raw.message for raw in raws] for name in self._moving
        ]
        process = run = None
        thread = level = -1
        form = ""
        lines = []
        for raw, values in zip(raws, zip(*columns, strict=True) if columns else repeat(()), strict=False):
            its_run = raw.run.run
            if (
                raw.thread != thread
                or raw.level != level
                or its_run.process is not process
                or (its_run is not run and self._tells_run)
            ):
                run, process, thread, level = its_run, its_run.process, raw.thread, raw.level
                form = self._form(raw)
                if not form.isprintable():
                    return [self.fill(record).encode() for record in part]
                form += "\n"
            lines.append((form % values).encode())
        return lines

    def _form(self, raw: RawRecord) -> str:
        """The text for that record, with %s for what moves."""
        still = {name: _STILL[name](raw) for name in self._names if name in _STILL}
        return "".join(
            literal.replace("%", "%%")
            + (
                _formatted(still[key], form, conversion).replace("%", "%%")
                if key in still
                else "%s"
                if key
                else ""
            )
            for literal, key, form, conversion in self._fields
        )

    def _fill_any(self, record: Record) -> str:
        columns = record.to_dict()
        try:
            return self._pattern(*["" if columns[name] is None else columns[name] for name in self._names])
        except (ValueError, TypeError):  # "" under a number's format: that key alone stays empty
            return "".join(
                literal + (_formatted(columns[key], form, conversion) if key else "")
                for literal, key, form, conversion in self._fields
            )


def _are_printable(texts: Iterable[str]) -> bool:
    return "".join(texts).isprintable()


def _formatted(value: Any, form: str, conversion: str) -> str:
    if value is None:
        return ""
    try:
        return f"{{{'!' + conversion if conversion else ''}:{form}}}".format(value)
    except (ValueError, TypeError):
        return str(value)
