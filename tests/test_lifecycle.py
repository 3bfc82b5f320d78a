"""Where a pipeline lives, how it ends, and what becomes of those who wait for it."""

import asyncio
import gc
import logging
import threading
import time
from collections.abc import Awaitable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import loop_kit
import pytest
from lane_kit import QUICK, GateSink, ScriptedSink, auntil, check_marks, until
from loop_kit import NewLoop

import asynctrace
from asynctrace import ClosedError, Kind, Pipeline, Trace
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
anyio_backend = loop_kit.either_loop
new_loop = loop_kit.new_loop


def logs(sink: MemorySink) -> list[str]:
    return [record.message for record in sink.records if record.kind is Kind.LOG]


def run(main: Awaitable[object], new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main)  # type: ignore[arg-type]


def thread_of(trace: Trace) -> str:
    """The name of the thread that runs the home loop."""
    names: list[str] = []
    loop = trace.pipeline.loop
    assert loop is not None
    loop.call_soon_threadsafe(lambda: names.append(threading.current_thread().name))
    until(lambda: names)
    return names[0]


# -- who runs where ------------------------------------------------------------------------------------------


async def test_async_with_a_trace_lives_on_the_running_loop_and_drains_and_closes() -> None:
    sink = ScriptedSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        assert trace.pipeline.loop is asyncio.get_running_loop()
        pipeline = trace.pipeline
        for i in range(1_000):
            trace.info(f"m{i}")
    assert sink.messages == [f"m{i}" for i in range(1_000)]
    assert sink.closed == 1
    assert pipeline.closed
    check_marks(sink.marks, pipeline.stats().lanes[0], len(sink.records))


async def test_async_with_a_pipeline_lives_on_the_running_loop() -> None:
    sink = ScriptedSink()
    async with Pipeline(sink) as pipeline:
        assert pipeline.loop is asyncio.get_running_loop()
    assert pipeline.closed
    with pytest.raises(ClosedError):
        await pipeline.__aenter__()


async def test_with_lives_on_the_loop_thread_also_inside_a_running_loop() -> None:
    sink = MemorySink()
    with Trace("r", sinks=[sink]) as trace:
        assert trace.pipeline.loop is not asyncio.get_running_loop()
        trace.info("m")
        assert thread_of(trace) == "asynctrace"
    assert logs(sink) == ["m"]


def test_configure_and_get_trace_live_on_the_one_loop_thread_and_stay() -> None:
    sink = MemorySink()
    pipeline = asynctrace.configure(sink)
    before = threading.active_count()
    with asynctrace.get_trace("r") as trace:
        assert trace.pipeline is pipeline
        trace.info("m")
        assert thread_of(trace) == "asynctrace"
    assert logs(sink) == ["m"], "close waits for a flush"
    assert not pipeline.closed, "a borrowed pipeline stays"
    assert threading.active_count() <= before + 1
    with Trace("other", sinks=[MemorySink()]) as other:
        assert other.pipeline.loop is pipeline.loop, "one loop thread a process"


async def test_a_thousand_traces_on_equal_sinks_share_one_pipeline(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/t.db"
    pipelines = set()
    entered = 0
    everybody, leave = asyncio.Event(), asyncio.Event()

    async def one(i: int) -> None:
        nonlocal entered
        async with Trace(f"r{i}", sinks=[url]) as trace:
            pipelines.add(trace.pipeline)
            entered += 1
            if entered == 1_000:
                everybody.set()
            await leave.wait()
            await trace.ainfo(f"m{i}")

    threads = threading.active_count()
    running = [asyncio.create_task(one(i)) for i in range(1_000)]
    await everybody.wait()
    await auntil(lambda: threading.active_count() > threads)
    assert threading.active_count() == threads + 1, "one connection, which is one thread"
    writers = [task for task in asyncio.all_tasks() if task.get_name().startswith("asynctrace writer")]
    assert len(writers) == 1
    leave.set()
    await asyncio.gather(*running)
    (pipeline,) = pipelines
    assert pipeline.closed, "the last one out closes"
    assert pipeline.stats().lanes[0].delivered == 3_000


async def test_the_first_one_out_does_not_close_what_others_hold() -> None:
    sink = MemorySink()
    async with Trace("outer", sinks=[sink]) as outer:
        async with Trace("inner", sinks=[sink]) as inner:
            assert inner.pipeline is outer.pipeline
        assert not outer.pipeline.closed
        await outer.ainfo("still open")
    assert logs(sink) == ["still open"]


async def test_close_on_the_home_loop_schedules_and_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    asynctrace.configure(close_timeout=60)
    sink = ScriptedSink()
    trace = Trace("r", sinks=[(sink, QUICK)])
    await trace.__aenter__()
    trace.info("m")
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "asynctrace"):
        trace.flush()
        trace.flush()
        trace.close()
    assert time.monotonic() - started < 30, "it waited"
    await auntil(lambda: sink.closed == 1)
    assert sink.messages == ["m"]
    said = [record.getMessage() for record in caplog.records if "aclose" in record.getMessage()]
    assert len(said) == 1


