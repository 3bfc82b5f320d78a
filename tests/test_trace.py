"""A trace: what its records hold, whom they name, how a run begins and ends."""

import asyncio
import functools
import os
import platform
import re
import socket
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import MappingProxyType
from typing import Any

import msgspec
import numpy
import pytest

import asynctrace
from asynctrace import (
    Batch,
    ClosedError,
    ConfigurationError,
    DeliveryError,
    Kind,
    LaneOptions,
    Level,
    Pipeline,
    Record,
    Status,
    Trace,
    TransientSinkError,
)
from asynctrace.core.timestamp import to_text
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")

METHODS = ["debug", "info", "warning", "error", "critical"]


def logs(sink: MemorySink) -> list[Record]:
    """The log records; what was emitted before has arrived."""
    asynctrace.flush(10)
    return [record for record in sink.records if record.kind is Kind.LOG]


def only(sink: MemorySink) -> Record:
    (record,) = logs(sink)
    return record


def here() -> int:
    """The line of the caller."""
    return sys._getframe(1).f_lineno


# -- two colours ---------------------------------------------------------------------------------------------


def parity_calls() -> list[tuple[str, tuple[Any, ...], dict[str, Any]]]:
    error = ValueError("broken")
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        (name, (f"by {name}",), {"rows": 3, "user_id": "u1"}) for name in METHODS
    ]
    calls += [
        ("info", ("%s of %d", "a", 7), {}),
        ("info", ("bad %d", "x"), {}),
        ("info", (object,), {"": 1, "self": 2, "message": 3, "level": 4, "run_id": 5}),
        ("info", ("a value that C does not take",), {"it": {1, 2, 3}, "nan": float("nan")}),
        ("error", ("with it",), {"exc_info": error}),
        ("exception", ("handled",), {"exc_info": error}),
        ("log", ("warning", "by name"), {}),
        ("log", (35, "by number"), {"level": "mine"}),
        ("log", ("loud", "by no name"), {}),
    ]
    return calls


def comparable(record: Record) -> dict[str, Any]:
    return {
        name: value for name, value in record.to_dict().items() if name not in ("seq", "datetime", "lineno")
    }


def test_both_colours_make_equal_records(sink: MemorySink) -> None:
    async def main() -> None:
        async with Trace("run-42", sinks=[sink]) as trace:
            for name, args, fields in parity_calls():
                getattr(trace, name)(*args, **fields)
                assert await getattr(trace, f"a{name}")(*args, **fields) is None

    asyncio.run(main())

    records = logs(sink)
    assert len(records) == 2 * len(parity_calls())
    for plain, awaited in zip(records[::2], records[1::2], strict=True):
        assert comparable(plain) == comparable(awaited)


def test_an_awaitable_method_records_at_the_call(sink: MemorySink) -> None:
    async def main() -> None:
        async with Trace(sinks=[sink]) as trace:
            trace.ainfo("never awaited")
            await asyncio.gather(*[trace.ainfo("gathered", i=i) for i in range(3)])
            await asyncio.create_task(trace.ainfo("a task"))
            task = asyncio.create_task(trace.ainfo("a cancelled task"))
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            with suppress(TimeoutError):
                await asyncio.wait_for(trace.ainfo("no time"), 0)

    asyncio.run(main())

    assert [record.message for record in logs(sink)] == [
        "never awaited",
        *["gathered"] * 3,
        "a task",
        "a cancelled task",
        "no time",
    ]


# -- messages and fields -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (("plain %d",), "plain %d"),
        (("%s and %r", "a", "b"), "a and 'b'"),
        (("%(a)s", {"a": 1}), "1"),
        (("%(a)s", MappingProxyType({"a": 1})), "1"),
        (("%s", {}), "{}"),
        (("100 %", 5), "100 % (5,)"),
        (("%d", "x"), "%d ('x',)"),
        (("too few %s %s", 1), "too few %s %s (1,)"),
        (("too many", 1, 2), "too many (1, 2)"),
        ((12,), "12"),
        ((None,), "None"),
        ((b"bytes",), "b'bytes'"),
        (("lone \udc80",), "lone \\udc80"),
        (("%s", "lone \udc80"), "lone \\udc80"),
        (("nul \0",), "nul \0"),
    ],
)
def test_messages_are_formatted_as_logging_does_and_never_lost(
    trace: Trace, sink: MemorySink, args: tuple[Any, ...], message: str
) -> None:
    trace.info(*args)

    assert only(sink).message == message


class Hostile:
    """Every question about it raises."""

    def __repr__(self) -> str:
        raise RuntimeError("repr")

    def __bool__(self) -> bool:
        raise RuntimeError("bool")

    def __getattr__(self, name: str) -> Any:
        raise RuntimeError(name)


class HostileText(str):
    def strip(self, *_: Any) -> str:
        raise RuntimeError("strip")


@pytest.mark.parametrize(
    "call",
    [
        lambda trace: trace.info(Hostile()),
        lambda trace: trace.info("%s", Hostile()),
        lambda trace: trace.info("x", it=Hostile(), them=[Hostile()]),
        lambda trace: trace.info("x", exc_info=Hostile()),
        lambda trace: trace.error("x", exc_info=(1, 2)),
        lambda trace: trace.log(Hostile(), "x"),
        lambda trace: trace.log(HostileText("info"), "x"),
        lambda trace: trace.log(None, "x"),
        lambda trace: trace.bind(it=Hostile()).info("x"),
    ],
)
def test_recording_never_raises(trace: Trace, sink: MemorySink, call: Callable[[Trace], None]) -> None:
    call(trace)

    assert len(logs(sink)) == 1


