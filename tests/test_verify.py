"""Verification of real stores: loss is found to the record, and what is no loss is explained."""

import asyncio
import json
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import STORES, Here, clean_environment

import asynctrace
from asynctrace import (
    LaneOptions,
    Level,
    StoreError,
    Trace,
    Verdict,
    Verification,
    averify,
    open_store,
    verify,
)
from asynctrace.sinks.memory import MemoryReader, MemorySink
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing import make_batch

SECONDS = 30.0

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture(params=sorted(STORES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param].format(tmp_path)


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


def record(url: str, run_id: str = "run-1", count: int = 100) -> None:
    with Trace(run_id, sinks=[url]) as trace:
        for number in range(count):
            trace.info("record %d", number)


def database(url: str) -> sqlite3.Connection:
    return sqlite3.connect(url.removeprefix("sqlite:"), isolation_level=None)


def lines_of(url: str) -> Iterator[Path]:
    """The files that hold the log records."""
    path = Path(url.removeprefix("file:"))
    return iter([path]) if path.is_file() else path.glob("*/metadata.jsonl")


def remove(url: str, numbers: set[int]) -> None:
    """Take log records away behind everybody's back."""
    if url.startswith("sqlite:"):
        with closing(database(url)) as connection:
            for number in numbers:
                connection.execute("DELETE FROM traces WHERE seq = ?", (number,))
        return
    for path in lines_of(url):
        kept = [line for line in path.read_text().splitlines() if json.loads(line).get("seq") not in numbers]
        path.write_text("".join(f"{line}\n" for line in kept))


def test_a_store_that_was_closed_is_complete(url: str) -> None:
    record(url)

    found = verify(url)

    assert (found.verdict, found.stored, found.lost, found.doubles) == (Verdict.COMPLETE, 102, 0, 0)


def test_removed_records_are_found_to_the_record(url: str) -> None:
    record(url)
    remove(url, {7, 50, 51})

    found = verify(url)

    assert (found.verdict, found.lost) == (Verdict.LOSS, 3)
    ((loss,),) = [account.losses for account in found.producers]
    assert loss.missing == ((7, 7), (50, 51))
    assert loss.exact


def test_several_traces_are_told_apart(url: str) -> None:
    record(url, "run-1")
    record(url, "run-2")
    assert verify(url).verdict is Verdict.COMPLETE

    remove(url, {7})

    assert [account.lost for account in verify(url).producers] == [1, 1]


async def write_selectively(url: str) -> None:
    selective = LaneOptions(level=Level.ERROR, mark_every=40)
    async with Trace("run-1", sinks=[(url, selective), "memory:"]) as trace:
        for number in range(100):
            trace.info("no")
            if number % 10 == 0:
                trace.error("yes")


def test_what_a_level_held_back_is_explained(url: str) -> None:
    asyncio.run(write_selectively(url))

    found = verify(url)

    (account,) = found.producers
    assert found.verdict is Verdict.COMPLETE
    assert (account.stored, account.filtered, account.last) == (12, 100, 112)

    remove(url, {2, 3})  # the first was held back, the second was there
    ((loss,),) = [account.losses for account in verify(url).producers]
    assert (loss.records, loss.exact) == (1, False)
    assert any(first <= 3 <= last for first, last in loss.missing)
    remove(url, set(range(2, 112)))
    (account,) = verify(url).producers
    assert account.lost == 10


def test_drops_at_a_full_intake_are_explained(url: str) -> None:
    asynctrace.configure("memory:", queue_size=100)

    async def main() -> None:
        async with Trace("run-1", sinks=[url]) as trace:
            for _ in range(500):  # the writer has no turn meanwhile
                trace.info("record")
            await trace.aflush()
            trace.info("room again")

    asyncio.run(main())

    found = verify(url)

    (account,) = found.producers
    assert found.verdict is Verdict.COMPLETE
    assert account.dropped > 300
    assert account.stored + account.dropped == account.last


def test_pruned_runs_are_explained(url: str) -> None:
    record(url, "run-1")
    record(url, "run-2")

    async def prune() -> int:
        reader = open_store(url)
        try:
            return await reader.prune(time.time_ns())
        finally:
            await reader.aclose()

    assert asyncio.run(prune()) == 204
    record(url, "run-3")

    found = verify(url)

    assert (found.verdict, found.stored) == (Verdict.COMPLETE, 102)
    assert sum(account.pruned for account in found.producers) == 204


def test_pruning_again_and_again_leaves_one_mark_a_producer(tmp_path: Path) -> None:
    url = STORES["sqlite"].format(tmp_path)

    async def main() -> None:
        reader = open_store(url)
        async with Trace("outer", sinks=[url]) as outer:
            for number in range(5):
                async with Trace(f"short-{number}", sinks=[url]) as short:
                    short.info("soon gone")
                newest = time.time_ns()
                outer.info("goes on")  # so that this run is not pruned
                await outer.aflush()
                assert await reader.prune(newest) == 3
        await reader.aclose()

    asyncio.run(main())

    with closing(database(url)) as connection:
        pruned = connection.execute("SELECT pruned FROM trace_marks WHERE pruned > 0").fetchall()
    assert pruned == [(15,)]
    assert verify(url).verdict is Verdict.COMPLETE


def test_what_goes_after_pruning_is_lost_all_the_same(url: str) -> None:
    async def main() -> None:
        # One pipeline, so one producer; both runs share its range of numbers.
        async with Trace("old", sinks=[url]) as old:
            for _ in range(10):
                old.info("old")
            async with Trace("new", sinks=[url]) as new:
                old.close()
                for _ in range(10):
                    new.info("new")

    asyncio.run(main())
    assert verify(url).verdict is Verdict.COMPLETE
    remove(url, {5})
    assert verify(url).lost == 1


def test_nothing_is_proven_while_a_run_goes_on(url: str) -> None:
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("safe")
        trace.flush()

        found = verify(url)

        assert found.verdict is Verdict.UNPROVEN
        assert [account.unfinished for account in found.producers] == [("run-1",)]
    assert verify(url).verdict is Verdict.COMPLETE


def test_doubles_in_files_are_told_and_are_no_loss(tmp_path: Path, here: Here) -> None:
    url = STORES["file"].format(tmp_path)
    record(url, count=3)
    (path,) = lines_of(url)
    path.write_text(path.read_text() + path.read_text())

    found = verify(url)

    assert (found.verdict, found.doubles, found.stored) == (Verdict.COMPLETE, 3, 5)
    assert here("verify", url).code == 0
    assert "3 copies of records are stored: no loss" in here("verify", url).out
    assert here("verify", url, "--once").code == 5


PROGRAM = """
import sys
from asynctrace import Trace
with Trace(sys.argv[2], sinks=[sys.argv[1]]) as trace:
    for number in range(500):
        trace.info("record %d", number)
"""


def test_eight_processes_in_one_file(tmp_path: Path) -> None:
    url = STORES["sqlite"].format(tmp_path)
    program = [sys.executable, "-W", "error", "-c", PROGRAM, url]
    started = [subprocess.Popen([*program, f"run-{n}"], env=clean_environment()) for n in range(8)]
    assert [process.wait(SECONDS) for process in started] == [0] * 8

    found = verify(url)

    assert (found.verdict, found.stored, len(found.producers)) == (Verdict.COMPLETE, 8 * 502, 8)


ENDLESS = """
import sys, time
from asynctrace import Trace
trace = Trace("killed", sinks=[sys.argv[1]])
trace.__enter__()
trace.info("safe and marked")
trace.flush()
print("flushed", flush=True)
number = 0
while True:
    trace.info("record %d", number)
    number += 1
    time.sleep(0.0001)
"""


def test_what_a_killed_process_left_is_unproven(url: str) -> None:
    process = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", ENDLESS, url], env=clean_environment(), stdout=subprocess.PIPE
    )
    with process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"flushed\n"
        deadline = time.monotonic() + SECONDS
        while verify(url).stored < 20:
            assert time.monotonic() < deadline
        process.send_signal(signal.SIGKILL)

    found = verify(url)

    assert (found.verdict, found.lost) == (Verdict.UNPROVEN, 0)
    (account,) = found.producers
    assert account.unfinished == ("killed",)
    assert [part.last for part in account.unproven] == [account.last]


