"""What a sink does not take waits on disk, across restarts, in order; the ledger says where every record is."""

import asyncio
import json
import subprocess
import sys
from pathlib import Path

import loop_kit
import pytest
from disk_kit import files_up_to
from lane_kit import SPILLING, GatedRemote, Remote, ScriptedSink, auntil

import asynctrace
from asynctrace import (
    Batch,
    Kind,
    LaneOptions,
    LaneStats,
    PartialWriteError,
    PermanentSinkError,
    Rejection,
    Trace,
    TransientSinkError,
)
from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.spool_page import look

pytestmark = pytest.mark.anyio
anyio_backend = loop_kit.either_loop


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.1")
    diagnostics._last.clear()  # what was said in another test may be said again
    return tmp_path / "state"


async def record(sink: Remote, first: int, count: int, options: LaneOptions = SPILLING) -> LaneStats:
    """One process's life: a run of so many messages; the lane's page at its end."""
    async with Trace("run", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        for number in range(first, first + count):
            trace.info(str(number))
        if sink.up:
            await trace.aflush()
    return page(pipeline)


def page(pipeline: asynctrace.Pipeline) -> LaneStats:
    (lane,) = pipeline.stats().lanes
    assert lane.balanced, lane
    return lane


def texts(count: int) -> list[str]:
    return [str(number) for number in range(count)]


def spooled(state: Path) -> int:
    return sum(look(path).records for path in (state / "spool").iterdir())


# -- down at exit, back at the next start --------------------------------------------------------------------


async def test_down_at_exit_and_back_at_the_next_start(state: Path) -> None:
    before = await record(Remote(up=False), 0, 500)
    assert (before.spooled, before.delivered, before.lost) == (502, 0, 0)

    back = Remote()
    after = await record(back, 500, 100)

    assert back.messages == texts(600)
    assert len(set(back.keys)) == len(back.keys) == 604
    assert (after.adopted, after.delivered, after.spooled, after.emitted) == (502, 604, 0, 102)
    assert spooled(state) == 0


async def test_down_for_several_starts(state: Path) -> None:
    for start in range(5):
        stats = await record(Remote(up=False), start * 50, 50)
        assert stats.spooled == (start + 1) * 52
        assert stats.adopted == start * 52
    back = Remote()
    await record(back, 250, 50)
    assert back.messages == texts(300)
    assert len(set(back.keys)) == len(back.keys)


async def test_marks_wait_with_their_records_and_come_once(state: Path) -> None:
    await record(Remote(up=False), 0, 30)
    back = Remote()
    await record(back, 30, 30)
    by_producer: dict[str, int] = {}
    for mark in back.marks:
        by_producer[mark.producer] = by_producer.get(mark.producer, 0) + mark.admitted
    assert sorted(by_producer.values()) == [32, 32]


def test_without_an_event_loop_of_its_own(state: Path) -> None:
    with Trace("run", sinks=[(Remote(up=False), SPILLING)]) as trace:
        trace.info("0")
    back = Remote()
    with Trace("run", sinks=[(back, SPILLING)]) as trace:
        trace.info("1")
    assert back.messages == ["0", "1"]


PROGRAM = """
import sys, os
from lane_kit import SPILLING, Remote
from asynctrace import Trace
trace = Trace("run", sinks=[(Remote(up=False), SPILLING)]).__enter__()
for number in range(100):
    trace.info(str(number))
if sys.argv[1] == "raise":
    raise KeyError("on purpose")
"""


@pytest.mark.parametrize("end", ["exit", "raise"])
def test_at_the_exit_of_a_program_that_closes_nothing(state: Path, end: str) -> None:
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    done = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{PROGRAM}", end],
        capture_output=True,
        text=True,
        timeout=40,
        check=False,
    )
    assert ("KeyError" in done.stderr) == (end == "raise"), done.stderr
    back = Remote()
    asyncio.run(record(back, 100, 5))
    assert back.messages == texts(105)


# -- while it runs -------------------------------------------------------------------------------------------


async def test_a_sink_that_stands_still_fills_the_disk_and_not_the_memory(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "10")
    sink = GatedRemote()
    async with Trace("run", sinks=[(sink, SPILLING)]) as trace:
        for number in range(10_000):
            trace.info(str(number))
            if number % 500 == 499:
                await asyncio.sleep(0)
        await auntil(lambda: page(trace.pipeline).spooled > 9_000)
        during = page(trace.pipeline)
        sink.gate.set()
        await trace.aflush()
        pipeline = trace.pipeline
        assert sink.messages == texts(10_000)
    assert during.pending < 1_000
    assert (page(pipeline).delivered, page(pipeline).lost) == (10_002, 0), page(pipeline)
    assert len(set(sink.keys)) == len(sink.keys)
    assert spooled(state) == 0


