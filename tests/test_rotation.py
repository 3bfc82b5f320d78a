"""Files that make way for new ones: nothing is lost, doubled or torn, by however many processes, readers included."""

import asyncio
import gzip
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
from cli_kit import SECONDS, Running, clean_environment
from disk_kit import open_to_all
from lane_kit import until
from store_kit import written

from asynctrace import ConfigurationError, Trace, Verdict, find_trace, find_traces, verify
from asynctrace.core.batch import Batch
from asynctrace.sinks._rewriting import Rewriting
from asynctrace.sinks._rotation import Rotation, next_name, rotated
from asynctrace.sinks._tidying import left_behind
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.testing import make_batch, make_context, make_record
from asynctrace.testing.records import START_NS, STEP_NS

DAY = 86_400
LINES, FOLDERS = "file:{}/t.jsonl", "file:{}/logs"


def numbers(path: Path, run_id: str = "run-1") -> list[int]:
    return [record.seq for record in find_trace(run_id, f"file:{path}").entries]


def names(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir())


# -- when, and under what name -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rotation", "size", "more", "age", "due"),
    [
        (Rotation(size=100), 60, 40, 0, False),
        (Rotation(size=100), 60, 41, 0, True),
        (Rotation(size=100), 0, 500, 0, False),  # a batch that is larger than a file has one to itself
        (Rotation(every=DAY), 60, 1, 0, False),
        (Rotation(every=DAY), 60, 1, 3, True),  # `now` is two seconds after midnight
        (Rotation(every=DAY), 0, 1, 3, False),
        (Rotation(), 1 << 40, 1, 10 * DAY, False),
    ],
)
def test_when_a_file_makes_way(
    tmp_path: Path, rotation: Rotation, size: int, more: int, age: float, due: bool
) -> None:
    now = 20_000 * DAY + 2.0
    file = tmp_path / "t.jsonl"
    with file.open("wb") as handle:
        handle.truncate(size)
    os.utime(file, (now - age, now - age))
    assert rotation.is_due(str(file), file.stat(), more, now) == due


def test_a_name_is_given_once(tmp_path: Path) -> None:
    for name in ("t.000001.jsonl", "t.000009.jsonl.gz", "t.x.jsonl", "u.000010.jsonl", "t.000011.txt"):
        (tmp_path / name).touch()
    path = str(tmp_path / "t.jsonl")
    assert [os.path.basename(each) for each in rotated(path)] == ["t.000001.jsonl", "t.000009.jsonl.gz"]
    assert next_name(path) == str(tmp_path / "t.000010.jsonl")
    (tmp_path / "t.999999.jsonl").touch()
    assert next_name(path) == str(tmp_path / "t.1000000.jsonl")


@pytest.mark.parametrize(
    ("parameter", "problem"),
    [
        ("rotate_bytes=0", "rotate_bytes: 0 cannot be used; allowed: a whole number of bytes from 1"),
        ("rotate_every=0", "rotate_every: 0.0 cannot be used; allowed: a number of seconds above 0"),
        ("rotate_every=nan", "rotate_every: nan cannot be used"),
        ("keep=-1", "keep: -1 cannot be used; allowed: a whole number of files from 0"),
        ("compress=lzma", "compress: 'lzma' cannot be used; allowed: one of none, gzip"),
    ],
)
@pytest.mark.parametrize("url", [LINES, FOLDERS])
def test_a_parameter_that_cannot_be_used(tmp_path: Path, url: str, parameter: str, problem: str) -> None:
    with pytest.raises(ConfigurationError, match=problem):
        Trace(sinks=[f"{url.format(tmp_path)}?{parameter}"])