def test_an_attempt_that_was_killed_is_not_hidden_by_the_next(tmp_path: Path) -> None:
    url = STORES["sqlite"].format(tmp_path)
    killed = ENDLESS.replace(
        "while True:", "import os, signal; os.kill(os.getpid(), signal.SIGKILL)\nwhile True:"
    )
    done = subprocess.run([sys.executable, "-c", killed, url], env=clean_environment(), capture_output=True)
    assert done.returncode == -signal.SIGKILL

    record(url, "killed")

    found = verify(url)
    assert found.verdict is Verdict.UNPROVEN
    assert sorted(account.unfinished for account in found.producers) == [(), ("killed",)]


def test_memory_tells_what_it_let_go(tmp_path: Path) -> None:
    sink = MemorySink(max_records=10)
    with Trace("run-1", sinks=[sink]) as trace:
        for _ in range(50):
            trace.info("record")

    found = verify(MemoryReader(sink))

    assert (found.verdict, found.stored) == (Verdict.COMPLETE, 10)
    assert found.producers[0].pruned == 42


def test_a_store_without_marks_is_unproven(tmp_path: Path) -> None:
    async def main() -> Verification:
        sink = SQLiteSink(tmp_path / "t.db")
        await sink.open()
        await sink.write(make_batch(5))
        await sink.aclose()
        return await averify(STORES["sqlite"].format(tmp_path))

    found = asyncio.run(main())
    assert (found.verdict, found.stored) == (Verdict.UNPROVEN, 5)


