"""What goes wrong with loggers and tracers elsewhere, again and again: each test guards against one of them."""

from __future__ import annotations

import asyncio
import logging
import os
import subprocess
import sys
import textwrap
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import aiosqlite
import pytest
from lane_kit import DEADLINE, QUICK, ScriptedSink, auntil

import asynctrace
from asynctrace import (
    Batch,
    BatchTooLargeError,
    Kind,
    Level,
    Status,
    Trace,
    TransientSinkError,
    Verdict,
    current_trace,
    dead_letters,
    find_trace,
    traced,
    verify,
)
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")

ROOT = Path(__file__).parents[1]


@pytest.fixture(autouse=True)
def state(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(alone / "state"))


def texts(sink: MemorySink | ScriptedSink) -> list[str]:
    return [record.message for record in sink.records if record.kind is Kind.LOG]


def ends(sink: MemorySink) -> dict[str, Status | None]:
    return {record.message: record.status for record in sink.records if record.kind is Kind.SPAN_END}


def run_program(program: str, *arguments: str) -> str:
    """What the program says on stderr; it must end in time and without an error."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(program), *arguments],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    return done.stderr


# -- 1 -------------------------------------------------------------------------------------------------------


def test_an_async_generator_closed_in_another_task_ends_its_span_in_silence(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Elsewhere the span's token is reset in a foreign context: a ValueError is logged, or the context stays wrong."""
    sink = MemorySink()

    async def by_hand(trace: Trace) -> AsyncIterator[int]:
        with trace.span("by hand"):
            for number in range(10):
                trace.info("step by hand")
                yield number

    @traced("decorated")
    async def decorated(trace: Trace) -> AsyncIterator[int]:
        for number in range(10):
            trace.info("step decorated")
            yield number

    async def main() -> None:
        async with Trace("r", sinks=[(sink, QUICK)]) as trace:
            for generator in (by_hand(trace), decorated(trace)):
                assert await anext(generator) == 0  # type: ignore[call-overload]
                await asyncio.create_task(generator.aclose())  # type: ignore[attr-defined]
            left = by_hand(trace)
            await anext(left)  # type: ignore[call-overload]
            del left  # the loop closes it, in a task of its own
            await auntil(lambda: "by hand" in ends(sink))
            assert current_trace() is trace
            await asyncio.create_task(_record(trace, "after"))

    async def _record(trace: Trace, message: str) -> None:
        assert current_trace() is trace
        await trace.ainfo(message)

    asyncio.run(main())
    assert caplog.records == []
    finished = Counter(record.message for record in sink.records if record.kind is Kind.SPAN_END)
    assert finished == {"by hand": 2, "decorated": 1}
    assert texts(sink)[-1] == "after"


# -- 2 -------------------------------------------------------------------------------------------------------


def test_one_record_over_the_size_limit_does_not_poison_its_batch() -> None:
    """Elsewhere a 413 drops the whole batch, or has it sent again for ever while nothing else gets through."""
    most = 20_000

    def content_too_large(batch: Batch) -> Exception | None:
        size = sum(len(str(record.fields)) + 100 for record in batch)
        return BatchTooLargeError(f"413 Content Too Large: {size} bytes") if size > most else None

    class Limited(ScriptedSink):
        def __repr__(self) -> str:
            return "<Limited test://host>"

    sink = Limited([content_too_large] * 1_000)

    async def main() -> asynctrace.PipelineStats:
        async with Trace("r", sinks=[(sink, QUICK)]) as trace:
            for number in range(500):
                trace.info(str(number), payload="x" * (most * 2 if number == 250 else 10))
            await trace.aflush()
            return trace.pipeline.stats()

    (lane,) = asyncio.run(main()).lanes
    assert texts(sink) == [str(number) for number in range(500) if number != 250]
    assert (lane.dead, lane.lost, lane.pending) == (1, 1, 0)
    (letter,) = dead_letters()
    assert "413" in letter.reason
    assert letter.record.message == "250"


# -- 3 -------------------------------------------------------------------------------------------------------


