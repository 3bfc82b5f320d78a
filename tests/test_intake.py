"""The way from many callers to the one writer: order, room, waiting, and what is dropped."""

import asyncio
import gc
import threading
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from typing import Any

import loop_kit
import pytest
from lane_kit import BLOCKED, GateSink, ablocked, auntil, blocked, check_marks, until
from loop_kit import NewLoop

import asynctrace
from asynctrace import Kind, LaneOptions, Record, Trace
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
anyio_backend = loop_kit.either_loop
new_loop = loop_kit.new_loop


def logs(records: Iterable[Record]) -> list[str]:
    return [record.message for record in records if record.kind is Kind.LOG]


def by_name(messages: Iterable[str]) -> dict[str, list[int]]:
    """``"name 7"`` → the numbers of each name, in the order of the store."""
    numbers: dict[str, list[int]] = defaultdict(list)
    for message in messages:
        name, _, number = message.partition(" ")
        numbers[name].append(int(number))
    return dict(numbers)


async def test_sixteen_threads_and_a_hundred_tasks_are_all_there_in_order() -> None:
    sink = MemorySink()
    async with Trace("r", sinks=[sink]) as trace:
        pipeline = trace.pipeline

        def thread(name: int) -> None:
            for i in range(1_000):
                trace.info(f"thread-{name} {i}")

        async def task(name: int) -> None:
            for i in range(200):
                await trace.ainfo(f"task-{name} {i}")
                if i % 10 == 0:
                    await asyncio.sleep(0)

        threads = [threading.Thread(target=thread, args=(name,)) for name in range(16)]
        for each in threads:
            each.start()
        await asyncio.gather(*[task(name) for name in range(100)])
        await auntil(lambda: not any(each.is_alive() for each in threads))
    numbers = by_name(logs(sink.records))
    assert len(numbers) == 116
    for name, seen in numbers.items():
        assert seen == list(range(1_000 if name.startswith("thread") else 200)), name
    assert [record.seq for record in sink.records] == list(range(1, 36_003))
    stats = pipeline.stats()
    assert stats.balanced
    assert stats.emitted == 36_002
    check_marks(sink.marks, stats.lanes[0], len(sink.records))


@pytest.fixture
def small() -> Iterator[Callable[[LaneOptions], tuple[Trace, GateSink]]]:
    """Traces with room for a hundred records, ninety of them below error, on a sink that does not answer yet."""
    asynctrace.configure(queue_size=100)

    def make(options: LaneOptions) -> tuple[Trace, GateSink]:
        sink = GateSink()
        return Trace("r", sinks=[(sink, options)]), sink

    yield make
    asynctrace.shutdown()


Make = Callable[[LaneOptions], tuple[Trace, GateSink]]


async def test_ainfo_waits_while_there_is_no_room_and_is_let_in_fairly(small: Make) -> None:
    trace, sink = small(BLOCKED)
    async with trace:
        await ablocked(trace, sink)
        for i in range(90):
            await asyncio.wait_for(trace.ainfo(f"room {i}"), 1)
        order: list[int] = []

        async def wait(i: int) -> None:
            await trace.ainfo(f"wait {i}")
            order.append(i)

        waiting = [asyncio.create_task(wait(i)) for i in range(50)]
        await asyncio.sleep(0.02)
        assert order == [], "nobody is let in while there is no room"
        sink.gate.set()
        await asyncio.gather(*waiting)
        assert order == list(range(50)), "first come, first served"
    assert by_name(logs(sink.records)[1:]) == {"room": list(range(90)), "wait": list(range(50))}
    assert trace.pipeline.stats().dropped == 0


async def test_info_without_room_is_dropped_counted_and_told_but_errors_have_a_reserve(small: Make) -> None:
    trace, sink = small(BLOCKED)
    async with trace:
        await ablocked(trace, sink)
        for i in range(100):
            trace.info(f"info {i}")
        for i in range(20):
            trace.error(f"error {i}")
        assert trace.pipeline.stats().dropped == 20
        sink.gate.set()
        await auntil(lambda: "asynctrace.dropped" in sink.messages)
        pipeline = trace.pipeline
    messages = logs(sink.records)
    messages.remove("first in the lane")
    messages.remove("asynctrace.dropped")
    assert by_name(messages) == {"info": list(range(90)), "error": list(range(10))}
    told = next(record for record in sink.records if record.message == "asynctrace.dropped")
    assert told.fields == {"count": 20, "reason": "intake full", "lane": None}
    assert told.run_id == "r"
    (lane,) = pipeline.stats().lanes
    assert lane.dropped == {"intake full": 20}
    assert lane.balanced
    check_marks(sink.marks, lane, len(sink.records))