def test_a_table_that_another_tool_made_proves_nothing(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "t.db")) as connection:
        connection.execute("CREATE TABLE traces (id INTEGER PRIMARY KEY, run_id, level, message, datetime)")
        connection.execute("INSERT INTO traces VALUES (1, 'r', 'info', 'm', '2025-01-01 00:00:00')")
        connection.commit()

    found = verify(STORES["sqlite"].format(tmp_path))

    assert (found.verdict, found.producers) == (Verdict.UNPROVEN, ())


def test_no_store_is_an_error(url: str) -> None:
    with pytest.raises(StoreError):
        verify(url)


def test_torn_lines_are_told(tmp_path: Path) -> None:
    url = STORES["file"].format(tmp_path)
    record(url, count=5)
    (path,) = lines_of(url)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], lines[2][:40] + b"\n", *lines[3:]]))

    found = verify(url)

    assert (found.verdict, found.lost) == (Verdict.LOSS, 1)
    assert found.problems == ("metadata.jsonl: line 3 torn",)


# -- the command -----------------------------------------------------------------------------------


def test_the_command_says_complete(url: str, here: Here) -> None:
    record(url)
    told = here("verify", url)

    assert (told.code, told.err) == (0, "")
    assert told.out.startswith(f"complete: 102 records in {url}, every gap explained\n")


def test_the_command_names_what_is_lost(url: str, here: Here) -> None:
    record(url)
    remove(url, {7, 50, 51})
    told = here("verify", "--store", url)

    assert (told.code, told.err) == (5, "")
    assert "LOSS: 3 records lost" in told.out
    assert told.out.endswith("3 records lost: 7, 50-51\n")


def test_the_command_says_unproven(tmp_path: Path, here: Here) -> None:
    url = STORES["sqlite"].format(tmp_path)
    with Trace("run-1", sinks=[url]) as trace:
        trace.flush()
        told = here("verify", url)

    assert told.code == 6
    assert "run run-1 has no end" in told.out


def test_the_command_as_json(url: str, here: Here) -> None:
    record(url)
    remove(url, {7})
    told = here("verify", url, "--json")

    document = json.loads(told.out)
    assert told.code == 5
    assert (document["verdict"], document["stored"], document["lost"]) == ("loss", 101, 1)
    ((loss,),) = [account["losses"] for account in document["producers"]]
    assert (loss["missing"], loss["exact"]) == ([[7, 7]], True)


def test_the_command_wants_one_store(tmp_path: Path, here: Here) -> None:
    url = STORES["sqlite"].format(tmp_path)
    told = here("verify", url, "--store", url)

    assert told.code == 2
    assert "--store" in told.err