async def test_flush_and_close_from_another_thread_while_the_home_loop_runs() -> None:
    sink = ScriptedSink()
    trace = Trace("r", sinks=[(sink, QUICK)])
    await trace.__aenter__()
    trace.info("m")
    await asyncio.to_thread(trace.flush)
    assert sink.messages == ["m"]
    trace.info("n")
    await asyncio.to_thread(trace.close)
    assert sink.messages == ["m", "n"]
    assert sink.closed == 1


async def test_six_threads_of_the_default_executor_flush_at_once(tmp_path: Path) -> None:
    async with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db", f"file:{tmp_path}/logs"]) as trace:
        for i in range(6):
            trace.info(f"m{i}")
        with ThreadPoolExecutor(6) as pool:
            loop = asyncio.get_running_loop()
            loop.set_default_executor(pool)
            await asyncio.wait_for(asyncio.gather(*[asyncio.to_thread(trace.flush) for _ in range(6)]), 10)
        assert all(lane.pending == 0 for lane in trace.pipeline.stats().lanes)


def test_aflush_and_aclose_from_another_loop(new_loop: NewLoop) -> None:
    sink = ScriptedSink()
    home_up, other_done = threading.Event(), threading.Event()
    traces: list[Trace] = []

    async def home() -> None:
        trace = Trace("r", sinks=[(sink, QUICK)])
        await trace.__aenter__()
        traces.append(trace)
        trace.info("m")
        home_up.set()
        await auntil(other_done.is_set)

    async def elsewhere() -> None:
        await traces[0].aflush()
        assert sink.messages == ["m"]
        traces[0].info("n")
        await traces[0].aclose()
        assert sink.messages == ["m", "n"]
        assert sink.closed == 1

    thread = threading.Thread(target=run, args=(home(), new_loop))
    thread.start()
    try:
        assert home_up.wait(10)
        run(elsewhere(), new_loop)
    finally:
        other_done.set()
        thread.join(10)


@pytest.mark.parametrize("waits_for", ["aflush", "aclose"])
def test_a_home_that_ends_releases_who_waits_on_another_loop(new_loop: NewLoop, waits_for: str) -> None:
    sink = GateSink()
    home_up, end_home, waiting = threading.Event(), threading.Event(), threading.Event()
    traces: list[Trace] = []

    async def home() -> None:
        trace = Trace("r", sinks=[(sink, QUICK)])
        await trace.__aenter__()
        trace.pipeline.close_timeout = 0.2
        traces.append(trace)
        trace.info("m")
        home_up.set()
        await auntil(end_home.is_set)

    async def elsewhere() -> None:
        task = asyncio.create_task(getattr(traces[0], waits_for)())
        await auntil(sink.waiting.is_set)
        waiting.set()
        await asyncio.wait_for(task, 10)

    thread = threading.Thread(target=run, args=(home(), new_loop))
    thread.start()
    try:
        assert home_up.wait(10)
        other = threading.Thread(target=run, args=(elsewhere(), new_loop))
        other.start()
        assert waiting.wait(10)
        end_home.set()
        thread.join(10)
        other.join(10)
        assert not thread.is_alive()
        assert not other.is_alive(), "it waits for ever"
    finally:
        sink.gate.set()
        end_home.set()


# -- ends ----------------------------------------------------------------------------------------------------


async def test_aclose_that_is_cancelled_three_times_delivers_first() -> None:
    sink = GateSink()
    trace = Trace("r", sinks=[(sink, QUICK)])
    await trace.__aenter__()
    pipeline = trace.pipeline
    trace.info("m")
    closing = asyncio.create_task(trace.aclose())
    await auntil(sink.waiting.is_set)
    for _ in range(3):
        closing.cancel()
        await asyncio.sleep(0.01)
        assert not closing.done(), "it left its records behind"
    sink.gate.set()
    with pytest.raises(asyncio.CancelledError):
        await closing
    assert sink.messages == ["m"]
    assert pipeline.stats().lanes[0].delivered == 3


async def test_leaving_a_block_that_is_cancelled_delivers_first() -> None:
    sink = ScriptedSink()
    inside = asyncio.Event()

    async def work() -> None:
        async with Trace("r", sinks=[(sink, QUICK)]) as trace:
            trace.info("m")
            inside.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(work())
    await inside.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert sink.messages == ["m"]
    assert sink.records[-1].status is asynctrace.Status.CANCELLED
    assert sink.closed == 1


