"""``@traced`` on functions of every kind."""

import asyncio
import functools
import inspect
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest

import asynctrace
from asynctrace import ConfigurationError, Kind, Record, Trace, current_trace, traced
from asynctrace.core.context import current_span
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")


def story(sink: MemorySink) -> list[tuple[str, str, str | None]]:
    """(kind, message, status) of all records but the run's own."""
    asynctrace.flush(10)
    return [
        (record.kind.label, record.message, record.status.label if record.status else None)
        for record in sink.records
        if record.kind not in (Kind.RUN_START, Kind.RUN_END)
    ]


def call(name: str, *logs: str, status: str = "ok") -> list[tuple[str, str, str | None]]:
    """The story of one call."""
    return [("span_start", name, None), *[("log", log, None) for log in logs], ("span_end", name, status)]


def first(sink: MemorySink, kind: Kind) -> Record:
    return next(record for record in sink.records if record.kind is kind)


def test_a_function(trace: Trace, sink: MemorySink) -> None:
    @traced
    def add(a: int, *, b: int) -> int:
        """Adds."""
        current_trace().info("adding")
        return a + b

    assert add(1, b=2) == 3
    assert (add.__name__, add.__doc__) == ("add", "Adds.")
    assert list(inspect.signature(add).parameters) == ["a", "b"]
    name = add.__qualname__
    assert story(sink) == call(name, "adding")
    start, log, end = first(sink, Kind.SPAN_START), first(sink, Kind.LOG), first(sink, Kind.SPAN_END)
    assert log.span_id == start.span_id == end.span_id
    line = add.__wrapped__.__code__.co_firstlineno  # type: ignore[attr-defined]
    assert [(r.site.filename, r.site.lineno) for r in (start, log, end)] == [
        (__file__, line),
        (__file__, line + 3),
        (__file__, line),
    ]


def test_with_a_name_and_fields(trace: Trace, sink: MemorySink) -> None:
    @traced("load", table="orders", function=1, name=2)
    def load() -> None: ...

    @traced(size=3)
    def other() -> None: ...

    @traced()
    def third() -> None: ...

    load()
    other()
    third()
    assert story(sink) == [*call("load"), *call(other.__qualname__), *call(third.__qualname__)]
    starts = [record.fields for record in sink.records if record.kind is Kind.SPAN_START]
    assert starts == [{"table": "orders", "function": 1, "name": 2}, {"size": 3}, {}]


def test_a_function_that_raises(trace: Trace, sink: MemorySink) -> None:
    @traced("broken")
    def broken() -> None:
        raise ValueError("mine")

    with pytest.raises(ValueError, match="mine"):
        broken()
    assert story(sink) == call("broken", status="error")
    exception = first(sink, Kind.SPAN_END).exception
    assert exception is not None
    assert "in broken" in exception.stack


def test_a_coroutine_function(trace: Trace, sink: MemorySink) -> None:
    @traced("work")
    async def work(value: int) -> int:
        await asyncio.sleep(0)
        await current_trace().ainfo("working")
        return value

    async def main() -> None:
        assert inspect.iscoroutinefunction(work)
        assert await work(7) == 7
        task = asyncio.create_task(work(8))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(main())
    assert story(sink) == [*call("work", "working"), *call("work", status="cancelled")]


def test_methods_and_other_callables(trace: Trace, sink: MemorySink) -> None:
    class Thing:
        @traced("method")
        def method(self) -> "Thing":
            return self

        @staticmethod
        @traced("static")
        def static() -> int:
            return 1

        @classmethod
        @traced("class")
        def of(cls) -> "type[Thing]":
            return cls

        def __call__(self) -> int:
            return 2

    thing = Thing()
    assert (thing.method(), thing.static(), Thing.of()) == (thing, 1, Thing)
    assert traced(thing)() == 2
    assert traced(functools.partial(max, 1))(3) == 3
    assert traced(len)("abc") == 3
    names = [name for kind, name, _ in story(sink) if kind == "span_start"]
    assert names == ["method", "static", "class", Thing.__qualname__, "partial", "len"]


