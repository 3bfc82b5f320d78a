"""The directory of files and the file of JSON lines: what they look like, several writers, faults, reading
back."""

import asyncio
import json
import multiprocessing
import os
import resource
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import pytest
from disk_kit import files_up_to
from lane_kit import auntil
from store_kit import listed, written

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.query import Query
from asynctrace.core.record import Kind, Record, Status
from asynctrace.core.summary import RunSummary
from asynctrace.errors import ConfigurationError, PermanentSinkError, StoreError, TransientSinkError
from asynctrace.sinks._directory_lock import DirectoryLock
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.testing import make_batch, make_context, make_record, make_run
from asynctrace.testing.records import START_NS, STEP_NS

T = TypeVar("T")
Reader = FileReader | JsonLinesReader
Sink = FileSink | JsonLinesSink


def runs(reader: Reader, query: Query | None = None) -> list[RunSummary]:
    async def main() -> list[RunSummary]:
        found = await listed(reader.runs(query or Query()))
        await reader.aclose()
        return found

    return asyncio.run(main())


def records(reader: Reader, run_id: str = "run-1", query: Query | None = None) -> list[Record]:
    async def main() -> list[Record]:
        found = await listed(reader.records(run_id, query or Query()))
        await reader.aclose()
        return found

    return asyncio.run(main())


def marks(reader: Reader) -> list[Mark]:
    async def main() -> list[Mark]:
        found = await listed(reader.marks())
        await reader.aclose()
        return found

    return asyncio.run(main())


def keys(found: Iterable[Record]) -> list[tuple[str, int]]:
    return [(record.producer, record.seq) for record in found]