def test_by_size(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()
    written(
        JsonLinesSink(path, rotate_bytes=10_000),
        *(make_batch(10, first=first, context=context) for first in range(0, 300, 10)),
    )
    sizes = {entry.name: entry.stat().st_size for entry in tmp_path.iterdir()}
    assert len(sizes) > 5
    assert max(sizes.values()) <= 10_000
    assert numbers(path) == list(range(300))


def test_by_time(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()

    def write(first: int) -> None:
        written(JsonLinesSink(path, rotate_every=DAY), make_batch(10, first=first, context=context))

    write(0)
    os.utime(path, (time.time() - DAY,) * 2)
    write(10)
    assert names(tmp_path) == ["t.000001.jsonl", "t.jsonl"]
    assert numbers(path) == list(range(20))


def test_every_file_of_a_run_but_not_the_marks(tmp_path: Path) -> None:
    with Trace("run-1", sinks=[f"file:{tmp_path}/logs?rotate_bytes=3000"]) as trace:
        for number in range(100):
            trace.info("message %d", number)
            trace.error("error %d", number)
            trace.flush()
    folder = tmp_path / "logs" / "run_id=run-1"
    assert {name.partition(".")[0] for name in names(folder) if "0000" in name} >= {
        "stdout",
        "stderr",
        "metadata",
    }
    assert [name for name in names(tmp_path / "logs") if name.startswith("marks")] == ["marks.jsonl"]
    found = find_trace("run-1", f"file:{tmp_path}/logs")
    assert [record.message for record in found][::2] == [f"message {n}" for n in range(100)]
    assert verify(f"file:{tmp_path}/logs").verdict is Verdict.COMPLETE
    text = b"".join(Path(each).read_bytes() for each in rotated(str(folder / "stdout.txt")))
    text += (folder / "stdout.txt").read_bytes()
    assert [line.split()[-1] for line in text.splitlines()] == [b"%d" % n for n in range(100)]


def test_the_rights_of_the_file_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    written(JsonLinesSink(path), make_batch())
    path.chmod(0o640)
    written(JsonLinesSink(path, rotate_bytes=1, compress="gzip"), make_batch(first=100))
    assert {entry.stat().st_mode & 0o777 for entry in tmp_path.iterdir()} == {0o640}
    assert names(tmp_path) == ["t.000001.jsonl.gz", "t.jsonl"]


# -- several processes ---------------------------------------------------------------------------------------

WRITER = """
import sys
from asynctrace import Trace
with Trace(sys.argv[2], sinks=[sys.argv[1]]) as trace:
    for number in range(int(sys.argv[3])):
        trace.info("record %d of %s", number, "x" * (number % 200))
        if number % 50 == 49:
            trace.flush()
"""


def start(program: str, *arguments: object) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-W", "error", "-c", program, *map(str, arguments)],
        env=clean_environment(),
        stdout=subprocess.PIPE,
        text=True,
    )


def ended(processes: Iterable["subprocess.Popen[str]"]) -> list[int]:
    return [(process.communicate(timeout=SECONDS), process.returncode)[1] for process in processes]


@pytest.mark.timeout(120)
@pytest.mark.parametrize("compress", ["none", "gzip"])
@pytest.mark.parametrize("store", [LINES, FOLDERS])
def test_many_processes_rotate_one_file(tmp_path: Path, store: str, compress: str) -> None:
    url, workers, count = store.format(tmp_path), 6, 1_500
    sink = f"{url}?rotate_bytes=20000&compress={compress}"
    # In the directory form they share one run, and so its files.
    run_ids = [f"run-{n}" if store is LINES else "run-1" for n in range(workers)]

    assert ended([start(WRITER, sink, run_id, count) for run_id in run_ids]) == [0] * workers

    found = verify(url)
    assert (found.verdict, found.stored, found.doubles) == (Verdict.COMPLETE, workers * (count + 2), 0), found
    assert len(found.producers) == workers
    assert found.problems == ()
    live = tmp_path / "t.jsonl" if store is LINES else tmp_path / "logs" / "run_id=run-1" / "metadata.jsonl"
    parts = rotated(str(live))
    assert len(parts) > 20
    if compress == "none":
        # Who does not get the files for itself at once lets a file grow, but not for long.
        assert sum(os.stat(part).st_size <= 60_000 for part in parts) > len(parts) // 2
        seen: dict[str, list[int]] = {}
        for part in [*parts, live]:
            for line in map(json.loads, Path(part).read_bytes().splitlines()):
                if line["kind"] != "mark":
                    seen.setdefault(line["producer"], []).append(line["seq"])
        assert all(each == sorted(each) for each in seen.values()), (
            "the order of a producer is that of the files"
        )


def test_a_process_that_does_not_rotate_goes_on_in_the_new_file(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()

    async def main() -> None:
        rotating, plain = JsonLinesSink(path, rotate_bytes=1, compress="gzip"), JsonLinesSink(path)
        await rotating.open()
        await plain.open()
        for first in range(0, 200, 20):
            await plain.write(make_batch(10, first=first, context=context))
            await rotating.write(make_batch(10, first=first + 10, context=context))
        await rotating.aclose()
        await plain.aclose()

    asyncio.run(main())
    assert numbers(path) == list(range(200))
    assert len(rotated(str(path))) == 10


@pytest.mark.timeout(90)
@pytest.mark.parametrize("store", [LINES, FOLDERS])
def test_a_reader_misses_nothing_that_was_there_before_it_looked(tmp_path: Path, store: str) -> None:
    url = store.format(tmp_path)
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("the first")
    process = start(WRITER, f"{url}?rotate_bytes=5000&compress=gzip", "run-1", 3_000)
    least, looks = 3, 0
    while process.poll() is None:
        found = find_trace("run-1", url)
        assert len(found.entries) >= least
        assert not found.summary.problems
        least, looks = len(found.entries), looks + 1
    assert ended([process]) == [0]
    assert looks
    assert len(find_trace("run-1", url).entries) == 3 + 3_002
    assert [run.run_id for run in find_traces(url)] == ["run-1"]


def test_tail_follows_across_rotations(tmp_path: Path) -> None:
    url = LINES.format(tmp_path)
    with Trace("run-1", sinks=[url]) as trace:
        trace.info("before")
    with Running("tail", "-f", "-n", "1", "--store", url) as tail:
        assert tail.lines(1)[0].endswith("before")
        with Trace("run-2", sinks=[f"{url}?rotate_bytes=2000&compress=gzip"]) as trace:
            for number in range(60):
                trace.info("message %d", number)
                trace.flush()
        shown = tail.lines(61)
        assert [line.split()[-1] for line in shown[1:]] == [str(number) for number in range(60)]
        assert tail.interrupt().err == ""
    assert len(rotated(str(tmp_path / "t.jsonl"))) > 10


KILLED = """
import asyncio, sys
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.testing import make_batch, make_context
async def main(path, producer):
    sink = JsonLinesSink(path, rotate_bytes=4_000, compress="gzip")
    await sink.open()
    context = make_context()
    for first in range(0, 1_000_000, 10):
        await sink.write(make_batch(10, first=first, producer=producer, context=context))
        print(first + 10, flush=True)
asyncio.run(main(sys.argv[1], sys.argv[2]))
"""


@pytest.mark.timeout(90)
def test_killed_while_rotating_nothing_that_was_promised_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    promised: dict[str, int] = {}
    for turn in range(4):
        producers = [f"{turn * 10 + n:016x}" for n in range(3)]
        processes = [start(KILLED, path, producer) for producer in producers]
        for process in processes:
            assert process.stdout is not None
            for _ in range(20 + 13 * turn):
                assert process.stdout.readline()
        for process in processes:
            process.send_signal(signal.SIGKILL)
        for producer, process in zip(producers, processes, strict=True):
            told, _ = process.communicate(timeout=SECONDS)
            lines = [line for line in told.splitlines(keepends=True) if line.endswith("\n")]
            promised[producer] = int(lines[-1]) if lines else 10 * (20 + 13 * turn)

    stored: dict[str, list[int]] = {}
    for record in find_trace("run-1", f"file:{path}").entries:
        stored.setdefault(record.producer, []).append(record.seq)
    for producer, count in promised.items():
        assert stored[producer][:count] == list(range(count))
    # The next process finishes what the killed ones were at.
    written(JsonLinesSink(path, rotate_bytes=4_000, compress="gzip"), make_batch(first=5_000_000))
    assert [name for name in names(tmp_path) if not name.endswith(".gz")] == ["t.jsonl"]


COMPRESSES = """
import asyncio, sys
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.testing import make_batch
async def main(path):
    sink = JsonLinesSink(path, rotate_bytes=1, compress="gzip")
    await sink.open()
    for first in (0, 10):
        await sink.write(make_batch(10, first=first))
    await sink.aclose()
asyncio.run(main(sys.argv[1]))
"""


def test_no_file_is_overlooked_while_it_is_compressed(tmp_path: Path) -> None:
    """The system reads a long directory in pieces; a number overlooked would be given twice, and a file lost."""
    path, count = tmp_path / "t.jsonl", 2_000
    for number in range(1, count + 1):
        (tmp_path / f"t.{number:06d}.jsonl").write_text("{}\n")
    process = start(COMPRESSES, path)
    looks = 0
    while process.poll() is None:
        found = rotated(str(path))
        assert len(found) >= count
        looks += 1
    assert ended([process]) == [0]
    assert looks > 2
    assert any(each.endswith(".gz") for each in rotated(str(path)))


# -- what becomes of rotated files ---------------------------------------------------------------------------


def test_a_bounded_number_stays_and_verify_explains_the_rest(tmp_path: Path) -> None:
    url = LINES.format(tmp_path)
    for run in range(4):
        with Trace(f"run-{run}", sinks=[f"{url}?rotate_bytes=8000&keep=3&compress=gzip"]) as trace:
            for number in range(200):
                trace.info("message %d", number)
                if number % 7 == 0:
                    trace.flush()
    until(lambda: len(rotated(str(tmp_path / "t.jsonl"))) == 3)
    found = verify(url)
    assert (found.verdict, found.lost) == (Verdict.COMPLETE, 0), found
    assert 0 < found.stored < 4 * 202
    assert found.stored + sum(each.pruned for each in found.producers) == 4 * 202
    assert len((tmp_path / "t.pruned.jsonl").read_bytes().splitlines()) == 1 + 2 * 4
    newest = found.producers[
        [each.stored for each in found.producers].index(max(e.stored for e in found.producers))
    ]
    assert newest.stored + newest.pruned == 202


def test_a_loss_among_what_stayed_is_told_all_the_same(tmp_path: Path) -> None:
    url = LINES.format(tmp_path)
    with Trace("run-1", sinks=[f"{url}?rotate_bytes=8000&keep=3"]) as trace:
        for number in range(300):
            trace.info("message %d", number)
            if number % 10 == 9:
                trace.flush()
    assert verify(url).verdict is Verdict.COMPLETE
    path = tmp_path / "t.jsonl"
    victim = Path(rotated(str(path))[-1])
    lines = victim.read_bytes().splitlines(keepends=True)
    place = next(n for n, line in enumerate(lines) if b'"seq":' in line[:10] and n > len(lines) // 2)
    victim.write_bytes(b"".join(lines[:place] + lines[place + 1 :]))
    assert verify(url).lost == 1


def test_a_directory_keeps_a_bounded_number_of_each_file(tmp_path: Path) -> None:
    url = FOLDERS.format(tmp_path)
    with Trace("run-1", sinks=[f"{url}?rotate_bytes=4000&keep=2"]) as trace:
        for number in range(200):
            trace.info("message %d", number)
            if number % 5 == 4:
                trace.flush()
    folder = tmp_path / "logs" / "run_id=run-1"
    until(lambda: len(rotated(str(folder / "metadata.jsonl"))) == 2)
    until(lambda: len(rotated(str(folder / "stdout.txt"))) == 2)
    found = verify(url)
    assert found.verdict is Verdict.COMPLETE, found
    assert found.stored + found.producers[0].pruned == 202


def test_no_rotated_file_stays_with_keep_0(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()
    batches = [make_batch(10, first=first, context=context) for first in range(0, 100, 10)]
    written(JsonLinesSink(path, rotate_bytes=1, keep=0), *batches)
    assert names(tmp_path) == ["t.jsonl", "t.pruned.jsonl"]
    assert numbers(path)[-10:] == list(range(90, 100))
    (found,) = verify(f"file:{path}").producers
    assert (found.pruned, found.losses) == (90, ())


def test_what_a_process_left_half_compressed_is_finished_and_read_once(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()
    batches = [make_batch(10, first=first, context=context) for first in range(0, 50, 10)]
    written(JsonLinesSink(path, rotate_bytes=1), *batches)
    first = Path(rotated(str(path))[0])
    # Both are there: the process ended before it removed the plain one.
    (tmp_path / "t.000001.jsonl.gz").write_bytes(gzip.compress(first.read_bytes()))
    (tmp_path / "t.000002.jsonl.gz.part").write_bytes(b"half")
    assert verify(f"file:{path}").doubles == 0
    assert numbers(path) == list(range(50))

    written(JsonLinesSink(path, compress="gzip"), make_batch(10, first=50, context=context))

    assert names(tmp_path) == [*(f"t.00000{n}.jsonl.gz" for n in range(1, 5)), "t.jsonl"]
    assert numbers(path) == list(range(60))


def test_a_damaged_compressed_file_costs_what_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    context = make_context()
    batches = [make_batch(500, first=first, context=context) for first in range(0, 2_000, 500)]
    written(JsonLinesSink(path, rotate_bytes=1, compress="gzip"), *batches)
    victim = Path(rotated(str(path))[1])
    victim.write_bytes(victim.read_bytes()[:-100])
    found = find_trace("run-1", f"file:{path}")
    assert 1_500 <= len(found.entries) < 2_000
    assert any(
        problem.startswith("t.000002.jsonl.gz: damaged behind line") for problem in found.summary.problems
    )


@pytest.mark.parametrize("compress", ["none", "gzip"])
def test_old_runs_are_pruned_from_rotated_files(tmp_path: Path, compress: Any) -> None:
    path = tmp_path / "t.jsonl"
    old, kept = make_context("old"), make_context("kept")
    batches = [
        Batch([make_record(first, context=old), make_record(first + 1_000, context=kept)])
        for first in range(20)
    ]
    written(JsonLinesSink(path, rotate_bytes=1, compress=compress), *batches)

    async def prune() -> list[int]:
        reader = JsonLinesReader(path)
        gone = [await reader.prune(START_NS + 500 * STEP_NS) for _ in range(2)]
        await reader.aclose()
        return gone

    assert asyncio.run(prune()) == [20, 0]
    assert [run.run_id for run in find_traces(f"file:{path}")] == ["kept"]
    assert numbers(path, "kept") == list(range(1_000, 1_020))
    (found,) = verify(f"file:{path}").producers
    assert (found.pruned, found.stored) == (20, 20)


def test_pruning_holds_writers_up_for_what_they_added_meanwhile_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "t.jsonl"
    old, kept = make_context("old"), make_context("kept")
    written(JsonLinesSink(path), make_batch(500, context=old), make_batch(500, first=1_000, context=kept))
    told: list[str] = []
    first_step, last_step = Rewriting.__init__, Rewriting.finish

    def begin(self: Rewriting, *arguments: Any) -> None:
        first_step(self, *arguments)
        if len(told) < 2:
            # Between the two steps others write: a record of an old run, then some of other runs.
            told.append("written")
            late = (
                make_batch(1, first=900, context=old)
                if len(told) == 1
                else make_batch(5, first=2_000, context=kept)
            )
            written(JsonLinesSink(path), late)

    def finish(self: Rewriting) -> bool:
        finished = last_step(self)
        told.append(f"finished: {finished}")
        return finished

    monkeypatch.setattr(Rewriting, "__init__", begin)
    monkeypatch.setattr(Rewriting, "finish", finish)
    reader = JsonLinesReader(path)

    async def prune() -> int:
        try:
            return await reader.prune(START_NS + 950 * STEP_NS)
        finally:
            await reader.aclose()

    assert asyncio.run(prune()) == 501
    assert told == ["written", "finished: False", "finished: True"]
    assert names(tmp_path) == ["t.jsonl"]


def test_what_is_told_of_a_deleted_file_is_little(tmp_path: Path) -> None:
    url = LINES.format(tmp_path)
    with Trace("run-1", sinks=[url]) as trace:
        for number in range(300):
            trace.info("message %d", number)
            trace.flush()
    marks = list(left_behind(str(tmp_path / "t.jsonl")))
    assert len(marks) == 2
    assert (marks[0].first, marks[0].last, marks[0].admitted) == (1, 302, 302)
    assert (marks[1].first, marks[1].last, marks[1].pruned) == (1, 302, 302)


CLOSED_FOLDER = """
import asyncio, logging, os, sys
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.testing import make_batch, make_context
async def main(folder):
    context = make_context()
    sink = JsonLinesSink(f"{folder}/t.jsonl", rotate_bytes=1)
    await sink.open()
    await sink.write(make_batch(10, context=context))
    os.chmod(f"{folder}/t.jsonl", 0o666)
    os.chmod(folder, 0o555)
    os.chmod(os.path.dirname(folder), 0o755)
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)  # to root everything is writable
    for first in range(10, 50, 10):
        await sink.write(make_batch(10, first=first, context=context))
    await sink.aclose()
logging.basicConfig(format="%(message)s")
asyncio.run(main(sys.argv[1]))
"""


def test_where_nothing_can_be_renamed_the_file_goes_on_growing() -> None:
    with open_to_all() as outer:
        folder = outer / "folder"
        folder.mkdir()
        done = subprocess.run(
            [sys.executable, "-c", CLOSED_FOLDER, str(folder)],
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=True,
        )
        assert done.stderr.count("cannot be rotated and goes on growing") == 1
        assert numbers(folder / "t.jsonl") == list(range(50))
