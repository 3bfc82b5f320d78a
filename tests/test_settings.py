"""Settings: from code, from the environment, by default; and what is said about wrong ones."""

import asyncio
import dataclasses
import re
from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import ConfigurationError, Kind, Level, Record, Trace, composition, settings
from asynctrace.pipeline.options import LOCAL, REMOTE
from asynctrace.settings import Settings
from asynctrace.settings_table import DEFAULT_STORE, SETTINGS, Setting
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.usefixtures("alone")

DOCS = Path(__file__).parents[1] / "docs"
GOOD: dict[str, tuple[Any, Any]] = {
    "enabled": ("No", False),
    "sinks": ("  memory:\n file:./logs\t", ("memory:", "file:./logs")),
    "level": ("Warning", Level.WARNING),
    "format": ("[{datetime}] [{level}] {message}", "[{datetime}] [{level}] {message}"),
    "linger": ("0", 0.0),
    "batch_interval": ("2.5", 2.5),
    "batch_size": ("7", 7),
    "batch_bytes": ("70000", 70_000),
    "flush_trigger": ("3", 3),
    "queue_size": ("10", 10),
    "queue_bytes": ("100000", 100_000),
    "block_timeout": ("2.5", 2.5),
    "close_timeout": ("1", 1.0),
    "handle_sigterm": ("yes", True),
    "max_text": ("200", 200),
    "processors": ("json:dumps json:loads", ("json:dumps", "json:loads")),
    "redact": ("keys", "keys"),
    "state_dir": ("/var/lib/asynctrace", "/var/lib/asynctrace"),
    "durability": ("process", "process"),
    "journal_max_bytes": ("1048576", 1048576),
    "spool_max_bytes": ("0", 0),
    "spool_max_age": ("60", 60.0),
    "spool_fsync": ("never", None),
    "retention_days": ("2.5", 2.5),
    "retention_max_bytes": ("1000000", 1_000_000),
    "cleanup_interval": ("60", 60.0),
    "color": ("never", "never"),
}
BAD: dict[str, list[Any]] = {
    "enabled": ["maybe", "2"],
    "sinks": [" ", 5],
    "level": ["loud", "-1"],
    "format": ["{nobody}", "{", "{process:x%}"],
    "linger": ["-1", "inf", "nan", "soon"],
    "batch_interval": ["0", "-1", "inf"],
    "batch_size": ["0", "1.5", "many", 1.5],
    "flush_trigger": ["0"],
    "queue_size": ["0"],
    "batch_bytes": ["0", "4 MiB"],
    "queue_bytes": ["0", "-1"],
    "block_timeout": ["-1", "long", "inf"],
    "close_timeout": ["0", "nan"],
    "handle_sigterm": ["maybe"],
    "max_text": ["99"],
    "processors": ["json", "json:", ":dumps", 5, [5], [None]],
    "redact": ["some", 5, ["full"]],
    "state_dir": [5],
    "durability": ["eternal", 1],
    "journal_max_bytes": ["0", "65535", "many"],
    "spool_max_bytes": ["-1", "1.5", "many"],
    "spool_max_age": ["0", "-1", "inf"],
    "spool_fsync": ["-1", "sometimes", "inf"],
    "retention_days": ["-1", "inf", "ten"],
    "retention_max_bytes": ["-1", "1.5"],
    "cleanup_interval": ["0", "-1"],
    "color": ["sometimes"],
}


def test_there_is_an_attribute_for_each_setting() -> None:
    names = [setting.name for setting in SETTINGS]
    assert [field.name for field in dataclasses.fields(Settings)] == [
        *names,
        "sinks_are_default",
        "state_home",
    ]
    assert set(GOOD) == set(BAD) == set(names)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda setting: setting.name)
def test_each_setting_comes_from_code_or_environment_or_default(setting: Setting) -> None:
    text, value = GOOD[setting.name]
    default = setting.parse(setting.default)

    assert getattr(settings.load({}, {}), setting.name) == default != value
    assert getattr(settings.load({}, {setting.variable: ""}), setting.name) == default
    assert getattr(settings.load({}, {setting.variable: text}), setting.name) == value
    assert getattr(settings.load({setting.name: value}, {}), setting.name) == value
    assert (
        getattr(settings.load({setting.name: value}, {setting.variable: setting.default}), setting.name)
        == value
    )


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in BAD.items() for value in values]
)
def test_a_wrong_value_is_one_error_that_says_it_all(name: str, value: Any) -> None:
    (setting,) = [setting for setting in SETTINGS if setting.name == name]
    shown = re.escape(repr(value))
    if isinstance(value, str) and value.strip():
        with pytest.raises(
            ConfigurationError, match=f"^{setting.variable}: {shown} cannot be used; allowed: "
        ) as caught:
            settings.load({}, {setting.variable: value})
        assert caught.value.allowed == setting.allowed
    with pytest.raises(ConfigurationError, match=f"^{name}: {shown} cannot be used; allowed: "):
        asynctrace.configure(**{name: value})