async def test_a_flush_waits_until_the_sink_has_what_is_on_disk(state: Path) -> None:
    sink = GatedRemote()
    async with Trace("run", sinks=[(sink, SPILLING)]) as trace:
        for number in range(1_000):
            trace.info(str(number))
        await auntil(lambda: page(trace.pipeline).spooled)
        flush = asyncio.ensure_future(trace.aflush())
        await asyncio.sleep(0)
        assert not flush.done()
        sink.gate.set()
        await flush
        assert sink.messages == texts(1_000)


async def test_without_room_on_disk_the_rest_is_counted(state: Path) -> None:
    from dataclasses import replace

    small = replace(SPILLING, spool_max_bytes=20_000)
    stats = await record(Remote(up=False), 0, 500, small)
    assert 0 < stats.spooled < 60
    assert stats.dropped == {"spool full": 502 - stats.spooled}


async def test_no_state_directory_that_can_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    diagnostics._last.clear()
    (tmp_path / "file").touch()
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "file" / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.05")
    stats = await record(Remote(up=False), 0, 10)
    assert sum(stats.dropped.values()) == 12
    said = [entry.message for entry in caplog.records if "no state directory can be written" in entry.message]
    assert len(said) == 1


def test_a_sink_without_a_name_keeps_nothing_for_another(state: Path) -> None:
    class Nameless(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            raise TransientSinkError("nobody there")

    with Trace("run", sinks=[(Nameless(), SPILLING)]) as trace:
        pipeline = trace.pipeline
    assert sum(page(pipeline).dropped.values()) == 2
    assert not state.exists()


# -- dead letters --------------------------------------------------------------------------------------------


def letters(state: Path) -> DeadLetters:
    (path,) = (state / "dead").iterdir()
    return DeadLetters(path)


async def test_what_is_rejected_for_good_is_kept_with_the_reason(state: Path) -> None:
    def third(batch: Batch) -> Exception | None:
        bad = [i for i, each in enumerate(batch) if each.message == "2"]
        return PartialWriteError([Rejection(i, "the third is wrong") for i in bad]) if bad else None

    sink = Remote([third] * 9)
    stats = await record(sink, 0, 5)

    (letter,) = letters(state)
    assert (stats.dead, stats.delivered) == (1, 6)
    assert (letter.reason, letter.sink, letter.traceback) == ("the third is wrong", repr(sink), "")
    assert letter.to_record().message == "2"
    assert sink.messages == ["0", "1", "3", "4"]


async def test_a_surprise_is_kept_with_its_traceback(state: Path) -> None:
    sink = Remote([ZeroDivisionError("a bug of the sink")] * 3)
    stats = await record(sink, 0, 5)
    assert (stats.dead, stats.delivered) == (6, 1), "the end of the run came after the bug"
    kept = list(letters(state))
    assert [letter.to_record().message for letter in kept if letter.to_record().kind is Kind.LOG] == texts(5)
    assert "in write" in kept[0].traceback
    assert kept[0].traceback.endswith("ZeroDivisionError: a bug of the sink\n")


async def test_replayed_letters_are_delivered_at_the_next_start(state: Path) -> None:
    await record(Remote([PermanentSinkError("no such table")]), 0, 5)
    (directory,) = (state / "dead").iterdir()
    assert letters(state).replay(state / "spool" / directory.name) == 6

    back = Remote()
    stats = await record(back, 5, 5)

    assert back.messages == texts(10)
    assert (stats.replayed, stats.adopted, stats.delivered) == (6, 0, 13)
    assert list(letters(state)) == []


async def test_what_dies_on_its_way_back_from_disk_is_taken_off_the_disk(state: Path) -> None:
    await record(Remote(up=False), 0, 5)
    stats = await record(Remote([PermanentSinkError("no such table")]), 5, 5)
    assert (stats.adopted, stats.dead, stats.spooled) == (7, 7, 0)
    assert spooled(state) == 0
    assert len(list(letters(state))) == 7


def test_only_the_owner_can_read_what_is_kept(state: Path) -> None:
    asyncio.run(record(Remote([PermanentSinkError("no")]), 0, 1))
    asyncio.run(record(Remote(up=False), 0, 1))
    assert {path.stat().st_mode & 0o77 for path in [state, *state.rglob("*")]} == {0}
    line = next(path for path in state.rglob("*.jsonl")).read_text().splitlines()[0]
    assert json.loads(line)["record"]["run_id"] == "run"


# -- faults --------------------------------------------------------------------------------------------------

REPLAYER = """
import asyncio, sys
import lane_kit
from lane_kit import SPILLING
from asynctrace import Trace
told = 0
class Remote(lane_kit.Remote):
    async def write(self, batch):
        global told
        for record in batch:
            print(record.producer, record.seq, flush=True)
        told += len(batch)
        await asyncio.sleep(0.001 if told < int(sys.argv[1]) else 0.05)  # not done before it is killed
async def main():
    async with Trace("run", sinks=[(Remote(), SPILLING)]) as trace:
        trace.info("new")
        await asyncio.sleep(60)
asyncio.run(main())
"""


@pytest.mark.parametrize("lines", [1, 150, 1_001])
def test_killed_while_replaying_nothing_is_lost_and_at_most_a_batch_comes_twice(
    state: Path, lines: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asyncio.run(record(Remote(up=False), 0, 2_000))
    path = [str(Path(__file__).parent), str(Path(__file__).parents[1])]
    process = subprocess.Popen(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {path!r}\n{REPLAYER}", str(lines)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told = [process.stdout.readline() for _ in range(lines)]
    process.kill()
    told += process.stdout.readlines()
    process.stdout.close()
    process.wait(timeout=20)
    whole = [line.split() for line in told if line.endswith("\n")]  # the kill may have torn the last one
    assert len(whole) >= len(told) - 1, told[-3:]
    first = {(producer, int(seq)) for producer, seq in whole}

    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "10")
    back = Remote()
    asyncio.run(record(back, 2_000, 1))

    old = [each for each in back.records if each.producer == back.records[0].producer]
    assert [each.seq for each in old] == list(range(old[0].seq, 2_003)), "in order, up to the last"
    assert first.union(back.keys) >= {(old[0].producer, seq) for seq in range(1, 2_003)}
    assert len(first.intersection(back.keys)) <= 2 * SPILLING.max_records


async def test_a_disk_that_is_full_loses_nothing_that_fits_elsewhere(
    state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    sink = GatedRemote()
    with files_up_to(30_000):
        async with Trace("run", sinks=[(sink, SPILLING)]) as trace:
            pipeline = trace.pipeline
            for number in range(3_000):
                trace.info(str(number))
            await auntil(lambda: "the spool takes nothing" in caplog.text)
            sink.gate.set()
            await trace.aflush()
    assert sink.messages == texts(3_000)
    assert page(pipeline).lost == 0


def test_a_sink_that_is_being_taken_out_when_its_loop_is_closed_loses_nothing(state: Path) -> None:
    loop = asyncio.new_event_loop()
    away = Remote(up=False)

    async def main() -> tuple[Trace, asyncio.Future[None]]:
        trace = Trace("run", sinks=[(away, SPILLING), "memory:"])
        await trace.__aenter__()
        trace.info("0")
        taking_out = asyncio.ensure_future(trace.aremove_sink(away))
        await auntil(lambda: away not in trace.sinks())
        return trace, taking_out

    trace, taking_out = loop.run_until_complete(main())
    loop.close()
    back = Remote()
    asyncio.run(record(back, 1, 1))
    assert back.messages == ["0", "1"]
    trace.close()
    taking_out._log_destroy_pending = False  # type: ignore[attr-defined]  # it stood still with its loop


async def test_a_lane_that_runs_delivers_what_a_process_leaves_that_dies_meanwhile(
    state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("asynctrace.pipeline.lane.LOOK_INTERVAL", 0.05)
    up, down = Remote(), Remote(up=False)
    async with Trace("survivor", sinks=[(up, SPILLING)]) as trace:
        await trace.aflush()
        async with Trace("other", sinks=[(down, SPILLING)]) as other:
            other.info("left behind")
        await auntil(lambda: "left behind" in up.messages)
        await auntil(lambda: trace.pipeline.stats().lanes[0].spooled == 0)
        trace.info("and new ones go on")
        await trace.aflush()
        lane = trace.pipeline.stats().lanes[0]
    assert (lane.adopted, lane.lost) == (3, 0)
    assert lane.balanced
    assert up.messages == ["left behind", "and new ones go on"]
