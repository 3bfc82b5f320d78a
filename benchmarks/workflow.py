"""P17: ddeutil-workflow 0.0.86, whose documents asynctrace follows: its emit and its buffered SQLite handler.

Its handler cannot run as published. What is missing is supplied here, nothing of what it does is changed:

* its ``Trace`` accepts console and file handlers only: the handler is added after its validation;
* ``flush`` reads ``self._buffer``, which the handler does not have: it gets what ``flush`` was called with;
* it inserts 13 columns that its own ``pre`` does not create: they are added to the table, behind the others;
* it reads 14 attributes that its ``Metadata`` does not have: they are None there, and ``metadata`` is its
  ``metric``, where the three fields are.

The frame layer is set so that its call site is the caller's, as asynctrace's is.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from typing import Any

from asynctrace import Trace
from benchmarks import stores
from benchmarks.emit import info_case
from benchmarks.figures import Figure, Group
from benchmarks.harness import Case, Job, Values, alternate, check
from benchmarks.workload import RETAINED, CountingSink

_MISSING_COLUMNS = (
    "workflow_name",
    "stage_name",
    "job_name",
    "trace_id",
    "span_id",
    "parent_span_id",
    "exception_type",
    "exception_message",
    "stack_trace",
    "error_code",
    "user_id",
    "tenant_id",
    "environment",
)
_EMITTED = 500  # of its records in one sample
_PATH = "store.db"


def _their_trace(*handlers: Any) -> Any:
    from ddeutil.workflow import traces

    # The layers above Metadata.make: Trace.emit, then the caller.
    extras = {"logs_trace_frame_layer": 2, "log_add_emoji": False}
    trace = traces.Trace(run_id="run-00000001", handlers=[], extras=extras)
    trace.handlers.extend(handlers)
    return trace


def _repaired_handler(path: str) -> Any:
    from ddeutil.workflow import traces
    from pydantic import PrivateAttr

    for name in _MISSING_COLUMNS:
        setattr(traces.Metadata, name, None)
    traces.Metadata.metadata = property(lambda self: self.metric)

    class RepairedHandler(traces.SQLiteHandler):  # type: ignore[misc, name-defined]
        _given: list[Any] = PrivateAttr(default_factory=list)

        @property
        def _buffer(self) -> list[Any]:
            return self._given

        def pre(self) -> None:
            super().pre()
            connection = sqlite3.connect(self.path)
            for name in _MISSING_COLUMNS:
                connection.execute(f"ALTER TABLE traces ADD COLUMN {name} TEXT")
            connection.close()

        def flush(self, metadata: list[Any], *, extra: Any = None) -> None:
            self._given = list(metadata)
            super().flush(metadata, extra=extra)

    handler = RepairedHandler(path=path)
    handler.pre()
    return handler


async def emit(samples: int) -> Values:
    """Nanoseconds of caller CPU: both keep their records waiting."""
    theirs = _their_trace()
    theirs.buffer_size = 1 << 30
    theirs._enable_buffer = True

    def run_once() -> float:
        start = time.thread_time_ns()
        for n in range(_EMITTED):
            theirs.emit("order placed", "info", metric={"order_id": n, "user": "u1", "ms": 1.5})
        spent = (time.thread_time_ns() - start) / _EMITTED
        check("ddeutil-workflow", len(theirs._buffer), _EMITTED)
        return spent

    sink = CountingSink()
    async with Trace(sinks=[sink]) as trace:
        cases = {
            "info beside ddeutil": info_case(trace, RETAINED),
            "ddeutil": Case(run_once, theirs._buffer.clear),
        }
        return await alternate(cases, samples)


def theirs_to_sqlite(records: int) -> Values:
    """Microseconds a record through its own buffer, at its default size, into its handler."""
    trace = _their_trace(_repaired_handler(_PATH))
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    with trace.buffer():
        for n in range(records):
            trace.emit("order placed", "info", metric={"order_id": n, "user": "u1", "ms": 1.5})
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    check("ddeutil-workflow to SQLite", stores.stored(_PATH), records)
    return {"ddeutil to SQLite": spent / records / 1000, "ddeutil to SQLite, wall": took / records / 1000}


def ours_to_sqlite(records: int) -> Values:
    """Microseconds a record from ``trace.info`` to the closed file."""
    return asyncio.run(_ours_to_sqlite(records))


async def _ours_to_sqlite(records: int) -> Values:
    import asynctrace.sinks.sqlite  # noqa: F401  # importing is P20's matter

    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    async with Trace("run-00000001", sinks=[f"sqlite:./{_PATH}"]) as trace:
        for n in range(records):
            trace.info("order placed", order_id=n, user="u1", ms=1.5)
        await trace.aflush()
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    check("SQLite end to end", stores.stored(_PATH), records)
    return {"ours to SQLite": spent / records / 1000, "ours to SQLite, wall": took / records / 1000}


GROUPS = (
    Group(
        figures=(
            Figure("P17", "ddeutil-workflow 0.0.86: emit ÷ ours", "ddeutil", "info beside ddeutil", 200.0),
        ),
        jobs=(Job("workflow:emit", {"samples": 5}, {"samples": 3}),),
        rounds=(3, 2),
        needs=("ddeutil.workflow",),
    ),
    Group(
        figures=(
            Figure(
                "P17",
                "ddeutil-workflow: buffered SQLite ÷ ours, by the wall clock",
                "ddeutil to SQLite, wall",
                "ours to SQLite, wall",
                50.0,
            ),
            Figure(
                "P17",
                "ddeutil-workflow: buffered SQLite ÷ ours, by CPU",
                "ddeutil to SQLite",
                "ours to SQLite",
            ),
        ),
        jobs=(
            Job("workflow:theirs_to_sqlite", {"records": 2_000}, {"records": 1_000}),
            Job("workflow:ours_to_sqlite", {"records": 100_000}, {"records": 50_000}),
        ),
        rounds=(3, 2),
        unit="µs a record",
        needs=("ddeutil.workflow",),
    ),
)