@pytest.mark.parametrize("wrong", [int, classmethod(len), 7])
def test_what_it_cannot_decorate(wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="@traced"):
        traced(wrong)
    with pytest.raises(ConfigurationError, match="@traced"):
        traced("name")(wrong)


def test_outside_any_trace_it_changes_nothing() -> None:
    @traced
    def add(a: int, b: int) -> int:
        return a + b

    assert add(1, 2) == 3


# -- generators ----------------------------------------------------------------------------------------------


def test_a_generator_is_the_current_span_during_its_steps_only(trace: Trace, sink: MemorySink) -> None:
    @traced("count")
    def count(n: int) -> Iterator[int]:
        for i in range(n):
            current_trace().info(f"step {i}")
            yield i

    assert inspect.isgeneratorfunction(count)
    with trace.span("caller") as caller:
        for _ in count(2):
            assert current_span.get() is caller
            trace.info("between")

    asynctrace.flush(10)
    spans = {record.message: record.span_id for record in sink.records if record.kind is Kind.SPAN_START}
    logs = [(record.message, record.span_id) for record in sink.records if record.kind is Kind.LOG]
    assert logs == [
        ("step 0", spans["count"]),
        ("between", spans["caller"]),
        ("step 1", spans["count"]),
        ("between", spans["caller"]),
    ]


def test_what_is_sent_thrown_and_returned(trace: Trace, sink: MemorySink) -> None:
    @traced("talk")
    def talk() -> Any:
        got = yield "first"
        try:
            yield got
        except KeyError as error:
            yield f"caught {error}"
        return "the end"

    generator = talk()
    assert next(generator) == "first"
    assert generator.send("sent") == "sent"
    assert generator.throw(KeyError("k")) == "caught 'k'"
    with pytest.raises(StopIteration) as stop:
        next(generator)
    assert stop.value.value == "the end"
    assert story(sink) == call("talk")

    def delegate() -> Any:
        return (yield from talk())

    outer = delegate()
    assert [next(outer), outer.send("x")] == ["first", "x"]


@pytest.mark.parametrize("thrown", [ValueError("mine"), StopIteration(3), KeyboardInterrupt()], ids=repr)
def test_what_is_thrown_in_and_not_caught(trace: Trace, sink: MemorySink, thrown: BaseException) -> None:
    @traced("plain")
    def plain() -> Any:
        yield 1

    generator, model = plain(), plain.__wrapped__()  # type: ignore[attr-defined]
    outcomes = []
    for each in (generator, model):
        next(each)
        with pytest.raises((RuntimeError, type(thrown))) as caught:
            each.throw(thrown)
        outcomes.append((type(caught.value), str(caught.value)))
    assert outcomes[0] == outcomes[1]
    status = "cancelled" if isinstance(thrown, KeyboardInterrupt) else "error"
    assert story(sink) == call("plain", status=status)


def test_a_generator_that_is_closed(trace: Trace, sink: MemorySink) -> None:
    @traced("resource")
    def resource() -> Any:
        try:
            yield 1
        finally:
            current_trace().info("released")

    generator = resource()
    next(generator)
    generator.close()
    assert story(sink) == call("resource", "released", status="cancelled")
    assert first(sink, Kind.LOG).span_id == first(sink, Kind.SPAN_START).span_id
    unused = resource()
    unused.close()  # it never began
    assert len(story(sink)) == 3


def test_a_generator_that_does_not_stop_when_it_is_closed(trace: Trace, sink: MemorySink) -> None:
    @traced("stubborn")
    def stubborn() -> Any:
        try:
            yield 1
        except GeneratorExit:
            yield 2

    generator = stubborn()
    next(generator)
    with pytest.raises(RuntimeError, match="ignored GeneratorExit"):
        generator.close()
    assert story(sink) == call("stubborn", status="error")