def test_one_attribute_that_cannot_be_serialised_takes_nothing_with_it(alone: Path) -> None:
    """Elsewhere one odd value loses its record, or the whole batch that it stands in, in the background."""

    class Hostile:
        def _fail(self, *_: object) -> NoReturn:
            raise RuntimeError("not with me")

        __repr__ = __str__ = __getattr__ = __reduce__ = _fail  # type: ignore[assignment]

    endless: list[Any] = []
    endless.append(endless)
    values = [
        Hostile(),
        endless,
        threading.Lock(),
        b"\xff\x00",
        "\ud800",
        float("nan"),
        {1: {2, 3}},
        10**5_000,
    ]
    store = f"sqlite:{alone}/t.db"
    with Trace("r", sinks=[store]) as trace:
        for number, value in enumerate(values):
            trace.info("before", number=number)
            trace.info("odd", number=number, value=value, other="kept")
        trace.info("last %s", Hostile())
    records = find_trace("r", store).records
    odd = [record for record in records if record.message == "odd"]
    assert [record.fields["number"] for record in odd] == list(range(len(values)))
    assert {record.fields["other"] for record in odd} == {"kept"}
    assert len(records) == 2 * len(values) + 1
    assert verify(store).verdict is Verdict.COMPLETE


# -- 4 -------------------------------------------------------------------------------------------------------


def test_a_trace_outlives_the_event_loop_it_was_first_used_on() -> None:
    """Elsewhere the queue or the lock belongs to the first loop: the second run hangs, raises, or loses what waited."""
    sink = MemorySink()
    trace = Trace("r", sinks=[sink])

    async def main(first: int) -> None:
        for number in range(first, first + 100):
            await trace.ainfo(str(number))
        if first % 200:
            await trace.aflush(DEADLINE)

    for turn in range(5):
        asyncio.run(main(turn * 100))
    trace.info("500")
    trace.close()

    async def as_home(name: str) -> None:
        async with Trace("r", sinks=[(sink, QUICK)]) as other:
            other.info(name)

    asyncio.run(as_home("501"))
    asyncio.run(as_home("502"))
    assert texts(sink) == [str(number) for number in range(503)]


# -- 5 -------------------------------------------------------------------------------------------------------


