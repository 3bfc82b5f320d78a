"""The types that a user's checker sees; ``tests/test_typed_api.py`` has mypy read it in strict mode."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from datetime import datetime
from typing import Any, assert_type

import asynctrace
from asynctrace import (
    Batch,
    BoundTrace,
    ContextExecutor,
    FlushReport,
    LaneOptions,
    LaneReport,
    Level,
    NoTrace,
    Pipeline,
    PipelineStats,
    Reader,
    Receipt,
    Record,
    RunSummary,
    Sink,
    Span,
    SpanNode,
    Status,
    StoredRun,
    Trace,
    traced,
)


class MySink:
    async def open(self) -> None: ...
    async def write(self, batch: Batch) -> None:
        for record in batch:
            assert_type(record, Record)
            assert_type(record.fields, dict[str, Any])

    async def aclose(self) -> None: ...


def recording() -> None:
    sink: Sink = MySink()
    with Trace(
        "r", parent_run_id="p", sinks=["memory:", MySink(), (sink, LaneOptions())], level="info"
    ) as trace:
        assert_type(trace, Trace)
        assert_type(trace.run_id, str)
        assert_type(trace.parent_run_id, str | None)
        assert_type(trace.trace_id, str)
        assert_type(trace.status, Status)
        assert_type(trace.fields, dict[str, Any])
        assert_type(trace.pipeline, Pipeline)
        assert_type(trace.info("%s", 1, rows=2, **{"": 3}), None)
        assert_type(trace.bind(a=1), BoundTrace)
        assert_type(trace.bind(a=1).bind(b=2).opt(stacklevel=2), BoundTrace)
        trace.log(Level.INFO, object())
        trace.exception("x", exc_info=ValueError())
        with trace.span("s", table="orders") as span:
            assert_type(span, Span)
            assert_type(span.span("t"), Span)
            assert_type(span.traceparent, str)
        added = trace.add_sink("memory:", level="debug")
        trace.remove_sink(added)
        assert_type(trace.flush(1.0), FlushReport)
    Trace(7)  # type: ignore[arg-type]
    Trace("r", "p")  # type: ignore[call-arg]
    trace.opt(stacklevel="2")  # type: ignore[arg-type]
    Trace(sinks=[1])  # type: ignore[list-item]


async def awaiting() -> None:
    async with Trace() as trace, trace.span("s") as span:
        assert_type(trace, Trace)
        assert_type(span, Span)
        later: Coroutine[Any, Any, None] = trace.ainfo("x")
        assert_type(await later, None)
        await asyncio.create_task(span.awarning("x"))
        await asyncio.gather(trace.bind(a=1).adebug("x"), trace.alog("info", "x"))
        assert_type((await trace.aflush(1.0)).ok, bool)
    async with trace.receipt(to="disk", timeout=None) as receipt:
        assert_type(receipt, Receipt)
    with trace.bind(a=1).receipt(), asynctrace.current_trace().receipt() as inner:
        assert_type(inner.lanes, tuple[LaneReport, ...])
    trace.receipt(to="moon")  # type: ignore[arg-type]
    await trace.aclose(1.0)
    assert_type(await asynctrace.afind_traces(since=datetime.now()), list[RunSummary])
    assert_type(await asynctrace.afind_trace("r"), StoredRun)
    assert_type((await asynctrace.aflush()).lanes, tuple[LaneReport, ...])
    await asynctrace.ashutdown()


def process_wide(reader: Reader) -> None:
    assert_type(asynctrace.configure("memory:", MySink(), level="info"), Pipeline)
    assert_type(asynctrace.get_trace("r", "p", {"user_id": 1}), Trace)
    assert_type(asynctrace.current_trace(), Trace | NoTrace)
    assert_type(asynctrace.stats(), tuple[PipelineStats, ...])
    asynctrace.current_trace().bind(a=1).info("x")
    with asynctrace.current_trace().span("s") as span:
        assert_type(span, Span)
    run = asynctrace.find_trace("r", reader)
    assert_type(run, StoredRun)
    assert_type(run.records, tuple[Record, ...])
    assert_type(run.attempts(), list[SpanNode])
    assert_type([record for record in run], list[Record])
    assert_type(asynctrace.find_traces("sqlite:t.db", level="error", limit=3), list[RunSummary])
    asynctrace.find_traces(levle="error")  # type: ignore[call-arg]


@traced
def plain(a: int, *, b: str) -> float:
    return float(a)


@traced("named", table="orders")
async def awaited(a: int) -> str:
    return str(a)


@traced()
def steps() -> Iterator[int]:
    yield 1


@traced
async def async_steps() -> AsyncIterator[int]:
    yield 1


async def decorated() -> None:
    assert_type(plain(1, b=""), float)
    assert_type(await awaited(1), str)
    assert_type(next(iter(steps())), int)
    async for item in async_steps():
        assert_type(item, int)
    plain("1", b="")  # type: ignore[arg-type]


def executors() -> None:
    with ContextExecutor(ThreadPoolExecutor()) as pool:
        assert_type(pool.submit(plain, 1, b=""), Future[float])
    assert_type(asynctrace.in_context(plain, 1), Callable[..., float])