async def test_cancelled_gathered_and_never_awaited_calls_neither_lose_nor_double(small: Make) -> None:
    trace, sink = small(BLOCKED)
    async with trace:
        await ablocked(trace, sink)
        for i in range(90):
            trace.info(f"room {i}")
        cancelled = [asyncio.ensure_future(trace.ainfo(f"cancelled {i}")) for i in range(10)]
        await asyncio.sleep(0.01)
        for future in cancelled:
            future.cancel()
        for i in range(5):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(trace.ainfo(f"timeout {i}"), 0)
        for i in range(5):
            trace.ainfo(f"never {i}")  # type: ignore[unused-coroutine]
        gc.collect()
        gathered = asyncio.gather(*[trace.ainfo(f"gathered {i}") for i in range(10)])
        await asyncio.sleep(0.01)
        sink.gate.set()
        await gathered
        assert all(future.cancelled() for future in cancelled)
    numbers = by_name(logs(sink.records)[1:])
    assert numbers == {
        "room": list(range(90)),
        "cancelled": list(range(10)),
        "timeout": list(range(5)),
        "never": list(range(5)),
        "gathered": list(range(10)),
    }


async def test_with_room_a_call_is_over_at_once_however_it_is_awaited() -> None:
    sink = MemorySink()
    async with Trace("r", sinks=[sink]) as trace:
        with suppress(TimeoutError):  # Python 3.11 gives a coroutine no time at all
            await asyncio.wait_for(trace.ainfo("wait_for 0"), 0)
        await asyncio.gather(*[trace.ainfo(f"gather {i}") for i in range(10)])
        await asyncio.create_task(trace.ainfo("task 0"))
        trace.ainfo("never 0")  # type: ignore[unused-coroutine]
        task = asyncio.create_task(trace.ainfo("cancelled 0"))
        task.cancel()
        await asyncio.wait({task})
    assert sum(map(len, by_name(logs(sink.records)).values())) == 14
    assert len(set(logs(sink.records))) == 14


def test_who_waits_on_another_loop_is_woken(small: Make, new_loop: NewLoop) -> None:
    trace, sink = small(BLOCKED)
    with trace:  # at home on the loop thread
        blocked(trace, sink)
        for i in range(90):
            trace.info(f"room {i}")
        begun, woken = threading.Barrier(4), []

        async def elsewhere(name: int) -> None:
            waiting = asyncio.ensure_future(trace.ainfo(f"other-{name} 0"))
            await asyncio.sleep(0)
            begun.wait(10)
            await asyncio.wait_for(waiting, 10)
            woken.append(name)

        def loop_of_its_own(name: int) -> None:
            with asyncio.Runner(loop_factory=new_loop) as runner:
                runner.run(elsewhere(name))

        threads = [threading.Thread(target=loop_of_its_own, args=(name,)) for name in range(3)]
        for each in threads:
            each.start()
        begun.wait(10)
        assert woken == []
        sink.gate.set()
        for each in threads:
            each.join(10)
        assert sorted(woken) == [0, 1, 2]
    assert {"other-0", "other-1", "other-2"} < by_name(logs(sink.records)[1:]).keys()


def test_a_home_that_ends_lets_those_go_who_wait_for_room(small: Make) -> None:
    trace, sink = small(BLOCKED)
    up, done = threading.Event(), threading.Event()

    async def home() -> None:
        await trace.__aenter__()
        trace.pipeline.close_timeout = 0.2
        await ablocked(trace, sink)
        for i in range(90):
            trace.info(f"room {i}")
        up.set()
        await auntil(done.is_set)

    async def elsewhere() -> None:
        waiting = asyncio.ensure_future(trace.ainfo("wait 0"))
        await asyncio.sleep(0.01)
        assert not waiting.done()
        done.set()
        await asyncio.wait_for(waiting, 10)

    thread = threading.Thread(target=lambda: asyncio.run(home()))
    thread.start()
    assert up.wait(10)
    asyncio.run(elsewhere())
    thread.join(10)
    assert not thread.is_alive()
    sink.gate.set()
    trace.close()


def test_a_waiter_that_comes_when_the_queue_has_just_been_emptied_is_not_forgotten(small: Make) -> None:
    """The queue runs empty between a caller's look, which found it full, and its place among those who wait."""
    trace, sink = small(BLOCKED)

    async def elsewhere() -> None:
        loop = asyncio.get_running_loop()
        waiting = trace.ainfo("late 0")
        create_future = loop.create_future

        def create_future_late() -> asyncio.Future[Any]:
            loop.create_future = create_future  # type: ignore[method-assign]
            sink.gate.set()
            until(lambda: trace.pipeline.stats().queued == 0)
            return create_future()

        loop.create_future = create_future_late  # type: ignore[method-assign]
        await waiting

    with trace:
        blocked(trace, sink)
        for i in range(90):
            trace.info(f"room {i}")
        asyncio.run(asyncio.wait_for(elsewhere(), 10))


def test_a_signal_handler_that_records_while_its_thread_drops_does_not_deadlock(small: Make) -> None:
    trace, sink = small(BLOCKED)
    with trace:
        blocked(trace, sink)
        for i in range(200):
            trace.info(f"m {i}")
        intake = trace.pipeline.intake
        done = threading.Event()

        def nested() -> None:
            with intake._lock:  # as the handler finds it: held by its own thread
                trace.info("m 200")
            done.set()

        threading.Thread(target=nested, daemon=True).start()
        assert done.wait(5)
        sink.gate.set()
    assert trace.pipeline.stats().balanced