def test_a_span_inside_a_generator_stays_its_own(trace: Trace, sink: MemorySink) -> None:
    @traced("outer")
    def steps() -> Any:
        with trace.span("inner"):
            yield 1
            trace.info("in inner")
        yield 2
        trace.info("in outer")

    for _ in steps():
        assert current_span.get() is None
    asynctrace.flush(10)
    spans = {record.message: record.span_id for record in sink.records if record.kind is Kind.SPAN_START}
    logs = {record.message: record.span_id for record in sink.records if record.kind is Kind.LOG}
    assert logs == {"in inner": spans["inner"], "in outer": spans["outer"]}


def test_two_generators_side_by_side(trace: Trace, sink: MemorySink) -> None:
    @traced
    def numbers(name: str) -> Iterator[str]:
        for i in range(2):
            current_trace().info(f"{name}{i}")
            yield name

    assert list(zip(numbers("a"), numbers("b"), strict=True)) == [("a", "b")] * 2
    asynctrace.flush(10)
    logs = {record.message: record.span_id for record in sink.records if record.kind is Kind.LOG}
    assert logs["a0"] == logs["a1"] != logs["b0"] == logs["b1"]


# -- asynchronous generators ---------------------------------------------------------------------------------


def test_an_asynchronous_generator(trace: Trace, sink: MemorySink) -> None:
    @traced("count")
    async def count(n: int) -> AsyncIterator[int]:
        for i in range(n):
            await asyncio.sleep(0)
            current_trace().info(f"step {i}")
            yield i

    async def main() -> None:
        assert inspect.isasyncgenfunction(count)
        async with trace.span("caller") as caller:
            async for _ in count(2):
                assert current_span.get() is caller

    asyncio.run(main())
    asynctrace.flush(10)
    (span,) = [r.span_id for r in sink.records if r.kind is Kind.SPAN_START and r.message == "count"]
    assert {record.span_id for record in sink.records if record.kind is Kind.LOG} == {span}
    assert story(sink)[-2:] == [("span_end", "count", "ok"), ("span_end", "caller", "ok")]


def test_an_asynchronous_generator_is_sent_thrown_and_closed(trace: Trace, sink: MemorySink) -> None:
    @traced("talk")
    async def talk() -> Any:
        try:
            got = yield "first"
            try:
                yield got
            except KeyError as error:
                yield f"caught {error}"
        finally:
            await asyncio.sleep(0)
            current_trace().info("released")

    async def main() -> None:
        generator = talk()
        assert await anext(generator) == "first"
        assert await generator.asend("sent") == "sent"
        assert await generator.athrow(KeyError("k")) == "caught 'k'"
        await generator.aclose()
        other = talk()
        await anext(other)
        with pytest.raises(ValueError, match="mine"):
            await other.athrow(ValueError("mine"))

    asyncio.run(main())
    assert story(sink) == [
        *call("talk", "released", status="cancelled"),
        *call("talk", "released", status="error"),
    ]
    logs = [record for record in sink.records if record.kind is Kind.LOG]
    starts = [record for record in sink.records if record.kind is Kind.SPAN_START]
    assert [log.span_id for log in logs] == [start.span_id for start in starts]


def test_an_asynchronous_generator_left_to_the_loop(trace: Trace, sink: MemorySink) -> None:
    @traced("left")
    async def left() -> Any:
        yield 1
        yield 2

    async def main() -> None:
        generator = left()
        assert await anext(generator) == 1
        kept.append(generator)

    kept: list[Any] = []
    asyncio.run(main())  # closes what is left open, in a task of its own
    assert story(sink) == call("left", status="cancelled")


def test_cancelled_in_the_middle_of_a_step(trace: Trace, sink: MemorySink) -> None:
    @traced("waiting")
    async def waiting() -> Any:
        await asyncio.Event().wait()
        yield 1

    async def main() -> None:
        task = asyncio.create_task(anext(waiting()))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert current_span.get() is None

    asyncio.run(main())
    assert story(sink) == call("waiting", status="cancelled")
