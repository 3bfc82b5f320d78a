"""The process-wide verbs: ``configure``, ``get_trace``, ``flush``, ``shutdown``, ``stats``."""

import asyncio
import json
import logging
import os
import re
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
from lane_kit import until

import asynctrace
from asynctrace import (
    Batch,
    ConfigurationError,
    DeliveryError,
    Kind,
    LaneOptions,
    Level,
    Trace,
    TransientSinkError,
    configure,
    get_trace,
)
from asynctrace.sinks.console import ConsoleSink
from asynctrace.sinks.file import FileSink
from asynctrace.sinks.jsonl import JsonLinesSink
from asynctrace.sinks.memory import MemorySink
from asynctrace.sinks.sqlite import SQLiteSink

pytestmark = pytest.mark.usefixtures("alone")


def messages(sink: MemorySink) -> list[str]:
    asynctrace.flush(10)
    return [record.message for record in sink.records if record.kind is Kind.LOG]


class Down:
    """A destination that is away."""

    async def open(self) -> None:
        raise TransientSinkError("no route to host")

    async def write(self, batch: Batch) -> None: ...

    async def aclose(self) -> None: ...


# -- the process default -------------------------------------------------------------------------------------


def test_traces_borrow_the_process_default(sink: MemorySink) -> None:
    pipeline = configure(sink)
    assert pipeline.sinks() == [sink]
    with Trace("a") as a, get_trace("b") as b:
        assert a.pipeline is b.pipeline is pipeline
        a.info("x")
    assert not pipeline.closed
    assert messages(sink) == ["x"]


def test_configuring_is_lazy(alone: Path) -> None:
    threads = threading.active_count()
    pipeline = configure("sqlite:t.db", "file:logs", f"file:{alone}/t.jsonl")
    assert list(map(type, pipeline.sinks())) == [SQLiteSink, FileSink, JsonLinesSink]
    assert list(alone.iterdir()) == []
    assert threading.active_count() == threads


def test_another_configuration_flushes_and_ends_the_one_before(sink: MemorySink) -> None:
    other = MemorySink()
    before = configure(sink)
    with Trace() as trace:
        trace.info("first")
        held = Trace()
        held.info("held")
        after = configure(other)
        assert messages(sink) == ["first", "held"]
        trace.info("still the one before")
    assert not before.closed  # held
    with Trace() as trace:
        trace.info("second")
    held.close()

    assert before.closed
    assert not after.closed
    assert messages(sink) == ["first", "held", "still the one before"]
    assert messages(other) == ["second"]


def test_a_wrong_configuration_leaves_the_one_before(sink: MemorySink) -> None:
    configure(sink)
    for wrong in (
        lambda: configure("nowhere:"),
        lambda: configure(level="loud"),
        lambda: configure(sink, x=1),
    ):
        with pytest.raises(ConfigurationError):
            wrong()
    with Trace() as trace:
        trace.info("x")
    assert messages(sink) == ["x"]


def test_equal_configurations_are_one() -> None:
    pipeline = configure("memory:", level="info")
    assert configure("memory:", level="debug") is pipeline
    assert configure("memory:", linger=0) is not pipeline
    assert pipeline.closed
    with Trace(sinks=["memory:"]) as trace:
        assert trace.pipeline is not pipeline


def test_sinks_with_options(sink: MemorySink) -> None:
    configure((sink, LaneOptions(level=Level.ERROR)), ("memory:", LaneOptions(mark_every=1)))
    with Trace() as trace:
        trace.info("no")
        trace.error("yes")
    assert messages(sink) == ["yes"]