class Stopping:
    """Raises the error whatever it is asked."""

    def __init__(self, error: BaseException) -> None:
        self.error = error

    def _stop(self, *_: object) -> Any:
        raise object.__getattribute__(self, "error")

    __str__ = __repr__ = __iter__ = __len__ = __bool__ = __getattribute__ = __eq__ = __mod__ = _stop
    __hash__ = _stop  # type: ignore[assignment]


class StoppingError(Stopping, Exception):
    """Likewise, as what is recorded with ``exception``."""


class StoppingKind(type):
    """A class of classes that raises whatever it is asked."""

    error: BaseException

    def _stop(cls, *_: object) -> Any:
        raise StoppingKind.error

    __instancecheck__ = __subclasscheck__ = __hash__ = __eq__ = _stop  # type: ignore[assignment]


class OfStoppingKind(metaclass=StoppingKind):
    pass


@pytest.mark.parametrize("durability", [None, "process"])
@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), BaseException("odd")], ids=repr
)
def test_nothing_but_an_interrupt_comes_out_of_a_value(
    error: BaseException, durability: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    StoppingKind.error = error
    sink = MemorySink()
    with Trace("r", sinks=[sink], durability=durability) as trace:
        values = (Stopping(error), StoppingError(error), OfStoppingKind(), {"deep": [Stopping(error)]})
        for value in values:
            trace.info("field", it=value)
            trace.info(value)
            trace.info("args %s %d", value, value)
            trace.info("%(key)s", {"key": value})
            trace.bind(it=value).info("bound")
            trace.log(value, "level")
            trace.error("truth", exc_info=value)
            with trace.span("span", it=value) as span:
                span.info("inside", it=value)
            with trace.span(value):
                pass
        try:
            raise StoppingError(error)
        except StoppingError:
            trace.exception("failed", it=values[0])
        with pytest.raises(StoppingError), trace.span("ends"):
            raise StoppingError(error)
    assert len(logs(sink)) == 8 * len(values) + 1


def test_an_interrupt_out_of_an_exception_comes_after_the_record(trace: Trace, sink: MemorySink) -> None:
    with pytest.raises(KeyboardInterrupt):
        trace.error("kept", exc_info=StoppingError(KeyboardInterrupt()))
    assert only(sink).message == "kept"


def test_an_interrupt_inside_a_value_goes_on_after_the_record_is_kept(trace: Trace, sink: MemorySink) -> None:
    class Interrupting:
        def __repr__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        trace.info("kept", it=Interrupting())
    assert only(sink).message == "kept"


def test_every_field_name_is_allowed(trace: Trace, sink: MemorySink) -> None:
    names = [
        "",
        "self",
        "message",
        "level",
        "run_id",
        "args",
        "fields",
        "trace",
        "stacklevel",
        "ü",
        "a b",
        "1",
    ]
    fields = {name: index for index, name in enumerate(names)}
    trace.info("x", **fields)
    trace.log("info", "x", **fields)
    trace.exception("x", **fields)
    trace.bind(**fields).info("x")
    with trace.span("s", **fields):
        pass

    records = logs(sink)
    assert [record.fields for record in records] == [fields] * 4
    assert {record.run_id for record in records} == {"run-42"}
    (start,) = [record for record in sink.records if record.kind is Kind.SPAN_START]
    assert start.fields == fields


def test_fields_with_the_name_of_a_column(trace: Trace, sink: MemorySink) -> None:
    trace.info(
        "x",
        **{"user_id": 7, "tags": ["a", "b"], "tenant_id": None, "error_code": "E1"},
        **{"trace_id": "otel", "hostname": "mine", "process": -1, "metadata": {"a": 1}},
    )

    columns = only(sink).to_dict()
    assert (columns["user_id"], columns["tags"], columns["error_code"]) == ("7", '["a","b"]', "E1")
    assert columns["tenant_id"] is None
    assert columns["metadata"] == {
        "trace_id": "otel",
        "hostname": "mine",
        "process": -1,
        "metadata": {"a": 1},
    }
    assert columns["trace_id"] == trace.trace_id
    assert columns["process"] == os.getpid()


class Point(msgspec.Struct, gc=False):
    x: int


@pytest.mark.parametrize(
    ("value", "mutate"),
    [
        ([1], lambda value: value.append(2)),
        ({"a": [1]}, lambda value: value["a"].append(2)),
        (bytearray(b"a"), lambda value: value.extend(b"b")),
        (numpy.zeros(2), lambda value: value.fill(9)),
        (Point(1), lambda value: setattr(value, "x", 2)),
        ({1}, lambda value: value.add(2)),
        ([Point(1)], lambda value: setattr(value[0], "x", 2)),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_the_caller_changes_later_does_not_rewrite_history(
    trace: Trace, sink: MemorySink, value: Any, mutate: Callable[[Any], None]
) -> None:
    bound = trace.bind(it=value)
    trace.info("before", it=value)
    bound.info("before, bound")
    with trace.span("before, span", it=value):
        mutate(value)
    trace.info("after", it=value)

    before, with_bound, after = logs(sink)
    (start,) = [record for record in sink.records if record.kind is Kind.SPAN_START]
    assert before.fields == with_bound.fields == start.fields
    assert before.fields != after.fields


# -- exceptions ----------------------------------------------------------------------------------------------


def test_exc_info_is_that_of_logging(trace: Trace, sink: MemorySink) -> None:
    given = KeyError("given")
    try:
        raise ValueError("being handled")
    except ValueError:
        trace.exception("by default")
        trace.error("true", exc_info=True)
        trace.error("one", exc_info=1)
        trace.error("triple", exc_info=sys.exc_info())
        trace.error("given", exc_info=given)
        trace.exception("given too", exc_info=given)
        trace.exception("refused", exc_info=False)
        for nothing in (False, None, 0, "", ()):
            trace.error("nothing", exc_info=nothing)
        trace.error("not asked for")
    trace.exception("nothing is being handled")

    records = {record.message: record for record in logs(sink)}
    for message in ("by default", "true", "one", "triple"):
        exception = records[message].exception
        assert exception is not None
        assert (exception.type, exception.message) == ("ValueError", "being handled")
        assert "Traceback (most recent call last)" in exception.stack
        assert f'File "{__file__}"' in exception.stack
    for message in ("given", "given too"):
        exception = records[message].exception
        assert exception is not None
        assert (exception.type, exception.message) == ("KeyError", "'given'")
    for message in ("refused", "nothing", "not asked for", "nothing is being handled"):
        assert records[message].exception is None
    assert all(record.fields == {} for record in records.values())
    assert {record.level for record in records.values()} == {Level.ERROR}


def test_an_exception_is_kept_as_it_was_at_the_call(trace: Trace, sink: MemorySink) -> None:
    error = ValueError("then")
    trace.error("x", exc_info=error)
    error.args = ("now",)

    exception = only(sink).exception
    assert exception is not None
    assert exception.message == "then"


# -- the columns ---------------------------------------------------------------------------------------------


def test_all_columns_are_true(sink: MemorySink) -> None:
    with Trace(
        "run-0123456789", parent_run_id="job-7", name="checkout", sinks=[sink], fields={"tenant_id": "acme"}
    ) as trace:
        before = to_text(__import__("time").time_ns())
        with trace.span("outer") as outer, trace.span("inner") as inner:
            trace.error("failed", workflow_name="w", stage_name="s", job_name="j", rows=3)
            line = here() - 1
        after = to_text(__import__("time").time_ns())

    columns = only(sink).to_dict()
    usage = columns.pop("memory_usage_mb"), columns.pop("cpu_usage_percent")
    assert 1 < usage[0] < 100_000
    assert 0 <= usage[1] < 10_000
    assert before <= columns.pop("datetime") <= after
    (producer,) = {record.producer for record in sink.records}
    assert columns == {
        "producer": producer,
        "seq": 4,
        "kind": "log",
        "run_id": "run-0123456789",
        "parent_run_id": "job-7",
        "run_name": "checkout",
        "attempt": sink.records[0].context.run.attempt,
        "level": "error",
        "message": "failed",
        "mode": "stderr",
        "process": os.getpid(),
        "thread": threading.get_ident(),
        "filename": __file__,
        "lineno": line,
        "cut_id": "23456789",
        "duration_ms": None,
        "status": None,
        "task": None,
        "trace_id": trace.trace_id,
        "span_id": f"{inner.span_id:016x}",
        "parent_span_id": f"{outer.span_id:016x}",
        "exception_type": None,
        "exception_message": None,
        "stack_trace": None,
        "hostname": platform.node(),
        "ip_address": columns["ip_address"],
        "python_version": platform.python_version(),
        "package_version": asynctrace.__version__,
        "workflow_name": "w",
        "stage_name": "s",
        "job_name": "j",
        "user_id": None,
        "tenant_id": "acme",
        "environment": None,
        "error_code": None,
        "tags": None,
        "metadata": {"rows": 3},
    }
    socket.inet_pton(socket.AF_INET, columns["ip_address"])
    assert len(trace.trace_id) == 32
    int(trace.trace_id, 16)


@pytest.mark.parametrize("name", METHODS)
def test_mode_follows_the_level(trace: Trace, sink: MemorySink, name: str) -> None:
    getattr(trace, name)("x")

    record = only(sink)
    assert record.level == Level.parse(name)
    assert record.mode == ("stderr" if name in ("error", "critical") else "stdout")


# -- the call site -------------------------------------------------------------------------------------------


def site(record: Record) -> tuple[str, int]:
    return record.site.filename, record.site.lineno


def test_the_call_site_is_the_callers(trace: Trace, sink: MemorySink) -> None:
    lines = [here()]
    trace.info("a plain call")
    lines.append(here() - 1)
    trace.info(
        "over several lines",
        x=1,
    )
    lines.append(here() - 4)
    trace.exception("another method")
    lines.append(here() - 1)
    trace.log("info", "one more", x={1})
    lines.append(here() - 1)
    call = lambda: trace.info("in a lambda")  # noqa: E731
    lines.append(here() - 1)
    call()
    trace.bind(a=1).info("bound")
    lines.append(here() - 1)
    functools.partial(trace.info, "partial")()
    lines.append(here() - 1)
    with trace.span("s") as span:
        span.info("%s", "of a span")
        lines.append(here() - 1)

    assert [site(record) for record in logs(sink)] == [(__file__, line) for line in lines[1:]]
    start, end = [record for record in sink.records if record.kind in (Kind.SPAN_START, Kind.SPAN_END)]
    assert site(start) == (__file__, lines[-1] - 1)
    assert end.site.filename == __file__


def test_the_call_site_through_await_gather_and_tasks(sink: MemorySink) -> None:
    lines = []

    async def main() -> None:
        async with Trace(sinks=[sink]) as trace:
            await trace.ainfo("awaited")
            lines.append(here() - 1)
            await asyncio.gather(trace.ainfo("%s", "gathered"), trace.aexception("gathered"))
            lines.extend([here() - 1] * 2)
            await asyncio.create_task(trace.alog(20, "task"))
            lines.append(here() - 1)

    asyncio.run(main())

    assert [site(record) for record in logs(sink)] == [(__file__, line) for line in lines]


def test_the_call_site_in_code_that_is_in_no_file(trace: Trace, sink: MemorySink) -> None:
    exec("\n\ntrace.info('x')", {"trace": trace})
    eval("trace.info('x')", {"trace": trace})

    assert [site(record) for record in logs(sink)] == [("<string>", 3), ("<string>", 1)]


def test_the_call_site_in_threads(trace: Trace, sink: MemorySink) -> None:
    def work() -> None:
        trace.info("x")

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()

    record = only(sink)
    assert site(record) == (__file__, work.__code__.co_firstlineno + 1)
    assert record.thread == thread.ident


def test_a_wrapper_names_the_call_site_of_its_caller(trace: Trace, sink: MemorySink) -> None:
    def announce(message: str, **fields: Any) -> None:
        trace.opt(stacklevel=2).info(message, **fields)

    def logged(function: Callable[[], None]) -> Callable[[], None]:
        @functools.wraps(function)
        def call() -> None:
            trace.opt(stacklevel=2).bind(by="decorator").ainfo("called")
            function()

        return call

    @logged
    def work() -> None:
        trace.info("inside")

    announce("x")
    line = here() - 1
    work()
    trace.opt().info("the caller itself")
    trace.opt(stacklevel=1000).info("beyond the bottom")

    records = logs(sink)
    assert site(records[0]) == (__file__, line)
    assert site(records[1]) == (__file__, line + 2)
    assert site(records[2]) == (__file__, work.__wrapped__.__code__.co_firstlineno + 2)  # type: ignore[attr-defined]
    assert site(records[3]) == (__file__, line + 3)
    assert records[4].message == "beyond the bottom"
    with pytest.raises(ConfigurationError, match="stacklevel: 0 cannot be used"):
        trace.opt(stacklevel=0)


# -- handles -------------------------------------------------------------------------------------------------


def test_bind_makes_a_new_handle_and_changes_nothing(trace: Trace, sink: MemorySink) -> None:
    first = trace.bind(a=1, user_id="u1")
    second = first.bind(a=2, b=3)
    trace.info("trace")
    first.info("first", c=4)
    second.info("second", b=5)
    with second.span("s", d=6) as span:
        span.info("in it")

    assert [record.fields for record in logs(sink)] == [
        {},
        {"a": 1, "c": 4, "user_id": "u1"},
        {"a": 2, "b": 5, "user_id": "u1"},
        {"a": 2, "b": 3, "user_id": "u1"},
    ]
    assert first.fields == {"a": 1, "user_id": "u1"}
    assert trace.fields == {}
    assert {record.run_id for record in sink.records} == {first.run_id} == {second.run_id}
    assert (first.trace_id, second.trace_id) == (trace.trace_id, trace.trace_id)


def test_given_fields_are_on_every_record(sink: MemorySink) -> None:
    with Trace(sinks=[sink], fields={"user_id": "u1", "a": [1], 2: "two"}) as trace:  # type: ignore[dict-item]
        trace.info("x")
        with trace.span("s"):
            pass
        trace.fields.clear()

    assert len(sink.records) == 5
    facts = {"process_started", "boot_id"}
    for record in sink.records:
        assert {k: v for k, v in record.fields.items() if k not in facts} == {
            "user_id": "u1",
            "a": [1],
            "2": "two",
        }


# -- levels --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("level", ["info", "WARNING", Level.ERROR, 50, "warn"])
def test_below_its_level_a_trace_records_nothing(sink: MemorySink, level: Any) -> None:
    lowest = Level.parse(level)

    async def main() -> None:
        async with Trace(sinks=[sink], level=level) as trace:
            with trace.span("s") as span:
                for handle in (trace, span, trace.bind(a=1), trace.opt(), span.span("inner")):
                    for name in METHODS:
                        getattr(handle, name)(name, exc_info=True)
                        await getattr(handle, f"a{name}")("%s", name)
                        handle.log(name, name)
                        await handle.alog(Level.parse(name), name)
                    handle.exception("error")
                    await handle.aexception("error")

    asyncio.run(main())

    kept = sum(Level.parse(name) >= lowest for name in METHODS) * 4 + (2 if lowest <= Level.ERROR else 0)
    records = logs(sink)
    assert len(records) == 5 * kept
    assert all(record.level >= lowest for record in records)
    assert [r.kind for r in sink.records if r.kind is not Kind.LOG] == [
        Kind.RUN_START,
        Kind.SPAN_START,
        Kind.SPAN_END,
        Kind.RUN_END,
    ]


@pytest.mark.parametrize("method", ["debug", "adebug"])
def test_a_trace_that_opens_itself_keeps_its_level_from_the_first_record(
    sink: MemorySink, method: str
) -> None:
    for call in (getattr(Trace(sinks=[sink], level="info"), method), Trace(sinks=[sink], level=30).log):
        call("debug", "x")
    asynctrace.flush(10)

    assert [record.kind for record in sink.records] == [Kind.RUN_START] * 2


def test_a_level_is_given_by_name_or_number(trace: Trace, sink: MemorySink) -> None:
    for level in ("debug", "Info", "WARN", "fatal", 10, 25, 45, 1_000, 3, Level.ERROR):
        trace.log(level, "x")
    trace.log("loud", "x")
    trace.log(-1, "x", level="mine")
    trace.log(True, "x")

    records = logs(sink)
    assert [r.level for r in records] == [10, 20, 30, 50, 10, 20, 40, 50, 10, 40, 20, 20, 20]
    assert [r.fields for r in records[-3:]] == [{"level": "loud"}, {"level": "mine"}, {"level": True}]


def test_a_level_that_is_none_is_told_where_it_is_given() -> None:
    with pytest.raises(ConfigurationError, match="level: 'loud' cannot be used; allowed: debug, info"):
        Trace(sinks=["memory:"], level="loud")


# -- sinks while records flow --------------------------------------------------------------------------------


def test_sinks_come_and_go_while_records_flow(sink: MemorySink) -> None:
    count, ready, stop = 0, threading.Event(), threading.Event()
    with Trace(sinks=[sink]) as trace:

        def produce() -> None:
            nonlocal count
            while not stop.is_set():
                trace.info("x", i=count)
                count += 1
                if count % 200 == 0:
                    ready.set()
                    trace.flush(10)

        thread = threading.Thread(target=produce)
        thread.start()
        assert ready.wait(10)
        extra = trace.add_sink("memory:")
        assert trace.sinks() == [sink, extra]
        assert trace.sinks(MemorySink) == [sink, extra]
        assert trace.sinks(int) == []
        while not extra.records:  # type: ignore[attr-defined]
            trace.flush(10)
        trace.remove_sink(extra)
        kept = [record.fields["i"] for record in extra.records if record.kind is Kind.LOG]  # type: ignore[attr-defined]
        assert trace.sinks() == [sink]
        with pytest.raises(ConfigurationError, match="sink: '<MemorySink of"):
            trace.remove_sink(extra)
        stop.set()
        thread.join()

    assert kept == list(range(kept[0], kept[0] + len(kept)))
    assert [record.fields["i"] for record in logs(sink)] == list(range(count))


def test_sinks_come_and_go_on_the_home_loop(sink: MemorySink) -> None:
    extra = MemorySink()

    async def main() -> None:
        async with Trace(sinks=[sink]) as trace:
            await trace.ainfo("first")
            await trace.aflush()
            assert trace.add_sink(extra) is extra
            await trace.ainfo("second")
            await trace.aremove_sink(extra)
            await trace.ainfo("third")

    asyncio.run(main())

    assert [record.message for record in logs(extra)] == ["second"]
    assert [record.message for record in logs(sink)] == ["first", "second", "third"]


def test_a_sink_added_with_a_lower_level_gets_more_than_the_others(sink: MemorySink) -> None:
    loud = MemorySink()
    with (
        Trace("a", sinks=[sink], level="info") as trace,
        Trace("b", sinks=[sink], level="error") as other,
        trace.span("s") as span,
    ):
        bound = trace.bind(k=1)
        trace.debug("too early")
        trace.add_sink(loud, level="debug")
        for handle in (trace, other, span, bound, trace.opt(), trace.span("later"), span.span("inside")):
            handle.debug("quiet")
            handle.warning("loud")
    with Trace("c", sinks=[sink], level="info") as trace:
        trace.debug("on a pipeline of its own")

    messages = [(record.run_id, record.message) for record in logs(loud)]
    assert messages == [("a" if i != 1 else "b", message) for i in range(7) for message in ("quiet", "loud")]
    assert [(record.run_id, record.message) for record in logs(sink)] == [("a", "loud")] * 6


def test_a_span_made_before_the_level_was_lowered_takes_everything_from_then_on(sink: MemorySink) -> None:
    loud = MemorySink()

    async def main() -> None:
        async with Trace("a", sinks=[sink], level="warning") as trace, trace.span("s") as span:
            assert span.info("too early") is None
            span.log("debug", "too early")
            await span.ainfo("too early")
            with span.span("t") as inner:
                trace.add_sink(loud, level="debug")
                for handle in (span, inner):
                    handle.info("%s", "formatted", rows=1)
                    lines.append(here() - 1)
                    handle.log("debug", "by name")
                    lines.append(here() - 1)
                    await handle.adebug("awaited")
                    lines.append(here() - 1)

    lines: list[int] = []
    asyncio.run(main())

    assert [record.message for record in logs(loud)] == ["formatted", "by name", "awaited"] * 2
    assert [record.site.lineno for record in logs(loud)] == lines
    assert len({record.span_id for record in logs(loud)}) == 2
    assert logs(sink) == []


def test_a_lane_with_a_level_of_its_own(sink: MemorySink) -> None:
    loud, errors = MemorySink(), MemorySink()
    sinks = [(loud, LaneOptions(level=Level.DEBUG)), sink, (errors, LaneOptions(level=Level.ERROR))]
    with Trace(sinks=sinks, level="info") as trace:
        for name in METHODS:
            getattr(trace, name)(name)

    assert [record.message for record in logs(loud)] == METHODS
    assert [record.message for record in logs(sink)] == METHODS[1:]
    assert [record.message for record in logs(errors)] == METHODS[3:]
    assert len(errors.records) == 2 + 2  # the run's start and end pass every level


# -- runs ----------------------------------------------------------------------------------------------------


def structure(sink: MemorySink) -> list[tuple[str, str, str | None]]:
    return [
        (record.run_id, record.kind.label, record.status.label if record.status else None)
        for record in sink.records
        if record.kind is not Kind.LOG
    ]


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (None, Status.OK),
        (ValueError("broken"), Status.ERROR),
        (asyncio.CancelledError(), Status.CANCELLED),
        (KeyboardInterrupt(), Status.CANCELLED),
        (SystemExit(0), Status.OK),
        (SystemExit(), Status.OK),
        (SystemExit(3), Status.ERROR),
    ],
    ids=repr,
)
@pytest.mark.parametrize("colour", ["with", "async with"])
def test_how_a_run_ends(sink: MemorySink, colour: str, error: BaseException | None, status: Status) -> None:
    trace = Trace("r", sinks=[sink], name="job")

    def work(entered: Trace) -> None:
        assert entered is trace
        assert trace.status is Status.RUNNING
        if error is not None:
            raise error

    async def main() -> None:
        with suppress(BaseException):
            async with trace as entered:
                work(entered)

    if colour == "async with":
        asyncio.run(main())
    else:
        with suppress(BaseException), trace as entered:
            work(entered)

    start, end = sink.records
    assert trace.status is status
    assert (start.kind, end.kind) == (Kind.RUN_START, Kind.RUN_END)
    assert (start.status, end.status) == (None, status)
    assert (start.message, end.message) == ("job", "job")
    assert end.duration_ms is not None
    assert 0 < end.duration_ms < 60_000
    assert end.level == (Level.ERROR if status is Status.ERROR else Level.INFO)
    assert (end.exception is not None) == (status is Status.ERROR)


def test_a_trace_without_a_block_opens_itself_and_is_closed_once(sink: MemorySink) -> None:
    trace = Trace("r", sinks=[sink])
    assert asynctrace.stats() == ()
    trace.close()  # nothing to close yet
    trace.info("x")
    line = here() - 1
    trace.close()
    trace.close()
    asyncio.run(trace.aclose())

    assert structure(sink) == [("r", "run_start", None), ("r", "run_end", "ok")]
    assert site(sink.records[0]) == (__file__, line)
    assert sink.records[0].seq < only(sink).seq
    with pytest.raises(ClosedError, match="open a new Trace"):
        trace.__enter__()


def test_a_trace_is_entered_once(sink: MemorySink) -> None:
    with Trace(sinks=[sink]) as trace:
        with pytest.raises(ClosedError, match="is entered once"):
            trace.__enter__()
        assert asynctrace.current_trace() is trace
    assert asynctrace.current_trace() is not trace


def test_a_run_id_is_made_and_any_text_is_one(sink: MemorySink) -> None:
    with Trace(sinks=[sink]) as first, Trace("../ü\0", sinks=[sink]) as second:
        first.info("x")
    assert first.run_id == first.run_id.lower()
    assert len(first.run_id) == 36
    assert first.run_id[14] == "7"
    assert second.run_id == "../ü\0"


def test_a_trace_inside_another_is_its_child(sink: MemorySink) -> None:
    with Trace("outer", sinks=[sink]) as outer, outer.span("work") as work:
        with Trace("inner", sinks=[sink]) as inner:
            inner.info("x")
            outer.info("y")
            with inner.span("deep") as deep:
                inner.info("z")
        with Trace("told", parent_run_id="job-7", sinks=[sink]) as told:
            pass
        with Trace("outer", sinks=[sink]) as retry:
            pass
    with Trace("alone", sinks=[sink]) as single:
        pass

    assert (inner.parent_run_id, inner.trace_id) == ("outer", outer.trace_id)
    assert told.parent_run_id == "job-7"
    assert (retry.parent_run_id, retry.trace_id) == (None, outer.trace_id)
    assert single.parent_run_id is None
    assert single.trace_id != outer.trace_id
    start = next(record for record in sink.records if record.run_id == "inner")
    assert start.parent_span_id == work.span_id
    x, y, z = logs(sink)
    assert (x.span_id, x.parent_span_id) == (start.span_id, work.span_id)
    assert (y.run_id, y.span_id) == ("outer", work.span_id)
    assert (z.span_id, z.parent_span_id) == (deep.span_id, start.span_id)
    attempts = {record.context.run.attempt for record in sink.records if record.run_id == "outer"}
    assert len(attempts) == 2


def runs_in(store: str) -> set[str]:
    return {summary.run_id for summary in asynctrace.find_traces(store)}


def test_a_child_run_without_sinks_goes_where_its_parent_goes(alone: Path) -> None:
    with Trace("outer", sinks="sqlite:./o.db"):
        with Trace("inner") as inner:
            inner.info("x")
        with asynctrace.get_trace("got") as got, Trace("deep"):
            got.info("x")
        with Trace("elsewhere", sinks="sqlite:./e.db"), Trace("below it"):
            pass
        with Trace("safe", durability="process") as safe:
            safe.info("x")
    assert runs_in("sqlite:./o.db") == {"outer", "inner", "got", "deep", "safe"}
    assert runs_in("sqlite:./e.db") == {"elsewhere", "below it"}
    assert {path.name for path in alone.glob("*.db")} == {"o.db", "e.db"}


def test_a_child_run_on_the_loop_of_its_parent_is_closed_without_a_word(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    later: list[asyncio.Task[None]] = []

    async def child_of_what_is_over(over: asyncio.Event) -> None:
        await over.wait()
        async with Trace("after it") as child:
            child.info("x")

    async def main() -> None:
        over = asyncio.Event()
        async with Trace("outer", sinks="sqlite:./o.db") as outer:
            async with Trace("awaited") as awaited:
                awaited.info("x")
            with Trace("plain") as plain:
                plain.info("x")
            assert outer.pipeline is awaited.pipeline is plain.pipeline
            assert not outer.pipeline.closed
            later.append(asyncio.create_task(child_of_what_is_over(over)))
            await asyncio.sleep(0)
        over.set()
        await asyncio.gather(*later)

    asyncio.run(main())
    assert runs_in("sqlite:./o.db") == {"outer", "awaited", "plain", "after it"}
    assert [path.name for path in alone.glob("*.db")] == ["o.db"]
    assert caplog.messages == []


def test_where_something_is_configured_a_child_run_without_sinks_goes_there(sink: MemorySink) -> None:
    asynctrace.configure(sink)
    with Trace("outer", sinks="sqlite:./o.db"), Trace("inner"):
        pass
    asynctrace.flush(10)
    assert {record.run_id for record in sink.records} == {"inner"}


def test_a_child_run_follows_tasks(sink: MemorySink) -> None:
    async def job(name: str) -> str | None:
        async with Trace(name, sinks=[sink]) as trace:
            await asyncio.sleep(0)
            assert asynctrace.current_trace() is trace
            return trace.parent_run_id

    async def main() -> list[str | None]:
        async with Trace("parent", sinks=[sink]):
            return await asyncio.gather(*map(job, "abc"))

    assert asyncio.run(main()) == ["parent"] * 3


def test_a_trace_left_in_another_context_than_entered(sink: MemorySink) -> None:
    trace = Trace("r", sinks=[sink])
    trace.__enter__()
    with ThreadPoolExecutor(1) as pool:
        pool.submit(trace.close).result(10)
    trace.__exit__(None, None, None)

    assert structure(sink) == [("r", "run_start", None), ("r", "run_end", "ok")]
    asynctrace.core.context.current_trace.set(None)  # type: ignore[attr-defined]


# -- delivery that fails -------------------------------------------------------------------------------------


class Down:
    """A destination that is away."""

    def __repr__(self) -> str:
        return "<Down>"

    async def open(self) -> None:
        raise TransientSinkError("no route to host")

    async def write(self, batch: Batch) -> None: ...

    async def aclose(self) -> None: ...


def test_a_failing_sink_never_reaches_the_caller_by_default(sink: MemorySink) -> None:
    with Trace(sinks=[sink, Down()]) as trace:
        trace.info("x")
        trace.flush(0.05)
        trace.close(0.1)

    assert [record.message for record in logs(sink)] == ["x"]


def test_unless_asked_to_raise_what_is_not_safe(sink: MemorySink, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_SPOOL_MAX_BYTES", "0")

    async def main() -> None:
        trace = await Trace(sinks=[sink, Down()], fail_silently=False).__aenter__()
        await trace.ainfo("x")
        with pytest.raises(DeliveryError, match="down: 2 record"):
            await trace.aflush(0.05)
        with pytest.raises(DeliveryError, match=r"down: .*no route to host") as caught:
            await trace.aclose(0.1)
        assert [failure.lane for failure in caught.value.failures] == ["down"]
        await trace.aclose()

    asyncio.run(main())

    trace = Trace(sinks=[sink, Down()], fail_silently=False)
    trace.info("x")
    with pytest.raises(DeliveryError):
        trace.flush(0.05)
    with pytest.raises(DeliveryError):
        trace.close(0.1)


@pytest.mark.parametrize("how", ["with", "close", "async with", "aclose"])
def test_unless_asked_to_raise_closing_names_what_waits_on_disk(
    how: str, sink: MemorySink, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.1")
    trace = Trace(sinks=[sink, Down()], fail_silently=False)

    async def main() -> None:
        if how == "async with":
            async with trace:
                trace.info("x")
        else:
            await trace.__aenter__()
            trace.info("x")
            await trace.aclose()

    def trace_and_close() -> None:
        if how == "with":
            with trace:
                trace.info("x")
        elif how == "close":
            trace.info("x")
            trace.close()
        else:
            asyncio.run(main())

    with pytest.raises(DeliveryError, match=r"down: 3 record\(s\): .*no route to host") as caught:
        trace_and_close()
    assert [(failure.lane, failure.records) for failure in caught.value.failures] == [("down", 3)]
    assert trace.pipeline.stats().lanes[1].spooled == 3


def record_and_raise(trace: Trace) -> None:
    trace.info("x")
    raise ValueError("mine")


def test_the_blocks_own_exception_is_never_masked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_SPOOL_MAX_BYTES", "0")
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.1")
    with pytest.raises(ValueError, match="mine"), Trace(sinks=[Down()], fail_silently=False) as trace:
        record_and_raise(trace)
    with pytest.raises(DeliveryError), Trace(sinks=[Down()], fail_silently=False) as trace:
        trace.info("x")


# -- shared pipelines ----------------------------------------------------------------------------------------


def test_equal_sinks_share_one_pipeline(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/logs"

    async def main() -> set[Pipeline]:
        async def one() -> Pipeline:
            async with Trace(sinks=[url]) as trace:
                trace.info("x")
                await asyncio.sleep(0)
                return trace.pipeline

        return set(await asyncio.gather(*[one() for _ in range(50)]))

    assert len(asyncio.run(main())) == 1
    assert asynctrace.stats() == ()
    with Trace(sinks=url) as one, Trace(sinks=["file:logs"]) as two, Trace(sinks=["memory:"]) as three:
        assert one.pipeline is two.pipeline
        assert one.pipeline is not three.pipeline
        assert not one.pipeline.closed
    assert one.pipeline.closed


def test_a_pipeline_ends_with_its_last_holder(sink: MemorySink) -> None:
    first, second = Trace(sinks=[sink]), Trace(sinks=[sink])
    first.info("x")
    second.info("x")
    first.close()
    assert not first.pipeline.closed
    second.close()
    assert first.pipeline.closed


def test_shutdown_takes_the_pipelines_from_open_traces(sink: MemorySink) -> None:
    trace = Trace(sinks=[sink])
    trace.info("x")
    asynctrace.shutdown()
    trace.info("y")
    trace.close()

    assert [record.message for record in logs(sink)] == ["x", "y"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sinks": 5}, "sinks: 5 cannot be used; allowed: URLs separated by whitespace"),
        ({"sinks": MemorySink()}, "sinks: <MemorySink of 0 records> cannot be used"),
        ({"sinks": " "}, "sinks: ' ' cannot be used"),
        ({"sinks": {"memory:": 1}}, "sinks: 'dict' cannot be used"),
        ({"sinks": [("memory:",)]}, "sink: ('memory:',) cannot be used; allowed: a URL, a sink, or a pair"),
        ({"sinks": [("memory:", 5)]}, "sink: ('memory:', 5) cannot be used"),
        ({"fields": 5}, "fields: 'int' cannot be used; allowed: a mapping"),
        ({"fields": ["x"]}, "fields: 'list' cannot be used; allowed: a mapping"),
        ({"fail_silently": "perhaps"}, "fail_silently: 'perhaps' cannot be used; allowed: true or false"),
        ({"level": ["info"]}, "level: ['info'] cannot be used"),
        ({"durability": ["disk"]}, "durability: ['disk'] cannot be used; allowed: none, process, disk"),
    ],
)
def test_a_wrong_argument_is_one_error_that_says_it_all(arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=r"^" + re.escape(message)):
        Trace(**arguments)


@pytest.mark.parametrize("wrong", [0, 1.5, "1", None])
def test_a_stack_level_is_a_whole_number(wrong: Any, trace: Trace) -> None:
    with pytest.raises(ConfigurationError, match=r"^stacklevel: .* cannot be used"):
        trace.opt(stacklevel=wrong)


@pytest.mark.parametrize("wrong", [(), ("memory:",), ("memory:", 5), 5, None])
def test_a_wrong_sink_is_not_added(wrong: Any, trace: Trace, sink: MemorySink) -> None:
    with pytest.raises(ConfigurationError, match=r"^sink: .* cannot be used"):
        trace.add_sink(wrong)
    with pytest.raises(ConfigurationError, match=r"^sink: .* cannot be used"):
        trace.remove_sink(wrong)
    assert trace.sinks() == [sink]


def test_one_trace_may_do_without_the_journal_that_the_others_have(alone: Path) -> None:
    asynctrace.configure("sqlite:./t.db", durability="process")
    for run_id, durability in (("bare", "none"), ("safe", None)):
        with Trace(run_id, durability=durability) as trace:  # type: ignore[arg-type]  # one of them is no Literal
            trace.info("x")
            assert any(alone.rglob("journal/*/*")) == (durability is None)


def test_an_argument_that_cannot_be_used_is_told_at_once() -> None:
    with pytest.raises(ConfigurationError, match="one of the schemes"):
        Trace(sinks=["nowhere:"])
    with pytest.raises(ConfigurationError, match="max_records"):
        Trace(sinks=["memory:?max_records=0"])
    with pytest.raises(ConfigurationError, match="durability"):
        Trace(durability="eternal")  # type: ignore[arg-type]
    with pytest.raises(ConfigurationError, match="an object with open, write and aclose"):
        Trace(sinks=[object()])  # type: ignore[list-item]
