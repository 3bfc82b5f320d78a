"""The SQLite sink beyond the contract: its rows, its file, many processes, forks."""

import asyncio
import gc
import os
import sqlite3
import subprocess
import sys
import time
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest
from store_kit import all_records, write

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Usage
from asynctrace.errors import (
    ConfigurationError,
    PartialWriteError,
    PermanentSinkError,
    SinkClosedError,
    TransientSinkError,
)
from asynctrace.sinks import _sqlite_file
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import make_batch, make_context, make_record

pytestmark = pytest.mark.anyio

SCRIPT_SECONDS = 50
MARK = Mark(producer="p", first=0, last=9, admitted=7, filtered=2, dropped=1)


def select(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def run_script(source: str, *arguments: object) -> str:
    """Run Python source in an interpreter of its own; what it printed."""
    command = [sys.executable, "-W", "error", "-c", source, *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=SCRIPT_SECONDS, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    return done.stdout


# ---- what is stored


@pytest.mark.parametrize("size", [1, 9, 250, 257, 1023, 1024, 1025, 2500])
async def test_every_size_of_batch_is_stored_in_order(tmp_path: Path, size: int) -> None:
    path = tmp_path / "t.db"
    batch = make_batch(size)

    await write(SQLiteSink(path), batch)

    assert select(path, "SELECT seq, message FROM traces ORDER BY id") == [(r.seq, r.message) for r in batch]


async def test_columns_come_into_use_in_the_middle_of_a_batch(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    plain = [make_record(n) for n in range(400)]
    rich = [
        make_record(400, exception=ExceptionInfo("ValueError", "no", "Traceback …")),
        make_record(401, usage=Usage(12.5, 99.0), span_id=7, parent_span_id=8, duration_ms=1.5),
        make_record(402, fields={"user_id": "u1", "rows": 3, "tags": ["a", "b"]}),
        *(make_record(n) for n in range(403, 700)),
    ]

    await write(SQLiteSink(path), Batch(plain + rich), make_batch(5, first=700))

    found = await all_records(SQLiteReader(path))
    expected = [*plain, *rich, *make_batch(5, first=700)]
    assert [record.to_dict() for record in found] == [record.to_dict() for record in expected]


async def test_records_of_several_processes_in_one_batch_keep_their_own(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    processes = [ProcessInfo(pid, f"host-{pid}", "192.0.2.9", "3.12.0", "1") for pid in (1, 2, 3)]
    records = [
        make_record(n, producer=f"p{n % 3}", context=make_context(process=processes[n % 3]))
        for n in range(30)
    ]

    await write(SQLiteSink(path), Batch(records))

    found = select(path, "SELECT producer, process, hostname FROM traces ORDER BY datetime")
    assert found == [(f"p{n % 3}", n % 3 + 1, f"host-{n % 3 + 1}") for n in range(30)]


async def test_starts_and_ends_are_not_among_the_log_records(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    records = [make_record(n, kind=kind, task="Task-1") for n, kind in enumerate(Kind)]

    await write(SQLiteSink(path), Batch(records))

    assert select(path, "SELECT seq FROM traces") == [(Kind.LOG,)]
    assert select(path, "SELECT kind, task FROM trace_events ORDER BY seq") == [
        (kind.label, "Task-1") for kind in Kind if kind is not Kind.LOG
    ]


async def test_marks_are_kept_once(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    await write(SQLiteSink(path), Batch([make_record()], [MARK]), Batch([], [MARK]))

    assert [mark async for mark in SQLiteReader(path).marks()] == [MARK]


async def test_rejections_name_their_places_in_the_batch(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    records = [make_record(n) for n in range(600)]
    records[3] = make_record(3, thread=2**70)
    records[290] = make_record(290, fields={"not": object()})
    records[291] = make_record(291, "a lone surrogate \ud800")
    records[500] = make_record(500, kind=Kind.SPAN_START, thread=-(2**64))
    records[599] = make_record(599, level=45)  # type: ignore[arg-type]

    with pytest.raises(PartialWriteError) as caught:
        await write(SQLiteSink(path), Batch(records, [MARK]))

    bad = [3, 290, 291, 500, 599]
    assert [rejection.index for rejection in caught.value.rejections] == bad
    assert select(path, "SELECT seq FROM traces ORDER BY id") == [(n,) for n in range(600) if n not in bad]
    assert select(path, "SELECT count(*) FROM trace_marks") == [(1,)]


async def test_created_at_is_the_moment_of_the_record(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    late_first = Batch([make_record(2), make_record(0), make_record(1)])

    await write(SQLiteSink(path), late_first)

    assert select(path, "SELECT seq FROM traces ORDER BY created_at") == [(0,), (1,), (2,)]
    assert select(path, "SELECT DISTINCT datetime = created_at FROM traces") == [(1,)]


# ---- the file


async def test_settings_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directories" / "t.db"

    await write(SQLiteSink(path))

    assert select(path, "PRAGMA journal_mode") == [("wal",)]
    assert os.listdir(path.parent) == ["t.db"]


@pytest.mark.parametrize("name", ["a b.db", "50%?#&=x.db", "file:t.db", "größe.db", "'\";--.db"])
async def test_any_file_name(tmp_path: Path, name: str) -> None:
    await write(SQLiteSink(tmp_path / name), make_batch(2))

    assert os.listdir(tmp_path) == [name]
    assert len(await all_records(SQLiteReader(tmp_path / name))) == 2


@pytest.mark.parametrize(
    ("keywords", "name"),
    [
        ({"path": ""}, "path"),
        ({"path": "a\0b"}, "path"),
        ({"synchronous": "sometimes"}, "synchronous"),
        ({"busy_timeout": -1}, "busy_timeout"),
        ({"busy_timeout": float("nan")}, "busy_timeout"),
        ({"cache_size": 0}, "cache_size"),
    ],
)
def test_an_argument_that_cannot_be_used(keywords: dict[str, Any], name: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        SQLiteSink(**{"path": "t.db", **keywords})

    assert caught.value.name == name


def test_repr_shows_the_file(tmp_path: Path) -> None:
    assert repr(SQLiteSink(tmp_path / "t.db")) == f"<SQLiteSink {tmp_path}/t.db>"


async def test_a_locked_file_is_transient(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sink = SQLiteSink(path, busy_timeout=0.01)
    await sink.open()
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(TransientSinkError, match="locked"):
            await sink.write(make_batch(3))
        other.execute("ROLLBACK")

    await sink.write(make_batch(3))
    await sink.aclose()

    assert len(await all_records(SQLiteReader(path))) == 3


async def test_a_table_that_is_gone_is_permanent(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    sink = SQLiteSink(path)
    await sink.open()
    with closing(sqlite3.connect(path)) as other:
        other.execute("DROP TABLE traces")

    with pytest.raises(PermanentSinkError, match="no such table"):
        await sink.write(make_batch(3))
    await sink.aclose()


async def test_a_directory_in_place_of_the_file_is_permanent(tmp_path: Path) -> None:
    with pytest.raises(PermanentSinkError, match="is a directory"):
        await SQLiteSink(tmp_path).open()


async def test_a_file_in_place_of_the_directory_is_permanent(tmp_path: Path) -> None:
    (tmp_path / "file").touch()

    with pytest.raises(PermanentSinkError, match="file"):
        await SQLiteSink(tmp_path / "file" / "t.db").open()


READ_ONLY = """
import asyncio, os, sys
from asynctrace.errors import PermanentSinkError
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import make_batch

async def main(folder):
    sink = SQLiteSink(f"{folder}/t.db")
    await sink.open()
    await sink.write(make_batch(3))
    await sink.aclose()
    os.chmod(f"{folder}/t.db", 0o444)
    os.chmod(folder, 0o555)
    os.chmod(os.path.dirname(folder), 0o755)
    if os.geteuid() == 0:
        os.setresuid(65534, 65534, 65534)  # to root everything is writable
    for name in ("t.db", "new.db"):
        try:
            await SQLiteSink(f"{folder}/{name}").open()
        except PermanentSinkError as error:
            print("refused", type(error.__cause__).__name__)
    print(len([record async for record in SQLiteReader(f"{folder}/t.db").records("run-1")]))

asyncio.run(main(sys.argv[1]))
"""


def test_a_read_only_directory_refuses_writers_and_serves_readers(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for parent in tmp_path.parents:  # pytest's own folders are closed to others
        if parent.name.startswith("pytest-") and os.geteuid() == 0:
            parent.chmod(0o755)

    assert run_script(READ_ONLY, tmp_path / "folder").split("\n") == [
        "refused PermissionError",
        "refused PermissionError",
        "3",
        "",
    ]


async def test_a_file_that_was_removed_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_sqlite_file, "_LOOK_AFTER", 0.0)
    path = tmp_path / "t.db"
    sink = SQLiteSink(path)
    await sink.open()
    await sink.write(make_batch(3))
    for name in os.listdir(tmp_path):
        os.unlink(tmp_path / name)

    await sink.write(make_batch(2, first=3))
    await sink.aclose()

    assert [record.seq for record in await all_records(SQLiteReader(path))] == [3, 4]


async def test_writing_before_open_raises(tmp_path: Path) -> None:
    with pytest.raises(SinkClosedError, match=r"t\.db"):
        await SQLiteSink(tmp_path / "t.db").write(make_batch())


# ---- loops, threads and processes


def test_a_write_that_is_cancelled_while_locked_does_not_hold_the_loop(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    async def main() -> None:
        sink = SQLiteSink(path)
        await sink.open()
        with closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
            other.execute("BEGIN IMMEDIATE")
            write = asyncio.create_task(sink.write(make_batch(3)))
            while not write.cancelling():  # until the batch is on the thread, whatever turns that takes
                await asyncio.sleep(0)
                if write.get_coro().cr_await is not None:  # type: ignore[union-attr]
                    write.cancel()
            other.execute("ROLLBACK")
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(write, 10)
        await sink.write(make_batch(2, first=3))
        await sink.aclose()

    asyncio.run(main())

    assert {4, 3} <= {record.seq for record in asyncio.run(all_records(SQLiteReader(path)))}


LEFT_OPEN = """
import asyncio, sys
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing import make_batch

sink = SQLiteSink(sys.argv[1])

async def main(first):
    await sink.open()
    await sink.write(make_batch(3, first=first))

asyncio.run(main(0))
asyncio.run(main(3))
"""


def test_a_sink_left_open_neither_hangs_nor_complains_at_the_exit(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    run_script(LEFT_OPEN, path)

    assert len(select(path, "SELECT 1 FROM traces")) == 6


FORK = """
import asyncio, os, sys, threading, warnings
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing import make_batch

warnings.simplefilter("ignore", DeprecationWarning)  # a fork beside threads is what this is about
sink = SQLiteSink(sys.argv[1])
go, done = os.pipe(), os.pipe()

async def child():
    await sink.open()
    await sink.write(make_batch(2, producer="child"))
    os.write(done[1], b"x")
    os.read(go[0], 1)  # the parent has closed its file
    await sink.write(make_batch(2, first=2, producer="child"))

async def parent():
    await sink.open()
    await sink.write(make_batch(2, producer="parent"))
    stop = threading.Event()
    busy = threading.Thread(target=keep_writing, args=(stop,))
    busy.start()
    pid = os.fork()
    if pid == 0:
        # Not on this loop, nor closing it: parent and child share what it waits with.
        thread = threading.Thread(target=lambda: asyncio.run(child()))
        thread.start()
        thread.join()
        os._exit(0)
    stop.set()
    busy.join()
    os.read(done[0], 1)
    await sink.write(make_batch(2, first=2, producer="parent"))
    await sink.aclose()
    os.write(go[1], b"x")
    assert os.waitpid(pid, 0)[1] == 0

def keep_writing(stop):
    number = 0
    while not stop.is_set():
        sink.write_now(make_batch(1, first=number, producer="thread"))
        number += 1

asyncio.run(parent())
"""


def test_a_forked_child_and_its_parent_keep_all_their_records(tmp_path: Path) -> None:
    path = tmp_path / "t.db"

    run_script(FORK, path)

    assert select(path, "SELECT producer, count(*) FROM traces WHERE producer <> 'thread' GROUP BY 1") == [
        ("child", 4),
        ("parent", 4),
    ]
    assert select(path, "PRAGMA integrity_check") == [("ok",)]


WRITER = """
import asyncio, sys, time
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing import make_batch

async def main(path, producer, count, start):
    sink = SQLiteSink(path)
    while time.time() < start:
        pass
    await sink.open()
    for first in range(0, count, 100):
        await sink.write(make_batch(100, first=first, producer=producer, run_id=producer))
    await sink.aclose()

asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])))
"""


def test_eight_processes_open_one_fresh_file_at_once(tmp_path: Path) -> None:
    path = tmp_path / "fresh" / "t.db"
    start = time.time() + 2.0  # the moment at which all of them open the file
    arguments = [[str(path), f"p{n}", "2000", str(start)] for n in range(8)]
    writers = [
        subprocess.Popen([sys.executable, "-c", WRITER, *given], stderr=subprocess.PIPE, text=True)
        for given in arguments
    ]
    errors = [writer.communicate(timeout=SCRIPT_SECONDS)[1] for writer in writers]

    assert errors == [""] * 8
    for n in range(8):
        found = select(path, f"SELECT seq FROM traces WHERE producer = 'p{n}' ORDER BY id")
        assert found == [(seq,) for seq in range(2000)]
    assert select(path, "PRAGMA integrity_check") == [("ok",)]


# ---- a table that another tool made


async def test_a_table_made_by_another_tool_is_completed_in_place(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    await write(SQLiteSink(path))
    with closing(sqlite3.connect(path)) as other:
        for name in ("producer_seq", *("run_id", "parent_run_id", "datetime", "level")):
            other.execute(f"DROP INDEX idx_traces_{name}")
        for name in ("producer", "seq", "attempt", "run_name", "status", "task"):
            other.execute(f"ALTER TABLE traces DROP COLUMN {name}")
        other.execute(
            "INSERT INTO traces (run_id, level, message, mode, datetime, process, thread, filename, lineno) "
            "VALUES ('old', 'info', 'from before', 'stdout', '2020-01-01 00:00:00', 1, 1, 'a.py', 1)"
        )
        other.commit()

    await write(SQLiteSink(path), make_batch(2))

    assert select(path, "SELECT message FROM traces ORDER BY datetime") == [
        ("from before",),
        ("message 0",),
        ("message 1",),
    ]


@pytest.mark.parametrize("turns", range(8))
def test_a_cancelled_open_leaves_neither_file_nor_thread(tmp_path: Path, turns: int) -> None:
    async def main() -> None:
        sink = SQLiteSink(tmp_path / "t.db")
        task = asyncio.ensure_future(sink.open())
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        with suppress(asyncio.CancelledError):
            await task
        await sink.aclose()

    asyncio.run(main())
    gc.collect()  # what is left open warns when it is collected, and a thread that answers nobody dies loudly
