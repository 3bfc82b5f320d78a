"""The examples of the documents that this package was written after, import line and class names aside.

Each function is one of their examples with file, SQLite or console handlers. Their variables ``…_TRACE_URL``,
``…_ENABLE_WRITE`` and ``…_FORMAT_FILE`` are ``ASYNCTRACE_SINKS``, ``ASYNCTRACE_ENABLED`` and ``ASYNCTRACE_FORMAT``;
their ``add_handler`` and ``remove_handler`` are ``add_sink`` and ``remove_sink``.
"""

import asyncio
import os
import re
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import Trace, find_trace, find_traces, get_trace
from asynctrace.sinks.file import FileSink
from asynctrace.sinks.sqlite import SQLiteSink

pytestmark = pytest.mark.usefixtures("alone")


@pytest.fixture
def files(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("ASYNCTRACE_ENABLED", "true")
    monkeypatch.setenv("ASYNCTRACE_SINKS", "file:./logs")
    monkeypatch.setenv("ASYNCTRACE_FORMAT", "{datetime} ({process:5d}, {thread:5d}) {message}")
    return "file:./logs"


def told(store: str, run_id: str) -> list[tuple[str, str]]:
    return [(record.to_dict()["level"], record.message) for record in find_trace(run_id, store)]


# -- 1: optimised file tracing -------------------------------------------------------------------------------


def test_basic_usage_of_files(files: str, alone: Path) -> None:
    trace = get_trace("workflow-123", parent_run_id="parent-456")

    trace.info("Workflow started")
    trace.warning("Resource usage high")
    trace.error("Stage failed")

    trace.close()

    folder = alone / "logs" / "run_id=workflow-123"
    line = re.compile(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{6} \( *\d+, *\d+\) (.*)$")
    for name, messages in {
        "stdout.txt": ["Workflow started", "Resource usage high"],
        "stderr.txt": ["Stage failed"],
    }.items():
        found = [line.match(text) for text in (folder / name).read_text().splitlines()]
        assert [match and match[1] for match in found] == messages
    assert find_trace("workflow-123", files).summary.parent_run_id == "parent-456"


def test_old_and_new_way_of_files() -> None:
    for url in ("file://./logs",):
        with Trace("123", sinks=[url]) as trace:
            trace.info("x")
    assert told("file:logs", "123") == [("info", "x")]


def test_context_aware_logging(files: str) -> None:
    trace = get_trace(
        "workflow-123",
        extras={
            "workflow_name": "data-processing",
            "stage_name": "extract",
            "user_id": "user123",
            "trace_id": "otel-trace-456",
        },
    )
    trace.info("Stage execution started")
    trace.close()

    (record,) = find_trace("workflow-123", files)
    assert record.fields == trace.fields
    columns = record.to_dict()
    assert (columns["workflow_name"], columns["stage_name"]) == ("data-processing", "extract")
    assert columns["metadata"] == {"trace_id": "otel-trace-456"}


def test_async_support_of_files(files: str) -> None:
    async def main() -> None:
        trace = get_trace("workflow-123")
        await trace.ainfo("Async operation started")
        await trace.aerror("Async operation failed")
        await trace.aclose()

    asyncio.run(main())
    assert told(files, "workflow-123") == [
        ("info", "Async operation started"),
        ("error", "Async operation failed"),
    ]


def test_performance_monitoring(files: str) -> None:
    start_time = time.time()
    trace = get_trace("performance-test")
    for i in range(10000):
        trace.info(f"Log message {i}")
    trace.close()
    duration = time.time() - start_time
    assert 0 < duration < 30
    assert [message for _, message in told(files, "performance-test")] == [
        f"Log message {i}" for i in range(10000)
    ]


# -- 2: SQLite tracing ---------------------------------------------------------------------------------------

STATISTICS = """
        SELECT
            COUNT(*) as total_logs,
            COUNT(CASE WHEN level = 'error' THEN 1 END) as errors,
            COUNT(CASE WHEN level = 'warning' THEN 1 END) as warnings
        FROM traces
        WHERE run_id = 'workflow-123'
    """


def test_basic_usage_of_sqlite(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(os.environ, "ASYNCTRACE_ENABLED", "true")
    monkeypatch.setitem(os.environ, "ASYNCTRACE_SINKS", "sqlite:./logs/workflow_traces.db")

    trace = get_trace("workflow-123", parent_run_id="parent-456")

    trace.info("Workflow started")
    trace.warning("High memory usage")
    trace.error("Database connection failed")

    trace.close()

    assert [type(sink) for sink in trace.sinks()] == [SQLiteSink]
    connection = sqlite3.connect(Path("./logs/workflow_traces.db"))
    try:
        assert connection.execute(STATISTICS).fetchone() == (3, 1, 1)
    finally:
        connection.close()
    assert [run.run_id for run in find_traces()] == ["workflow-123"]
    specific = find_trace("workflow-123")
    assert len(specific.records) == 3


def test_direct_usage_of_sqlite() -> None:
    trace = Trace(
        "direct-example",
        sinks=["sqlite:./logs/custom_traces.db"],
        fields={"workflow_name": "etl-pipeline", "stage_name": "transform", "user_id": "data-engineer"},
    )
    trace.info("ETL Pipeline: Starting extraction phase")
    trace.warning("Found 50 records with missing values")
    trace.info("ETL Pipeline completed successfully")
    trace.close()

    assert len(told("sqlite:./logs/custom_traces.db", "direct-example")) == 3


def test_migration_by_the_scheme_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    for url in ("file:./logs", "sqlite:./logs/workflow_traces.db"):
        monkeypatch.setitem(os.environ, "ASYNCTRACE_SINKS", url)
        trace = get_trace("workflow-123")
        trace.info(url)
        trace.close()
        assert told(url, "workflow-123") == [("info", url)]
    with Trace("123", sinks=["sqlite://./logs/traces.db"]) as trace:
        trace.info("x")
    assert Path("logs/traces.db").is_file()


def test_error_handling(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_SINKS", "sqlite:./logs/workflow_traces.db")
    try:
        trace = get_trace("workflow-123")
        trace.info("Starting workflow")
        raise ValueError("no such table")
    except Exception as e:
        trace.error(f"Workflow failed: {e}")
        trace.exception("Full exception details:")
    finally:
        trace.close()

    assert told("sqlite:./logs/workflow_traces.db", "workflow-123") == [
        ("info", "Starting workflow"),
        ("error", "Workflow failed: no such table"),
        ("error", "Full exception details:"),
    ]
    exception = find_trace("workflow-123").records[-1].exception
    assert exception is not None
    assert (exception.type, exception.message) == ("ValueError", "no such table")


# -- 3: several handlers -------------------------------------------------------------------------------------


def handlers(name: str, *, buffer_size: int = 100, flush_interval: float = 2.0) -> list[dict[str, Any]]:
    return [
        {"type": "file", "path": f"./logs/{name}", "buffer_size": 8192, "flush_interval": 1.0},
        {
            "type": "sqlite",
            "path": f"./logs/{name}.db",
            "buffer_size": buffer_size,
            "flush_interval": flush_interval,
        },
    ]


def stores(name: str) -> list[str]:
    return [f"file:./logs/{name}", f"sqlite:./logs/{name}.db"]


def test_basic_configuration_of_several() -> None:
    extras = {
        "trace_type": "multi",
        "handlers": handlers("multi-example"),
        "fail_silently": True,
        "workflow_name": "multi-handler-workflow",
        "stage_name": "multi-stage",
        "job_name": "multi-job",
    }

    trace = get_trace(run_id="multi-example-001", parent_run_id="parent-001", extras=extras)

    trace.info("Starting multi-handler workflow")
    trace.debug("Processing data")
    trace.error("Error occurred")
    trace.close()

    for store in stores("multi-example"):
        run = find_trace("multi-example-001", store)
        assert [record.message for record in run] == [
            "Starting multi-handler workflow",
            "Processing data",
            "Error occurred",
        ]
        assert {record.to_dict()["job_name"] for record in run} == {"multi-job"}
        assert run.summary.parent_run_id == "parent-001"


def test_the_types_of_handlers() -> None:
    for handler in (
        {"type": "file", "path": "./logs/workflow", "buffer_size": 8192, "flush_interval": 1.0},
        {"type": "sqlite", "path": "./logs/workflow_traces.db", "buffer_size": 100, "flush_interval": 2.0},
    ):
        trace = get_trace("one", extras={"trace_type": "multi", "handlers": [handler]})
        trace.info("x")
        trace.close()
        assert told(f"{handler['type']}:{handler['path']}", "one") == [("info", "x")]


def test_dynamic_handlers() -> None:
    trace = get_trace(
        run_id="dynamic-example", extras={"trace_type": "multi", "handlers": handlers("dynamic")}
    )
    trace.flush()

    sqlite_handler = SQLiteSink("./logs/dynamic_traces.db")
    trace.add_sink(sqlite_handler)
    trace.info("to all three")

    assert len(trace.sinks()) == 3
    assert [type(sink).__name__ for sink in trace.sinks()] == ["FileSink", "SQLiteSink", "SQLiteSink"]
    file_handlers, sqlite_handlers = trace.sinks(FileSink), trace.sinks(SQLiteSink)
    assert len(file_handlers) == 1
    assert sqlite_handlers[-1] is sqlite_handler

    trace.remove_sink(sqlite_handler)
    assert len(trace.sinks()) == 2
    trace.info("to two")
    trace.close()

    for store in stores("dynamic"):
        assert told(store, "dynamic-example") == [("info", "to all three"), ("info", "to two")]
    assert told("sqlite:./logs/dynamic_traces.db", "dynamic-example") == [("info", "to all three")]


def test_high_throughput_configuration_with_paths_by_default() -> None:
    extras = {
        "trace_type": "multi",
        "handlers": [
            {"type": "file", "buffer_size": 16384, "flush_interval": 5.0},
            {"type": "sqlite", "buffer_size": 500, "flush_interval": 5.0},
        ],
    }
    trace = get_trace("fast", extras=extras)
    for i in range(1000):
        trace.info(f"Message {i}")
    trace.close()

    for store in ("file:./logs", "sqlite:./asynctrace.db"):
        assert len(told(store, "fast")) == 1000


def test_performance_comparison() -> None:
    single_trace = get_trace(run_id="single", extras={"trace_type": "file"})
    for i in range(1000):
        single_trace.info(f"Message {i}")
    single_trace.close()

    multi_trace = get_trace(run_id="multi", extras={"trace_type": "multi", "handlers": handlers("both")})
    for i in range(1000):
        multi_trace.info(f"Message {i}")
    multi_trace.close()

    assert len(told("file:./logs", "single")) == 1000
    assert {len(told(store, "multi")) for store in stores("both")} == {1000}


@pytest.mark.parametrize(
    ("environment", "buffer_size", "interval"),
    [("development", 50, 1.0), ("staging", 100, 2.0), ("production", 200, 5.0)],
)
def test_configurations_of_environments(environment: str, buffer_size: int, interval: float) -> None:
    extras = {
        "trace_type": "multi",
        "handlers": handlers(environment, buffer_size=buffer_size, flush_interval=interval),
        "fail_silently": environment != "production",
        "environment": environment,
    }
    with get_trace("env", extras=extras) as trace:
        trace.info("x")
    for store in stores(environment):
        (record,) = find_trace("env", store)
        assert record.fields == {"environment": environment}


def test_async_support_of_several() -> None:
    async def async_workflow() -> None:
        trace = get_trace(
            run_id="async-example", extras={"trace_type": "multi", "handlers": handlers("async")}
        )
        try:
            await trace.ainfo("Starting async workflow")
            await trace.adebug("Processing async data")
            await asyncio.sleep(0)
            await trace.ainfo("Async workflow completed")
        finally:
            trace.close()

    asyncio.run(async_workflow())
    for store in stores("async"):
        assert len(told(store, "async-example")) == 3


def test_migration_from_one_handler_and_from_several_traces() -> None:
    file_trace = get_trace(run_id="example", extras={"trace_type": "file"})
    sqlite_trace = get_trace(run_id="example", extras={"trace_type": "sqlite"})
    file_trace.info("Message")
    sqlite_trace.info("Message")
    file_trace.close()
    sqlite_trace.close()
    assert (
        told("file:./logs", "example") == told("sqlite:./asynctrace.db", "example") == [("info", "Message")]
    )

    trace = get_trace(
        run_id="example-2",
        extras={
            "trace_type": "multi",
            "handlers": [
                {"type": "file", "path": "./logs"},
                {"type": "sqlite", "path": "./logs/traces.db"},
            ],
        },
    )
    trace.info("Message")
    trace.close()
    assert (
        told("file:./logs", "example-2")
        == told("sqlite:./logs/traces.db", "example-2")
        == [("info", "Message")]
    )


def test_a_console_handler(capfd: pytest.CaptureFixture[str]) -> None:
    with get_trace("shown", extras={"trace_type": "multi", "handlers": [{"type": "console"}]}) as trace:
        trace.info("to be seen")
    shown = capfd.readouterr()
    assert "to be seen" in shown.out + shown.err


def test_nothing_is_written_when_writing_is_off(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    with get_trace("off", extras={"enable_write_log": False, "trace_type": "file"}) as trace:
        trace.info("x")
    monkeypatch.setenv("ASYNCTRACE_ENABLED", "false")
    monkeypatch.setenv("ASYNCTRACE_SINKS", "file:./logs")
    with get_trace("off") as trace:
        trace.info("x")
    asynctrace.shutdown()
    assert list(alone.iterdir()) == []
