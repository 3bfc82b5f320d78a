"""Runs as a table."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from asynctrace.cli import screen
from asynctrace.cli.words import duration, moment, one_line

if TYPE_CHECKING:
    from asynctrace import RunSummary


def show(found: list[RunSummary], out: screen.Screen, limit: int) -> None:
    """Print the runs; what could not be read, and that there may be more, goes to standard error.

    Args:
        found: the runs, newest first.
        out: where to.
        limit: how many were asked for; 0 for all.
    """
    if not found:
        print("no runs", file=sys.stderr)
        return
    out.show(
        screen.table(
            ["RUN", "NAME", "STATUS", "STARTED", "DURATION", "RECORDS", "WARNINGS", "ERRORS"],
            [_row(summary) for summary in found],
            right=["DURATION", "RECORDS", "WARNINGS", "ERRORS"],
        )
    )
    for summary in found:
        for problem in summary.problems:
            print(f"{one_line(summary.run_id)}: {one_line(problem)}", file=sys.stderr)
    if len(found) == limit:
        print(f"the newest {limit}; --limit 0 lists all", file=sys.stderr)


def _row(summary: RunSummary) -> list[screen.Text | str]:
    return [
        one_line(summary.run_id),
        one_line(summary.name or ""),
        screen.status_text(summary.status.label),
        moment(summary.started_ns),
        duration(summary.duration_ms),
        f"{summary.records:,}",
        screen.Text(f"{summary.warnings:,}", "yellow" if summary.warnings else "dim"),
        screen.Text(f"{summary.errors:,}", "bold red" if summary.errors else "dim"),
    ]