def test_a_wrong_variable_is_told_where_a_trace_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_LEVEL", "loud")
    for make in (Trace, lambda: Trace(sinks=["memory:"]), asynctrace.get_trace, asynctrace.configure):
        with pytest.raises(
            ConfigurationError, match=r"^ASYNCTRACE_LEVEL: 'loud' cannot be used; allowed: debug, info"
        ):
            make()
    monkeypatch.setenv("ASYNCTRACE_LEVEL", "info")
    monkeypatch.setenv("ASYNCTRACE_SINKS", "memory: redsi://u:hunter2@h")
    with pytest.raises(ConfigurationError, match=re.escape("'redsi://***@h'")):
        Trace()


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("bogus:", "'bogus:' cannot be used; allowed: one of the schemes console, file"),
        ("memory:?x=1", "memory:?x=1: parameter: 'x' cannot be used; allowed: one of max_records"),
        (
            "sqlite:./a.db,file:./q",
            "'sqlite:./a.db,file:./q' cannot be used; allowed: URLs separated by white",
        ),
        ("sqlite:./a.db, file:./q", "'sqlite:./a.db,' cannot be used; allowed: URLs separated by whitespace"),
        (
            "file:./l,sqlite:./a.db,redis://:hunter2@h",
            "'file:./l,sqlite:./a.db,redis://***@h' cannot be used",
        ),
        ("memory:?max_records=5,redis://:hunter2@h", "'memory:?max_records=5,redis://***@h' cannot be used"),
        ("sqlite:./a.db;redis://:hunter2@h", "'sqlite:./a.db;redis://***@h' cannot be used"),
    ],
)
def test_a_wrong_sink_of_the_environment_names_the_variable(
    value: str, message: str, monkeypatch: pytest.MonkeyPatch, alone: Path
) -> None:
    monkeypatch.setenv("ASYNCTRACE_SINKS", value)
    for make in (Trace, asynctrace.get_trace, lambda: asynctrace.configure(level="info")):
        with pytest.raises(ConfigurationError, match=r"^" + re.escape(f"ASYNCTRACE_SINKS: {message}")):
            make()
    for make in (lambda: Trace(sinks="nowhere:"), lambda: asynctrace.configure("nowhere:")):
        with pytest.raises(ConfigurationError, match=r"^sink: 'nowhere:' cannot be used"):
            make()
    assert list(alone.iterdir()) == []


def test_a_path_may_hold_a_comma(alone: Path) -> None:
    with Trace(sinks="sqlite:./a,b.db sqlite:./c%2Cfile:d.db") as trace:
        trace.info("x")
    assert {path.name for path in alone.glob("*.db")} == {"a,b.db", "c,file:d.db"}


def test_an_unknown_setting_is_an_error() -> None:
    with pytest.raises(
        ConfigurationError, match="setting: 'levle' cannot be used; allowed: one of enabled, sinks"
    ):
        asynctrace.configure("memory:", levle="info")


