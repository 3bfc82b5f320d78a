"""P1–P3, P5, P6, P19: what recording costs its caller, in CPU time of the calling thread.

The home loop is the measuring loop, which does not yield during a sample: the writer cannot drain, and all
records of the sample wait in the Intake at its end. Between samples the pipeline is flushed, unmeasured.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable
from threading import get_ident
from time import thread_time_ns, time_ns
from typing import Any

from asynctrace import Trace
from asynctrace.core.codec import pack
from asynctrace.core.context import current_span
from asynctrace.core.record import RawRecord
from asynctrace.core.run import RunContext
from benchmarks import anchors
from benchmarks.figures import Figure, Group
from benchmarks.harness import Case, Job, Values, alternate, check
from benchmarks.workload import RETAINED, CountingSink

_getframe, _span = sys._getframe, current_span.get
_LONG_FUNCTION = 500  # lines
_DISABLED_CALLS = 200_000


def floor_case(records: int) -> Case:
    """``deque.append`` of a tuple of the same 12 values, made in line: no Python frame but the loop's own."""
    waiting: deque[tuple[object, ...]] = deque()
    append = waiting.append

    def run_once() -> float:
        run, span, code, lasti = object(), object(), sys._getframe().f_code, 4  # locals are the cheapest
        put, now, ident = append, time_ns, get_ident
        start = thread_time_ns()
        for n in range(records):
            fields = {"order_id": n, "user": "u1", "ms": 1.5}
            put((now(), 20, run, span, "order placed", fields, code, lasti, ident(), 0, "a", "b"))
        return (thread_time_ns() - start) / records

    return Case(run_once, waiting.clear)


def strict_floor_case(records: int) -> Case:
    """The same without asking for the time and the thread: not the same work, for information."""
    waiting: deque[tuple[object, ...]] = deque()
    append = waiting.append

    def run_once() -> float:
        run, span, code, lasti = object(), object(), sys._getframe().f_code, 4  # locals are the cheapest
        put = append
        start = thread_time_ns()
        for n in range(records):
            fields = {"order_id": n, "user": "u1", "ms": 1.5}
            put((123, 20, run, span, "order placed", fields, code, lasti, 77, 0, "a", "b"))
        return (thread_time_ns() - start) / records

    return Case(run_once, waiting.clear)


class _Bare:
    """What a method that takes any fields cannot do without; no level, no unusual values, no bound, no wake-up."""

    __slots__ = ("append", "context")

    def __init__(self, append: Callable[[RawRecord], None], context: RunContext) -> None:
        self.append = append
        self.context = context

    def record(self, message: str, /, *args: object, **fields: object) -> None:
        frame, append = _getframe(1), self.append
        append(RawRecord(20, self.context, _span(), message, pack(fields), frame.f_code, frame.f_lasti))


def bare_case(trace: Trace, records: int) -> Case:
    """A record with clock, thread, call site, span and a copy of its fields, by a method that does nothing else."""
    waiting: deque[RawRecord] = deque()
    bare = _Bare(waiting.append, trace._context)

    def run_once() -> float:
        start = thread_time_ns()
        for n in range(records):
            bare.record("order placed", order_id=n, user="u1", ms=1.5)
        return (thread_time_ns() - start) / records

    return Case(run_once, waiting.clear)


def info_case(trace: Trace, records: int) -> Case:
    """``trace.info`` with three fields; the span comes from the context."""

    def run_once() -> float:
        start = thread_time_ns()
        for n in range(records):
            trace.info("order placed", order_id=n, user="u1", ms=1.5)
        return (thread_time_ns() - start) / records

    return Case(run_once, trace.aflush)


def ainfo_case(trace: Trace, records: int) -> Case:
    """``await trace.ainfo`` with three fields."""

    async def run_once() -> float:
        start = thread_time_ns()
        for n in range(records):
            await trace.ainfo("order placed", order_id=n, user="u1", ms=1.5)
        return (thread_time_ns() - start) / records

    return Case(run_once, trace.aflush)


def long_function_case(trace: Trace, records: int) -> Case:
    """``trace.info`` at the end of a function of 500 lines; looking up the line would walk its line table."""
    lines = ["def run_once():", "    if never:"]
    lines += [f"        value = [{line}, value]" for line in range(_LONG_FUNCTION - 8)]
    lines += [
        "    start = thread_time_ns()",
        "    for n in range(records):",
        "        trace.info('order placed', order_id=n, user='u1', ms=1.5)",
        "    return (thread_time_ns() - start) / records",
    ]
    names: dict[str, Any] = {}
    # As a closure, like the short function: globals would cost a look-up more.
    factory = "def make(thread_time_ns, trace, records, never):\n" + "\n".join(
        f"    {line}" for line in lines
    )
    exec(compile(factory + "\n    return run_once", "a_long_function.py", "exec"), names)
    run_once: Callable[[], float] = names["make"](thread_time_ns, trace, records, False)
    return Case(run_once, trace.aflush)