def test_the_environment_names_the_sinks_and_may_change(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    for number in (1, 2):
        monkeypatch.setenv("ASYNCTRACE_SINKS", f" file:logs{number}\n\tsqlite:t{number}.db ")
        trace = get_trace("run")
        trace.info(f"to {number}")
        trace.close()
    for number in (1, 2):
        for store in (f"file:logs{number}", f"sqlite:t{number}.db"):
            assert [record.message for record in asynctrace.find_trace("run", store)] == [f"to {number}"]
    assert len(asynctrace.stats()) == 1


def test_nothing_configured_goes_to_the_default_store_and_is_said_once(
    alone: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO, "asynctrace"):
        for _ in range(3):
            with Trace("run") as trace:
                trace.info("x")

    assert [record.message for record in caplog.records] == [
        "nothing is configured: records go to sqlite:./asynctrace.db"
    ]
    run = asynctrace.find_trace("run")
    assert (len(run.records), run.summary.attempts) == (3, 3)
    assert (alone / "asynctrace.db").is_file()


@pytest.mark.parametrize("only_level", [False, True])
def test_an_unwritable_default_store_becomes_memory(
    alone: Path, caplog: pytest.LogCaptureFixture, only_level: bool
) -> None:
    (alone / "asynctrace.db").mkdir()
    if only_level:
        configure(level="info")
    for _ in range(2):
        with Trace() as trace:
            trace.info("x")
            (sink,) = trace.sinks(MemorySink)

    assert [record.message for record in caplog.records] == [
        "nothing is configured and sqlite:./asynctrace.db cannot be written: records stay in memory"
    ]
    assert messages(sink) == ["x", "x"]


def test_a_read_only_directory_is_unwritable_too(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write anywhere
    with Trace() as trace:
        assert len(trace.sinks(MemorySink)) == 1


# -- get_trace -----------------------------------------------------------------------------------------------


def test_get_trace_gives_an_open_trace(sink: MemorySink) -> None:
    configure(sink)
    trace = get_trace("run-43", "run-42", {"user_id": "u1", "rows": 3})
    assert (trace.run_id, trace.parent_run_id, trace.fields) == (
        "run-43",
        "run-42",
        {"user_id": "u1", "rows": 3},
    )
    asynctrace.flush(10)
    assert [record.kind for record in sink.records] == [Kind.RUN_START]
    with trace as entered:
        assert asynctrace.current_trace() is entered is trace
    assert sink.records[-1].kind is Kind.RUN_END


def test_configuration_among_the_extras_is_never_stored(sink: MemorySink) -> None:
    extras: dict[str, Any] = {
        "trace_type": "multi",
        "handlers": [sink, {"type": "memory"}],
        "fail_silently": "no",
        "enable_write_log": True,
        "workflow_name": "w",
        "trace_id": "otel-trace-456",
    }
    before = dict(extras)
    with get_trace("run", extras=extras) as trace:
        trace.info("x")

    assert extras == before
    assert trace.fields == {"workflow_name": "w", "trace_id": "otel-trace-456"}
    for record in sink.records:
        assert "handlers" not in json.dumps(record.to_dict())
        assert record.to_dict()["workflow_name"] == "w"
        assert record.to_dict()["trace_id"] == trace.trace_id
        assert record.fields["trace_id"] == "otel-trace-456"


@pytest.mark.parametrize(
    ("extras", "kinds"),
    [
        ({"trace_type": "file"}, [FileSink]),
        ({"trace_type": "sqlite"}, [SQLiteSink]),
        ({"trace_type": "console"}, [ConsoleSink]),
        ({"trace_type": "multi", "handlers": []}, []),
        ({"handlers": ["memory:", {"type": "file", "path": Path("a b#%")}]}, [MemorySink, FileSink]),
        ({"handlers": [{"type": "file", "path": "t.jsonl", "buffer_size": 8192}]}, [JsonLinesSink]),
        ({"enable_write_log": False, "handlers": [{"type": "file"}]}, []),
    ],
)
def test_the_kinds_of_handlers(extras: dict[str, Any], kinds: list[type]) -> None:
    with get_trace(extras=extras) as trace:
        trace.info("x")
        assert list(map(type, trace.sinks())) == kinds


def test_the_path_of_a_store_stands_beside_its_type(alone: Path) -> None:
    extras = {
        "trace_type": "sqlite",
        "path": "own/t.db",
        "buffer_size": 7,
        "flush_interval": 0.5,
        "user_id": "u",
    }
    with get_trace("run", extras=extras) as trace:
        trace.info("x")
        (options,) = map(trace.pipeline.options_of, trace.sinks())
    assert (options.linger, options.trigger) == (0.5, 7)
    assert trace.fields == {"user_id": "u"}
    assert [record.message for record in asynctrace.find_trace("run", "sqlite:own/t.db")] == ["x"]
    with get_trace("request", extras={"trace_type": "memory", "path": "/cart"}) as trace:
        assert trace.fields == {"path": "/cart"}


def test_equal_handlers_share_a_pipeline() -> None:
    extras = {"handlers": [{"type": "sqlite", "path": "t.db", "buffer_size": 10, "flush_interval": 0.5}]}
    with get_trace("a", extras=extras) as a, get_trace("b", extras=extras) as b:
        assert a.pipeline is b.pipeline
        (options,) = map(a.pipeline.options_of, a.sinks())
        assert (options.linger, options.trigger) == (0.5, 10)


@pytest.mark.parametrize(
    ("extras", "message"),
    [
        (
            {"trace_type": "multi"},
            "trace_type: 'multi' cannot be used; allowed: multi with handlers, or one of file",
        ),
        ({"trace_type": "fiel"}, "trace_type: 'fiel' cannot be used"),
        ({"trace_type": "fiel", "handlers": ["memory:"]}, "trace_type: 'fiel' cannot be used"),
        ({"trace_type": ["file"]}, "trace_type: ['file'] cannot be used"),
        ({"trace_type": "file", "path": 7}, "path of the file handler: 7 cannot be used"),
        ({"handlers": [{"type": ["file"]}]}, "handler type: ['file'] cannot be used"),
        ({"handlers": 5}, "handlers: 'int' cannot be used; allowed: a list of handlers"),
        ({"handlers": [{"path": "x"}]}, "handler type: None cannot be used; allowed: one of file, sqlite"),
        ({"handlers": [{"type": "file", "pth": "hunter2"}]}, "key of the file handler: 'pth' cannot be used"),
        ({"handlers": [{"type": "file", "path": 7}]}, "path of the file handler: 7 cannot be used"),
        ({"handlers": [{"type": "sqlite", "buffer_size": "x"}]}, "buffer_size of the sqlite handler: 'x'"),
        ({"handlers": [{"type": "file", "flush_interval": -1}]}, "flush_interval of the file handler: -1"),
        ({"handlers": "file:logs"}, "handlers: 'str' cannot be used; allowed: a list of handlers"),
        ({"fail_silently": "perhaps"}, "fail_silently: 'perhaps' cannot be used; allowed: true or false"),
        ({"enable_write_log": None}, "enable_write_log: None cannot be used"),
    ],
)
def test_wrong_extras_are_told_without_secrets(extras: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)) as caught:
        get_trace(extras={"password": "hunter2", **extras})
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("extras", [5, "password", ["x"], [("a", 1)]])
def test_extras_are_a_mapping(extras: Any) -> None:
    with pytest.raises(ConfigurationError, match=f"^extras: '{type(extras).__name__}' cannot be used"):
        get_trace(extras=extras)


def test_fail_silently_is_configured_by_extras() -> None:
    trace = get_trace(extras={"handlers": [Down()], "fail_silently": False})
    trace.info("x")
    with pytest.raises(DeliveryError):
        trace.close(0.1)


@pytest.mark.parametrize("timeout", ["5", float("nan"), [1]])
def test_a_timeout_is_a_number_and_the_run_goes_on_when_it_is_none(timeout: Any, sink: MemorySink) -> None:
    trace = Trace(sinks=[sink])
    trace.info("x")
    for wrong in (trace.flush, trace.close, asynctrace.flush, asynctrace.shutdown):
        with pytest.raises(
            ConfigurationError, match=r"^timeout: .* cannot be used; allowed: a number of seconds"
        ):
            wrong(timeout)
    for awaited in (trace.aflush, trace.aclose, asynctrace.aflush, asynctrace.ashutdown):
        with pytest.raises(ConfigurationError, match=r"^timeout: "):
            asyncio.run(awaited(timeout))
    trace.info("y")
    trace.close(float("inf"))
    assert messages(sink) == ["x", "y"]


# -- flush, shutdown, stats ----------------------------------------------------------------------------------


def test_flush_waits_for_all_pipelines(sink: MemorySink) -> None:
    other = MemorySink()
    first, second = Trace(sinks=[sink]), Trace(sinks=[other])
    first.info("x")
    second.info("y")
    asynctrace.flush()
    assert [len(sink.records), len(other.records)] == [2, 2]
    first.info("x")
    asyncio.run(asynctrace.aflush())
    assert [len(sink.records), len(other.records)] == [3, 2]


def test_flush_tells_what_was_not_safe_in_time(sink: MemorySink) -> None:
    first, second, good = Trace(sinks=[Down()]), Trace(sinks=[Down()]), Trace(sinks=[sink])
    for trace in (first, second, good):
        trace.info("x")
    until(lambda: len(sink.records) == 2)
    with pytest.raises(DeliveryError) as caught:
        asynctrace.flush(0.1)
    assert [failure.records for failure in caught.value.failures] == [2, 2]
    with pytest.raises(DeliveryError):
        asyncio.run(asynctrace.aflush(0.05))
    assert len(sink.records) == 2
    asynctrace.shutdown(0.05)


def test_shutdown_ends_all_and_a_later_trace_begins_anew(sink: MemorySink) -> None:
    configure(sink)
    asynctrace.current_trace().info("x")
    with Trace(sinks=["memory:"]) as trace:
        asynctrace.shutdown()
        assert asynctrace.stats() == ()
    assert trace.pipeline.closed
    assert sink.records[-1].kind is Kind.RUN_END
    with Trace() as trace:
        assert [type(sink) for sink in trace.sinks()] == [SQLiteSink]


def test_shutdown_in_a_coroutine(sink: MemorySink) -> None:
    async def main() -> None:
        configure(sink)
        asynctrace.current_trace().info("x")
        async with Trace(sinks=["memory:"]) as trace:
            trace.info("y")
            await asynctrace.ashutdown()
        assert asynctrace.stats() == ()

    asyncio.run(main())
    assert [record.kind for record in sink.records] == [Kind.RUN_START, Kind.LOG, Kind.RUN_END]


def test_stats_are_the_ledgers_of_all_pipelines(sink: MemorySink) -> None:
    with Trace(sinks=[sink]) as trace:
        for i in range(10):
            trace.info("x", i=i)
        trace.flush(10)
        (stats,) = asynctrace.stats()
        (lane,) = stats.lanes
        assert (stats.emitted, lane.delivered, lane.pending, lane.lost) == (11, 11, 0, 0)
        assert stats.balanced
    assert asynctrace.stats() == ()


IMPORT = """
import os, sys, threading
class Environment(dict):
    def __getitem__(self, key): raise AssertionError(key) if key.startswith("ASYNCTRACE") else KeyError(key)
    get = __contains__ = __getitem__
os.environ = Environment()
import asynctrace
for name in asynctrace.__all__:
    getattr(asynctrace, name)
assert threading.active_count() == 1
assert not {"aiosqlite", "aiofiles", "sqlite3"} & set(sys.modules), sorted(sys.modules)
"""


def test_even_all_names_read_no_environment_and_start_nothing(alone: Path) -> None:
    unmeasured = {name: value for name, value in os.environ.items() if not name.startswith("COV")}
    result = subprocess.run(
        [sys.executable, "-W", "error", "-c", IMPORT],
        env={**unmeasured, "PYTHONPATH": str(Path(asynctrace.__file__).parents[1])},
        cwd=alone,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert (result.returncode, result.stderr) == (0, "")
    assert list(alone.iterdir()) == []
