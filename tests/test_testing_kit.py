"""The kit that users test their tracing with: a sink that fails on cue, captured traces, fixed ids and time."""

import asyncio
import contextlib
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import ClassVar

import pytest
from lane_kit import auntil

import asynctrace
from asynctrace import (
    Batch,
    ConfigurationError,
    LaneOptions,
    Level,
    Pipeline,
    Record,
    RetryPolicy,
    Sink,
    Trace,
    TransientSinkError,
    current_trace,
)
from asynctrace.testing import (
    ManualClock,
    ScriptedSink,
    SinkContract,
    aassert_no_loss,
    assert_no_loss,
    captured,
    faults,
    fixed_ids,
    fixed_time,
    make_batch,
)
from asynctrace.testing.faults import Fault

pytestmark = pytest.mark.usefixtures("alone")
pytest_plugins = ["pytester"]

QUICK = LaneOptions(retry=RetryPolicy(base=0.001, ceiling=0.005), write_timeout=5.0, max_records=64, short=64)


class TestScriptedSink(SinkContract):
    no_refusal: ClassVar[str] = "a script decides who is refused"
    no_poison: ClassVar[str] = "a script decides what is refused"

    @pytest.fixture(autouse=True)
    def _sink(self) -> None:
        self.sink = ScriptedSink()

    def make_sink(self) -> Sink:
        return self.sink

    async def read_back(self) -> Sequence[Record]:
        return self.sink.records

    @contextlib.contextmanager
    def outage(self) -> Iterator[None]:
        self.sink.after_script(faults.Away())
        yield
        self.sink.after_script(faults.Fine())


async def deliver(
    *script: Fault, count: int = 100, options: LaneOptions = QUICK
) -> tuple[ScriptedSink, Pipeline]:
    """Records through a real lane into a sink with that script; the pipeline is closed."""
    sink = ScriptedSink(*script)
    async with Trace("run-1", sinks=[(sink, options)]) as trace:
        for number in range(count):
            trace.info("record %d", number)
        await trace.aflush()
    return sink, trace.pipeline


@pytest.mark.parametrize(
    "script",
    [
        [faults.Slow(0.01)],
        [faults.Away(), faults.Away()],
        [faults.RateLimited(0.01), faults.RateLimited()],
        [faults.TooLarge(10)] * 8,
        [faults.Partial(0, 5, 99, retryable=True)],
        [faults.DiskFull(after=3)],
        [faults.Crash(after=7), faults.Crash(after=None)],
        [faults.Surprise()],
        [faults.Slow(0.01, then=faults.Away()), faults.Crash(), faults.TooLarge()],
    ],
    ids=repr,
)
def test_what_passes_loses_nothing(script: list[Fault]) -> None:
    sink, _ = asyncio.run(deliver(*script))

    logs = sorted((record for record in sink.records if not record.kind), key=lambda record: record.seq)
    assert [record.message for record in logs] == [f"record {n}" for n in range(100)]
    assert sink.left == 0


@pytest.mark.parametrize("fault", [faults.Refused(), faults.Partial(0, 1, 2)], ids=repr)
def test_what_is_refused_for_good_is_counted(fault: Fault) -> None:
    async def main() -> tuple[int, int, int]:
        sink = ScriptedSink(fault)
        async with Trace("run-1", sinks=[(sink, QUICK)]) as trace:
            for number in range(10):
                trace.info("record %d", number)
            await trace.aflush()
            (lane,) = trace.pipeline.stats().lanes
            return len(sink.records), lane.dead, lane.emitted

    stored, dead, emitted = asyncio.run(main())
    assert dead > 0
    assert stored + dead == emitted


def test_a_hang_ends_with_the_write_timeout() -> None:
    options = LaneOptions(retry=QUICK.retry, write_timeout=0.05)

    sink, _ = asyncio.run(deliver(faults.Hang(), options=options))

    assert len(sink.records) == 102


