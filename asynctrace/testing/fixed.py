"""Ids and times that are the same in every run of a test."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from msgspec import field

import asynctrace.emitter
import asynctrace.span
import asynctrace.trace  # noqa: F401  # and the writer with it: whoever takes the time must be loaded by now
from asynctrace.core import ids
from asynctrace.core.record import RawRecord
from asynctrace.testing.clock import ManualClock


@contextmanager
def fixed_ids(seed: int = 0) -> Iterator[None]:
    """Inside, ids follow from the seed: of runs, traces, spans, attempts and producers, for the whole process.

    Ids are given out in the order in which they are asked for, so only code that always takes the same turns gets
    the same ids.

    Args:
        seed: another one gives other ids.

    Example:
        >>> from asynctrace import Trace
        >>> with fixed_ids(7):
        ...     first = Trace(sinks=["memory:"]).run_id
        >>> with fixed_ids(7):
        ...     Trace(sinks=["memory:"]).run_id == first
        True
    """
    module: Any = ids
    before = module._random, module.span_ids, module.time
    draw = random.Random(seed)
    module._random, module.span_ids = draw, itertools.count(draw.getrandbits(63) + 1)
    module.time = ManualClock()  # an id of a run begins with the time that it was made
    try:
        yield
    finally:
        module._random, module.span_ids, module.time = before


@contextmanager
def fixed_time(clock: ManualClock | None = None) -> Iterator[ManualClock]:
    """Inside, records are stamped, and spans measured, by a clock that the test moves; for the whole process.

    Deadlines and pauses of delivery go on by the machine's clock: a test that had to move them would hang.

    Args:
        clock: by default one that stands at 2023-11-14 22:13:20 UTC.

    Example:
        >>> from asynctrace import Trace
        >>> with fixed_time() as clock, Trace("run-1", sinks=["memory:"]) as trace:
        ...     with trace.span("load") as span:
        ...         clock.advance(1.5)
    """
    moved = clock or ManualClock()

    class Stamped(RawRecord, gc=False):
        time_ns: int = field(default_factory=moved.time_ns)

    by_hand: dict[object, object] = {
        time.time_ns: moved.time_ns,
        time.perf_counter_ns: lambda: round(moved.monotonic() * 1_000_000_000),
        RawRecord: Stamped,
    }
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    for name, module in list(sys.modules.items()):
        if name.startswith("asynctrace.") and not name.startswith("asynctrace.testing"):
            for attribute, value in list(vars(module).items()):
                if value is time.time_ns or value is time.perf_counter_ns or value is RawRecord:
                    replaced.append((vars(module), attribute, value))
    for names, attribute, value in replaced:
        names[attribute] = by_hand[value]
    try:
        yield moved
    finally:
        for names, attribute, value in replaced:
            names[attribute] = value