@pytest.fixture(params=["directory", "lines"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Sink, Reader]:
    if request.param == "directory":
        return FileSink(tmp_path / "logs"), FileReader(tmp_path / "logs")
    return JsonLinesSink(tmp_path / "t.jsonl"), JsonLinesReader(tmp_path / "t.jsonl")


class TestLayout:
    def test_a_run_has_its_folder_and_its_four_files(self, tmp_path: Path) -> None:
        context = make_context()
        batch = Batch(
            [
                make_record(0, "run started", context=context, kind=Kind.RUN_START),
                make_record(1, "fine", context=context, thread=12, fields={"rows": 120}),
                make_record(2, "broken", context=context, level=Level.ERROR, thread=12345),
            ],
            [Mark("p", 0, 2, 3)],
        )
        written(FileSink(tmp_path), batch)
        folder = tmp_path / "run_id=run-1"
        assert sorted(p.name for p in folder.iterdir()) == [
            "events.jsonl", "metadata.jsonl", "stderr.txt", "stdout.txt",
        ]  # fmt: skip
        assert (folder / "stdout.txt").read_text() == "2023-11-14 22:13:20.001000 ( 4242,    12) fine\n"
        assert (folder / "stderr.txt").read_text() == "2023-11-14 22:13:20.002000 ( 4242, 12345) broken\n"
        lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        assert [(line["message"], line["mode"], line["metadata"]) for line in lines] == [
            ("fine", "stdout", {"rows": 120}),
            ("broken", "stderr", {}),
        ]
        assert [json.loads(x)["kind"] for x in (folder / "events.jsonl").read_text().splitlines()] == [
            "run_start"
        ]
        assert [json.loads(x)["kind"] for x in (tmp_path / "marks.jsonl").read_text().splitlines()] == [
            "mark"
        ]

    def test_one_file_holds_all_kinds_of_lines(self, tmp_path: Path) -> None:
        batch = Batch([*make_run("a"), make_record(9, run_id="b")], [Mark("p", 0, 5, 6)])
        written(JsonLinesSink(tmp_path / "deep" / "t.jsonl"), batch)
        lines = [json.loads(line) for line in (tmp_path / "deep" / "t.jsonl").read_text().splitlines()]
        kinds = [line["kind"] for line in lines]
        assert kinds == ["run_start", "log", "log", "log", "run_end", "log", "mark"]

    def test_more_lines_of_one_record_stand_behind_a_margin(self, tmp_path: Path) -> None:
        failed = make_record(
            1,
            "no\n2023-11-14 22:13:20.002000 forged",
            level=Level.ERROR,
            exception=ExceptionInfo("KeyError", "'x'", "Traceback:\n  here\nKeyError: 'x'\n"),
        )
        written(FileSink(tmp_path, format="{message}"), Batch([failed]))
        assert (tmp_path / "run_id=run-1" / "stderr.txt").read_text() == (
            "no\n    2023-11-14 22:13:20.002000 forged\n    Traceback:\n      here\n    KeyError: 'x'\n"
        )

    def test_control_characters_do_not_reach_the_text(self, tmp_path: Path) -> None:
        written(
            FileSink(tmp_path, format="{message}"), Batch([make_record(0, "a\x1b[2Jb\rc\x00d\u202ee\tf")])
        )
        text = (tmp_path / "run_id=run-1" / "stdout.txt").read_text()
        assert text == "a\\x1b[2Jb\\rc\\x00d\\u202ee\tf\n"

    @pytest.mark.parametrize(
        "run_id",
        ["", ".", "..", "/", "../../etc/passwd", "a\x00b", "a\nb", "~", "%2e%2e", "世界", "CON", "a" * 10_000,
         "世" * 5_000, "x/" * 5_000, "-rf", " ", "a.", "*?<>|:\"\\"],
    )  # fmt: skip
    def test_a_run_id_never_leaves_the_directory_and_reads_back(self, tmp_path: Path, run_id: str) -> None:
        inside = tmp_path / "inside"
        batch = Batch([*make_run(run_id), *make_run("other", first=100)])
        written(FileSink(inside), batch)
        assert sorted(tmp_path.iterdir()) == [inside]
        folders = sorted(inside.iterdir())
        assert len(folders) == 2
        assert all(folder.name.startswith("run_id=") and folder.name.isascii() for folder in folders)
        assert {run.run_id for run in runs(FileReader(inside))} == {run_id, "other"}
        assert records(FileReader(inside), run_id) == list(batch[:5])

    def test_different_long_run_ids_have_different_folders(self, tmp_path: Path) -> None:
        ids = ["x" * 300 + end for end in "abc"]
        written(FileSink(tmp_path), *(make_run(run_id, first=10 * n) for n, run_id in enumerate(ids)))
        assert {run.run_id for run in runs(FileReader(tmp_path))} == set(ids)


class TestFormat:
    def test_every_column_is_a_key(self, tmp_path: Path) -> None:
        record = make_record(1, "text", fields={"user_id": "u1", "rows": 3})
        template = "|".join("{" + key + "}" for key in record.to_dict())
        written(FileSink(tmp_path, format=template), Batch([record]))
        text = (tmp_path / "run_id=run-1" / "stdout.txt").read_text()
        assert text.rstrip("\n").split("|") == [
            "" if v is None else str(v) for v in record.to_dict().values()
        ]

    def test_a_missing_value_is_empty_whatever_its_format(self, tmp_path: Path) -> None:
        records_ = [make_record(0, "a"), make_record(1, "b", duration_ms=1.25)]
        written(FileSink(tmp_path, format="{message} {duration_ms:.1f}!"), Batch(records_))
        assert (tmp_path / "run_id=run-1" / "stdout.txt").read_text() == "a !\nb 1.2!\n"

    def test_braces_and_conversions_work_as_in_python(self, tmp_path: Path) -> None:
        written(FileSink(tmp_path, format="{{{message!r:>8}}} [{level}]"), Batch([make_record(0, "a")]))
        assert (tmp_path / "run_id=run-1" / "stdout.txt").read_text() == "{     'a'} [info]\n"

    @pytest.mark.parametrize(
        "template",
        ["{nothing}", "{}", "{message.__class__}", "{metadata[x]}", "{message", "{message:d}", "{0}"],
    )
    def test_a_wrong_format_is_refused_at_once(self, tmp_path: Path, template: str) -> None:
        with pytest.raises(ConfigurationError, match="format") as caught:
            FileSink(tmp_path, format=template)
        assert repr(template) in str(caught.value)

    def test_an_unknown_key_is_told_the_known_ones(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="datetime, process, thread"):
            FileSink(tmp_path, format="{when}")

    def test_other_arguments_are_checked(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigurationError, match="max_open_files"):
            FileSink(tmp_path, max_open_files=0)
        with pytest.raises(ConfigurationError, match="process or disk"):
            JsonLinesSink(tmp_path / "t.jsonl", durability="always")  # type: ignore[arg-type]

    def test_repr_shows_the_path(self, store: tuple[Sink, Reader], tmp_path: Path) -> None:
        assert all(str(tmp_path) in repr(thing) for thing in store)


def _write_many(path: str, worker: int, count: int) -> None:
    sink: Sink = JsonLinesSink(path) if path.endswith(".jsonl") else FileSink(path, max_open_files=3)
    producer = f"{worker:016x}"
    shared, own = make_context("shared"), make_context(f"own-{worker}")
    batches = [
        Batch(
            [
                make_record(
                    n, f"message {n} " + "x" * (n % 500), producer=producer, context=shared if n % 2 else own
                )
                for n in range(first, first + 100)
            ]
        )
        for first in range(0, count, 100)
    ]
    written(sink, *batches)


class TestManyWriters:
    @pytest.mark.parametrize("name", ["logs", "t.jsonl"])
    def test_processes_share_a_store_and_no_line_is_torn(self, tmp_path: Path, name: str) -> None:
        path, workers, count = tmp_path / name, 4, 2_000
        spawn = multiprocessing.get_context("spawn")
        processes = [spawn.Process(target=_write_many, args=(str(path), n, count)) for n in range(workers)]
        for process in processes:
            process.start()
        for process in processes:
            process.join(50)
            assert process.exitcode == 0
        reader: Reader = JsonLinesReader(path) if name.endswith(".jsonl") else FileReader(path)
        found = runs(reader)
        assert sum(run.records for run in found) == workers * count
        assert not [problem for run in found for problem in run.problems]
        lines = [line for file in path.parent.rglob("*.jsonl") for line in file.read_bytes().splitlines()]
        order: dict[str, list[int]] = {}
        for line in map(json.loads, lines):
            order.setdefault(line["producer"] + line["run_id"], []).append(line["seq"])
        assert len(order) == 2 * workers
        assert all(numbers == sorted(numbers) for numbers in order.values())

    def test_few_descriptors_stay_open(self, tmp_path: Path) -> None:
        async def main() -> int:
            before = set(os.listdir("/proc/self/fd"))
            sink = FileSink(tmp_path, max_open_files=5)
            await sink.open()
            for turn in range(3):
                context = [make_context(f"run-{n}") for n in range(40)]
                await sink.write(Batch([make_record(turn * 40 + n, context=context[n]) for n in range(40)]))
            opened = len(set(os.listdir("/proc/self/fd")) - before)
            await sink.aclose()
            assert len(set(os.listdir("/proc/self/fd")) - before) <= 1  # listdir's own
            return opened

        assert asyncio.run(main()) <= 5 + 2  # the directory's lock, and listdir's own
        assert {run.records for run in runs(FileReader(tmp_path))} == {3}

    def test_it_gives_way_when_the_program_runs_out_of_descriptors(self, tmp_path: Path) -> None:
        async def main() -> None:
            sink = FileSink(tmp_path, max_open_files=100)
            await sink.open()
            soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
            resource.setrlimit(
                resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 12, hard)
            )
            try:
                await sink.write(Batch([make_record(n, run_id=f"run-{n}") for n in range(60)]))
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
                await sink.aclose()

        asyncio.run(main())
        assert len(runs(FileReader(tmp_path))) == 60

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
    def test_a_forked_child_opens_for_itself(self, store: tuple[Sink, Reader]) -> None:
        script = """
import asyncio, os, sys
from asynctrace.sinks.{module} import {sink}
from asynctrace.testing import make_batch
sink = {sink}(sys.argv[1])
async def main(batch):
    await sink.open()
    await sink.write(batch)
asyncio.run(main(make_batch(10)))
child = os.fork()
asyncio.run(main(make_batch(10, first=100 if child else 200)))
if child:
    assert os.waitpid(child, 0)[1] == 0
"""
        sink, reader = store
        path = repr(sink).split("'")[1]
        module = "file" if isinstance(sink, FileSink) else "jsonl"
        script = script.format(module=module, sink=type(sink).__name__)
        # Python 3.12 warns of any fork with threads; that ours is one of them is what is tested.
        subprocess.run([sys.executable, "-W", "ignore", "-c", script, path], check=True, timeout=30)
        assert sorted(record.seq for record in records(reader)) == [
            *range(10), *range(100, 110), *range(200, 210),
        ]  # fmt: skip


