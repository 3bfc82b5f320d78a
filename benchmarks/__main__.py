"""``python -m benchmarks``: measure, print the table of ratios, write the results as JSON.

Ends with 0 when every figure was measured, whatever it was; 1 when a job failed; 2 for a wrong argument.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from benchmarks import report
from benchmarks.figures import Group, Result
from benchmarks.harness import JobError, Values

_MODULES = (
    "emit",
    "spans",
    "threads",
    "jsonl",
    "sqlite",
    "service",
    "workflow",
    "memory",
    "imports",
    "neighbours",
)


def _groups() -> list[Group]:
    return [group for module in _MODULES for group in import_module(f"benchmarks.{module}").GROUPS]


def _order(row: str) -> int:
    return int(row.removeprefix("P"))


def _wanted(group: Group, only: set[str]) -> bool:
    return not only or any(figure.row in only for figure in group.figures)


def _present(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ModuleNotFoundError:  # its parent package is not there
        return False


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what the arguments ask for."""
    groups = _groups()
    rows = sorted({figure.row for group in groups for figure in group.figures}, key=_order)
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", default="", metavar="P1,P8", help=f"rows to measure, of {', '.join(rows)}")
    parser.add_argument(
        "--quick", action="store_true", help="fewer rounds and fewer records: about 3 minutes"
    )
    parser.add_argument(
        "--json", type=Path, metavar="FILE", help="where the results go; a full run has a default"
    )
    options = parser.parse_args(arguments)
    only = {row.strip().upper() for row in options.only.split(",") if row.strip()}
    if unknown := only - set(rows):
        parser.error(f"--only: {', '.join(sorted(unknown))} is unknown; the rows are {', '.join(rows)}")

    began = time.monotonic()
    results: list[Result] = []
    measured: list[tuple[Group, list[Values]]] = []
    failed = False
    for group in groups:
        if not _wanted(group, only):
            continue
        names = ", ".join(sorted({figure.row for figure in group.figures}, key=_order))
        if missing := [module for module in group.needs if not _present(module)]:
            print(f"{names}: skipped, {', '.join(missing)} is not installed here", file=sys.stderr)
            continue
        try:
            rounds = group.measure(quick=options.quick)
        except JobError as error:
            failed = True
            print(f"{names}: failed: {error}", file=sys.stderr)
            continue
        measured.append((group, rounds))
        results += [Result.of(figure, rounds) for figure in group.figures if not only or figure.row in only]
        print(f"{names}: {report.values_table(group, rounds)}", file=sys.stderr, flush=True)
    results.sort(key=lambda result: _order(result.figure.row))
    print(report.table(results))
    print(f"{time.monotonic() - began:.0f} s", file=sys.stderr)
    whole = not only and not options.quick and not failed
    if target := options.json or (report.default_path() if whole else None):
        report.write(target, results, measured, options.quick)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