async def test_closing_twice_at_once_closes_once() -> None:
    sink = ScriptedSink()
    async with Pipeline(sink) as pipeline, Trace("r", sinks=[MemorySink()]) as trace:
        trace._intake = pipeline.intake
        trace.info("m")
        await asyncio.gather(pipeline.aclose(), pipeline.aclose(), pipeline.aclose())
    assert sink.messages[:1] == ["m"]
    assert sink.closed == 1


def test_a_loop_that_is_closed_under_us_gives_its_records_to_the_next_home(new_loop: NewLoop) -> None:
    sink = MemorySink()
    loop = new_loop()
    trace = Trace("r", sinks=[sink])
    loop.run_until_complete(trace.__aenter__())
    trace.info("while it stood still")
    type(loop).close(loop)  # past the hook that we put on the instance
    trace.info("after it was closed")
    trace.close()
    assert logs(sink) == ["while it stood still", "after it was closed"]
    assert trace.pipeline.stats().balanced


def test_closing_a_bare_loop_does_not_run_the_users_tasks_again(new_loop: NewLoop) -> None:
    sink = MemorySink()
    steps = 0

    async def endless() -> None:
        nonlocal steps
        while True:
            steps += 1
            await asyncio.sleep(0)

    async def main() -> asyncio.Task[None]:
        trace = Trace("r", sinks=[sink])
        await trace.__aenter__()
        trace.info("m")
        return asyncio.create_task(endless())

    loop = new_loop()
    task = loop.run_until_complete(main())
    before = steps
    loop.close()
    assert logs(sink) == ["m"], "delivered by the time the loop is closed"
    assert steps == before
    task._log_destroy_pending = False  # type: ignore[attr-defined]  # abandoned by the test, on purpose
    task.get_coro().close()  # type: ignore[union-attr]


def test_a_new_loop_for_every_test_as_pytest_plugins_make_them(new_loop: NewLoop) -> None:
    sink = MemorySink()
    asynctrace.configure(sink)
    shared = asynctrace.get_trace("shared")

    async def a_test(i: int) -> None:
        shared.info(f"shared {i}")
        async with Trace(f"own-{i}", sinks=[sink]) as own:
            await own.ainfo(f"own {i}")
        await shared.aflush()

    for i in range(10):
        loop = new_loop()
        asyncio.set_event_loop(loop)
        try:
            loop.run_until_complete(a_test(i))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()
    shared.close()
    assert sorted(logs(sink)) == sorted(f"{whose} {i}" for whose in ("shared", "own") for i in range(10))


def test_a_pipeline_lives_on_after_its_loop(new_loop: NewLoop) -> None:
    sink = MemorySink()
    trace = Trace("r", sinks=[sink])

    async def first() -> None:
        await trace.__aenter__()
        trace.info("first")

    async def second() -> None:
        await trace.ainfo("second")
        await trace.aflush()

    run(first(), new_loop)
    assert logs(sink) == ["first"], "the end of the loop delivered it"
    run(second(), new_loop)
    trace.close()
    assert logs(sink) == ["first", "second"]
    lane = trace.pipeline.stats().lanes[0]
    check_marks(sink.marks, lane, len(sink.records))


class AtHome(ScriptedSink):
    """Takes its time, and remembers which threads wrote to it."""

    def __init__(self) -> None:
        super().__init__()
        self.threads: set[int] = set()

    async def write(self, batch: asynctrace.Batch) -> None:
        self.threads.add(threading.get_ident())
        await asyncio.sleep(0.02)
        await super().write(batch)


def test_the_end_of_a_loop_waits_for_tasks_that_log_in_their_finally(new_loop: NewLoop) -> None:
    sink = AtHome()
    trace = Trace("r", sinks=[(sink, QUICK)])
    siblings: list[asyncio.Task[None]] = []

    async def sibling() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0.05)
            trace.info("finally")

    async def main() -> None:
        await trace.__aenter__()
        siblings.append(asyncio.create_task(sibling()))
        await asyncio.sleep(0.01)

    run(main(), new_loop)
    assert sink.messages == ["finally"], "it is in the store when `run` returns"
    assert sink.threads == {threading.get_ident()}, "delivered at home, not by the loop thread"
    trace.info("again")  # nobody flushes: the wake-up itself must find a new home
    until(lambda: sink.messages == ["finally", "again"])
    trace.close()


def test_a_closing_that_was_scheduled_ends_with_the_loop_it_runs_on(new_loop: NewLoop) -> None:
    sink = AtHome()

    async def main() -> None:
        trace = Trace("r", sinks=[(sink, QUICK)])
        await trace.__aenter__()
        trace.info("m")
        trace.close()
        await auntil(lambda: sink.threads)

    run(main(), new_loop)
    assert sink.messages == ["m"]
    assert sink.threads == {threading.get_ident()}
    assert sink.closed == 1


