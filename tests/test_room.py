"""Waiting for room: in line, on any event loop and in threads; never where it would keep the writer from making any."""

import asyncio
import gc
import threading
import time

import loop_kit
import pytest
from lane_kit import BLOCKED, GateSink, auntil, blocked, until
from loop_kit import NewLoop

import asynctrace
from asynctrace import Trace
from asynctrace.pipeline.room import Room

pytestmark = pytest.mark.usefixtures("nothing_left")
new_loop = loop_kit.new_loop


# -- the line ------------------------------------------------------------------------------------------------


def full() -> Room:
    return Room(lambda: True, lambda: None)


def test_first_come_first_served_across_loops_and_threads(new_loop: NewLoop) -> None:
    room = full()
    loops = [new_loop() for _ in range(3)]
    threads = [threading.Thread(target=loop.run_forever) for loop in loops]
    order: list[int] = []

    async def wait(place: int) -> None:
        await room.wait()
        order.append(place)

    def wait_in_thread(place: int) -> None:
        assert room.wait_in_thread(10)
        order.append(place)

    for thread in threads:
        thread.start()
    waiting: list[threading.Thread] = []
    try:
        for place in range(20):
            if place % 4 == 3:
                waiting.append(threading.Thread(target=wait_in_thread, args=(place,)))
                waiting[-1].start()
            else:
                asyncio.run_coroutine_threadsafe(wait(place), loops[place % 4])
            until(lambda expected=place + 1: len(room) == expected)  # type: ignore[misc]
        for place in range(20):
            room.let_in(1)
            until(lambda expected=place + 1: len(order) == expected)  # type: ignore[misc]
        assert order == list(range(20))
    finally:
        room.let_all_in()
        for thread, loop in zip(threads, loops, strict=True):
            loop.call_soon_threadsafe(loop.stop)
            thread.join(10)
            loop.close()
        for thread in waiting:
            thread.join(10)


@pytest.mark.anyio
async def test_who_gives_up_takes_nobodys_place() -> None:
    room = full()
    waiting = [asyncio.ensure_future(room.wait()) for _ in range(10)]
    await auntil(lambda: len(room) == 10)
    for each in waiting[::2]:
        each.cancel()
    await auntil(lambda: len(room) == 5)
    room.let_in(5)
    await asyncio.wait_for(asyncio.gather(*waiting[1::2]), 10)
    assert all(each.cancelled() for each in waiting[::2])


@pytest.mark.anyio
async def test_a_place_on_a_loop_that_is_gone_goes_to_the_next() -> None:
    room = full()
    loop = asyncio.new_event_loop()
    gone = loop.create_task(room.wait_in_line())

    def begin() -> None:
        loop.run_until_complete(asyncio.sleep(0.001))
        loop.close()

    await asyncio.to_thread(begin)
    assert len(room) == 1
    here = asyncio.ensure_future(room.wait())
    await auntil(lambda: len(room) == 2)
    room.let_in(1)
    await asyncio.wait_for(here, 10)
    gone._log_destroy_pending = False  # type: ignore[attr-defined]
    del gone
    gc.collect()


def test_a_thread_that_waits_too_long_leaves_the_line() -> None:
    room = full()
    assert not room.wait_in_thread(0.01)
    assert len(room) == 0


# -- block_timeout -------------------------------------------------------------------------------------------


def full_but_for_the_reserve(trace: Trace, sink: GateSink) -> None:
    """Come to where the writer waits, with the Intake full."""
    blocked(trace, sink)
    for i in range(90):
        trace.info(f"room {i}")


def test_info_in_a_thread_waits_for_room_when_told_to() -> None:
    asynctrace.configure(queue_size=100, block_timeout=60)
    sink = GateSink()
    with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        full_but_for_the_reserve(trace, sink)
        done: list[int] = []

        def record(place: int) -> None:
            trace.info(f"thread {place}")
            done.append(place)

        threads = [threading.Thread(target=record, args=(place,)) for place in range(8)]
        for place, thread in enumerate(threads):
            thread.start()
            until(lambda expected=place + 1: len(trace.pipeline.intake._room) == expected)  # type: ignore[misc]
        assert done == []
        trace.error("errors have a reserve, and do not wait")
        sink.gate.set()
        for thread in threads:
            thread.join(30)
        assert sorted(done) == list(range(8))
        trace.flush()
        assert trace.pipeline.stats().dropped == 0
    assert sorted(m for m in sink.messages if m.startswith("thread")) == [f"thread {i}" for i in range(8)]


def test_info_in_a_thread_gives_up_after_the_time_it_was_told() -> None:
    asynctrace.configure(queue_size=100, block_timeout=0.05)
    sink = GateSink()
    with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        full_but_for_the_reserve(trace, sink)
        started = time.monotonic()
        trace.info("dropped")
        assert time.monotonic() - started >= 0.05
        assert trace.pipeline.stats().dropped == 1
        sink.gate.set()
    assert "dropped" not in sink.messages


def test_without_being_told_info_does_not_wait() -> None:
    asynctrace.configure(queue_size=100)
    sink = GateSink()
    with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        full_but_for_the_reserve(trace, sink)
        trace.info("dropped")
        assert len(trace.pipeline.intake._room) == 0
        assert trace.pipeline.stats().dropped == 1
        sink.gate.set()


@pytest.mark.parametrize("home", ["this loop", "the loop thread"])
def test_info_on_an_event_loop_never_waits(home: str) -> None:
    """An hour, if it did: on its own home loop it would wait for itself, on any other it would stop that one."""
    asynctrace.configure(queue_size=100, block_timeout=3_600)
    sink = GateSink()

    async def emit(trace: Trace) -> None:
        await asyncio.to_thread(full_but_for_the_reserve, trace, sink)
        trace.info("dropped")
        assert trace.pipeline.stats().dropped == 1
        sink.gate.set()

    async def here() -> None:
        async with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
            await emit(trace)

    if home == "this loop":
        asyncio.run(here())
    else:
        with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
            asyncio.run(emit(trace))


def test_info_does_not_wait_for_a_home_that_stands_still() -> None:
    asynctrace.configure(queue_size=100, block_timeout=3_600)
    sink = GateSink()
    loop = asyncio.new_event_loop()
    trace = Trace("r", sinks=[(sink, BLOCKED)])

    async def open_here() -> None:
        await trace.__aenter__()
        await asyncio.to_thread(full_but_for_the_reserve, trace, sink)

    loop.run_until_complete(open_here())
    trace.info("dropped")
    assert trace.pipeline.intake.dropped == 1
    sink.gate.set()
    loop.run_until_complete(trace.aclose())
    loop.close()
    assert "dropped" not in sink.messages


def test_closing_lets_those_go_who_wait() -> None:
    asynctrace.configure(queue_size=100, block_timeout=3_600, close_timeout=0.1)
    sink = GateSink()
    trace = Trace("r", sinks=[(sink, BLOCKED)]).__enter__()
    pipeline = trace.pipeline
    full_but_for_the_reserve(trace, sink)
    thread = threading.Thread(target=trace.info, args=("late",))
    thread.start()
    until(lambda: len(pipeline.intake._room) == 1)
    trace.close()
    thread.join(30)
    assert not thread.is_alive()
    assert pipeline.stats().balanced