def test_an_unknown_variable_is_one_warning_that_names_the_nearest(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCTRACE_LEVLE", "info")
    for _ in range(2):
        with Trace(sinks=["memory:"]):
            pass

    assert [(record.name, record.levelname, record.message) for record in caplog.records] == [
        (
            "asynctrace",
            "WARNING",
            "the variable ASYNCTRACE_LEVLE is unknown; the nearest known one is ASYNCTRACE_LEVEL",
        )
    ]


def test_no_color() -> None:
    assert settings.load({}, {"NO_COLOR": "1"}).color == "never"
    assert settings.load({}, {"NO_COLOR": ""}).color == "auto"
    assert settings.load({"color": "always"}, {"NO_COLOR": "1"}).color == "always"
    assert settings.load({}, {"NO_COLOR": "1", "ASYNCTRACE_COLOR": "always"}).color == "always"


# -- what they do --------------------------------------------------------------------------------------------


def test_level_and_enabled_hold_for_the_next_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    sink = MemorySink()
    for level in ("debug", "error"):
        monkeypatch.setenv("ASYNCTRACE_LEVEL", level)
        with Trace(level, sinks=[sink]) as trace:
            trace.debug("x")
            trace.error("x")
        with Trace(level, sinks=[sink], level="debug") as trace:
            trace.debug("own")
    monkeypatch.setenv("ASYNCTRACE_ENABLED", "off")
    with Trace("off", sinks=[sink]) as trace, trace.span("s") as span:
        for handle in (trace, span, trace.bind(a=1), trace.opt(), span.span("t")):
            handle.critical("x", exc_info=True)
            handle.log(50, "x")
            handle.exception("x")
        asyncio.run(use_disabled(trace))
        trace.add_sink(MemorySink(), level="debug")
        trace.info("still nothing")
        trace.flush(10)
    assert trace.status.label == "ok"

    logs = [(r.run_id, r.message) for r in sink.records if r.kind is Kind.LOG]
    assert logs == [("debug", "x"), ("debug", "x"), ("debug", "own"), ("error", "x"), ("error", "own")]
    assert "off" not in {record.run_id for record in sink.records}


async def use_disabled(trace: Trace) -> None:
    await trace.acritical("x")
    async with trace.span("s"):
        await trace.alog("critical", "x")


def test_disabled_makes_no_store(monkeypatch: pytest.MonkeyPatch, alone: Path) -> None:
    monkeypatch.setenv("ASYNCTRACE_ENABLED", "false")
    with Trace() as trace:
        trace.info("x")

    assert list(alone.iterdir()) == []


def test_the_batch_settings_are_for_remote_lanes() -> None:
    class Remote:
        async def open(self) -> None: ...
        async def write(self, batch: asynctrace.Batch) -> None: ...
        async def aclose(self) -> None: ...

    pipeline = asynctrace.configure(
        Remote(), "memory:", batch_interval=2, batch_size=20, flush_trigger=50, queue_size=9, close_timeout=3
    )
    remote, local = map(pipeline.options_of, pipeline.sinks())
    fleeting = dataclasses.replace(LOCAL, spool_max_bytes=0)
    assert local == fleeting, "what is in memory only, nobody wants back"
    assert remote == dataclasses.replace(REMOTE, linger=2.0, max_records=20, short=20, trigger=20)
    assert (pipeline.intake.capacity, pipeline.close_timeout) == (9, 3.0)


def test_the_format_is_that_of_the_files(alone: Path) -> None:
    asynctrace.configure("file:logs", format="[{level}] {message}")
    with Trace("r") as trace:
        trace.info("hello")

    (text,) = alone.glob("logs/*/stdout.txt")
    assert text.read_text() == "[info] hello\n"


def test_max_text_cuts() -> None:
    sink = MemorySink()
    asynctrace.configure(sink, max_text=100)
    with Trace() as trace:
        trace.info("x" * 200, it="y" * 200)
    asynctrace.configure(sink)

    (record,) = [record for record in sink.records if record.kind is Kind.LOG]
    assert len(record.message) < 150
    assert len(record.fields["it"]) < 150
    with Trace(sinks=[sink]):
        pass


def test_state_is_kept_where_the_setting_says_or_beside_the_store_or_with_the_user(tmp_path: Path) -> None:
    home = {"XDG_STATE_HOME": str(tmp_path / "state")}
    sinks = ["memory:", f"file:{tmp_path / 'logs'}"]

    def chosen(sinks: list[str], environment: dict[str, str]) -> Path:
        return composition.state_directory(sinks, settings.load({}, environment)).spools("x")[0]

    assert chosen(sinks, home) == tmp_path / ".asynctrace" / "spool" / "x"
    assert chosen(["memory:"], home) == tmp_path / "state" / "asynctrace" / "spool" / "x"
    told = home | {"ASYNCTRACE_STATE_DIR": str(tmp_path / "told")}
    assert chosen(sinks, told) == tmp_path / "told" / "spool" / "x"
    assert settings.load({}, {"XDG_STATE_HOME": "relative"}).state_home == str(Path.home() / ".local/state")


# -- processors ----------------------------------------------------------------------------------------------


def without_debris(record: Record) -> Record | None:
    return None if record.message == "debris" else record


NOT_CALLABLE = "a text"


def messages_of_a_run() -> list[str]:
    with Trace("r") as trace:
        for message in ("kept", "debris"):
            trace.info(message)
        (memory,) = trace.sinks(MemorySink)
    return [record.message for record in memory.records if record.kind is Kind.LOG]


def test_processors_are_given_by_code() -> None:
    def louder(record: Record) -> Record:
        record.message = record.message.upper()
        return record

    asynctrace.configure("memory:", processors=without_debris)
    assert messages_of_a_run() == ["kept"]
    asynctrace.configure("memory:", processors=[without_debris, louder])
    assert messages_of_a_run() == ["KEPT"]


def test_processors_are_named_by_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_SINKS", "memory:")
    monkeypatch.setenv("ASYNCTRACE_PROCESSORS", f"{__name__}:without_debris")
    assert messages_of_a_run() == ["kept"]


@pytest.mark.parametrize("name", ["no_such_module:f", f"{__name__}:no_such_name", f"{__name__}:NOT_CALLABLE"])
def test_a_processor_that_is_not_there_is_told_where_a_trace_is_made(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("ASYNCTRACE_PROCESSORS", name)
    with pytest.raises(ConfigurationError, match=f"^processors: '{name}' cannot be used; allowed: "):
        Trace(sinks=["memory:"])


# -- the table in the docs -----------------------------------------------------------------------------------


def test_the_docs_have_the_same_table() -> None:
    rows = [
        tuple(cell.strip() for cell in line.strip("| ").split(" | "))
        for line in (DOCS / "reference" / "settings.md").read_text().splitlines()
        if line.startswith("| `")
    ]
    assert rows == [
        (f"`{s.name}`", f"`{s.variable}`", f"`{s.default}`", s.allowed, s.meaning) for s in SETTINGS
    ]


def test_the_default_store_is_the_one_the_docs_name() -> None:
    assert DEFAULT_STORE == "sqlite:./asynctrace.db"