def test_a_fork_with_a_full_queue_neither_hangs_the_child_nor_doubles_the_queue(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Elsewhere the child inherits a lock that nobody will release, or delivers the parent's queue once more."""
    store = f"sqlite:{alone}/t.db"
    program = """
        import os, sys, threading, warnings, asynctrace
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads at a fork, which is what is tried here
        trace = asynctrace.Trace("r", sinks=[sys.argv[1]])
        trace.info("first")
        stop = threading.Event()
        def press():  # the locks are in use at the moment of the fork
            while not stop.is_set():
                trace.debug("pressure")
        threads = [threading.Thread(target=press) for _ in range(3)]
        for thread in threads: thread.start()
        while not trace.pipeline.stats().dropped: pass
        children = []
        for number in range(5):
            child = os.fork()
            if child == 0:
                trace.error(f"child {number}")
                trace.flush(10)
                trace.close(10)
                os._exit(0)
            children.append(child)
        stop.set()
        for child in children: assert os.waitpid(child, 0)[1] == 0
        for thread in threads: thread.join()
        trace.close(20)
        (lane,) = trace.pipeline.stats().lanes
        assert lane.balanced and not lane.pending
    """
    monkeypatch.setenv("ASYNCTRACE_QUEUE_SIZE", "500")
    run_program(program, store)
    found = Counter(record.message for record in find_trace("r", store).records)
    assert {f"child {number}": found[f"child {number}"] for number in range(5)} == {
        f"child {number}": 1 for number in range(5)
    }
    verification = verify(store)
    assert verification.doubles == verification.lost == 0


# -- 6 -------------------------------------------------------------------------------------------------------


def test_a_flush_returns_although_its_worker_was_killed() -> None:
    """Elsewhere flush waits for a confirmation of the background worker, for ever when that has died."""

    class Fatal(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            if not self.sizes:
                self.sizes.append(len(batch))
                raise SystemExit("a driver that ends the thread")
            await super().write(batch)

    sink = Fatal()
    with Trace("r", sinks=[(sink, QUICK)]) as trace:
        trace.info("0")
        assert trace.flush(DEADLINE).done
        home = trace.pipeline.loop
        assert home is not None

        async def kill_all() -> None:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()

        for number in range(1, 4):
            asyncio.run_coroutine_threadsafe(kill_all(), home).result(DEADLINE)
            trace.info(str(number))
            assert trace.flush(DEADLINE).done
            assert texts(sink) == [str(each) for each in range(number + 1)]


def test_a_flush_behind_dropped_records_returns_with_the_journal_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same where the last records before the flush found no room: it waited for numbers that never come."""
    monkeypatch.setenv("ASYNCTRACE_QUEUE_SIZE", "20")
    sink = ScriptedSink()

    async def main() -> None:
        async with Trace("r", sinks=[(sink, QUICK)], durability="process") as trace:
            for number in range(25):
                trace.info(str(number))
            report = await asyncio.wait_for(trace.aflush(), DEADLINE)
            assert report.done

    asyncio.run(main())
    assert texts(sink)[:10] == [str(number) for number in range(10)]


# -- 7 -------------------------------------------------------------------------------------------------------


class Forward(logging.Handler):
    """What a program does that sends its logging to its traces."""

    def __init__(self, trace: Trace) -> None:
        super().__init__()
        self._trace = trace

    def emit(self, record: logging.LogRecord) -> None:
        self._trace.warning(record.getMessage())


@pytest.fixture
def root_level() -> Iterator[None]:
    root = logging.getLogger()
    before, level = list(root.handlers), root.level
    yield
    root.handlers[:] = before
    root.setLevel(level)


@pytest.mark.usefixtures("root_level")
def test_an_exporter_that_logs_into_itself_neither_recurses_nor_floods() -> None:
    """Elsewhere the failure of an export is logged, exported, fails, is logged …: a recursion or an endless loop."""
    diagnostics._last.clear()
    driver = logging.getLogger("driver")

    class Talking(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            driver.debug("POST /v1/logs")
            await super().write(batch)

    sink = Talking([TransientSinkError("connection refused")] * 50)

    async def main() -> asynctrace.PipelineStats:
        async with Trace("r", sinks=[(sink, replace(QUICK, linger=0.01, trigger=1_000))]) as trace:
            logging.getLogger().addHandler(Forward(trace))
            logging.getLogger().setLevel(logging.DEBUG)
            trace.info("the program's own")
            await asyncio.wait_for(trace.aflush(), DEADLINE)
            pipeline = trace.pipeline
        return pipeline.stats()

    stats = asyncio.run(main())
    assert stats.balanced
    assert "the program's own" in texts(sink)
    told = [text for text in texts(sink) if "write failed" in text]
    assert len(told) <= 1, "once a minute is enough"
    # A line of the driver for each write, and a write for each linger: slow enough to end.
    assert texts(sink).count("POST /v1/logs") <= len(sink.sizes)
    assert stats.emitted < 200


@pytest.mark.usefixtures("root_level")
def test_storing_what_a_program_logs_logs_nothing_itself(alone: Path) -> None:
    """Elsewhere the driver's debug lines about storing a record are records to store, for ever."""
    heard: list[logging.LogRecord] = []

    class Listen(Forward):
        def emit(self, record: logging.LogRecord) -> None:
            heard.append(record)
            super().emit(record)

    trace = Trace("r", sinks="sqlite:./t.db")
    logging.getLogger().addHandler(Listen(trace))
    logging.getLogger().setLevel(logging.DEBUG)
    for number in range(5):
        logging.info("%s", number)
        trace.flush(DEADLINE)
    trace.close()
    assert [record.getMessage() for record in heard] == list("01234")
    assert [record.message for record in find_trace("r", "sqlite:./t.db")] == list("01234")

    async def of_the_program() -> None:
        async with aiosqlite.connect(":memory:") as connection:
            await connection.execute("SELECT 1")

    heard.clear()
    asyncio.run(of_the_program())
    assert "aiosqlite" in {record.name for record in heard}, "the program's own use is not silenced"


# -- 8 -------------------------------------------------------------------------------------------------------


def test_a_cancellation_is_no_error_and_is_passed_on() -> None:
    """Elsewhere a cancelled task counts as failed, its span never ends, or the cancellation is swallowed."""
    sink = MemorySink()

    async def work(trace: Trace) -> None:
        async with trace.span("outer"):
            with trace.span("inner"):
                await nested()

    @traced("decorated")
    async def nested() -> None:
        await asyncio.Event().wait()

    async def run(run_id: str) -> None:
        async with Trace(run_id, sinks=[(sink, QUICK)]) as trace:
            await work(trace)

    async def main() -> None:
        async with Trace("r", sinks=[(sink, QUICK)]):
            task = asyncio.create_task(run("cancelled"))
            await auntil(
                lambda: [r for r in sink.records if r.kind is Kind.SPAN_START and r.message == "decorated"]
            )
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

    asyncio.run(main())
    assert ends(sink) == dict.fromkeys(("outer", "inner", "decorated"), Status.CANCELLED)
    status = {record.run_id: record.status for record in sink.records if record.kind is Kind.RUN_END}
    assert status == {"cancelled": Status.CANCELLED, "r": Status.OK}
    assert not [record for record in sink.records if record.level >= Level.ERROR or record.exception]


# -- 9 -------------------------------------------------------------------------------------------------------


def test_records_after_the_shutdown_are_stored_or_counted(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Elsewhere what is recorded after shutdown vanishes, raises in the caller, or recurses into its own warning."""
    diagnostics._last.clear()
    local, remote = f"sqlite:{alone}/t.db", ScriptedSink()
    trace = Trace("r", sinks=[local, (remote, QUICK)])
    trace.info("in time")
    trace.close()
    asynctrace.shutdown()
    for number in range(100):
        trace.info(f"late {number}")
    assert [record.message for record in find_trace("r", local).records] == [
        "in time",
        *[f"late {number}" for number in range(100)],
    ]
    stats = trace.pipeline.stats()
    assert stats.balanced
    to_disk = {lane.lane: (lane.pending, sum(lane.dropped.values())) for lane in stats.lanes}
    assert to_disk == {"sqlite": (0, 0), "scripted": (0, 100)}, (
        "a remote store is out of reach by now: counted"
    )
    assert sum("after the end of their pipeline" in record.message for record in caplog.records) == 1


def test_records_from_the_last_functions_of_a_program_are_stored(alone: Path) -> None:
    """The same, at the very end: finalisers and exit functions run after every shutdown hook."""
    store = f"sqlite:{alone}/t.db"
    program = """
        import atexit, sys, asynctrace
        trace = asynctrace.Trace("r", sinks=[sys.argv[1]])
        class Last:
            def __del__(self): trace.info("from __del__")
        atexit.register(lambda: trace.info("from atexit"))
        trace.info("first")
        asynctrace.shutdown()
        last = Last()
    """
    run_program(program, store)
    messages = [record.message for record in find_trace("r", store).records]
    assert messages[:2] == ["first", "from atexit"]
    assert set(messages) <= {"first", "from atexit", "from __del__"}


# -- 10 ------------------------------------------------------------------------------------------------------


def test_a_file_that_many_workers_rotate_keeps_every_record(alone: Path) -> None:
    """Elsewhere each worker renames the file under the others: they go on in the old one, or overwrite it."""
    store = f"file:{alone}/t.jsonl"
    program = """
        import sys, asynctrace
        with asynctrace.Trace(sys.argv[2], sinks=[sys.argv[1] + "?rotate_bytes=15000"]) as trace:
            for number in range(400):
                trace.info(str(number))
                if number % 20 == 0: trace.flush()
    """
    workers = [
        threading.Thread(target=run_program, args=(program, store, f"run-{number}")) for number in range(4)
    ]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(4):
        messages = [record.message for record in find_trace(f"run-{number}", store).records]
        assert messages == [str(each) for each in range(400)]
    verification = verify(store)
    assert verification.verdict is Verdict.COMPLETE, verification
    assert verification.doubles == 0
    assert len(list(alone.glob("t.*.jsonl"))) > 4, "it was rotated"
