"""A program that is killed again and again while it delivers its spool into a store with a key."""

import signal
import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest
from cli_kit import SECONDS, clean_environment

from asynctrace import LaneOptions, Trace, Verdict, find_traces, verify
from asynctrace.pipeline.spool_page import look

RECORDS = 3_000

PROGRAM = """
import sys, time
from asynctrace import LaneOptions, Trace
options = LaneOptions(max_records=16, short=16)
with Trace(sys.argv[2], sinks=[(sys.argv[1], options)]) as trace:
    trace.info("new")
    trace.flush()
"""


@pytest.mark.timeout(120)
def test_killed_again_and_again_while_replaying(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    url = f"sqlite:{tmp_path}/t.db"
    with Trace("before", sinks=[url]) as trace:
        trace.info("the tables are there")
    with (
        monkeypatch.context() as patched,
        closing(sqlite3.connect(tmp_path / "t.db", isolation_level=None)) as holder,
    ):
        patched.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.1")
        holder.execute("BEGIN EXCLUSIVE")
        with Trace("spooled", sinks=[(f"{url}?busy_timeout=0.01", LaneOptions())]) as trace:
            for number in range(RECORDS):
                trace.info("record %d", number)
            pipeline = trace.pipeline
        holder.execute("COMMIT")
    (lane,) = pipeline.stats().lanes
    assert (lane.spooled, lane.lost) == (RECORDS + 2, 0)

    # The lane's page on disk is known by its destination: busy_timeout is no part of that.
    (directory,) = (tmp_path / "state" / "spool").iterdir()
    environment = clean_environment() | {"ASYNCTRACE_STATE_DIR": str(tmp_path / "state")}

    def start(run_id: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen([sys.executable, "-c", PROGRAM, url, run_id], env=environment)

    with closing(sqlite3.connect(tmp_path / "t.db", timeout=SECONDS)) as database:

        def stored() -> int:
            count = database.execute("SELECT count(*) FROM traces WHERE run_id = 'spooled'").fetchone()
            return int(count[0])

        kills = 0
        for turn in range(8):
            wanted = min(stored() + 100 + 53 * turn, RECORDS - 200)
            process = start(f"killed-{turn}")
            end = time.monotonic() + SECONDS
            while stored() < wanted and process.poll() is None:
                assert time.monotonic() < end
                time.sleep(0.001)
            process.send_signal(signal.SIGKILL)
            kills += process.wait(SECONDS) == -signal.SIGKILL
        assert kills >= 2
        assert start("last").wait(SECONDS) == 0
        assert stored() == RECORDS
    assert look(directory).records == 0
    found = verify(url)
    assert (found.lost, found.doubles) == (0, 0)
    # Those that were killed have no end, and their numbers no mark: that is said, and is all.
    assert found.verdict in (Verdict.UNPROVEN, Verdict.COMPLETE)
    (spooled,) = [run for run in find_traces(url) if run.run_id == "spooled"]
    assert spooled.records == RECORDS
    proven = [each for each in found.producers if each.stored == RECORDS + 2]
    assert len(proven) == 1
    assert proven[0].proven
