"""A record as people read it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import asynctrace
from asynctrace.cli import screen
from asynctrace.cli.words import duration, fields_text, one_line, precise_moment, printable

if TYPE_CHECKING:
    from asynctrace import Record

_MARKS = {"span_start": "▸ ", "run_start": "▶ ", "span_end": "■ ", "run_end": "■ "}
_DETAIL = "    "


def record_text(record: Record, *, when: str, fields: Mapping[str, Any], stacks: bool) -> screen.Text:
    """Time, level, message, fields; an exception stands out.

    Args:
        record: the record.
        when: its time, in words.
        fields: those to tell.
        stacks: whether the stack trace follows.
    """
    text = screen.Text(f"{when} ", "dim")
    text.append_text(screen.level_text(record.level, asynctrace.Level(record.level).label))
    text.append(" " + printable(record.message), _message_style(record))
    if fields:
        text.append("  " + fields_text(fields), "cyan")
    append_exception(text, record, stacks=stacks)
    return text


def tail_line(record: Record, *, stacks: bool) -> screen.Text:
    """One record on one line of its own, with the run it belongs to; stack traces follow it."""
    run = record.context.run
    text = screen.Text(f"{precise_moment(record.time_ns)} ", "dim")
    text.append_text(screen.level_text(record.level, asynctrace.Level(record.level).label))
    text.append(f" {one_line(run.cut_id)} ", "blue")
    text.append(_MARKS.get(record.kind.label, ""), "bold")
    text.append(one_line(record.message), _message_style(record))
    if record.kind.label.endswith("_end"):
        status = record.status.label if record.status is not None else ""
        text.append(f" {status} {duration(record.duration_ms)}", screen.STATUS_STYLES.get(status, ""))
    elif record.kind is not asynctrace.Kind.RUN_START and (fields := record.fields):
        text.append("  " + fields_text(fields), "cyan")
    append_exception(text, record, stacks=stacks)
    return text


def append_exception(text: screen.Text, record: Record, *, stacks: bool) -> None:
    """Add what the record's exception says, if it has one."""
    exception = record.exception
    if exception is None:
        return
    text.append(f"  {one_line(exception.type)}: {one_line(exception.message)}", "bold red")
    if stacks:
        lines = printable(exception.stack.rstrip()).split("\n")
        text.append("".join(f"\n{_DETAIL}{line}" for line in lines), "red")


def _message_style(record: Record) -> str:
    return screen.LEVEL_STYLES.get(record.level, "") if record.level >= asynctrace.Level.WARNING else ""
