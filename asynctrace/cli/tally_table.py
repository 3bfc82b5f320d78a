"""A tally as tables."""

from __future__ import annotations

from typing import TYPE_CHECKING

from asynctrace.cli import screen
from asynctrace.cli.words import duration, moment, one_line

if TYPE_CHECKING:
    from asynctrace.cli.screen import RenderableType
    from asynctrace.cli.tally import Tally

_LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40, "critical": 50}


def draw(tally: Tally, limit: int | None) -> list[RenderableType]:
    """The parts to print below each other; lists have at most ``limit`` rows."""
    parts: list[RenderableType] = [_counts(tally)]
    if tally.errors:
        parts += _section("errors")
        rows = [(f"{number:,}", one_line(said)) for said, number in tally.errors.most_common(limit)]
        parts.append(screen.table(["COUNT", "MESSAGE"], rows, right=["COUNT"]))
    if tally.names:
        parts += _section("spans by name")
        parts.append(_names(tally, limit))
        parts += _section("slowest spans")
        parts.append(_slowest(tally, limit))
    for problem in tally.problems:
        parts.append(screen.Text(f"not all could be read: {one_line(problem)}", "bold yellow"))
    return parts


def _section(title: str) -> list[RenderableType]:
    return [screen.Text(f"\n{title}", "bold")]


def _counts(tally: Tally) -> screen.Text:
    text = screen.Text(f"runs     {tally.runs.total():,}")
    for label, number in tally.runs.most_common():
        text.append(f"  {number:,} ")
        text.append_text(screen.status_text(label))
    text.append(f"\nrecords  {tally.levels.total():,}")
    for label, level in _LEVELS.items():
        if label in tally.levels:
            text.append(f"  {tally.levels[label]:,} ")
            text.append(label, screen.LEVEL_STYLES[level])
    text.append(f"\nspans    {tally.started_spans:,}")
    if tally.first_ns is not None and tally.last_ns is not None:
        text.append(f"\nfrom     {moment(tally.first_ns)}\nto       {moment(tally.last_ns)}")
    return text


def _names(tally: Tally, limit: int | None) -> RenderableType:
    headers = ["NAME", "SPANS", "FAILED", "TOTAL", "MEAN", "LONGEST"]
    rows: list[list[screen.Text | str]] = [
        [
            one_line(name),
            f"{each.spans:,}",
            screen.Text(f"{each.failed:,}", "bold red" if each.failed else "dim"),
            duration(each.total_ms),
            duration(each.total_ms / each.spans),
            duration(each.longest_ms),
        ]
        for name, each in tally.by_total(limit)
    ]
    return screen.table(headers, rows, right=headers[1:])


def _slowest(tally: Tally, limit: int | None) -> RenderableType:
    rows: list[list[screen.Text | str]] = [
        [
            duration(record.duration_ms),
            one_line(record.message),
            screen.status_text(record.status.label if record.status is not None else ""),
            one_line(record.run_id),
        ]
        for record in tally.slowest(limit)
    ]
    return screen.table(["DURATION", "NAME", "STATUS", "RUN"], rows, right=["DURATION"])
