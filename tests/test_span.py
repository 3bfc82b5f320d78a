"""A span: what its records hold, how it ends, where it is the current one."""

import asyncio
import contextvars
import threading

import pytest

import asynctrace
from asynctrace import ClosedError, Kind, Level, Record, Status, Trace
from asynctrace.core.context import current_span
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")


def of(sink: MemorySink, *kinds: Kind) -> list[Record]:
    asynctrace.flush(10)
    return [record for record in sink.records if record.kind in kinds]


def test_a_span_records_its_start_and_its_end(trace: Trace, sink: MemorySink) -> None:
    with trace.span("load", table="orders") as span:
        assert current_span.get() is span
        span.warning("slow", ms=812)
    assert current_span.get() is None

    start, log, end = of(sink, Kind.SPAN_START, Kind.LOG, Kind.SPAN_END)
    assert (start.message, start.fields, start.level, start.status) == ("load", {"table": "orders"}, 20, None)
    assert (end.message, end.fields, end.level, end.status) == ("load", {}, 20, Status.OK)
    assert start.duration_ms is None
    assert end.duration_ms is not None
    assert 0 < end.duration_ms < 60_000
    assert start.span_id == log.span_id == end.span_id == span.span_id != 0
    assert start.task is None
    assert span.trace_id == trace.trace_id
    assert span.traceparent == f"00-{trace.trace_id}-{span.span_id:016x}-01"


@pytest.mark.parametrize("colour", ["with", "async with"])
@pytest.mark.parametrize(
    ("error", "status"),
    [
        (ValueError("broken"), Status.ERROR),
        (asyncio.CancelledError(), Status.CANCELLED),
        (KeyboardInterrupt(), Status.CANCELLED),
        (SystemExit(0), Status.OK),
        (SystemExit(1), Status.ERROR),
    ],
    ids=repr,
)
def test_how_a_span_ends(
    trace: Trace, sink: MemorySink, colour: str, error: BaseException, status: Status
) -> None:
    async def main() -> None:
        async with trace.span("s"):
            raise error

    def plain() -> None:
        with trace.span("s"):
            raise error

    with pytest.raises(type(error)) as caught:
        main().send(None) if colour == "async with" else plain()
    assert caught.value is error

    (end,) = of(sink, Kind.SPAN_END)
    assert end.status is status
    assert end.level == (Level.ERROR if status is Status.ERROR else Level.INFO)
    assert (end.exception is not None) == (status is Status.ERROR)
    if end.exception is not None:
        assert end.exception.message == str(error)
        assert "raise error" in end.exception.stack


def test_spans_nest(trace: Trace, sink: MemorySink) -> None:
    with trace.span("outer") as outer:
        with trace.span("inner") as inner:
            trace.info("by the trace")
            outer.info("by the outer span")
        with outer.span("made by the outer") as made:
            trace.info("in it")
        trace.info("outside again")
    trace.info("in no span")

    root = of(sink, Kind.RUN_START)[0].span_id
    places = {record.message: (record.span_id, record.parent_span_id) for record in of(sink, Kind.LOG)}
    assert places == {
        "by the trace": (inner.span_id, outer.span_id),
        "by the outer span": (outer.span_id, root),
        "in it": (made.span_id, outer.span_id),
        "outside again": (outer.span_id, root),
        "in no span": (root, 0),
    }


def test_a_span_made_by_another_belongs_to_it_wherever_it_is_entered(trace: Trace, sink: MemorySink) -> None:
    with trace.span("elsewhere"), trace.span("outer") as outer:
        inner = outer.span("inner", k=1)
    with trace.span("here"), inner:
        pass

    starts = {record.message: record for record in of(sink, Kind.SPAN_START)}
    assert starts["inner"].parent_span_id == outer.span_id
    assert starts["inner"].fields == {"k": 1}