def test_a_crash_after_the_write_doubles_nothing() -> None:
    sink, _ = asyncio.run(deliver(faults.Crash(after=None), count=10))

    assert sink.doubles > 0
    assert len(sink.records) == 12


def test_a_write_can_be_waited_for_from_any_loop() -> None:
    sink = ScriptedSink(faults.Away(), faults.Away())
    done = threading.Event()

    def elsewhere() -> None:
        asyncio.run(sink.reached(3))
        done.set()

    waiting = threading.Thread(target=elsewhere)
    waiting.start()
    with Trace("run-1", sinks=[(sink, QUICK)]) as trace:
        trace.info("hello")
        assert done.wait(10)
    waiting.join()

    async def never() -> None:
        await sink.reached(1_000, timeout=0.01)

    with pytest.raises(TimeoutError):
        asyncio.run(never())


def test_a_script_takes_any_callable_and_nothing_else() -> None:
    async def odd(batch: object, keep: object) -> None:
        raise TransientSinkError("odd")

    sink, _ = asyncio.run(deliver(odd))
    assert len(sink.records) == 102
    with pytest.raises(ConfigurationError, match="script: 503"):
        ScriptedSink(503)  # type: ignore[arg-type]


def test_the_marks_of_failed_writes_are_not_kept() -> None:
    async def main() -> ScriptedSink:
        sink = ScriptedSink(faults.Away())
        await sink.open()
        batch = make_batch(2, marks=[asynctrace.Mark("p", 0, 1, 2)])
        with pytest.raises(TransientSinkError):
            await sink.write(batch)
        assert (sink.marks, sink.records) == ([], ())
        await sink.write(batch)
        return sink

    sink = asyncio.run(main())
    assert (len(sink.marks), sink.writes) == (1, [2, 2])


def test_a_partial_write_keeps_the_marks() -> None:
    async def main() -> ScriptedSink:
        sink = ScriptedSink(faults.Partial(0))
        await sink.open()
        with pytest.raises(asynctrace.PartialWriteError):
            await sink.write(make_batch(2, marks=[asynctrace.Mark("p", 0, 1, 2)]))
        return sink

    sink = asyncio.run(main())
    assert (len(sink.marks), len(sink.records)) == (1, 1)


def test_a_restart_finds_what_a_sink_with_a_name_did_not_take(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))

    async def start(sink: ScriptedSink, message: str) -> None:
        async with Trace("run-1", sinks=[(sink, QUICK)]) as trace:
            trace.info(message)
            await trace.aclose(0.05)

    for name, wanted in (("back-end", ["first", "second"]), (None, ["second"])):
        asyncio.run(start(ScriptedSink(then=faults.Away(), name=name), "first"))
        back = ScriptedSink(name=name)
        asyncio.run(start(back, "second"))
        assert [record.message for record in back.records if record.kind is asynctrace.Kind.LOG] == wanted


# -- captured traces ---------------------------------------------------------------------------------------


def test_captured_traces_are_there_to_look_at() -> None:
    with captured() as traces:
        with Trace("run-1", name="checkout", fields={"user_id": "u1"}) as trace:
            trace.info("loaded", rows=120)
            with trace.span("pay"):
                trace.error("declined", code=51)
            # Open still, and read all the same.
            assert traces.messages == ["loaded", "declined"]
        current_trace().debug("outside")

        assert [record.message for record in traces.filter(level="warning")] == ["declined"]
        assert traces.one("LOAD", user_id="u1", rows=120).run_id == "run-1"
        assert traces.one(run_name="checkout", level=Level.ERROR).fields["code"] == 51
        assert traces.filter(run_id="run-2") == traces.filter("nothing") == []
        assert [run.status.label for run in traces.runs if run.run_id == "run-1"] == ["ok"]
        assert len(traces.entries) > len(traces.records) == 3
        traces.assert_no_loss()
        traces.clear()
        assert traces.messages == []


