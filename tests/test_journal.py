"""What was recorded with a journal survives the process, whatever kills it, and comes back once."""

import asyncio
import json
import os
import random
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from cli_kit import Done, run
from lane_kit import GateSink

import asynctrace
from asynctrace import LaneOptions, Level, Status, Trace, Verdict
from asynctrace.core.redaction import Redactor
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.journal import Journal
from asynctrace.pipeline.journal_entries import MARK, Entries, SiteEntry, pack_entry, seal
from asynctrace.pipeline.pipeline import Pipeline
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.sinks.sqlite import SQLiteSink

PROGRAM = Path(__file__).parent / "programs" / "journal.py"
ROOT = Path(__file__).parents[1]
SECONDS = 60.0
LONG = os.environ.get("LONG_RUNS") == "1"
KILLS = 1000 if LONG else 50


@pytest.fixture(autouse=True)
def said_before() -> None:
    diagnostics._last.clear()  # what was said in another test may be said again


def start(tmp_path: Path, scenario: str, *arguments: object, **environment: str) -> subprocess.Popen[str]:
    with (tmp_path / "stderr").open("ab") as said:  # a pipe that nobody reads would stop it, once full
        return subprocess.Popen(
            [sys.executable, PROGRAM, scenario, f"sqlite:{tmp_path}/t.db", *map(str, arguments)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", **environment},
        )


def play(tmp_path: Path, scenario: str, **environment: str) -> int:
    """Have the program run to its end, whatever that is."""
    with start(tmp_path, scenario, **environment) as program:
        program.communicate(timeout=SECONDS)
        return program.returncode


def recover(tmp_path: Path, *arguments: str) -> Done:
    return run("recover", *arguments, cwd=tmp_path, env={"ASYNCTRACE_SINKS": f"sqlite:{tmp_path}/t.db"})


def rows(path: Path, columns: str) -> list[tuple[Any, ...]]:
    connection = sqlite3.connect(path)
    try:
        return [
            row
            for table in ("traces", "trace_events")
            for row in connection.execute(f"SELECT {columns} FROM {table} ORDER BY producer, seq")
        ]
    finally:
        connection.close()


def journals(tmp_path: Path) -> list[Path]:
    above = tmp_path / ".asynctrace" / "journal"
    return [path for path in above.iterdir() if path.is_dir()] if above.is_dir() else []


def until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline, "it does not come true"
        time.sleep(0.002)


# -- every way to die ----------------------------------------------------------------------------------------

SAID = (
    "run_id, message, level, lineno, filename, exception_type, exception_message, stack_trace, metadata, user_id, "
    "job_name, tags, status, task, run_name, python_version"
)


@pytest.fixture(scope="module")
def clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store that the same program wrote without being killed."""
    directory = tmp_path_factory.mktemp("clean")
    assert play(directory, "rich") == 0
    assert journals(directory) == []
    return directory / "t.db"


def told(path: Path) -> Counter[tuple[Any, ...]]:
    return Counter(row for row in rows(path, SAID) if row[1] not in ("the run", "child"))


@pytest.mark.parametrize("how", ["exit", "kill", "fault"])
def test_what_a_killed_program_recorded_comes_back_as_it_was(tmp_path: Path, clean: Path, how: str) -> None:
    assert play(tmp_path, f"rich-{how}") != 0
    assert len(journals(tmp_path)) == 1

    done = recover(tmp_path, "--json")
    assert (done.code, done.err) == (0, "")
    found = json.loads(done.out)
    assert (found["journals"], found["damaged"], found["waiting"]) == (1, 0, 0)
    assert journals(tmp_path) == []

    assert told(tmp_path / "t.db") == told(clean)
    verification = asynctrace.verify(f"sqlite:{tmp_path}/t.db")
    assert (verification.lost, verification.doubles) == (0, 0)
    (producer,) = verification.producers
    assert producer.unfinished == ("r",)  # the run did not end; that nothing of it is missing is proven
    assert producer.unproven == ()


def test_spans_and_runs_come_back_with_their_structure(tmp_path: Path) -> None:
    play(tmp_path, "rich-kill")
    recover(tmp_path)

    store = f"sqlite:{tmp_path}/t.db"
    run = asynctrace.find_trace("r", store)
    (root,) = run.attempts()
    assert root.name == "the run"
    outer, failing = root.children
    assert (outer.name, failing.name) == ("outer", "failing")
    assert [record.message for record in outer.records] == ["in outer"]
    (inner,) = outer.children
    assert [record.message for record in inner.records] == ["in inner \u2603"]
    assert outer.end is not None
    assert failing.end is not None
    assert (outer.end.status, failing.end.status) == (Status.OK, Status.ERROR)
    assert outer.end.duration_ms is not None
    assert len({record.thread for record in root.records}) == 2
    (child,) = asynctrace.find_trace("child", store).attempts()
    assert child.end is not None
    assert child.end.status is Status.OK


def test_what_an_outer_run_records_inside_an_inner_one_keeps_its_place(tmp_path: Path) -> None:
    play(tmp_path, "outer_inside_inner")
    recover(tmp_path)

    (root,) = asynctrace.find_trace("outer", f"sqlite:{tmp_path}/t.db").attempts()
    (around,) = root.children
    assert [record.message for record in around.records] == ["in the outer run"]
    assert [span.name for span in around.children] == ["below"]


def test_the_next_start_recovers(tmp_path: Path, clean: Path) -> None:
    play(tmp_path, "rich-kill")
    with Trace("next", sinks=[f"sqlite:{tmp_path}/t.db"]) as trace:
        trace.info("something new")
        pipeline = trace.pipeline
    assert journals(tmp_path) == []
    (lane,) = pipeline.stats().lanes
    assert lane.adopted == lane.delivered - 3  # of its own: start, record and end
    assert lane.balanced
    there = told(tmp_path / "t.db")
    assert {row: number for row, number in there.items() if row[0] != "next"} == told(clean)


def test_a_clean_end_leaves_nothing(tmp_path: Path) -> None:
    with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db"], durability="process") as trace:
        trace.info("m")
        (journal,) = journals(tmp_path)
        assert list(journal.glob("*.ring"))
        assert oct(journal.stat().st_mode & 0o777) == "0o700"
        assert {oct(path.stat().st_mode & 0o777) for path in journal.glob("*.ring")} == {"0o600"}
    assert journals(tmp_path) == []
    assert asynctrace.verify(f"sqlite:{tmp_path}/t.db").verdict is Verdict.COMPLETE


# -- the killer ----------------------------------------------------------------------------------------------


class Killer:
    """Kills processes that record, and knows what they must have recorded.

    Args:
        tmp_path: where all is.
        threads: that record in each process.
        flushing: records after which a thread waits until all is safe; 0: never.
        environment: of the processes.
    """

    def __init__(self, tmp_path: Path, threads: int, flushing: int = 0, **environment: str) -> None:
        self._flushing = flushing
        self.tmp_path = tmp_path
        self.threads = threads
        self.witnesses: list[list[int]] = []
        self._nursery = start(tmp_path, "nursery", **environment)

    def __enter__(self) -> "Killer":
        return self

    def __exit__(self, *_: object) -> None:
        self._nursery.communicate(timeout=SECONDS)

    def kill(self, after: int, seconds: float) -> None:
        """Kill one so many seconds after it has recorded so many; it may be recovering what the one before left."""
        witness = self.tmp_path / "witness"
        witness.write_bytes(bytes(8 * self.threads))
        assert self._nursery.stdin is not None
        assert self._nursery.stdout is not None
        order = (witness, len(self.witnesses), self.threads, self._flushing)
        print(*order, file=self._nursery.stdin, flush=True)
        child = int(self._nursery.stdout.readline())
        try:
            until(lambda: sum(self._counts(witness)) >= after)
            time.sleep(seconds)
        finally:
            os.kill(child, signal.SIGKILL)
        assert self._nursery.stdout.readline() == "gone\n"
        self.witnesses.append(self._counts(witness))

    def _counts(self, witness: Path) -> list[int]:
        data = witness.read_bytes()
        return [int.from_bytes(data[place : place + 8], "little") for place in range(0, len(data), 8)]

    def check(self) -> None:
        """Nothing is lost, nothing is there twice."""
        connection = sqlite3.connect(self.tmp_path / "t.db")
        try:
            found: dict[tuple[int, int], list[int]] = {}
            for run_id, metadata in connection.execute("SELECT run_id, metadata FROM traces"):
                fields = json.loads(metadata)
                found.setdefault((int(run_id[4:]), fields["thread"]), []).append(fields["count"])
        finally:
            connection.close()
        for number, counts in enumerate(self.witnesses):
            for thread, count in enumerate(counts):
                there = sorted(found.get((number, thread), []))
                missing = set(range(1, count + 1)).difference(there)
                assert not missing, (number, thread, count, len(missing), min(missing))
                assert len(there) == len(set(there)), (number, thread)
                assert len(there) <= count + 1  # the one whose call had not returned
        assert asynctrace.verify(f"sqlite:{self.tmp_path}/t.db").lost == 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.timeout(3600 if LONG else 240)
def test_killed_at_random_instants_nothing_is_lost_or_doubled(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each start recovers what the one before left, and may itself be killed while it does."""
    instants = random.Random(20260101)
    with Killer(tmp_path, threads=2) as killer:
        for _ in range(KILLS):
            killer.kill(after=instants.choice((0, 1, 100, 2_000)), seconds=instants.uniform(0, 0.05))
    monkeypatch.setenv("ASYNCTRACE_SINKS", f"sqlite:{tmp_path}/t.db")
    report = asyncio.run(asynctrace.arecover(timeout=600.0))  # a long run leaves much
    assert (report.damaged, report.failed) == (0, 0)
    killer.check()
    assert journals(tmp_path) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
@pytest.mark.timeout(3600 if LONG else 120)
def test_killed_while_segments_turn_over_under_threads(tmp_path: Path) -> None:
    """Segments of 128 KiB: a thousand records each; no more than they hold are on their way."""
    instants = random.Random(7)
    with Killer(tmp_path, threads=6, flushing=100, ASYNCTRACE_JOURNAL_MAX_BYTES=str(1 << 20)) as killer:
        for _ in range(KILLS // 10):
            killer.kill(after=8_000, seconds=instants.uniform(0, 0.3))
    assert recover(tmp_path).code == 0
    killer.check()


# -- what else may be in the directory -----------------------------------------------------------------------


def test_a_record_whose_references_went_to_the_next_segment_goes_there_too(tmp_path: Path) -> None:
    play(tmp_path, "bound_at_the_end_of_a_segment")
    done = recover(tmp_path, "--json")
    assert (done.code, json.loads(done.out)["damaged"]) == (0, 0)
    found = [json.loads(row[0]) for row in rows(tmp_path / "t.db", "metadata") if "much" in (row[0] or "")]
    assert [fields["count"] for fields in found] == list(range(60))
    assert all(fields["much"] == f"{fields['count']}" + "x" * 200_000 for fields in found)


def test_a_torn_end_costs_what_was_being_written(tmp_path: Path, clean: Path) -> None:
    play(tmp_path, "rich-kill")
    (journal,) = journals(tmp_path)
    (segment,) = [path for path in journal.glob("*.ring") if path.read_bytes().rstrip(b"\0")]
    data = segment.read_bytes()
    end = len(data.rstrip(b"\0"))
    whole = data[data[:end].rfind(MARK, 0, end - len(MARK)) + len(MARK) : end - len(MARK)]
    for torn in (whole, whole[:-5], whole[:10] + bytes(len(whole) - 20) + whole[-10:]):
        segment.write_bytes(data[:end] + torn + data[end + len(torn) :])
        assert len(list(Entries(segment.read_bytes()[20:]))) == len(list(Entries(data[20:])))
    done = recover(tmp_path, "--json")
    assert (done.code, json.loads(done.out)["damaged"]) == (0, 0)
    assert told(tmp_path / "t.db") == told(clean)


def test_damage_costs_what_is_damaged_and_is_told(tmp_path: Path) -> None:
    with start(
        tmp_path, "living", ASYNCTRACE_LINGER="60"
    ) as program:  # nothing is stored before it is killed
        program.communicate("end\n", timeout=SECONDS)
    (journal,) = journals(tmp_path)
    (segment,) = [path for path in journal.glob("*.ring") if path.read_bytes().rstrip(b"\0")]
    data = segment.read_bytes()
    place = [match.start() for match in re.finditer(b"count", data)][50]
    segment.write_bytes(data[: place - 6] + b"\xc1" * 5 + data[place - 1 :])
    done = recover(tmp_path, "--json")
    assert (done.code, json.loads(done.out)["damaged"]) == (5, 1)
    found = [json.loads(row[0]) for row in rows(tmp_path / "t.db", "metadata") if "count" in (row[0] or "")]
    assert [fields["count"] for fields in found] == [*range(50), *range(51, 100)]
    assert journals(tmp_path) == []


def test_foreign_files_are_left_alone(tmp_path: Path) -> None:
    play(tmp_path, "rich-kill")
    (journal,) = journals(tmp_path)
    (journal / "0000.ring").write_bytes(os.urandom(5000))
    (journal / "empty.ring").write_bytes(b"")
    (journal / "notes.txt").write_text("mine")
    stranger = journal.parent / "stranger"
    stranger.mkdir()
    (stranger / "journal.json").write_text("{]")
    (stranger / "some.ring").write_bytes(b"ATJRNL1\n" + os.urandom(100))
    done = recover(tmp_path, "--json")
    assert (done.code, json.loads(done.out)["journals"]) == (0, 1)
    assert [path.name for path in journal.iterdir()] == ["notes.txt"]
    assert json.loads(recover(tmp_path, "--json").out)["journals"] == 0


def test_the_journal_of_a_living_process_is_not_touched(tmp_path: Path) -> None:
    with start(tmp_path, "living") as program:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        (journal,) = journals(tmp_path)
        before = {path.name for path in journal.iterdir()}
        assert recover(tmp_path).out == "no journal of a killed process waits for these sinks\n"
        # It may have prepared its next segment meanwhile.
        assert before <= {path.name for path in journal.iterdir()}
        program.communicate("end\n", timeout=SECONDS)
    assert recover(tmp_path).code == 0
    assert journals(tmp_path) == []
    found = [json.loads(row[0]) for row in rows(tmp_path / "t.db", "metadata") if "count" in (row[0] or "")]
    assert [fields["count"] for fields in found] == list(range(100))


def test_several_processes_recover_at_the_same_time(tmp_path: Path, clean: Path) -> None:
    play(tmp_path, "rich-kill")
    (journal,) = journals(tmp_path)
    for number in range(15):
        shutil.copytree(journal, journal.with_name(f"{int(journal.name[:20]) + number:020d}-{number:08x}"))

    with ThreadPoolExecutor(3) as pool:
        done = list(pool.map(lambda _: recover(tmp_path), range(3)))

    assert [(each.code, each.err) for each in done] == [(0, "")] * 3
    assert journals(tmp_path) == []
    assert told(tmp_path / "t.db") == told(clean)


def test_what_was_meant_for_other_sinks_waits_for_them(tmp_path: Path) -> None:
    play(tmp_path, "rich-kill", ASYNCTRACE_STATE_DIR=str(tmp_path / "state"))
    environment = {
        "ASYNCTRACE_SINKS": f"sqlite:{tmp_path}/other.db",
        "ASYNCTRACE_STATE_DIR": str(tmp_path / "state"),
    }
    nothing = run("recover", cwd=tmp_path, env=environment)
    assert "no journal of a killed process waits for these sinks\n" in nothing.out
    assert "journals that wait for other sinks: 1; name those in ASYNCTRACE_SINKS" in nothing.out
    moved = run("recover", "--to", f"file:{tmp_path}/logs", "--json", cwd=tmp_path, env=environment)
    assert moved.code == 0, moved.err
    found = json.loads(moved.out)
    assert found["journals"] == 1
    assert found["delivered"] == found["records"] > 10
    run_ids = {summary.run_id for summary in asynctrace.find_traces(f"file:{tmp_path}/logs")}
    assert run_ids == {"r", "child"}
    assert not (tmp_path / "other.db").exists() or rows(tmp_path / "other.db", "message") == []
    wrong = run("recover", "--to", "memory:", cwd=tmp_path, env=environment)
    assert (wrong.code, "memory:" in wrong.err) == (2, True)


def test_one_store_for_all_is_given_what_lies_beside_the_configured_one(tmp_path: Path) -> None:
    play(tmp_path, "rich-kill")
    done = recover(tmp_path, "--to", f"sqlite:{tmp_path}/elsewhere/rescued.db", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["journals"] == 1
    assert len(rows(tmp_path / "elsewhere" / "rescued.db", "seq")) > 10


def test_the_state_directory_may_be_named(tmp_path: Path) -> None:
    play(tmp_path, "rich-kill", ASYNCTRACE_STATE_DIR=str(tmp_path / "state"))
    assert recover(tmp_path).out == "no journal of a killed process waits for these sinks\n"
    done = recover(tmp_path, "--state-dir", str(tmp_path / "state"))
    assert (done.code, done.out.startswith("1 journals, ")) == (0, True)


def test_a_state_directory_that_is_not_there_is_no_empty_one(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    for name, reason in [("stat", "No such file or directory"), ("file", "Not a directory")]:
        done = recover(tmp_path, "--state-dir", str(tmp_path / name))
        assert (done.code, done.out) == (3, "")
        assert done.err == f"asynctrace: {tmp_path / name}: {reason}\n"
    assert recover(tmp_path).code == 0  # the default one comes with the first record


# -- secrets -------------------------------------------------------------------------------------------------


def test_no_secret_is_in_the_journal(tmp_path: Path) -> None:
    play(tmp_path, "secrets")
    (journal,) = journals(tmp_path)
    data = b"".join(path.read_bytes() for path in journal.iterdir())
    assert b"harmless" in data
    assert b"hunter2" not in data
    recover(tmp_path)
    shown = repr(rows(tmp_path / "t.db", "message, metadata, exception_message, run_name"))
    assert "hunter2" not in shown
    assert shown.count("[redacted") > 8


# -- forks ---------------------------------------------------------------------------------------------------


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_forked_child_has_its_own_journal(tmp_path: Path) -> None:
    play(tmp_path, "forked")
    assert recover(tmp_path).code == 0
    assert journals(tmp_path) == []
    found = Counter(row[0] for row in rows(tmp_path / "t.db", "message"))
    assert (found["before"], found["in the child"], found["in the parent"]) == (50, 100, 100)
    assert len(set(rows(tmp_path / "t.db", "producer"))) == 2


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_each_record_of_a_killed_child_comes_back_in_its_own_run(tmp_path: Path) -> None:
    assert play(tmp_path, "forked_with_runs") == 0
    assert recover(tmp_path).code == 0

    found = Counter(rows(tmp_path / "t.db", "run_id, message, user_id"))
    assert {row: number for row, number in found.items() if row[1].startswith("in ")} == {
        ("inherited", "in inherited", "parent"): 3,
        **{(f"own-{n}", f"in own-{n}", f"child-{n}"): 1 for n in range(3)},
    }


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_a_killed_child_leaves_its_parent_alone(tmp_path: Path) -> None:
    assert play(tmp_path, "parent_lives") == 0
    # Where the parent looks for journals late, it finds the child's and delivers it; else that is left to us.
    assert recover(tmp_path).code == 0
    assert journals(tmp_path) == []
    found = Counter(row[0] for row in rows(tmp_path / "t.db", "message"))
    assert (found["before"], found["in the child"], found["in the parent"], found["after"]) == (
        1,
        100,
        100,
        1,
    )


# -- in this process -----------------------------------------------------------------------------------------


@pytest.fixture
def gate() -> Iterator[GateSink]:
    sink = GateSink()
    yield sink
    sink.gate.set()


def test_threads_overtake_each_other_and_the_store_has_all(tmp_path: Path) -> None:
    threads, each = 8, 3_000
    with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db"], durability="process") as trace:

        def work(thread: int) -> None:
            for count in range(each):
                trace.info("m", thread=thread, count=count)

        workers = [threading.Thread(target=work, args=(thread,)) for thread in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        stats = trace.pipeline.stats()
        assert stats.balanced
        assert stats.emitted == threads * each + 1
    found = [json.loads(row[0]) for row in rows(tmp_path / "t.db", "metadata") if "count" in (row[0] or "")]
    for thread in range(threads):
        assert [f["count"] for f in found if f["thread"] == thread] == list(range(each))
    assert asynctrace.verify(f"sqlite:{tmp_path}/t.db").verdict is Verdict.COMPLETE


def test_segments_are_used_again_when_what_they_hold_is_safe(tmp_path: Path) -> None:
    asynctrace.configure(f"sqlite:{tmp_path}/t.db", durability="process", journal_max_bytes=256 << 10)
    with Trace("r") as trace:
        for count in range(20_000):  # some megabytes
            trace.info("m", count=count)
            if count % 500 == 0:
                trace.flush()
        (journal,) = journals(tmp_path)
        pipeline = trace.pipeline
        assert sum(path.stat().st_size for path in journal.glob("*.ring")) <= 256 << 10
    asynctrace.shutdown()
    assert journals(tmp_path) == []
    assert len(rows(tmp_path / "t.db", "seq")) == 20_002
    assert pipeline.stats().balanced


def test_what_a_full_journal_does_not_take_is_counted_said_and_stored(
    tmp_path: Path, gate: GateSink, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path))
    monkeypatch.setenv("ASYNCTRACE_JOURNAL_MAX_BYTES", "65536")
    with Trace("r", sinks=[(gate, LaneOptions(max_records=100))], durability="process") as trace:
        for count in range(3_000):
            trace.info("m", count=count)
        assert 0 < trace.pipeline.stats().unprotected < 3_000
        assert "do not survive" in caplog.text
        gate.gate.set()
        trace.flush()
        pipeline = trace.pipeline
    assert len(gate.records) == 3_002
    assert pipeline.stats().balanced


def test_a_state_directory_that_cannot_be_written_costs_the_protection_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "file" / "state"))
    with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db"], durability="process") as trace:
        for _ in range(100):
            trace.info("m")
        assert trace.pipeline.stats().unprotected > 100
    assert len(rows(tmp_path / "t.db", "seq")) == 102
    assert sum("no state directory can be written" in record.message for record in caplog.records) == 1


def test_an_interrupt_inside_recording_costs_no_record(tmp_path: Path) -> None:
    """Ctrl-C strikes anywhere; who was interrupted does not know whether it is recorded, all others are."""
    returned = 0

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGVTALRM, interrupt)
    tracer = sys.gettrace()
    sys.settrace(None)  # an interrupt that strikes inside coverage leaves it locked
    try:
        with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db"], durability="process") as trace:
            trace.info("first")
            end = time.monotonic() + 0.3
            while time.monotonic() < end:
                try:
                    signal.setitimer(signal.ITIMER_VIRTUAL, 0.0005)
                    while True:
                        trace.info("m", count=returned)
                        returned += 1
                except KeyboardInterrupt:
                    pass
            signal.setitimer(signal.ITIMER_VIRTUAL, 0)
            trace.flush(SECONDS)
            pipeline = trace.pipeline
            assert pipeline.stats().balanced
    except KeyboardInterrupt:  # the last one came late
        pytest.skip("the last interrupt struck outside the loop")
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)
        sys.settrace(tracer)
    counts = [
        json.loads(row[0])["count"]
        for row in rows(tmp_path / "t.db", "metadata")
        if "count" in (row[0] or "")
    ]
    assert set(range(returned)) <= set(counts)
    assert asynctrace.verify(f"sqlite:{tmp_path}/t.db").lost == 0
    assert pipeline.stats().balanced


