"""Problems: what of a store could not be read."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import asynctrace
from asynctrace.cli.words import one_line

if TYPE_CHECKING:
    from asynctrace import Reader


def problems_of(reader: Reader) -> tuple[str, ...]:
    """What the reader could not read so far and that no run tells."""
    return reader.problems() if isinstance(reader, asynctrace.CandidReader) else ()


def tell(problems: Iterable[str]) -> None:
    """Say each on standard error, in a line."""
    for problem in problems:
        print(f"not all could be read: {one_line(problem)}", file=sys.stderr)