def test_one_lists_what_there_is_instead() -> None:
    with captured() as traces, Trace("run-1") as trace:
        with pytest.raises(AssertionError, match="0 records instead of one; recorded were: none"):
            traces.one("x")
        trace.info("hello", rows=1)
        trace.info("hello", rows=2)
        with pytest.raises(AssertionError, match=r"2 records .*\n  info 'hello' \{'rows': 1\}\n"):
            traces.one("hello")


def test_traces_from_other_loops_and_threads_are_caught() -> None:
    async def work() -> None:
        async with Trace("run-async") as trace:
            await asyncio.gather(*(trace.ainfo("task %d", n) for n in range(10)))
            await asyncio.to_thread(trace.info, "thread")

    with captured() as traces:
        asyncio.run(work())
        assert len(traces.filter(run_id="run-async")) == 11


def test_afterwards_the_default_is_what_it_was(tmp_path: Path) -> None:
    with captured():
        pass
    assert asynctrace.settings._given is None

    url = f"sqlite:{tmp_path}/t.db"
    asynctrace.configure(url, level="warning", queue_size=500)
    with captured() as traces, Trace("caught") as trace:
        trace.debug("hello")
        assert traces.messages == ["hello"]
    with Trace("stored") as trace:
        trace.info("too low")
        trace.warning("kept")
    asynctrace.shutdown()

    assert [run.run_id for run in asynctrace.find_traces(url)] == ["stored"]
    assert [record.message for record in asynctrace.find_trace("stored", url)] == ["kept"]


# -- no loss ------------------------------------------------------------------------------------------------


def test_no_loss_is_asserted_of_stores_and_pipelines(tmp_path: Path) -> None:
    url = f"sqlite:{tmp_path}/t.db"
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("hello")
        assert_no_loss()
    assert_no_loss(url)

    async def main() -> None:
        async with Trace("run-2", sinks=[url]) as trace:
            trace.info("hello")
            await aassert_no_loss()
        await aassert_no_loss(url)

    asyncio.run(main())


def test_loss_is_told() -> None:
    async def main() -> None:
        async with Trace("run-1", sinks=[(ScriptedSink(then=faults.Refused()), QUICK)]) as trace:
            trace.info("hello")
            with pytest.raises(AssertionError, match=r"lane scripted .*2 record\(s\) rejected for good.*401"):
                await aassert_no_loss()

    asyncio.run(main())


def test_what_waits_on_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.1")

    class Away:
        async def open(self) -> None:
            pass

        async def write(self, batch: Batch) -> None:
            raise TransientSinkError("away")

        async def aclose(self) -> None:
            pass

        def __repr__(self) -> str:
            return "<Away>"

    async def main() -> None:
        options = LaneOptions(when_full="spill", high_water=1, write_timeout=None)
        async with Trace("run-1", sinks=[(Away(), options)]) as trace:
            pipeline = trace.pipeline
            trace.info("hello")
            await auntil(lambda: pipeline.stats().lanes[0].spooled)
            with pytest.raises(AssertionError, match=r"lane away .*record\(s\) on disk, not in the sink"):
                await aassert_no_loss(timeout=0.05)
        with pytest.raises(AssertionError, match=r"3 record\(s\) on disk"):
            await aassert_no_loss(pipeline, timeout=0.05)

    asyncio.run(asyncio.wait_for(main(), 30))


def test_what_is_on_its_way_is_told() -> None:
    async def main() -> None:
        sink = ScriptedSink(faults.Hang())
        async with Trace("run-1", sinks=[(sink, LaneOptions(write_timeout=None))]) as trace:
            trace.info("hello")
            with pytest.raises(AssertionError, match=r"record\(s\) not delivered in time"):
                await aassert_no_loss(timeout=0.05)
            await trace.aclose(0.05)

    asyncio.run(main())


# -- fixed ids and time ---------------------------------------------------------------------------------------


