"""Secrets planted in every channel of a run: no store and no output holds one."""

from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import (
    Batch,
    ConfigurationError,
    Pipeline,
    Record,
    Redactor,
    Trace,
    TransientSinkError,
    get_trace,
)
from asynctrace.core import codec, ids
from asynctrace.core.record import RawRecord
from asynctrace.core.run import Run, RunContext
from asynctrace.pipeline.process import this_process
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")


class Plants:
    """Makes secrets that can be told apart."""

    def __init__(self) -> None:
        self.made: list[str] = []

    def __call__(self) -> str:
        self.made.append(f"hunter{len(self.made)}Zq9x")
        return self.made[-1]

    def found_in(self, data: bytes) -> list[str]:
        return [secret for secret in self.made if secret.encode() in data]


@pytest.fixture
def plant() -> Plants:
    return Plants()


def all_bytes(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.rglob("*")) if path.is_file())


def record_everything(trace: Trace, plant: Plants) -> None:
    trace.info("fields", password=plant(), rows=1, nested={"list": [{"api_key": plant()}]})
    trace.info("JSON", body=f'{{"user": "ann", "token": "{plant()}"}}')
    trace.info(f"message with password={plant()}")
    trace.info("arguments: secret=%s", plant())
    trace.info("column", user_id=f"postgres://ann:{plant()}@db/app", tags=[f"Bearer {plant()}"])
    trace.info("text", headers=[["cookie", plant()]], url=f"redis://:{plant()}@cache/0")
    trace.info("deep", value=[[[[[[{"credentials": {"x": plant()}}]]]]]])
    trace.bind(auth_token=plant()).warning("bound to a handle")
    with trace.span(f"span token={plant()}", session_key=plant()) as span:
        span.info("inside", db_password=plant())
    try:
        raise ValueError(f"cannot log in with password={plant()}")
    except ValueError:
        trace.exception("failed")
    try:
        with trace.span("fails"):
            raise KeyError(f"Authorization: Bearer {plant()}")
    except KeyError:
        pass
    try:
        connect(password="hunterInSourceZq9x")
    except OSError:
        plant.made.append("hunterInSourceZq9x")
        trace.error("no connection", exc_info=True)


def connect(password: str) -> None:
    raise OSError("no route")


def test_no_store_and_no_output_holds_a_secret(
    plant: Plants, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    memory = MemorySink()
    sinks: list[Any] = ["sqlite:./out/t.db", "file:./out/t.jsonl", "file:./out/logs", "console:", memory]
    with Trace(
        "run-1",
        name=f"job password={plant()}",
        sinks=sinks,
        fields={"client_secret": plant(), "tenant_id": "acme"},
    ) as trace:
        record_everything(trace, plant)

    stored = all_bytes(tmp_path / "out")
    shown = "".join(capfd.readouterr()).encode()
    assert len(plant.made) >= 18
    assert plant.found_in(stored) == []
    assert plant.found_in(shown) == []
    assert plant.found_in(repr([record.to_dict() for record in memory.records]).encode()) == []
    assert stored.count(b"[redacted: password]") > 10
    assert b"[redacted: " in shown
    assert b"acme" in stored
    assert trace.pipeline.redactor.counts["password"] >= 5


def test_extras_of_get_trace_hold_no_secret(plant: Plants, tmp_path: Path) -> None:
    trace = get_trace(
        "run-1",
        extras={
            "trace_type": "multi",
            "handlers": [{"type": "sqlite", "path": "./out/t.db"}],
            "api_key": plant(),
            "user_id": f"https://ann:{plant()}@example.com",
        },
    )
    trace.info("x")
    trace.close()

    assert plant.found_in(all_bytes(tmp_path / "out")) == []


def test_processors_come_first_and_what_they_add_is_redacted(plant: Plants) -> None:
    secret = plant()

    def add(record: Record) -> Record:
        record.own_fields = {**record.own_fields, "password": secret, "note": f"token={secret}"}
        return record

    sink = MemorySink()
    with Pipeline(sink, processors=[add]) as pipeline:
        emit_through(pipeline)

    assert plant.found_in(repr([record.to_dict() for record in sink.records]).encode()) == []
    assert len(sink.records) == 1


def emit_through(pipeline: Pipeline) -> None:
    run = Run("run-1", trace_id=ids.new_trace_id(), span_id=ids.new_span_id(), process=this_process("0"))
    record = RawRecord(20, RunContext(run, {}), None, "x", codec.pack({"rows": 1}), None, 0)
    pipeline.intake.put_record(record, patient=True)


@pytest.mark.parametrize("mode", ["full", "keys", "off"])
def test_setting_says_how_much_is_redacted(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_REDACT", mode)
    sink = MemorySink()
    with Trace("run-1", sinks=[sink]) as trace:
        trace.info("password=abc1", token="def2")

    logged = sink.records[1]
    assert ("abc1" in logged.message) == (mode != "full")
    assert ("def2" in repr(logged.fields)) == (mode == "off")
    explained = asynctrace.explain_redaction("password=abc1", token="def2")
    assert [found.rule for found in explained] == {
        "full": ["password", "token"],
        "keys": ["token"],
        "off": [],
    }[mode]


def test_redactor_is_given_by_code() -> None:
    sink = MemorySink()
    asynctrace.configure(sink, redact=Redactor(names=["badge"], safe_names=["pwd"]))
    with Trace("run-1") as trace:
        trace.info("x", badge="abc1", pwd="/home")

    assert sink.records[1].fields == {"badge": "[redacted: badge]", "pwd": "/home"}


def test_setting_that_is_unknown_is_an_error() -> None:
    with pytest.raises(ConfigurationError, match="redact: 'some' cannot be used; allowed: full, keys, off"):
        asynctrace.configure("memory:", redact="some")


class Unreachable:
    """A sink of a third party whose errors hold its URL."""

    def __init__(self, url: str) -> None:
        self.url = url

    def __repr__(self) -> str:
        return "<Unreachable>"

    async def open(self) -> None:
        raise TransientSinkError(f"cannot reach {self.url}")

    async def write(self, batch: Batch) -> None:
        raise AssertionError("it never opens")

    async def aclose(self) -> None:
        pass


def test_secrets_of_sinks_are_in_no_stats_or_diagnostic(
    plant: Plants, caplog: pytest.LogCaptureFixture
) -> None:
    trace = Trace("run-1", sinks=[Unreachable(f"db://ann:{plant()}@host/db")])
    trace.info("x")
    trace.flush(0.3)
    stats = trace.pipeline.stats()
    trace.close(0.1)

    assert "cannot reach" in str(stats)
    assert plant.found_in(f"{stats}{trace.pipeline!r}{caplog.text}".encode()) == []


def test_secrets_in_urls_are_in_no_error(plant: Plants, caplog: pytest.LogCaptureFixture) -> None:
    urls = [f"unknown://ann:{plant()}@host/db?token={plant()}", f"sqlite:./t.db?password={plant()}"]
    texts = []
    for url in urls:
        with pytest.raises(ConfigurationError) as caught:
            Trace(sinks=[url])
        texts.append(str(caught.value))

    assert plant.found_in("".join(texts).encode()) == []
    assert plant.found_in(caplog.text.encode()) == []