async def test_records_after_the_end_still_reach_local_stores() -> None:
    sink = MemorySink()
    async with Trace("r", sinks=[sink]) as trace:
        pipeline = trace.pipeline
    trace.info("late")
    assert logs(sink) == ["late"]
    assert pipeline.stats().balanced


async def test_a_hung_sink_delays_closing_by_the_deadline_and_the_rest_is_told() -> None:
    asynctrace.configure(close_timeout=60)
    hung, healthy = GateSink(), MemorySink()
    async with Trace("r", sinks=[(hung, QUICK), healthy]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        started = time.monotonic()
        await trace.aclose(timeout=0.1)
        assert 0.05 < time.monotonic() - started < 30
    assert logs(healthy) == ["m"]
    stats = pipeline.stats()
    assert stats.balanced
    assert stats.lanes[0].dropped == {"not delivered in time": 3}
    assert hung.closed == 1


async def test_a_flush_that_runs_out_of_time_names_the_lane() -> None:
    hung = GateSink()
    async with Trace("r", sinks=[(hung, QUICK)], fail_silently=False) as trace:
        trace.info("m")
        await auntil(hung.waiting.is_set)
        with pytest.raises(asynctrace.DeliveryError) as caught:
            await trace.aflush(0.05)
        (failure,) = caught.value.failures
        assert (failure.lane, failure.records) == ("gate", 2)
        hung.gate.set()
        await trace.aflush()


async def test_flush_while_another_task_closes() -> None:
    for _ in range(20):
        sink = ScriptedSink()
        trace = Trace("r", sinks=[(sink, QUICK)])
        await trace.__aenter__()
        pipeline = trace.pipeline
        trace.info("m")
        flushing = [asyncio.create_task(pipeline.aflush(5)) for _ in range(5)]
        closing = asyncio.create_task(trace.aclose())
        flushing += [asyncio.create_task(pipeline.aflush(5)) for _ in range(5)]
        assert all(await asyncio.gather(*flushing))
        await closing
        assert sink.messages == ["m"]


def test_opening_flushing_and_closing_from_many_threads_at_once() -> None:
    sink = MemorySink()
    barrier = threading.Barrier(16)

    def work(name: int) -> None:
        barrier.wait(10)
        for i in range(20):
            with Trace(f"r{name}-{i}", sinks=[sink]) as trace:
                trace.info(f"{name} {i}")
                trace.flush()

    with ThreadPoolExecutor(16) as pool:
        list(pool.map(work, range(16)))
    expected = [f"{name} {i}" for name in range(16) for i in range(20)]
    assert sorted(logs(sink)) == sorted(expected)


async def test_nothing_is_left_behind() -> None:
    threads = set(threading.enumerate())
    async with Trace("r", sinks=[MemorySink()]) as trace:
        trace.info("m")
    del trace
    gc.collect()
    assert {
        task.get_name() for task in asyncio.all_tasks() if task.get_name().startswith("asynctrace")
    } == set()
    assert set(threading.enumerate()) <= threads


def test_a_home_that_was_left_while_it_ended_does_not_end_the_next_one(
    new_loop: NewLoop, caplog: pytest.LogCaptureFixture
) -> None:
    sink = ScriptedSink()
    loop = new_loop()

    async def main() -> Trace:
        trace = Trace("r", sinks=[(sink, QUICK)])
        await trace.__aenter__()
        trace.info("m0")
        await trace.aflush()
        for task in asyncio.all_tasks() - {asyncio.current_task()}:
            task.cancel()
        await asyncio.sleep(0)
        return trace

    trace = loop.run_until_complete(main())
    trace.info("m1")
    trace.flush()
    home = trace.pipeline.loop
    assert home is not loop
    loop.run_until_complete(asyncio.sleep(0.05))
    assert trace.pipeline.loop is home
    trace.info("m2")
    trace.flush()
    assert sink.messages == ["m0", "m1", "m2"]
    trace.close()
    loop.close()
    gc.collect()
    assert "was destroyed" not in caplog.text


async def test_who_is_cancelled_while_taking_out_a_sink_leaves_no_error_behind(
    caplog: pytest.LogCaptureFixture,
) -> None:
    class SlowToClose(ScriptedSink):
        def __init__(self) -> None:
            super().__init__()
            self.may_close = asyncio.Event()

        async def aclose(self) -> None:
            self.closed += 1
            await self.may_close.wait()

    slow = SlowToClose()
    async with Trace("r", sinks=[(slow, QUICK), MemorySink()]) as trace:
        trace.info("m0")
        taking_out = asyncio.ensure_future(trace.aremove_sink(slow))
        await auntil(lambda: slow.closed)
        taking_out.cancel()
        await asyncio.wait({taking_out})
        slow.may_close.set()
        assert slow not in trace.sinks()
        trace.info("m1")
    gc.collect()
    assert slow.messages == ["m0"]
    assert "never retrieved" not in caplog.text
