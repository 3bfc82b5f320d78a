"""Old runs leave their stores: when they should, by one process, beside the writing, and explained."""

import asyncio
import subprocess
import sys
import time
from pathlib import Path

import pytest
from cli_kit import SECONDS, STORES, Here, clean_environment
from lane_kit import auntil, until

import asynctrace
from asynctrace import ConfigurationError, StoreError, Trace, Verdict, averify, find_traces, prune, verify
from asynctrace.core.batch import Batch, Mark
from asynctrace.pipeline.chore import ChoreTimer
from asynctrace.pipeline.claim import exclusively
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.retention import Cleaner, Retention, _began
from asynctrace.sinks import registry
from asynctrace.testing import ManualClock, make_run
from asynctrace.testing.records import PRODUCER, START_NS

HOUR, DAY = 3_600.0, 86_400.0


@pytest.fixture(params=sorted(STORES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param].format(tmp_path)


@pytest.fixture
def clock() -> ManualClock:
    """At the moment at which the runs of :func:`store` were made."""
    _began.clear()
    return ManualClock(START_NS)


@pytest.fixture
def state(tmp_path: Path) -> StateDirectory:
    return StateDirectory([tmp_path / "state"])


def store(url: str, *run_ids: str) -> None:
    """Runs of the past, a hundred numbers apart."""

    async def main() -> None:
        sink = registry.sink_from_url(url)
        await sink.open()
        for index, run_id in enumerate(run_ids):
            await sink.write(make_run(run_id, first=100 * index))
        await sink.aclose()

    asyncio.run(main())


def run_ids(url: str) -> set[str]:
    return {run.run_id for run in find_traces(url)}


# -- when, and by whom ---------------------------------------------------------------------------------------


def test_an_interval_after_the_store_was_first_seen_and_then_once_an_interval(
    url: str, clock: ManualClock, state: StateDirectory
) -> None:
    store(url, "old")
    clock.advance(11 * DAY)
    cleaner = Cleaner([url], Retention(days=10), HOUR, state, clock)
    assert cleaner.due_in() == HOUR
    cleaner.run()
    assert run_ids(url) == {"old"}, "it was not due"

    clock.advance(HOUR)
    assert cleaner.due_in() == 0
    cleaner.run()
    assert run_ids(url) == set()
    assert cleaner.due_in() == HOUR

    clock.advance(HOUR / 2)
    _began.clear()  # as in another process
    assert Cleaner([url], Retention(days=10), HOUR, state, clock).due_in() == HOUR / 2


def test_younger_runs_stay(url: str, clock: ManualClock, state: StateDirectory) -> None:
    store(url, "old")
    cleaner = Cleaner([url], Retention(days=10), HOUR, state, clock)
    clock.advance(10 * DAY - 1)
    cleaner.run()
    assert run_ids(url) == {"old"}
    clock.advance(HOUR)
    cleaner.run()
    assert run_ids(url) == set()


def test_what_another_process_is_at_is_left_to_it(
    url: str, clock: ManualClock, state: StateDirectory
) -> None:
    store(url, "old")
    cleaner = Cleaner([url], Retention(days=10), HOUR, state, clock)
    clock.advance(11 * DAY)
    cleaner.run()
    store(url, "new but old")
    clock.advance(HOUR)
    (notes,) = (path.parent for path in Path(str(state).split()[1].rstrip(">")).rglob("cleaned"))
    with exclusively(notes, 0.0) as gained:
        assert gained
        cleaner.run()
    assert run_ids(url) == {"new but old"}
    clock.advance(HOUR)
    cleaner.run()
    assert run_ids(url) == set()


def test_without_a_state_directory_each_process_does_it(url: str, clock: ManualClock) -> None:
    store(url, "old")
    cleaner = Cleaner([url], Retention(days=10), HOUR, StateDirectory([]), clock)
    clock.advance(11 * DAY)
    cleaner.run()
    assert run_ids(url) == set()
    assert cleaner.due_in() == HOUR


def test_a_store_that_is_not_there_is_not_made(
    url: str, clock: ManualClock, state: StateDirectory, tmp_path: Path
) -> None:
    cleaner = Cleaner([url], Retention(days=10), HOUR, state, clock)
    clock.advance(HOUR)
    cleaner.run()
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_what_cannot_be_cleaned_is_said(
    clock: ManualClock, state: StateDirectory, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "t.db").write_text("this is no database, but long enough to look like one" * 100)
    cleaner = Cleaner([f"sqlite:{tmp_path}/t.db"], Retention(days=10), HOUR, state, clock)
    clock.advance(HOUR)
    cleaner.run()
    assert "keeps what is too old" in caplog.text


# -- how much ------------------------------------------------------------------------------------------------


def test_the_oldest_go_until_the_store_is_small_enough(url: str) -> None:
    for run in range(8):
        with Trace(f"run-{run}", sinks=[url]) as trace:
            for number in range(400):
                trace.info("message %d", number)

    async def used() -> int:
        reader = asynctrace.open_store(url)
        assert isinstance(reader, asynctrace.SizedReader)
        try:
            return await reader.used_bytes()
        finally:
            await reader.aclose()

    size = asyncio.run(used())
    assert size > 8 * 400 * 100
    removed = prune(url, max_bytes=size // 2)
    left = run_ids(url)
    assert left == {f"run-{run}" for run in range(8 - len(left), 8)}
    assert 3 <= len(left) <= 5
    assert removed == (8 - len(left)) * 402
    assert asyncio.run(used()) <= size // 2
    found = verify(url)
    assert found.verdict is Verdict.COMPLETE
    assert sum(each.pruned for each in found.producers) == removed
    assert prune(url, max_bytes=size // 2) == 0
    prune(url, max_bytes=1)
    assert run_ids(url) == {"run-7"}, "the newest stays"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({}, "days: None cannot be used; allowed: a number of days above 0, or max_bytes"),
        ({"days": -1}, "days: -1 cannot be used; allowed: a number of days from 0"),
        ({"max_bytes": -1}, "max_bytes: -1 cannot be used"),
    ],
)
def test_values_that_cannot_be_used(url: str, values: dict[str, float], problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        prune(url, **values)  # type: ignore[arg-type]


def test_no_store_is_an_error(url: str) -> None:
    with pytest.raises(StoreError):
        prune(url, days=1)
    with pytest.raises(StoreError):
        prune(url, max_bytes=1)


def test_the_command(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    here = Here(capsys)
    store(url, "old")
    with Trace("new", sinks=[url]) as trace:
        trace.info("hello")
    assert here("prune", url, "--days", "30").out == "5 records removed\n"
    assert here("prune", "--store", url, "--days", "30", "--json").out == '{\n  "removed": 0\n}\n'
    assert run_ids(url) == {"new"}
    assert here("prune", url).code == 2
    assert here("prune", url, "--store", url, "--days", "1").code == 2


# -- what is told of what went -------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_marks_do_not_grow_for_ever(url: str) -> None:
    """There is one for each batch, and they stay when what they tell of goes."""
    old, young = make_run("old", first=1, logs=2_998), make_run("young", first=3_001, logs=998)
    sink, reader = registry.sink_from_url(url), registry.reader_from_url(url)
    await sink.open()
    for run in (old, young):
        await sink.write(Batch(run, [Mark(PRODUCER, each.seq, each.seq, admitted=1) for each in run]))
    assert len([mark async for mark in reader.marks()]) == 4_000

    assert await reader.prune(young[0].time_ns) == 3_000
    marks = [mark async for mark in reader.marks()]
    assert len(marks) <= 1_100
    assert (sum(mark.admitted for mark in marks), sum(mark.pruned for mark in marks)) == (4_000, 3_000)

    late = Mark(PRODUCER, 4_001, 4_005, admitted=5)
    await sink.write(Batch(make_run("late", first=4_001), [late]))
    await sink.aclose()
    assert [mark async for mark in reader.marks()][-1] == late
    await reader.aclose()
    assert (await averify(url)).verdict is Verdict.COMPLETE


# -- in a pipeline -------------------------------------------------------------------------------------------


@pytest.mark.anyio
async def test_a_pipeline_cleans_beside_the_writing(
    url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    await asyncio.to_thread(store, url, "old-1", "old-2")
    _began.clear()
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLEANUP_INTERVAL", "0.05")
    written = 0
    with caplog.at_level("INFO", "asynctrace"):
        async with Trace("new", sinks=[url]) as trace:
            deadline = time.monotonic() + SECONDS
            while "10 record(s) of old runs were removed" not in caplog.text:
                assert time.monotonic() < deadline
                trace.info("message %d", written)
                written += 1
                await asyncio.sleep(0.001)
    assert await asyncio.to_thread(run_ids, url) == {"new"}
    found = await asynctrace.averify(url)
    assert (found.lost, found.stored) == (0, written + 2)


def test_zero_days_keep_everything(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_RETENTION_DAYS", "0")
    with Trace("run", sinks=[url]) as trace:
        assert trace.pipeline._residence._chores._chore is None


PROGRAM = """
import asyncio, sys
from asynctrace import Trace, find_traces
async def main(url):
    async with Trace(sys.argv[2], sinks=[url]) as trace:
        while any(run.run_id.startswith("old") for run in await asyncio.to_thread(find_traces, url)):
            trace.info("waiting")
            await asyncio.sleep(0.01)
asyncio.run(main(sys.argv[1]))
"""


def test_of_many_processes_each_record_is_removed_once(url: str, tmp_path: Path) -> None:
    store(url, *(f"old-{n}" for n in range(20)))
    environment = clean_environment() | {
        "ASYNCTRACE_STATE_DIR": str(tmp_path / "state"),
        "ASYNCTRACE_CLEANUP_INTERVAL": "0.05",
    }
    program = [sys.executable, "-W", "error", "-c", PROGRAM, url]
    processes = [subprocess.Popen([*program, f"new-{n}"], env=environment) for n in range(4)]
    assert [process.wait(SECONDS) for process in processes] == [0] * 4
    found = verify(url)
    assert found.lost == 0
    assert sum(each.pruned for each in found.producers) == 100
    assert run_ids(url) == {f"new-{n}" for n in range(4)}


class Counted:
    """A chore that is always due."""

    def __init__(self) -> None:
        self.runs = 0

    def due_in(self) -> float:
        return 0.0

    def run(self) -> None:
        self.runs += 1
        raise ZeroDivisionError("a bug of the chore")


@pytest.mark.anyio
async def test_a_timer_that_was_ended_starts_nothing(caplog: pytest.LogCaptureFixture) -> None:
    chore = Counted()
    timer = ChoreTimer(chore)
    loop = asyncio.get_running_loop()
    timer.begin(loop)
    await auntil(lambda: chore.runs)
    await auntil(lambda: "a bug of the chore" in caplog.text)
    timer.end()
    runs = chore.runs
    timer.look(loop)
    assert chore.runs == runs

    ended = ChoreTimer(chore)
    ended.begin(loop)
    ended.end()
    await asyncio.sleep(0.02)
    assert chore.runs == runs


def test_closed_pipelines_wait_for_nothing(tmp_path: Path) -> None:
    import gc
    import weakref

    async def main() -> weakref.ref[ChoreTimer]:
        async with Trace("run", sinks=[f"sqlite:{tmp_path}/t.db"]) as trace:
            trace.info("x")
            held = weakref.ref(trace.pipeline._residence._chores)
        del trace
        gc.collect()
        return held

    held = asyncio.run(main())
    until(lambda: gc.collect() is not None and held() is None)