async def beside_floor(samples: int) -> Values:
    """P1, P3, P6: asynctrace beside the floors; nothing else is imported."""
    sink = CountingSink()
    async with Trace(sinks=[sink]) as trace, trace.span("checkout"):
        cases = {
            "floor": floor_case(RETAINED),
            "strict floor": strict_floor_case(RETAINED),
            "bare method": bare_case(trace, RETAINED),
            "info": info_case(trace, RETAINED),
            "ainfo": ainfo_case(trace, RETAINED),
            "info in a long function": long_function_case(trace, RETAINED),
        }
        values = await alternate(cases, samples)
    # Four more than were emitted: run and span have a start and an end each.
    check("info and ainfo", sink.count, 3 * (samples + 1) * RETAINED + 4)
    return values


async def with_journal(samples: int) -> Values:
    """P19: a trace whose records are in a journal when the call returns, beside one without and the floor."""
    sink, journaled_sink = CountingSink(), CountingSink()
    os.environ["ASYNCTRACE_STATE_DIR"] = os.getcwd()
    async with (
        Trace(sinks=[sink]) as trace,
        trace.span("checkout"),
        Trace(sinks=[journaled_sink], durability="process") as journaled,
        journaled.span("checkout"),
    ):
        cases = {
            "floor": floor_case(RETAINED),
            "info": info_case(trace, RETAINED),
            "info with journal": info_case(journaled, RETAINED),
        }
        values = await alternate(cases, samples)
        unprotected = journaled.pipeline.stats().unprotected
    check("info", sink.count, (samples + 1) * RETAINED + 4)
    check("info with journal", journaled_sink.count, (samples + 1) * RETAINED + 4)
    check("not in the journal", unprotected, 0)
    return values


async def beside_anchor(anchor: str, samples: int) -> Values:
    """P2: asynctrace beside one other library, which alone is imported."""
    sink = CountingSink()
    async with Trace(sinks=[sink]) as trace, trace.span("checkout"):
        case: Case = getattr(anchors, anchor)(RETAINED)
        values = await alternate({f"info beside {anchor}": info_case(trace, RETAINED), anchor: case}, samples)
    check("info", sink.count, (samples + 1) * RETAINED + 4)
    return values


async def disabled(samples: int) -> Values:
    """P5: a call below the level, beside structlog's."""
    sink = CountingSink()
    async with Trace(sinks=[sink], level="info") as trace:

        def run_once() -> float:
            start = thread_time_ns()
            for n in range(_DISABLED_CALLS):
                trace.debug("order placed", order_id=n, user="u1", ms=1.5)
            return (thread_time_ns() - start) / _DISABLED_CALLS

        values = await alternate(
            {"disabled": Case(run_once), "disabled structlog": anchors.structlog_disabled(_DISABLED_CALLS)},
            samples,
        )
    check("disabled calls", sink.count, 2)
    return values


def _beside(anchor: str) -> Job:
    return Job("emit:beside_anchor", {"anchor": anchor, "samples": 5}, {"samples": 3})


FLOOR = Group(
    figures=(
        Figure("P1", "emit ÷ deque.append of the same 12 values", "info", "floor", 1.5, "most"),
        Figure("P1", "emit ÷ the floor without clock and thread", "info", "strict floor"),
        Figure("P1", "a bare method that copies the fields ÷ floor", "bare method", "floor"),
        Figure("P1", "emit ÷ that bare method", "info", "bare method"),
        Figure("P3", "await ainfo ÷ floor", "ainfo", "floor", 2.0, "most"),
        Figure(
            "P6",
            "emit in a 500-line function ÷ in a short one",
            "info in a long function",
            "info",
            1.05,
            "most",
        ),
    ),
    jobs=(Job("emit:beside_floor", {"samples": 7}, {"samples": 5}),),
    rounds=(7, 2),
)
PICOLOGGING = Group(
    figures=(
        Figure("P2", "picologging with call site ÷ emit", "picologging", "info beside picologging", 7.0),
        Figure("P2", "picologging QueueHandler ÷ emit", "picologging_queue", "info beside picologging_queue"),
    ),
    jobs=(_beside("picologging"), _beside("picologging_queue")),
    needs=("picologging",),
)
LOGGING = Group(
    figures=(
        Figure(
            "P2",
            "logging QueueHandler (SimpleQueue) ÷ emit",
            "logging_queue",
            "info beside logging_queue",
            26.0,
        ),
        Figure(
            "P2",
            "logging QueueHandler (Queue) ÷ emit",
            "logging_slow_queue",
            "info beside logging_slow_queue",
        ),
    ),
    jobs=(_beside("logging_queue"), _beside("logging_slow_queue")),
)
DISABLED = Group(
    figures=(
        Figure(
            "P5", "disabled call ÷ structlog's disabled call", "disabled", "disabled structlog", 0.7, "most"
        ),
    ),
    jobs=(Job("emit:disabled", {"samples": 7}, {"samples": 5}),),
    needs=("structlog",),
)
JOURNAL = Group(
    figures=(
        Figure("P19", "emit with the journal on ÷ emit", "info with journal", "info", 2.1, "most"),
        Figure("P19", "emit with the journal on ÷ floor", "info with journal", "floor", 5.0, "most"),
    ),
    jobs=(Job("emit:with_journal", {"samples": 7}, {"samples": 5}),),
    rounds=(7, 2),
)
GROUPS = (FLOOR, PICOLOGGING, LOGGING, DISABLED, JOURNAL)