def test_levels_and_rules_hold_for_what_is_recovered(tmp_path: Path) -> None:
    play(tmp_path, "levels", ASYNCTRACE_LINGER="60")  # nothing is stored before it is killed
    pipeline = Pipeline(state=StateDirectory([tmp_path / ".asynctrace"]))
    options = LaneOptions(level=Level.WARNING, admit=lambda record: record.message != "critical")
    pipeline.add_sink(SQLiteSink(str(tmp_path / "t.db")), options)
    pipeline.start()
    pipeline.flush(SECONDS)
    pipeline.close()
    store = f"sqlite:{tmp_path}/t.db"
    assert [record.message for record in asynctrace.find_trace("r", store)] == ["warning", "error"]
    (producer,) = asynctrace.verify(store).producers
    assert (producer.stored, producer.filtered, producer.lost, producer.unproven) == (3, 3, 0, ())


# -- the disk ------------------------------------------------------------------------------------------------


def test_on_disk_entries_carry_a_checksum_and_reports_say_so(tmp_path: Path) -> None:
    with Trace("r", sinks=[f"sqlite:{tmp_path}/t.db"], durability="disk") as trace:
        trace.info("m")
        (journal,) = journals(tmp_path)
        (segment,) = [path for path in journal.glob("*.ring") if path.read_bytes().rstrip(b"\0")]
        data = segment.read_bytes()[20:]
        report = trace.flush()
        assert report is None or {lane.safety for lane in report.lanes} == {"disk"}
    entries = Entries(data)
    assert len(list(entries)) >= 4
    place = data.index(MARK) - 1
    damaged = Entries(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    assert len(list(damaged)) == len(list(Entries(data))) - 1
    assert damaged.damaged == 1


# -- entries -------------------------------------------------------------------------------------------------


def test_entries_of_several_threads_and_marks_inside_them_are_told_apart() -> None:
    plain = pack_entry(SiteEntry(1, "a.py", 7))
    tricky = pack_entry(SiteEntry(2, "b.py", int.from_bytes(MARK, "big")))
    data = plain + MARK + tricky + MARK + plain + tricky + MARK + MARK + seal(plain) + MARK + tricky
    assert [entry.key for entry in Entries(data + bytes(100)) if isinstance(entry, SiteEntry)] == [
        1,
        2,
        1,
        2,
        1,
    ]


def test_an_entry_that_is_bigger_than_a_segment_has_one_of_its_own(tmp_path: Path) -> None:
    journal = Journal(StateDirectory([tmp_path]), "p", Redactor(), segment_bytes=4096, max_bytes=1 << 20)
    small, big = pack_entry(SiteEntry(1, "a", 1)), pack_entry(SiteEntry(2, "b" * 100_000, 2))
    for data in (small, big, small):
        journal.append(data)
    found = [entry for part in journal.contents() for entry in Entries(part)]
    assert [entry.key for entry in found if isinstance(entry, SiteEntry)] == [1, 2, 1]
    journal.close()
    assert not any(path.is_dir() for path in (tmp_path / "journal").iterdir())
