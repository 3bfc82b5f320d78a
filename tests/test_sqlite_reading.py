"""Reading a SQLite store: the documents' own statements, runs and their status, and what is no store."""

import asyncio
import os
import platform
import sqlite3
import subprocess
import time
from contextlib import closing
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from store_kit import listed, write

from asynctrace.core.batch import Batch
from asynctrace.core.level import LABELS, Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Kind, Record, Status
from asynctrace.core.run import COLUMN_FIELDS, RunContext
from asynctrace.core.summary import RunFold, RunSummary
from asynctrace.errors import ConfigurationError, StoreError
from asynctrace.sinks._liveness import current_boot
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import make_batch, make_context, make_record, make_run

pytestmark = pytest.mark.anyio

T = TypeVar("T")
SECOND = 1_000_000_000
HOUR = 3600 * SECOND


def summary_of(records: list[Record]) -> RunSummary:
    fold = RunFold()
    for record in records:
        fold.add(record)
    return fold.summary()


# ---- the statements of the documents, as they stand there


@pytest.fixture(scope="module")
def documented(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three workflows: ``workflow-123`` an hour ago, ``slow`` for 400 seconds, ``old`` two days ago."""
    path = tmp_path_factory.mktemp("documented") / "workflow_traces.db"
    now = time.time_ns()
    numbers = iter(range(1000))

    def record(context: RunContext, at: int, level: Level, message: str, kind: Kind = Kind.LOG) -> Record:
        return make_record(next(numbers), message, context=context, time_ns=at, level=level, kind=kind)

    first = make_context("workflow-123", fields={"workflow_name": "etl", "user_id": "data-engineer"})
    slow = make_context("slow", fields={"workflow_name": "nightly", "user_id": "data-engineer"})
    old = make_context("old", fields={"user_id": "somebody"})
    records = [
        record(old, now - 48 * HOUR, Level.ERROR, "of the day before yesterday"),
        record(slow, now - 20 * HOUR, Level.INFO, "begin"),
        record(slow, now - 20 * HOUR, Level.ERROR, "load", Kind.SPAN_START),
        record(slow, now - 20 * HOUR + 400 * SECOND, Level.ERROR, "failed"),
        record(first, now - HOUR, Level.INFO, "run started", Kind.RUN_START),
        record(first, now - HOUR + 1000, Level.INFO, "Workflow started"),
        record(first, now - HOUR + 2000, Level.WARNING, "High memory usage"),
        record(first, now - HOUR + 3000, Level.ERROR, "Database connection failed"),
        record(first, now - HOUR + 4000, Level.ERROR, "run ended", Kind.RUN_END),
    ]
    # One batch, newest first: neither the order nor the time of the insert may show.
    asyncio.run(write(SQLiteSink(path), Batch(records[::-1])))
    return path


def select(path: Path, statement: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def test_logs_of_a_run(documented: Path) -> None:
    rows = select(
        documented,
        """
        SELECT level, message, datetime, workflow_name, user_id
        FROM traces
        WHERE run_id = 'workflow-123'
        ORDER BY created_at
    """,
    )

    assert [(level, message, name, user) for level, message, _, name, user in rows] == [
        ("info", "Workflow started", "etl", "data-engineer"),
        ("warning", "High memory usage", "etl", "data-engineer"),
        ("error", "Database connection failed", "etl", "data-engineer"),
    ]


def test_statistics_of_a_run(documented: Path) -> None:
    assert select(
        documented,
        """
        SELECT
            COUNT(*) as total_logs,
            COUNT(CASE WHEN level = 'error' THEN 1 END) as errors,
            COUNT(CASE WHEN level = 'warning' THEN 1 END) as warnings
        FROM traces
        WHERE run_id = 'workflow-123'
    """,
    ) == [(3, 1, 1)]


def test_error_analysis(documented: Path) -> None:
    rows = select(
        documented,
        """
        -- Find all errors in the last 24 hours
        SELECT run_id, message, datetime, workflow_name, user_id
        FROM traces
        WHERE level = 'error'
          AND datetime >= datetime('now', '-1 day')
        ORDER BY datetime DESC;
    """,
    )

    assert [row[:2] for row in rows] == [("workflow-123", "Database connection failed"), ("slow", "failed")]


def test_performance_analysis(documented: Path) -> None:
    ((run_id, name, count, start, end, seconds),) = select(
        documented,
        """
        -- Find slow workflows
        SELECT
            run_id,
            workflow_name,
            COUNT(*) as message_count,
            MIN(datetime) as start_time,
            MAX(datetime) as end_time,
            (julianday(MAX(datetime)) - julianday(MIN(datetime))) * 24 * 60 * 60 as duration_seconds
        FROM traces
        GROUP BY run_id
        HAVING duration_seconds > 300  -- More than 5 minutes
        ORDER BY duration_seconds DESC;
    """,
    )

    assert (run_id, name, count) == ("slow", "nightly", 2)
    assert start < end
    assert seconds == pytest.approx(400, abs=0.01)


def test_user_activity(documented: Path) -> None:
    assert select(
        documented,
        """
        -- User activity summary
        SELECT
            user_id,
            COUNT(DISTINCT run_id) as workflow_count,
            COUNT(*) as total_messages,
            COUNT(CASE WHEN level = 'error' THEN 1 END) as error_count
        FROM traces
        WHERE user_id IS NOT NULL
        GROUP BY user_id
        ORDER BY workflow_count DESC;
    """,
    ) == [("data-engineer", 2, 5, 2), ("somebody", 1, 1, 1)]


def test_database_optimization(documented: Path) -> None:
    with closing(sqlite3.connect(documented)) as connection:
        connection.executescript(
            """
            -- Analyze table for better query planning
            ANALYZE traces;

            -- Vacuum database to reclaim space
            VACUUM;

            -- Reindex for better performance
            REINDEX;
        """
        )
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (6,)


def test_sample_and_size(documented: Path) -> None:
    assert len(select(documented, "SELECT * FROM traces LIMIT 5;")) == 5
    ((size,),) = select(
        documented,
        "SELECT page_count * page_size as size_bytes FROM pragma_page_count(), pragma_page_size();",
    )
    assert size == documented.stat().st_size


def test_columns_and_indexes_are_the_documented_ones(documented: Path) -> None:
    columns = select(documented, "PRAGMA table_info('traces')")
    indexes = {row[0] for row in select(documented, "SELECT name FROM pragma_index_list('traces')")}

    text = (
        "id INTEGER key, run_id TEXT!, parent_run_id TEXT, level TEXT!, message TEXT!, mode TEXT!, "
        "datetime TEXT!, process INTEGER!, thread INTEGER!, filename TEXT!, lineno INTEGER!, cut_id TEXT, "
        "workflow_name TEXT, stage_name TEXT, job_name TEXT, duration_ms REAL, memory_usage_mb REAL, "
        "cpu_usage_percent REAL, "
        "trace_id TEXT, span_id TEXT, parent_span_id TEXT, exception_type TEXT, exception_message TEXT, "
        "stack_trace TEXT, error_code TEXT, user_id TEXT, tenant_id TEXT, environment TEXT, hostname TEXT, "
        "ip_address TEXT, python_version TEXT, package_version TEXT, tags TEXT, metadata TEXT, "
        "created_at TIMESTAMP=CURRENT_TIMESTAMP"
    )
    told = [
        f"{name} {kind}{' key' if key else ''}{'!' if needed else ''}{f'={default}' if default else ''}"
        for _, name, kind, needed, default, key in columns
    ]
    assert ", ".join(told[:35]) == text
    assert {f"idx_traces_{name}" for name in ("run_id", "parent_run_id", "datetime", "level")} <= indexes


# ---- queries


_times = st.integers(-5_000, 5_000)
_texts = st.text(st.sampled_from("aAbB%_'\0 éÉßİK"), max_size=4)
_values = st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([1.0, 0.5]) | _texts
_names = st.sampled_from([*COLUMN_FIELDS[:2], "user_id", "rows", "é'\"", "", "message"])


@st.composite
def _records(draw: st.DrawFn) -> list[Record]:
    contexts = [
        make_context(draw(st.sampled_from(["run", "other"])), name=draw(st.none() | _texts), fields=fields)
        for fields in draw(st.lists(st.dictionaries(_names, _values, max_size=2), min_size=1, max_size=3))
    ]
    return [
        make_record(
            number,
            draw(_texts),
            context=draw(st.sampled_from(contexts)),
            kind=draw(st.sampled_from([Kind.LOG, Kind.LOG, *Kind])),
            level=draw(st.sampled_from(list(Level))),
            time_ns=draw(_times),
            fields=draw(st.dictionaries(_names, _values, max_size=3)),
        )
        for number in range(draw(st.integers(1, 6)))
    ]


_queries = st.builds(
    Query,
    level=st.integers(0, 60),
    since_ns=st.none() | _times | st.just(-(10**30)) | st.just(10**30),
    until_ns=st.none() | _times | st.just(10**30),
    text=st.none() | _texts | st.just("\ud800"),
    name=st.none() | _texts | st.just("\ud800"),
    fields=st.dictionaries(_names | st.just("\ud800"), _values | st.just("\ud800"), max_size=2),
    limit=st.none() | st.integers(0, 3),
)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=_records(), queries=st.lists(_queries, min_size=4, max_size=4))
def test_sql_admits_what_the_query_admits(
    tmp_path_factory: pytest.TempPathFactory, records: list[Record], queries: list[Query]
) -> None:
    path = tmp_path_factory.mktemp("queries") / "t.db"
    asyncio.run(_compare(path, records, queries))


async def _compare(path: Path, records: list[Record], queries: list[Query]) -> None:
    await write(SQLiteSink(path), Batch(records))
    reader = SQLiteReader(path)
    runs = {run.run_id: await listed(reader.records(run.run_id)) for run in await listed(reader.runs())}
    assert sorted(r.seq for found in runs.values() for r in found) == [r.seq for r in records]
    for query in queries:
        for run_id, everything in runs.items():
            found = await listed(reader.records(run_id, query))
            admitted = [record for record in everything if query.admits(record)]
            assert [r.to_dict() for r in found] == [r.to_dict() for r in admitted[: query.limit]]
        wanted = {run_id for run_id, all_of in runs.items() if any(map(query.admits, all_of))}
        listing = await listed(reader.runs(query))
        assert {run.run_id for run in listing} <= wanted
        assert len(listing) == min(len(wanted), len(wanted) if query.limit is None else query.limit)


async def test_a_summary_is_what_the_records_tell(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    named = make_context("a", name="first", parent_run_id="parent")
    retry = make_context("a", name="second", attempt="attempt-2")
    await write(
        SQLiteSink(path),
        make_run(context=named, status=Status.ERROR),
        make_run("b", first=10, status=Status.CANCELLED),
        make_run(context=retry, first=20, logs=1, status=Status.OK),
        make_batch(2, first=30, run_id="c"),
    )
    reader = SQLiteReader(path)

    runs = await listed(reader.runs())

    assert [(run.run_id, run.status.label, run.attempts, run.name) for run in runs] == [
        ("c", "running", 1, None),
        ("a", "ok", 2, "second"),
        ("b", "cancelled", 1, None),
    ]
    assert runs == [summary_of(await listed(reader.records(run.run_id))) for run in runs]
    assert await reader.find("a") == runs[1]
    assert await reader.find("nobody") is None
    assert await reader.find("\ud800") is None
    assert await listed(reader.records("\ud800")) == []


async def test_an_iteration_may_be_left(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    await write(SQLiteSink(path), make_batch(1000))

    reader = SQLiteReader(path)
    records = reader.records("run-1")
    async for record in records:
        assert record.seq == 0
        break
    await records.aclose()  # type: ignore[attr-defined]
    await reader.aclose()


# ---- what became of a process


def _started(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])


def _process(pid: int, **changes: Any) -> ProcessInfo:
    facts = {"hostname": platform.node(), "started": _started(pid), "boot": current_boot(), **changes}
    return ProcessInfo(pid, ip_address="", python_version="", package_version="", **facts)


async def _status(path: Path, process: ProcessInfo) -> Status:
    await write(SQLiteSink(path), make_run(context=make_context(process=process), status=None))
    (run,) = await listed(SQLiteReader(path).runs())
    return run.status


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="tells processes apart by /proc")
@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({}, Status.RUNNING),
        ({"started": 1}, Status.INTERRUPTED),
        ({"boot": "another"}, Status.INTERRUPTED),
        ({"hostname": "elsewhere", "started": 1}, Status.RUNNING),
    ],
)
async def test_a_run_without_an_end(tmp_path: Path, changes: dict[str, Any], status: Status) -> None:
    assert await _status(tmp_path / "t.db", _process(os.getpid(), **changes)) is status


@pytest.mark.skipif(not os.path.exists("/proc/self/stat"), reason="tells processes apart by /proc")
def test_a_run_of_a_process_that_has_ended(tmp_path: Path) -> None:
    with subprocess.Popen(["cat"], stdin=subprocess.PIPE) as process:
        gone = _process(process.pid)

    assert asyncio.run(_status(tmp_path / "t.db", gone)) is Status.INTERRUPTED


# ---- removing and maintaining


async def test_prune_removes_whole_runs(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    await write(
        SQLiteSink(path),
        make_run("old", logs=3),
        make_batch(1, first=10, run_id="only-logs"),
        make_batch(1, first=11, run_id="both"),
        Batch([make_record(100, run_id="both"), make_record(101, run_id="new")]),
        Batch([make_record(12, run_id="event"), make_record(102, run_id="event", kind=Kind.RUN_END)]),
    )
    reader = SQLiteReader(path)
    oldest_kept = make_record(100).time_ns

    assert await reader.prune(oldest_kept) == 6
    assert {run.run_id for run in await listed(reader.runs())} == {"both", "new", "event"}
    assert len(await listed(reader.records("both"))) == 2
    assert await reader.prune(oldest_kept) == 0


async def test_prune_takes_runs_of_any_length(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    await write(SQLiteSink(path), make_batch(11_000), make_batch(1, first=11_000, run_id="new"))

    assert await SQLiteReader(path).prune(make_record(11_000).time_ns) == 11_000
    assert [run.run_id for run in await listed(SQLiteReader(path).runs())] == ["new"]


async def test_maintenance_gives_room_back(tmp_path: Path) -> None:
    path = tmp_path / "t.db"
    await write(SQLiteSink(path), make_batch(5000), make_batch(1, first=5000, run_id="new"))
    reader = SQLiteReader(path)
    await reader.prune(make_record(5000).time_ns)
    ((before,),) = select(path, "PRAGMA page_count")

    await reader.maintain()

    ((after,),) = select(path, "PRAGMA page_count")
    assert after < before / 2
    assert len(await listed(reader.records("new"))) == 1


# ---- what is no store


async def _questions(reader: SQLiteReader) -> list[str]:
    told = []
    for question in (
        lambda: listed(reader.runs(EVERYTHING)),
        lambda: listed(reader.records("run-1", EVERYTHING)),
        lambda: listed(reader.marks()),
        lambda: reader.find("run-1"),
        lambda: reader.prune(0),
        lambda: reader.maintain(),
    ):
        with pytest.raises(StoreError) as caught:
            await question()
        told.append(str(caught.value))
    return told


async def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    path = tmp_path / "no.db"

    assert await _questions(SQLiteReader(path)) == [f"{path}: no such file"] * 6
    assert os.listdir(tmp_path) == []


async def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "text.db"
    path.write_text("this is text, and long enough to be seen as no database. " * 20)

    for told in await _questions(SQLiteReader(path)):
        assert "not a database" in told
        assert str(path) in told


async def test_a_database_without_traces(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE other (id)")

    assert await _questions(SQLiteReader(path)) == [f"{path}: has no table 'traces'"] * 6


def test_an_argument_that_cannot_be_used() -> None:
    with pytest.raises(ConfigurationError, match="busy_timeout"):
        SQLiteReader("t.db", busy_timeout=-1)
    with pytest.raises(ConfigurationError, match="path"):
        SQLiteReader("")


# ---- a table that another tool made


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """As another tool may have written it: levels in capitals, odd values, no column of ours."""
    path = tmp_path / "foreign.db"
    columns = (
        "run_id TEXT NOT NULL, level TEXT NOT NULL, message TEXT NOT NULL, mode TEXT NOT NULL, "
        "datetime TEXT NOT NULL, process INTEGER NOT NULL, thread INTEGER NOT NULL, filename TEXT NOT NULL, "
        "lineno INTEGER NOT NULL, user_id TEXT, trace_id TEXT, span_id TEXT, tags TEXT, metadata TEXT"
    )
    rows = [
        ("old", "INFO", "one", "2024-05-01 10:00:00", None, None, None, '{"a": 1}'),
        ("old", "Error", "two", "2024-05-01 10:00:00", "u1", "no hex", "ff", "no json"),
        ("old", "notice", "three", "2024-05-01 10:00:09", None, None, "zz", "[1, 2]"),
    ]
    with closing(sqlite3.connect(path)) as connection:
        connection.execute(f"CREATE TABLE traces (id INTEGER PRIMARY KEY, {columns})")
        connection.executemany(
            "INSERT INTO traces (run_id, level, message, mode, datetime, process, thread, filename, lineno, "
            "user_id, trace_id, span_id, metadata) VALUES (?, ?, ?, 'stdout', ?, 1, 2, 'a.py', 3, ?, ?, ?, ?)",
            rows,
        )
        connection.commit()
    return path


async def test_records_of_another_tool(foreign: Path) -> None:
    reader = SQLiteReader(foreign)

    records = await listed(reader.records("old"))

    assert [(r.message, LABELS[r.level], r.datetime) for r in records] == [
        ("one", "info", "2024-05-01 10:00:00.000000"),
        ("two", "error", "2024-05-01 10:00:00.000000"),
        ("three", "info", "2024-05-01 10:00:09.000000"),
    ]
    fields = [{"a": 1}, {"user_id": "u1", "metadata": "no json"}, {"metadata": [1, 2]}]
    assert [r.fields for r in records] == fields
    assert [r.span_id for r in records] == [0, 255, 0]
    assert [r.message for r in await listed(reader.records("old", Query(level=Level.ERROR)))] == ["two"]
    assert [r.message for r in await listed(reader.records("old", Query(fields={"a": 1})))] == ["one"]
    assert await listed(reader.records("old", Query(name="etl"))) == []
    assert await listed(reader.marks()) == []


async def test_runs_of_another_tool(foreign: Path) -> None:
    (run,) = await listed(SQLiteReader(foreign).runs())

    assert isinstance(run, RunSummary)
    assert (run.run_id, run.status, run.attempts, run.records, run.errors) == ("old", Status.RUNNING, 1, 3, 1)
    assert run.ended_ns - run.started_ns == 9 * SECOND