def test_spans_of_concurrent_tasks_do_not_mix(sink: MemorySink) -> None:
    async def work(trace: Trace, name: str) -> None:
        async with trace.span(name):
            await asyncio.sleep(0)
            await trace.ainfo(name)
            async with trace.span(f"{name} deep"):
                await asyncio.sleep(0)
                await trace.ainfo(f"{name} deep")

    async def main() -> None:
        async with Trace(sinks=[sink]) as trace, trace.span("all"), asyncio.TaskGroup() as group:
            for i in range(5):
                group.create_task(work(trace, f"w{i}"), name=f"task {i}")

    asyncio.run(main())

    starts = {record.message: record for record in of(sink, Kind.SPAN_START)}
    for i in range(5):
        assert starts[f"w{i}"].parent_span_id == starts["all"].span_id
        assert starts[f"w{i} deep"].parent_span_id == starts[f"w{i}"].span_id
        assert starts[f"w{i}"].task == f"task {i}"
    for record in of(sink, Kind.LOG):
        assert record.span_id == starts[record.message].span_id


def test_a_span_left_in_another_context_than_entered(trace: Trace, sink: MemorySink) -> None:
    span = trace.span("s")
    contextvars.copy_context().run(span.__enter__)
    span.__exit__(None, None, None)
    assert current_span.get() is None

    with trace.span("outer") as outer:
        inner = trace.span("inner")
        inner.__enter__()
        thread = threading.Thread(target=inner.__exit__, args=(None, None, None))
        thread.start()
        thread.join()
        assert current_span.get() is inner  # nobody can reset it from there
        current_span.set(outer)

    ends = of(sink, Kind.SPAN_END)
    assert [(end.message, end.status) for end in ends] == [(n, Status.OK) for n in ("s", "inner", "outer")]


def test_spans_left_in_another_order_than_entered(trace: Trace, sink: MemorySink) -> None:
    first, second = trace.span("first"), trace.span("second")
    first.__enter__()
    second.__enter__()
    first.__exit__(None, None, None)
    second.__exit__(None, None, None)

    assert [end.message for end in of(sink, Kind.SPAN_END)] == ["first", "second"]
    current_span.set(None)


def test_a_span_is_started_once_and_ended_once(trace: Trace, sink: MemorySink) -> None:
    span = trace.span("s")
    span.end()  # it does not run
    with span:
        with pytest.raises(ClosedError, match="make a new span"):
            span.start()
        span.end()
    span.end()
    with pytest.raises(ClosedError):
        span.__enter__()

    assert [record.kind for record in of(sink, Kind.SPAN_START, Kind.SPAN_END)] == [
        Kind.SPAN_START,
        Kind.SPAN_END,
    ]
    assert current_span.get() is None


def test_started_by_hand_it_is_not_the_current_one(trace: Trace, sink: MemorySink) -> None:
    span = trace.span("s")
    span.start()
    assert current_span.get() is None
    span.info("of it")
    trace.info("not of it")
    span.end(ValueError("broken"))

    root = of(sink, Kind.RUN_START)[0].span_id
    assert [record.span_id for record in of(sink, Kind.LOG)] == [span.span_id, root]
    assert of(sink, Kind.SPAN_END)[0].status is Status.ERROR


def test_an_interrupt_inside_a_field_ends_the_span(trace: Trace, sink: MemorySink) -> None:
    class Interrupting:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), trace.span("s", it=Interrupting()):
        raise AssertionError("not reached")

    assert [record.status for record in of(sink, Kind.SPAN_START, Kind.SPAN_END)] == [None, Status.CANCELLED]
    assert current_span.get() is None


def test_a_name_may_be_anything(trace: Trace, sink: MemorySink) -> None:
    for name in ("", "ü\0", 12, None, "x" * 10):
        with trace.span(name):
            pass

    assert [end.message for end in of(sink, Kind.SPAN_END)] == ["", "ü\0", "12", "None", "x" * 10]


def test_a_span_keeps_the_level_of_its_trace(sink: MemorySink) -> None:
    with Trace(sinks=[sink], level="error") as trace, trace.span("s") as span, span.span("inner") as inner:
        for handle in (span, inner):
            handle.info("no")
            handle.error("yes")

    assert [record.message for record in of(sink, Kind.LOG)] == ["yes", "yes"]
    assert len(of(sink, Kind.SPAN_START)) == 2


def test_a_span_is_left_although_its_exception_interrupts(trace: Trace, sink: MemorySink) -> None:
    class InterruptingError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), trace.span("s"):
        raise InterruptingError
    trace.info("outside")
    start, end, outside = of(sink, Kind.SPAN_START, Kind.SPAN_END, Kind.LOG)
    assert (end.kind, end.status) == (Kind.SPAN_END, Status.ERROR)
    assert outside.span_id != start.span_id
