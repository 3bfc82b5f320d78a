"""Several processes on one SQLite file: nobody ever sees "database is locked"."""

import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import clean_environment

from asynctrace import Trace, Verdict, find_trace, find_traces, verify

PATIENCE = 80.0  # seconds that a busy machine may take for what takes a few on an idle one

pytestmark = pytest.mark.timeout(200)

PROGRAM = """
import json, logging, sys
from asynctrace import Trace
said = []
class Keep(logging.Handler):
    def emit(self, record):
        said.append(record.getMessage())
logging.getLogger("asynctrace").addHandler(Keep())
url, run_id, count, rounds = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
lost = 0
for turn in range(rounds):
    with Trace(f"{run_id}-{turn}", sinks=[url]) as trace:
        pipeline = trace.pipeline
        for number in range(count):
            trace.info("record %d", number)
            if number % 20 == 19:
                trace.flush()
    (lane,) = pipeline.stats().lanes
    lost += lane.lost + lane.spooled + lane.failed
print(json.dumps([lost, said]))
"""


def start(
    url: str, run_id: str, count: int, rounds: int = 1, timeout: float = 30.0
) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", PROGRAM, url, run_id, str(count), str(rounds)],
        env=clean_environment() | {"ASYNCTRACE_CLOSE_TIMEOUT": str(timeout)},
        stdout=subprocess.PIPE,
        text=True,
    )


def check(processes: Sequence["subprocess.Popen[str]"]) -> None:
    """All ended well, failed no write and had nothing to say."""
    for process in processes:
        told, _ = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0
        assert json.loads(told) == [0, []]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "t.db"


def test_many_short_lives_open_write_and_close_one_file(path: Path) -> None:
    url = f"sqlite:{path}"
    check([start(url, f"run-{n}", 30, rounds=6) for n in range(6)])
    found = verify(url)
    assert (found.verdict, found.stored) == (Verdict.COMPLETE, 6 * 6 * 32)
    assert os.listdir(path.parent) == ["t.db"], "who closes last tidies up"


def test_beside_a_long_reader_and_many_short_ones(path: Path) -> None:
    url = f"sqlite:{path}"
    with Trace("before", sinks=[url]) as trace:
        trace.info("there is something to read")
    with closing(sqlite3.connect(path, isolation_level=None)) as reader:
        reader.execute("BEGIN")
        assert reader.execute("SELECT count(*) FROM traces").fetchone() == (1,)
        processes = [start(url, f"run-{n}", 200) for n in range(4)]
        looks = 0
        while any(process.poll() is None for process in processes):
            looks += bool(find_traces(url))
        check(processes)
        assert reader.execute("SELECT count(*) FROM traces").fetchone() == (1,), (
            "it still sees its own moment"
        )
    assert looks
    assert verify(url).verdict is Verdict.COMPLETE
    assert sum(run.records for run in find_traces(url)) == 1 + 4 * 200


def test_while_somebody_has_the_file_for_himself(path: Path) -> None:
    url = f"sqlite:{path}"
    with Trace("before", sinks=[url]) as trace:
        trace.info("the tables are there")
    with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        processes = [start(url, f"run-{n}", 100) for n in range(4)]
        end = time.monotonic() + 3  # all of them want to write meanwhile
        while time.monotonic() < end:
            assert find_trace("before", url).records, "readers do not wait for a writer"
            time.sleep(0.01)  # the processor is for those that start
        assert all(process.poll() is None for process in processes)
        holder.execute("COMMIT")
    check(processes)
    assert verify(url).stored == 3 + 4 * 102


def test_while_it_is_vacuumed_and_checkpointed(path: Path) -> None:
    url = f"sqlite:{path}"
    with Trace("before", sinks=[url]) as trace:
        for number in range(1_500):
            trace.info("record %d %s", number, "x" * 100)
    processes = [start(url, f"run-{n}", 150) for n in range(4)]
    with closing(sqlite3.connect(path, isolation_level=None, timeout=PATIENCE)) as other:
        for _ in range(4):
            before = other.execute("SELECT count(*) FROM traces").fetchone()
            other.execute("VACUUM")
            other.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
            while other.execute("SELECT count(*) FROM traces").fetchone() == before:
                if all(process.poll() is not None for process in processes):
                    break
                time.sleep(0.01)
    check(processes)
    assert verify(url).verdict is Verdict.COMPLETE
    assert sum(run.records for run in find_traces(url)) == 1_500 + 4 * 150


def test_a_lock_longer_than_patience_is_said_and_waited_for(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"sqlite:{path}?busy_timeout=0.05"
    with Trace("before", sinks=[url]) as trace:
        trace.info("the tables are there")
    with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as holder:
        holder.execute("BEGIN EXCLUSIVE")
        with Trace("run", sinks=[url]) as trace:
            for number in range(500):
                trace.info("record %d", number)
            release = threading.Timer(1.0, holder.execute, ["COMMIT"])
            release.start()
            trace.flush(PATIENCE)
            release.join()
    assert len(find_trace("run", url).records) == 500
    assert len([each for each in caplog.records if "write failed" in each.getMessage()]) <= 1
    assert verify(url).verdict is Verdict.COMPLETE


def test_a_reader_leaves_nothing_behind(path: Path) -> None:
    url = f"sqlite:{path}"
    with Trace("run", sinks=[url]) as trace:
        trace.info("x")
    assert find_trace("run", url).records
    assert verify(url).verdict is Verdict.COMPLETE
    assert os.listdir(path.parent) == ["t.db"]


KILLED = """
import os, sys
from asynctrace import Trace
trace = Trace("killed", sinks=[sys.argv[1]])
trace.__enter__()
for number in range(50):
    trace.info("record %d", number)
trace.flush()
os.kill(os.getpid(), 9)
"""


def test_a_reader_tidies_up_what_a_killed_writer_left(path: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, f"sqlite:{path}"], env=clean_environment(), check=False)
    assert sorted(os.listdir(path.parent)) == ["t.db", "t.db-shm", "t.db-wal"]
    assert len(find_trace("killed", f"sqlite:{path}").records) == 50
    assert os.listdir(path.parent) == ["t.db"]
    assert len(find_trace("killed", f"sqlite:{path}").records) == 50


def test_readers_open_while_writers_come_and_go(path: Path) -> None:
    url = f"sqlite:{path}"
    with Trace("before", sinks=[url]) as trace:
        trace.info("there is something to read")
    stop = threading.Event()
    errors: list[BaseException] = []

    def read() -> None:
        while not stop.is_set():
            try:
                assert find_trace("before", url).records
            except BaseException as error:
                errors.append(error)
                return

    readers = [threading.Thread(target=read) for _ in range(3)]
    for reader in readers:
        reader.start()
    processes = [start(url, f"run-{n}", 5, rounds=20) for n in range(3)]
    try:
        check(processes)
    finally:
        stop.set()
        for reader in readers:
            reader.join(PATIENCE)
    assert errors == []
    assert verify(url).stored == 3 + 3 * 20 * 7
