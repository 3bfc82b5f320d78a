"""The table for people and the file for programs."""

from __future__ import annotations

import json
import os
import platform
import sys
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.figures import Group, Result
from benchmarks.harness import ROOT, Values

_ANCHORS = (
    "ddeutil-workflow",
    "eliot",
    "msgspec",
    "opentelemetry-sdk",
    "orjson",
    "picologging",
    "structlog",
)
_HEADINGS = ("", "what", "reached", "min–max", "goal", "")


def default_path() -> Path:
    """Where the result of this Python goes: ``results/cpython-3.11.json`` and its like."""
    name = f"{sys.implementation.name}-{sys.version_info.major}.{sys.version_info.minor}.json"
    return ROOT / "benchmarks" / "results" / name


def table(results: Sequence[Result]) -> str:
    """Aligned columns: row, what, median, min–max, goal, verdict."""
    lines = [_HEADINGS]
    for result in results:
        figure = result.figure
        goal = "" if figure.goal is None else f"{'≤' if figure.sense == 'most' else '≥'} {figure.goal:g}"
        spread = f"{_number(min(result.ratios))}–{_number(max(result.ratios))}"
        lines.append((figure.row, figure.what, _number(result.median), spread, goal, result.verdict))
    widths = [max(len(line[column]) for line in lines) for column in range(len(_HEADINGS))]
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    left = (0, 1, 5)
    padded = (
        cell.ljust(width) if column in left else cell.rjust(width)
        for column, (cell, width) in enumerate(zip(cells, widths, strict=True))
    )
    return "  ".join(padded).rstrip()


def values_table(group: Group, rounds: Sequence[Values]) -> str:
    """The medians behind the ratios, in their unit."""
    medians = {name: median(values[name] for values in rounds) for name in rounds[0]}
    return "; ".join(f"{name} {_number(value)}" for name, value in medians.items()) + f" ({group.unit})"


def _number(value: float) -> str:
    return f"{value:.2f}" if abs(value) < 10 else f"{value:.1f}" if abs(value) < 100 else f"{value:,.0f}"


def write(
    path: Path, results: Sequence[Result], measured: Sequence[tuple[Group, Sequence[Values]]], quick: bool
) -> None:
    """Everything that was measured, and on what."""
    document: dict[str, Any] = {
        "machine": {
            "python": platform.python_version(),
            "implementation": sys.implementation.name,
            "system": f"{platform.system()} {platform.machine()}",
            "processors": os.cpu_count(),
        },
        "versions": _versions(),
        "quick": quick,
        "figures": [
            {
                "row": result.figure.row,
                "what": result.figure.what,
                "median": round(result.median, 4),
                "min": round(min(result.ratios), 4),
                "max": round(max(result.ratios), 4),
                "rounds": len(result.ratios),
                "goal": result.figure.goal,
                "sense": result.figure.sense if result.figure.goal is not None else None,
                "verdict": result.verdict or None,
            }
            for result in results
        ],
        "values": [
            {
                "unit": group.unit,
                "rounds": [{name: round(v, 4) for name, v in values.items()} for values in rounds],
            }
            for group, rounds in measured
        ],
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def _versions() -> dict[str, str]:
    found = {}
    for name in ("asynctrace", *_ANCHORS):
        try:
            found[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return found