class TestFaults:
    def test_a_full_disk_is_transient_and_the_batch_is_finished_later(
        self, store: tuple[Sink, Reader]
    ) -> None:
        sink, reader = store
        context = make_context()
        batch = Batch([make_record(n, f"message {n}", context=context) for n in range(200)])

        async def main() -> None:
            await sink.open()
            for limit in (1_000, 30_000):  # each tears a line somewhere
                with files_up_to(limit), pytest.raises(TransientSinkError, match="File too large"):
                    await sink.write(batch)
            await sink.write(batch)
            await sink.aclose()

        asyncio.run(main())
        assert records(reader) == list(batch)
        if isinstance(sink, FileSink):
            text = next(Path(repr(sink).split("'")[1]).rglob("stdout.txt")).read_text()
            whole = [line for line in text.splitlines() if line.count(")") == 1]
            assert [line.split(") ")[1] for line in whole if line.endswith("9")] == [
                f"message {n}" for n in range(9, 200, 10)
            ]

    def test_dev_full_is_transient(self, tmp_path: Path) -> None:
        (tmp_path / "t.jsonl").symlink_to("/dev/full")
        with pytest.raises(TransientSinkError, match="No space left"):
            written(JsonLinesSink(tmp_path / "t.jsonl"), make_batch())
        with pytest.raises(TransientSinkError, match="No space left"):
            JsonLinesSink(tmp_path / "t.jsonl").write_now(make_batch())

    def test_a_file_in_place_of_the_directory_is_permanent(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        for sink in (FileSink(tmp_path / "file"), JsonLinesSink(tmp_path / "file" / "t.jsonl")):
            with pytest.raises(PermanentSinkError, match=str(tmp_path / "file")):
                written(sink, make_batch())
            with pytest.raises(PermanentSinkError, match=str(tmp_path / "file")):
                sink.write_now(make_batch())

    def test_a_directory_that_was_removed_is_made_again(
        self, store: tuple[Sink, Reader], tmp_path: Path
    ) -> None:
        sink, reader = store

        def remove_all() -> None:
            for path in sorted(tmp_path.rglob("*"), reverse=True):
                path.rmdir() if path.is_dir() else path.unlink()

        async def main() -> None:
            await sink.open()
            await sink.write(make_batch())
            remove_all()
            await sink.write(make_batch(first=3))
            await sink.aclose()

        asyncio.run(main())
        assert [record.seq for record in records(reader)] == [3, 4, 5]

    @pytest.mark.timeout(30)
    def test_a_stuck_write_does_not_hold_back_the_end_of_the_program(self, tmp_path: Path) -> None:
        os.mkfifo(tmp_path / "t.jsonl")
        holder = os.open(tmp_path / "t.jsonl", os.O_RDWR)
        script = """
import asyncio, sys
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.testing import make_batch
async def main():
    sink = JsonLinesSink(sys.argv[1])
    await sink.open()
    try:
        await asyncio.wait_for(sink.write(make_batch(5_000)), 0.5)
    except TimeoutError:
        print("stuck")
asyncio.run(main())
"""
        try:
            done = subprocess.run(
                [sys.executable, "-c", script, str(tmp_path / "t.jsonl")],
                capture_output=True, text=True, timeout=20,
            )  # fmt: skip
        finally:
            os.close(holder)
        assert (done.returncode, done.stdout, done.stderr) == (0, "stuck\n", "")


class TestReading:
    def test_a_run_is_told(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        context = make_context(name="checkout", parent_run_id="run-0")
        extra = [
            make_record(10, "slow", context=context, level=Level.WARNING),
            make_record(11, "bad", context=context, level=Level.CRITICAL),
            make_record(12, "load", context=context, kind=Kind.SPAN_START, span_id=5),
        ]
        written(sink, make_run(context=context, logs=3), Batch(extra))
        assert runs(reader) == [
            RunSummary(
                run_id="run-1",
                parent_run_id="run-0",
                name="checkout",
                trace_id=context.run.trace_id,
                status=Status.OK,
                attempts=1,
                started_ns=START_NS,
                ended_ns=START_NS + 12 * STEP_NS,
                duration_ms=4.0,
                records=5,
                errors=1,
                warnings=1,
                spans=1,
            )
        ]

    def test_attempts_are_counted_and_the_newest_counts(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        second = make_context(attempt="0-sorts-first")
        written(
            sink,
            make_run(status=Status.ERROR),
            make_run(first=100, context=second, status=Status.CANCELLED, producer="q"),
        )
        (run,) = runs(reader)
        assert (run.attempts, run.status, run.records) == (2, Status.CANCELLED, 6)

    def test_a_run_whose_process_is_gone_is_interrupted(self, store: tuple[Sink, Reader]) -> None:
        import platform

        from asynctrace.core.process import ProcessInfo

        sink, reader = store
        gone = ProcessInfo(2**22 + 1, platform.node(), "", "", "")  # above any pid that Linux gives
        here = ProcessInfo(os.getpid(), platform.node(), "", "", "")
        written(
            sink,
            make_run("gone", context=make_context("gone", process=gone), status=None),
            make_run("alive", first=10, context=make_context("alive", process=here), status=None),
            make_run("elsewhere", first=20, status=None),
        )
        assert {run.run_id: run.status for run in runs(reader)} == {
            "gone": Status.INTERRUPTED,
            "alive": Status.RUNNING,
            "elsewhere": Status.RUNNING,
        }

    def test_doubles_are_dropped(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        first, second = make_run(), make_batch(first=50)
        written(sink, first, second, first, second)
        assert keys(records(reader)) == keys([*first, *second])
        assert runs(reader)[0].records == 6

    def test_newest_runs_come_first_and_a_limit_takes_those(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        written(sink, *(make_run(f"run-{n}", first=10 * n) for n in (3, 1, 4, 2, 0)))
        assert [run.run_id for run in runs(reader)] == ["run-4", "run-3", "run-2", "run-1", "run-0"]
        assert [run.run_id for run in runs(reader, Query(limit=2))] == ["run-4", "run-3"]
        assert runs(reader, Query(limit=0)) == []

    @pytest.mark.parametrize(
        ("query", "numbers"),
        [
            (Query(), [0, 1, 2, 3]),
            (Query(level=Level.WARNING), [2]),
            (Query(text="LOAD"), [1]),
            (Query(since_ns=START_NS + 2 * STEP_NS), [2, 3]),
            (Query(until_ns=START_NS + 2 * STEP_NS), [0, 1]),
            (Query(name="checkout"), [0, 1, 2, 3]),
            (Query(name="flow"), [3]),
            (Query(name="nobody"), []),
            (Query(fields={"user_id": "u1"}), [0, 1, 2, 3]),
            (Query(fields={"rows": 120}), [1]),
            (Query(fields={"rows": "120"}), []),
            (Query(limit=2), [0, 1]),
        ],
    )
    def test_queries_filter_records(
        self, store: tuple[Sink, Reader], query: Query, numbers: list[int]
    ) -> None:
        sink, reader = store
        context = make_context(name="checkout", fields={"user_id": "u1"})
        batch = Batch(
            [
                make_record(0, "start", context=context),
                make_record(1, "loaded", context=context, fields={"rows": 120}),
                make_record(2, "slow", context=context, level=Level.WARNING),
                make_record(3, "end", context=context, fields={"workflow_name": "flow"}),
            ]
        )
        written(sink, batch)
        assert [record.seq for record in records(reader, query=query)] == numbers
        assert len(runs(reader, query)) == bool(numbers)

    def test_a_run_that_is_not_there_has_no_records(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        written(sink, make_batch())
        assert records(reader, "nobody") == []

    def test_a_store_that_is_not_there_is_named(self, store: tuple[Sink, Reader], tmp_path: Path) -> None:
        _, reader = store
        for ask in (runs, records, marks):
            with pytest.raises(StoreError, match=str(tmp_path)):
                ask(reader)

    def test_an_empty_directory_has_no_runs(self, tmp_path: Path) -> None:
        (tmp_path / "run_id=nothing").mkdir()
        (tmp_path / "something else").touch()
        assert runs(FileReader(tmp_path)) == []
        assert marks(FileReader(tmp_path)) == []

    def test_what_is_torn_is_skipped_and_told(self, tmp_path: Path) -> None:
        written(FileSink(tmp_path), make_run(logs=5))
        path = tmp_path / "run_id=run-1" / "metadata.jsonl"
        lines = path.read_bytes().splitlines(keepends=True)
        lines[1] = lines[1][:40] + b"\n"
        lines[3] = b"\x00\xff garbage\n"
        lines[4] = lines[4][:-20]
        path.write_bytes(b"".join(lines))
        (run,) = runs(FileReader(tmp_path))
        assert run.problems == tuple(f"metadata.jsonl: line {n} torn" for n in (2, 4, 5))
        assert [record.seq for record in records(FileReader(tmp_path))] == [0, 1, 3, 6]

    def test_a_file_of_garbage_does_not_fill_the_summary(self, tmp_path: Path) -> None:
        written(FileSink(tmp_path), make_run())
        (tmp_path / "run_id=run-1" / "metadata.jsonl").write_bytes(b"garbage\n" * 1_000)
        (run,) = runs(FileReader(tmp_path))
        assert len(run.problems) == 11
        assert run.problems[-1] == "metadata.jsonl: 990 more torn lines"

    def test_writing_goes_on_behind_a_torn_line(self, store: tuple[Sink, Reader], tmp_path: Path) -> None:
        sink, reader = store
        written(sink, make_batch(3))
        name = "metadata.jsonl" if isinstance(sink, FileSink) else "t.jsonl"
        path = next(tmp_path.rglob(name))
        path.write_bytes(path.read_bytes()[:-30])  # as a process leaves it that died while it wrote
        written(sink, make_batch(3, first=10))
        assert [record.seq for record in records(reader)] == [0, 1, 10, 11, 12]
        (run,) = runs(reader)
        assert run.problems == (f"{name}: line 3 torn",)

    def test_a_record_behind_half_a_line_is_rescued(self, tmp_path: Path) -> None:
        written(JsonLinesSink(tmp_path / "t.jsonl"), make_batch(2))
        first, second = (tmp_path / "t.jsonl").read_bytes().splitlines()
        (tmp_path / "t.jsonl").write_bytes(first[:50] + second + b"\n")
        assert [record.seq for record in records(JsonLinesReader(tmp_path / "t.jsonl"))] == [1]
        assert runs(JsonLinesReader(tmp_path / "t.jsonl"))[0].problems == ("t.jsonl: line 1 torn",)

    def test_half_a_mark_is_told_and_hides_no_record(self, tmp_path: Path) -> None:
        path = tmp_path / "t.jsonl"
        written(JsonLinesSink(path), Batch(make_batch(2).records, [Mark("p", 0, 1, 2)]))
        first, second, mark = path.read_bytes().splitlines()
        path.write_bytes(b"\n".join([first, mark[:30] + second, mark[:-5]]))
        reader = JsonLinesReader(path)
        assert runs(reader)[0].problems == ("t.jsonl: line 2 torn", "t.jsonl: line 3 torn")
        reader = JsonLinesReader(path)
        assert [record.seq for record in records(reader)] == [0, 1]
        assert [(n.first, n.last) for n in asyncio.run(listed(JsonLinesReader(path).numbers()))] == [(0, 1)]

    def test_marks_come_back(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        told = [Mark("p", 0, 9, 8, filtered=1, dropped=1), Mark("q", 5, 5, 1)]
        written(sink, Batch((), told[:1]), Batch(make_batch().records, told[1:]))
        assert marks(reader) == told

    def test_ten_thousand_lines_in_one_run_come_in_order(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        batches = [make_batch(1_000, first=first) for first in range(0, 10_000, 1_000)]
        written(sink, *reversed(batches))
        assert [record.seq for record in records(reader)] == list(range(10_000))
        assert [record.seq for record in records(reader, query=Query(limit=3))] == [0, 1, 2]


class TestPruning:
    def test_old_runs_go_and_marks_say_so(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        old, new = make_run("old"), make_run("new", first=100)
        written(sink, old, Batch(new.records, [Mark(new[0].producer, 0, 104, 10)]))

        async def main() -> list[int]:
            gone = [await reader.prune(START_NS + 50 * STEP_NS), await reader.prune(START_NS + 50 * STEP_NS)]
            await reader.aclose()
            return gone

        assert asyncio.run(main()) == [5, 0]
        assert [run.run_id for run in runs(reader)] == ["new"]
        assert records(reader, "new") == list(new)
        assert marks(reader)[-1] == Mark(old[0].producer, 0, 4, admitted=0, pruned=5)
        assert len(marks(reader)) == 2

    def test_a_run_with_one_new_record_stays(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        written(sink, make_run(), make_batch(1, first=100))

        async def main() -> int:
            gone = await reader.prune(START_NS + 50 * STEP_NS)
            await reader.aclose()
            return gone

        assert asyncio.run(main()) == 0
        assert runs(reader)[0].records == 4

    def test_a_sink_that_is_open_goes_on_after_it(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store

        async def main() -> int:
            await sink.open()
            await sink.write(make_run())
            gone = await reader.prune(START_NS + 50 * STEP_NS)
            await sink.write(make_batch(3, first=100))
            await sink.aclose()
            await reader.aclose()
            return gone

        assert asyncio.run(main()) == 5
        assert [record.seq for record in records(reader)] == [100, 101, 102]

    def test_writers_lose_nothing_meanwhile(self, store: tuple[Sink, Reader]) -> None:
        sink, reader = store
        kept = make_context("kept")

        async def main() -> None:
            await sink.open()
            await sink.write(make_run("old"))
            done = asyncio.Event()

            async def prune() -> None:
                while not done.is_set():
                    await reader.prune(START_NS + 50 * STEP_NS)

            pruning = asyncio.ensure_future(prune())
            for first in range(1_000, 3_000, 20):
                await sink.write(
                    Batch([*make_batch(20, first=first, context=kept), *make_run("old", first=first % 7)])
                )
            done.set()
            await pruning
            await sink.aclose()
            await reader.aclose()

        asyncio.run(main())
        assert sorted(record.seq for record in records(reader, "kept")) == list(range(1_000, 3_000))


@pytest.mark.timeout(30)
@pytest.mark.parametrize("how", ["last resort", "again", "again, opened anew"])
@pytest.mark.parametrize("kind", [FileSink, JsonLinesSink])
def test_a_batch_whose_writing_was_left_behind_is_written_once(
    kind: type[Sink], how: str, tmp_path: Path
) -> None:
    path = tmp_path / "logs" / ("" if kind is FileSink else "t.jsonl")
    batch = make_batch(20)

    async def main() -> None:
        sink = kind(path)
        await sink.open()
        with DirectoryLock(str(tmp_path / "logs")).exclusive(0):  # the thread waits for that
            stuck = asyncio.ensure_future(sink.write(batch))
            await auntil(lambda: sink._progress._lock.locked())
            stuck.cancel()
            await asyncio.wait({stuck})
            if how == "last resort":
                again = asyncio.ensure_future(asyncio.to_thread(sink.write_now, batch))
            else:
                if how == "again, opened anew":
                    await sink.open()
                again = asyncio.ensure_future(sink.write(batch))
        await again
        await sink.aclose()

    asyncio.run(main())
    lines = [
        path for path in (tmp_path / "logs").rglob("*.jsonl") if path.name in ("metadata.jsonl", "t.jsonl")
    ]
    assert sum(path.read_text().count('"message"') for path in lines) == 20
