"""A disk that is full, read-only or broken: nothing is lost that fits elsewhere, it is said once, and it passes."""

import asyncio
import json
import logging
import os
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_kit import clean_environment
from disk_kit import STRACE, SmallDisk, files_up_to, needs_mount, needs_strace, open_to_all, small_disk
from lane_kit import SPILLING, GatedRemote, Remote, auntil

import asynctrace
from asynctrace import (
    LaneOptions,
    LaneStats,
    PermanentSinkError,
    Trace,
    Verdict,
    find_trace,
    verify,
)
from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.sinks.sqlite import SQLiteSink

pytestmark = pytest.mark.anyio

STORES = {"sqlite": "sqlite:{}/t.db", "lines": "file:{}/t.jsonl", "directory": "file:{}/logs"}


@pytest.fixture(autouse=True)
def elsewhere(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Where state is kept when there is no room beside the store."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "20")
    diagnostics._last.clear()  # what was said in another test may be said again
    return tmp_path / "home" / "asynctrace"


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        yield disk


@pytest.fixture
def public_folder() -> Iterator[Path]:
    with open_to_all() as folder:
        yield folder


@pytest.fixture(params=sorted(STORES))
def store(request: pytest.FixtureRequest) -> str:
    return STORES[request.param]


def page(pipeline: asynctrace.Pipeline) -> LaneStats:
    (lane,) = pipeline.stats().lanes
    assert lane.balanced, lane
    return lane


def numbers(url: str) -> list[int]:
    return [int(record.message.split()[0]) for record in find_trace("run", url)]


def log(trace: Trace, first: int, last: int) -> None:
    for number in range(first, last):
        trace.info("%d %s", number, "x" * 200)


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [
        each.getMessage()
        for each in caplog.records
        if each.name == "asynctrace" and each.levelno >= logging.WARNING and text in each.getMessage()
    ]


async def record_through(url: str, first: int, last: int, patience: float = 20.0) -> LaneStats:
    """One process's life, which waits so many seconds at its end; the lane's page then."""
    os.environ["ASYNCTRACE_CLOSE_TIMEOUT"] = str(patience)  # the fixture puts it back
    async with Trace("run", sinks=[url]) as trace:
        log(trace, first, last)
        pipeline = trace.pipeline
    return page(pipeline)


# -- no room -------------------------------------------------------------------------------------------------


@needs_mount
async def test_full_while_it_runs_and_room_returns(
    disk: SmallDisk, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = store.format(disk.path)
    async with Trace("run", sinks=[url]) as trace:
        log(trace, 0, 500)
        await trace.aflush()
        disk.fill()
        log(trace, 500, 3_000)
        await auntil(lambda: page(trace.pipeline).failed >= 3)
        assert page(trace.pipeline).lost == page(trace.pipeline).dead == 0
        assert len(said(caplog, ": write failed")) == 1
        disk.make_room()
        await trace.aflush(20)
        pipeline = trace.pipeline
    assert (page(pipeline).delivered, page(pipeline).pending) == (3_002, 0)
    assert numbers(url) == list(range(3_000))
    found = verify(url)
    assert (found.verdict, found.problems) == (Verdict.COMPLETE, ()) or store.startswith("file:"), found
    assert found.lost == 0
    assert len(said(caplog, "")) == 1, "one clear word about one cause"
    assert "No space left on device" in caplog.text or "database or disk is full" in caplog.text


@needs_mount
async def test_full_until_the_end_and_at_the_next_start_there_is_room(
    disk: SmallDisk, store: str, elsewhere: Path
) -> None:
    url = store.format(disk.path)
    before = await record_through(url, 0, 100)
    assert before.delivered == 102
    disk.fill()
    during = await record_through(url, 100, 2_000, patience=0.5)
    assert (during.lost, during.dead, during.pending) == (0, 0, 0), during
    assert during.spooled > 1_000
    assert list((elsewhere / "spool").iterdir()), (
        "the state directory beside the store is on the same full disk"
    )
    disk.make_room()
    after = await record_through(url, 2_000, 2_100)
    assert (after.adopted, after.spooled, after.lost) == (during.spooled, 0, 0)
    assert numbers(url) == list(range(2_100))
    assert verify(url).lost == 0


@needs_mount
async def test_without_room_anywhere_the_loss_is_counted_and_said(
    disk: SmallDisk, store: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(disk.path / "state"))
    url = store.format(disk.path)
    await record_through(url, 0, 100)
    disk.fill()
    during = await record_through(url, 100, 1_000, patience=0.5)
    assert during.lost > 0
    assert during.delivered + during.lost == during.emitted
    assert len(said(caplog, ": write failed")) == 1
    assert len(said(caplog, "the spool takes nothing")) == 1
    assert len(said(caplog, "dropped: ")) == 1
    disk.make_room()
    after = await record_through(url, 1_000, 1_100)
    assert after.lost == 0
    assert verify(url).lost == 0, "what was never promised is no loss of the store"


@needs_mount
async def test_a_spool_on_a_full_disk_is_read_empty_all_the_same(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(disk.path / "state"))
    sink = GatedRemote()
    async with Trace("run", sinks=[(sink, SPILLING)]) as trace:
        log(trace, 0, 2_000)
        await auntil(lambda: page(trace.pipeline).spooled > 1_000)
        disk.fill()
        log(trace, 2_000, 4_000)
        await auntil(lambda: said(caplog, "the spool takes nothing"))
        assert page(trace.pipeline).lost == 0
        sink.gate.set()
        await trace.aflush(20)
        assert [int(message.split()[0]) for message in sink.messages] == list(range(4_000))
        pipeline = trace.pipeline
    assert (page(pipeline).delivered, page(pipeline).lost, page(pipeline).spooled) == (4_002, 0, 0)
    assert len({(each.producer, each.seq) for each in sink.records}) == len(sink.records)
    assert len(said(caplog, "")) == 1, caplog.text


@needs_mount
async def test_a_journal_without_room_costs_its_protection_until_there_is_some(
    disk: SmallDisk, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(disk.path / "state"))
    url = f"sqlite:{tmp_path}/t.db"
    async with Trace("run", sinks=[url], durability="process") as trace:
        log(trace, 0, 100)
        await trace.aflush()
        assert trace.pipeline.stats().unprotected == 0
        disk.fill()
        before = len(list(disk.path.rglob("*.ring")))
        log(trace, 100, 20_000)  # more than the segments that are there
        missed = trace.pipeline.stats().unprotected
        assert 0 < missed <= 19_900
        assert len(list(disk.path.rglob("*.ring"))) == before
        disk.make_room()

        def protected() -> bool:
            before = trace.pipeline.stats().unprotected
            trace.info("20000 again")
            return trace.pipeline.stats().unprotected == before

        await auntil(protected)
        pipeline = trace.pipeline
    assert page(pipeline).lost == page(pipeline).pending == 0
    assert numbers(url)[:20_001] == list(range(20_001))
    assert len(said(caplog, "No space left on device")) == len(said(caplog, "")) == 1


@needs_mount
async def test_dead_letters_wait_for_room(
    disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(disk.path / "state"))
    disk.fill()
    sink = Remote([PermanentSinkError("no such table")] * 3)
    async with Trace("run", sinks=[(sink, SPILLING)]) as trace:
        log(trace, 0, 150)
        await auntil(lambda: said(caplog, "dead letters cannot be written"))
        disk.make_room()
        pipeline = trace.pipeline
    assert page(pipeline).dead == len(list(asynctrace.dead_letters())) > 0
    assert len(said(caplog, "dead letters")) == 1


@needs_mount
async def test_dead_letters_go_elsewhere(
    disk: SmallDisk, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.5")
    disk.fill()
    sink = Remote([PermanentSinkError("no such table")] * 3)
    # The first local store says where state is kept; here that disk is full.
    async with Trace("run", sinks=[(sink, SPILLING), f"sqlite:{disk.path}/t.db"]) as trace:
        log(trace, 0, 10)
        pipeline = trace.pipeline
    pages = {each.lane: each for each in pipeline.stats().lanes}
    assert all(each.balanced and not each.dropped for each in pages.values()), pages
    (directory,) = (elsewhere / "dead").iterdir()
    assert len(list(DeadLetters(directory))) == pages["remote"].dead == 12


async def test_dev_full(tmp_path: Path, elsewhere: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "t.jsonl").symlink_to("/dev/full")
    url = f"file:{tmp_path}/t.jsonl"
    during = await record_through(url, 0, 100, patience=0.5)
    assert (during.spooled, during.lost) == (102, 0)
    assert len(said(caplog, ": write failed")) == 1
    (tmp_path / "t.jsonl").unlink()
    await record_through(url, 100, 110)
    assert numbers(url) == list(range(110))


async def test_a_file_that_may_not_grow(tmp_path: Path, store: str, caplog: pytest.LogCaptureFixture) -> None:
    url = store.format(tmp_path)
    async with Trace("run", sinks=[url]) as trace:
        with files_up_to(200_000):
            log(trace, 0, 2_000)
            await auntil(lambda: page(trace.pipeline).failed >= 3)
        await trace.aflush(20)
        pipeline = trace.pipeline
    assert (page(pipeline).delivered, page(pipeline).lost) == (2_002, 0)
    assert numbers(url) == list(range(2_000))
    assert len(said(caplog, ": write failed")) == 1


async def test_a_database_that_may_not_grow(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    sink = SQLiteSink(tmp_path / "t.db")
    async with Trace("run", sinks=[sink]) as trace:
        log(trace, 0, 10)
        await trace.aflush()
        held = sink._held
        assert held is not None
        held.file.use(lambda connection: connection.execute("PRAGMA max_page_count=100").fetchall())
        log(trace, 10, 2_000)
        await auntil(lambda: page(trace.pipeline).failed >= 3)
        assert page(trace.pipeline).lost == 0
        held.file.use(lambda connection: connection.execute("PRAGMA max_page_count=1000000").fetchall())
        await trace.aflush(20)
    assert numbers(f"sqlite:{tmp_path}/t.db") == list(range(2_000))
    assert verify(f"sqlite:{tmp_path}/t.db").verdict is Verdict.COMPLETE
    assert len(said(caplog, "database or disk is full")) == 1


# -- read-only -----------------------------------------------------------------------------------------------


@needs_mount
async def test_a_disk_that_is_read_only_for_a_while(
    disk: SmallDisk, store: str, caplog: pytest.LogCaptureFixture
) -> None:
    url = store.format(disk.path)
    await record_through(url, 0, 100)
    disk.remount("ro")
    async with Trace("run", sinks=[url]) as trace:
        log(trace, 100, 1_000)
        await auntil(lambda: page(trace.pipeline).failed >= 3)
        assert numbers(url) == list(range(100)), "what is there can be read"
        disk.remount("rw")
        await trace.aflush(20)
        pipeline = trace.pipeline
    assert (page(pipeline).delivered, page(pipeline).lost) == (902, 0)
    assert numbers(url) == list(range(1_000))
    assert verify(url).verdict is Verdict.COMPLETE
    assert len(said(caplog, "")) == 1, caplog.text


@needs_mount
async def test_read_only_until_the_end(
    disk: SmallDisk, store: str, elsewhere: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = store.format(disk.path)
    disk.remount("ro")
    during = await record_through(url, 0, 100, patience=0.5)
    assert (during.lost, during.spooled) == (0, 102)
    assert list((elsewhere / "spool").iterdir())
    assert len(said(caplog, ": write failed")) == 1
    assert "ead-only file system" in caplog.text
    disk.remount("rw")
    after = await record_through(url, 100, 110)
    assert (after.adopted, after.lost, after.spooled) == (102, 0, 0)
    assert numbers(url) == list(range(110))
    assert verify(url).verdict is Verdict.COMPLETE


CLOSED = """
import asyncio, json, logging, os, sys
import asynctrace
from asynctrace import Trace
logging.basicConfig(format="%(message)s")
url, folder, number = sys.argv[1], sys.argv[2], 0
async def life(url, count):
    global number
    async with Trace("run", sinks=[url]) as trace:
        for _ in range(count):
            trace.info("%d", number)
            number += 1
        pipeline = trace.pipeline
    (lane,) = pipeline.stats().lanes
    assert lane.balanced
    return [lane.delivered, lane.dead, lane.spooled, sum(lane.dropped.values()), lane.replayed]
os.environ["ASYNCTRACE_SINKS"] = url
if os.geteuid() == 0:  # to root everything is writable
    asyncio.run(life(sys.argv[3], 0))  # what is imported late must be there before the rights go
    asynctrace.replay_dead_letters()
    os.setresuid(65534, 65534, 65534)
pages = [asyncio.run(life(url, 50))]
for path, directories, files in os.walk(folder):
    for name in directories + files:
        os.chmod(os.path.join(path, name), 0o555)
os.chmod(folder, 0o555)
pages.append(asyncio.run(life(url, 100)))
os.chmod(folder, 0o755)
for path, directories, files in os.walk(folder):
    for name in directories + files:
        os.chmod(os.path.join(path, name), 0o755)
moved = asynctrace.replay_dead_letters()
pages.append(asyncio.run(life(url, 10)))
print(json.dumps([pages, moved]))
"""


def test_a_directory_that_may_not_be_written_costs_nothing_but_a_command(
    public_folder: Path, store: str
) -> None:
    folder, home = public_folder / "folder", public_folder / "nobody"
    folder.mkdir()
    home.mkdir()
    if os.geteuid() == 0:
        os.chown(home, 65534, 65534)
        os.chown(folder, 65534, 65534)
    url = store.format(folder)
    done = subprocess.run(
        [sys.executable, "-c", CLOSED, url, str(folder), store.format(public_folder / "early")],
        env=clean_environment() | {"XDG_STATE_HOME": str(home), "ASYNCTRACE_CLOSE_TIMEOUT": "2"},
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    (before, during, after), moved = json.loads(done.stdout)
    assert before == [52, 0, 0, 0, 0]
    assert during == [0, 102, 0, 0, 0], done.stderr
    assert (moved, after) == (102, [114, 0, 0, 0, 102])
    assert done.stderr.count(": write failed") == 1, done.stderr
    assert "ermission denied" in done.stderr or "may not be written" in done.stderr
    assert sorted(numbers(url)) == list(range(160))
    assert verify(url).lost == 0


# -- input/output errors -------------------------------------------------------------------------------------

PROGRAM = """
import asyncio, json, logging, sys
from asynctrace import Trace
logging.basicConfig(format="%(message)s")
async def main(url, first, last):
    async with Trace("run", sinks=[url]) as trace:
        for number in range(first, last):
            trace.info("%d %s", number, "x" * 200)
            if number % 50 == 0:
                await asyncio.sleep(0.005)
        await trace.aflush(10)
        pipeline = trace.pipeline
    (lane,) = pipeline.stats().lanes
    print(json.dumps([lane.balanced, lane.delivered, lane.lost, lane.spooled, lane.failed, lane.adopted]))
asyncio.run(main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3])))
"""


def under_strace(
    url: str, first: int, last: int, *injections: str, paths: Sequence[Path] = (), **environment: str
) -> tuple[list[Any], str]:
    """The lane's page and what was said, by a program whose system calls fail as told."""
    assert STRACE is not None
    options = [option for path in paths for option in ("-P", str(path))]
    calls = ",".join(injection.partition(":")[0] for injection in injections)
    options += ["-e", f"trace={calls}", *(f"--inject={injection}" for injection in injections)]
    program = [sys.executable, "-c", PROGRAM]
    done = subprocess.run(
        [STRACE, "-f", "-qq", "-o", os.devnull, *options, *program, url, str(first), str(last)],
        env=clean_environment()
        | {"XDG_STATE_HOME": os.environ["XDG_STATE_HOME"], "ASYNCTRACE_CLOSE_TIMEOUT": "20"}
        | environment,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout), done.stderr


@needs_strace
@pytest.mark.parametrize(
    ("calls", "error"), [("pwrite64", "EIO"), ("pwrite64", "EROFS"), ("fsync fdatasync", "EIO")]
)
def test_sqlite_writes_that_fail(tmp_path: Path, calls: str, error: str) -> None:
    paths = [tmp_path / "t.db", tmp_path / "t.db-wal"]
    url = f"sqlite:{tmp_path}/t.db?synchronous=full"
    with Trace("before", sinks=[url]) as trace:
        trace.info("the tables are there")
    injections = [f"{call}:error={error}:when=4..7" for call in calls.split()]
    (balanced, delivered, lost, spooled, failed, _), told = under_strace(
        url, 0, 1_000, *injections, paths=paths
    )
    assert (balanced, delivered, lost, spooled) == (True, 1_002, 0, 0), told
    assert failed >= 1
    assert told.count("lane sqlite: write failed") == 1, told
    assert numbers(f"sqlite:{tmp_path}/t.db") == list(range(1_000))
    assert verify(f"sqlite:{tmp_path}/t.db").verdict is Verdict.COMPLETE


@needs_strace
@pytest.mark.parametrize("error", ["EIO", "EROFS", "EDQUOT"])
def test_file_writes_that_fail(tmp_path: Path, error: str) -> None:
    url = f"file:{tmp_path}/t.jsonl"
    (balanced, delivered, lost, spooled, failed, _), told = under_strace(
        url, 0, 1_000, f"write:error={error}:when=3..8", paths=[tmp_path / "t.jsonl"]
    )
    assert (balanced, delivered, lost, spooled, failed) == (True, 1_002, 0, 0, 6), told
    assert told.count("lane jsonlines: write failed") == told.count("lane jsonlines") == 1, told
    assert numbers(url) == list(range(1_000))
    assert verify(url).verdict is Verdict.COMPLETE


@needs_strace
def test_a_journal_whose_sync_fails_costs_no_record(tmp_path: Path) -> None:
    url = f"file:{tmp_path}/t.jsonl"
    (balanced, delivered, lost, spooled, failed, _), told = under_strace(
        url, 0, 1_000, "fdatasync:error=EIO:when=1..2", ASYNCTRACE_DURABILITY="disk"
    )
    assert (balanced, delivered, lost, spooled, failed) == (True, 1_002, 0, 0, 0), told
    assert told.count("the journal is not on disk") == len(told.splitlines()) == 1, told
    assert numbers(url) == list(range(1_000))


@needs_strace
def test_a_segment_that_cannot_be_read_for_a_while_is_not_given_up(
    tmp_path: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "t.jsonl").symlink_to("/dev/full")
    url = f"file:{tmp_path}/t.jsonl"
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.5")
    with Trace("run", sinks=[url]) as trace:
        log(trace, 0, 500)
    (tmp_path / "t.jsonl").unlink()
    segments = sorted((tmp_path / ".asynctrace").rglob("*.seg"))
    assert segments
    # Opening takes stock with one reading, delivering reads once more.
    (balanced, delivered, lost, spooled, _, adopted), told = under_strace(
        url, 500, 600, "read:error=EIO:when=2..3", paths=segments
    )
    assert (balanced, lost, spooled, adopted) == (True, 0, 0, 502), told
    assert delivered == 604
    assert numbers(url) == list(range(600))


# -- power ---------------------------------------------------------------------------------------------------


@pytest.fixture
def synced(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the segments that were synced."""
    names: list[str] = []
    fsync = os.fsync

    def watch(descriptor: int) -> None:
        name = os.readlink(f"/proc/self/fd/{descriptor}")
        if name.endswith(".seg"):
            names.append(name)
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", watch)
    return names


async def spill_one_load(options: LaneOptions, during: Callable[[], Awaitable[None]]) -> None:
    sink = GatedRemote()
    async with Trace("run", sinks=[(sink, options)]) as trace:
        log(trace, 0, 400)
        await auntil(lambda: page(trace.pipeline).spooled)
        await during()
        sink.gate.set()
        await trace.aflush(20)
        assert len(sink.messages) == 400


async def test_what_nothing_comes_behind_is_synced_within_the_interval(synced: list[str]) -> None:
    async def during() -> None:
        spooled = len(synced)
        await auntil(lambda: len(synced) > spooled)

    await spill_one_load(replace(SPILLING, spool_fsync=0.05), during)


async def test_at_once_when_the_interval_is_0(synced: list[str]) -> None:
    async def during() -> None:
        assert synced

    await spill_one_load(replace(SPILLING, spool_fsync=0), during)


async def test_never_when_nobody_asks_for_it(synced: list[str]) -> None:
    async def during() -> None:
        await asyncio.sleep(0)

    await spill_one_load(replace(SPILLING, spool_fsync=None), during)
    assert synced == []
