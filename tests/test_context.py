"""The current trace and span follow the code: tasks, threads, executors."""

import asyncio
import logging
import subprocess
import sys
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

import asynctrace
from asynctrace import ContextExecutor, Kind, NoTrace, Trace, current_trace, in_context
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")


def spans_of_logs(sink: MemorySink) -> dict[str, str]:
    """Log message → name of the span it belongs to, or of the run."""
    asynctrace.flush(10)
    names = {r.span_id: r.message for r in sink.records if r.kind in (Kind.SPAN_START, Kind.RUN_START)}
    return {r.message: names[r.span_id] for r in sink.records if r.kind is Kind.LOG}


def test_context_follows_tasks_threads_and_executors(sink: MemorySink) -> None:
    def note(message: str) -> str:
        current_trace().info(message)
        return message

    async def anote(message: str) -> None:
        await current_trace().ainfo(message)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        with ThreadPoolExecutor(2) as plain, ContextExecutor(ThreadPoolExecutor(2)) as pool:
            async with Trace("run", sinks=[sink]) as trace, trace.span("work"):
                await anote("awaited")
                await asyncio.create_task(anote("task"))
                await asyncio.gather(anote("gathered"))
                await asyncio.to_thread(note, "to_thread")
                await loop.run_in_executor(plain, in_context(note, "in_context"))
                await loop.run_in_executor(pool, note, "executor")
                assert list(pool.map(note, ["map 1", "map 2"])) == ["map 1", "map 2"]
                assert list(plain.map(in_context(note), ["many 1", "many 2"])) == ["many 1", "many 2"]
                loop.call_soon(note, "call_soon")
                await asyncio.sleep(0)
                later = in_context(note, "later")
            await asyncio.to_thread(later)

    asyncio.run(main())

    notes = ["awaited", "task", "gathered", "to_thread", "in_context", "executor", "call_soon", "later"]
    notes += ["map 1", "map 2", "many 1", "many 2"]
    assert spans_of_logs(sink) == dict.fromkeys(notes, "work")


def test_one_callable_runs_in_many_threads_at_once() -> None:
    met = threading.Barrier(4, timeout=10)
    together = in_context(met.wait)
    with ThreadPoolExecutor(4) as pool:
        assert sorted(future.result(10) for future in [pool.submit(together) for _ in range(4)]) == [
            0,
            1,
            2,
            3,
        ]


def test_what_a_thread_sets_stays_there(sink: MemorySink) -> None:
    def work() -> None:
        current_trace().span("never left").__enter__()

    with Trace("run", sinks=[sink]) as trace, ContextExecutor(ThreadPoolExecutor(1)) as pool:
        pool.submit(work).result(10)
        pool.submit(current_trace().info, "after").result(10)
        trace.info("here")

    assert spans_of_logs(sink) == {"after": "run", "here": "run"}


def test_a_context_executor_shuts_down_the_one_it_wraps() -> None:
    pool = ThreadPoolExecutor(1)
    with ContextExecutor(pool) as executor:
        future = executor.submit(sum, [1, 2], start=3)
        assert future.result(10) == 6
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(print)
    executor.shutdown(cancel_futures=True)


# -- the current trace ---------------------------------------------------------------------------------------


def test_inside_a_run_it_is_that_run(sink: MemorySink) -> None:
    with Trace("outer", sinks=[sink]) as outer:
        assert current_trace() is outer
        with Trace("inner", sinks=[sink]) as inner:
            assert current_trace() is inner
        assert current_trace() is outer


def test_outside_it_is_the_run_of_the_process_when_something_is_configured(sink: MemorySink) -> None:
    asynctrace.configure(sink)
    trace = current_trace()
    assert isinstance(trace, Trace)
    assert trace is current_trace()
    with Trace("r") as other:
        assert current_trace() is other
        assert other.parent_run_id is None
    trace.info("outside")
    asynctrace.shutdown()

    assert spans_of_logs(sink) == {"outside": trace.name}
    assert trace.name == Path(sys.argv[0]).name
    ends = [(record.run_id, record.status.label) for record in sink.records if record.status]
    assert ends == [("r", "ok"), (trace.run_id, "ok")]


def test_the_run_of_the_process_follows_the_configuration(sink: MemorySink) -> None:
    other = MemorySink()
    asynctrace.configure(sink)
    before = current_trace()
    before.info("first")
    asynctrace.configure(other)
    current_trace().info("second")
    assert current_trace() is not before

    assert list(spans_of_logs(sink)) == ["first"]
    assert list(spans_of_logs(other)) == ["second"]
    assert sink.records[-1].kind is Kind.RUN_END


def test_a_closed_run_of_the_process_is_followed_by_another(sink: MemorySink) -> None:
    asynctrace.configure(sink)
    first = current_trace()
    assert isinstance(first, Trace)
    first.close()
    assert current_trace() is not first


def test_the_environment_configures_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_SINKS", "memory:")
    assert isinstance(current_trace(), Trace)


USES: list[Callable[[NoTrace], object]] = [
    lambda trace: trace.info("x"),
    lambda trace: trace.bind(a=1, self=2).error("x", exc_info=True),
    lambda trace: trace.opt(stacklevel=2).log("info", "x"),
    lambda trace: trace.exception("x"),
    lambda trace: asyncio.run(use_awaitables(trace)),
]


async def use_awaitables(trace: NoTrace) -> None:
    assert await trace.ainfo("x") is None


@pytest.mark.parametrize("use", USES)
def test_without_anything_it_counts_and_warns(
    caplog: pytest.LogCaptureFixture, use: Callable[[NoTrace], object]
) -> None:
    trace = current_trace()
    assert isinstance(trace, NoTrace)
    before = trace.ignored
    with caplog.at_level(logging.WARNING, "asynctrace"):
        use(trace)
        use(trace)

    assert trace.ignored == before + 2
    assert [record.message for record in caplog.records] == [
        "records are made outside any trace and nothing is configured: they go nowhere; open a Trace "
        "or call asynctrace.configure()"
    ]
    assert asynctrace.stats() == ()


def test_spans_of_no_trace(caplog: pytest.LogCaptureFixture) -> None:
    trace = current_trace()
    assert isinstance(trace, NoTrace)
    before = trace.ignored
    with trace.span("s", a=1) as span, span.span("t"):
        span.info("x")
    assert trace.ignored == before + 5
    assert (trace.run_id, trace.trace_id, trace.fields) == ("", "0" * 32, {})
    assert len(caplog.records) == 1


EXIT = """
import _thread, atexit, asynctrace
from pathlib import Path

trace = asynctrace.get_trace("run")
atexit.register(trace.info, "from atexit, with no Python frame below")
done = _thread.allocate_lock()
done.acquire()
_thread.start_new_thread(trace.info, ("from a thread without a Python frame",))
asynctrace.current_trace().info("of the process")
"""


def test_records_made_where_no_python_code_runs(alone: Path) -> None:
    program = alone / "program.py"
    program.write_text(EXIT)
    result = subprocess.run(
        [sys.executable, "-W", "error", program],
        env={"ASYNCTRACE_SINKS": "sqlite:t.db", "PYTHONPATH": str(Path(asynctrace.__file__).parents[1])},
        cwd=alone,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert (result.returncode, result.stderr) == (0, "")
    messages = [record.message for record in asynctrace.find_trace("run", "sqlite:t.db")]
    assert sorted(messages) == [
        "from a thread without a Python frame",
        "from atexit, with no Python frame below",
    ]
    (own,) = asynctrace.find_traces("sqlite:t.db", name="program.py")
    assert (own.status.label, own.records) == ("ok", 1)