def ids_of_a_program() -> list[object]:
    with captured() as traces:
        with Trace() as trace, trace.span("one"), trace.span("two"):
            trace.info("hello")
        return [
            (r.run_id, r.producer, r.context.run.trace_id, r.context.run.attempt, r.span_id, r.parent_span_id)
            for r in traces.entries
        ]


def test_ids_follow_from_the_seed() -> None:
    with fixed_ids(7):
        first = ids_of_a_program()
    with fixed_ids(7):
        assert ids_of_a_program() == first
    with fixed_ids(8):
        assert ids_of_a_program() != first
    assert ids_of_a_program() != ids_of_a_program()


def test_time_stands_until_it_is_moved() -> None:
    clock = ManualClock(time_ns=1_000_000_000)
    with captured() as traces, fixed_time(clock):
        with Trace("run-1") as trace:
            trace.info("at once")
            clock.advance(2.5)
            with trace.span("load"):
                trace.info("later")
                clock.advance(0.25)
        times = [record.time_ns for record in traces.records]
        durations = [record.duration_ms for record in traces.entries if record.duration_ms is not None]

    assert times == [1_000_000_000, 3_500_000_000]
    assert durations == [250.0, 2750.0]
    with captured() as traces, Trace("run-2") as trace:
        trace.info("now")
        assert traces.one().time_ns > 1_700_000_000_000_000_000


def test_a_span_that_begins_at_the_zero_of_a_clock_has_an_end() -> None:
    with captured() as traces, fixed_time() as clock, Trace("run-1") as trace, trace.span("load"):
        clock.advance(1.5)

    assert [record.duration_ms for record in traces.entries] == [None, None, 1500.0, 1500.0]


# -- the fixtures -----------------------------------------------------------------------------------------------

PLUGIN = 'pytest_plugins = ["asynctrace.testing.pytest_plugin"]'


def test_the_fixtures(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(PLUGIN)
    pytester.makepyfile(
        """
        import pytest
        from asynctrace import Trace, current_trace, get_trace

        def program():
            with Trace(fields={"user_id": "u1"}) as trace:
                trace.info("sold", items=3)
            get_trace("other").warning("odd")
            return trace.run_id

        def test_traces(traces, assert_no_loss):
            program()
            assert traces.one("sold").fields == {"user_id": "u1", "items": 3}
            assert traces.filter(level="warning", run_id="other")
            assert_no_loss()

        def test_each_has_its_own(traces):
            assert traces.records == ()

        seen = []

        @pytest.mark.parametrize("turn", [1, 2])
        def test_ids(traces, fixed_trace_ids, turn):
            seen.append(program())
            assert len(set(seen)) == 1

        def test_clock(traces, trace_clock):
            program()
            trace_clock.advance(1.0)
            program()
            first, second = traces.filter("sold")
            assert second.time_ns - first.time_ns == 1_000_000_000

        def test_failure(traces):
            program()
            traces.one("bought")
        """
    )

    done = pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider")

    done.assert_outcomes(passed=5, failed=1)
    done.stdout.fnmatch_lines(
        ["*0 records instead of one; recorded were:*", "*info 'sold' {'user_id': 'u1', 'items': 3}*"]
    )


def test_nothing_is_loaded_into_sessions_that_do_not_ask(pytester: pytest.Pytester) -> None:
    pytester.makepyfile(
        """
        import sys

        def test_nothing():
            assert [name for name in sys.modules if name.startswith("asynctrace")] == []
        """
    )

    pytester.runpytest_subprocess("-W", "error", "-p", "no:cacheprovider", "-p", "no:cov").assert_outcomes(
        passed=1
    )


def test_the_kit_needs_no_pytest() -> None:
    program = (
        "import sys; sys.modules['pytest'] = None\n"
        "import asynctrace.testing as kit\n"
        "kit.ScriptedSink, kit.FaultProxy, kit.captured, kit.fixed_ids, kit.assert_no_loss\n"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", program], capture_output=True, text=True, timeout=30
    )

    assert (done.returncode, done.stderr) == (0, "")
