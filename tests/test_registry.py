"""Sink URLs: what each form means, what is said about wrong ones, and schemes of other packages."""

import os
import re
import sys
import traceback
from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import ConfigurationError, Trace
from asynctrace.sinks import registry
from asynctrace.sinks.console import ConsoleSink
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.sinks.memory import MemorySink
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink

pytestmark = pytest.mark.usefixtures("alone")

DOCS = Path(__file__).parents[1] / "docs" / "reference" / "sink-urls.md"


@pytest.mark.parametrize(
    ("url", "kind", "path"),
    [
        ("file:./logs", FileSink, "logs"),
        ("file:logs", FileSink, "logs"),
        ("file://./logs", FileSink, "logs"),
        ("file:///abs/logs", FileSink, "/abs/logs"),
        ("file:/abs/logs", FileSink, "/abs/logs"),
        ("file://localhost/abs/logs", FileSink, "/abs/logs"),
        ("file:./logs/t.jsonl", JsonLinesSink, "logs/t.jsonl"),
        ("file:///abs/t.jsonl", JsonLinesSink, "/abs/t.jsonl"),
        ("file:./a%20b%25#1", FileSink, "a b%#1"),
        ("sqlite:./t.db", SQLiteSink, "t.db"),
        ("sqlite:t.db", SQLiteSink, "t.db"),
        ("sqlite://./t.db", SQLiteSink, "t.db"),
        ("sqlite:///rel/t.db", SQLiteSink, "rel/t.db"),
        ("sqlite:////abs/t.db", SQLiteSink, "/abs/t.db"),
        ("sqlite:/abs/t.db", SQLiteSink, "/abs/t.db"),
        ("SQLITE:t.db?synchronous=full", SQLiteSink, "t.db"),
        ("console:", ConsoleSink, None),
        ("memory:", MemorySink, None),
    ],
)
def test_the_forms_of_a_url(url: str, kind: type, path: str | None) -> None:
    sink = registry.sink_from_url(url)
    assert type(sink) is kind
    if path is not None:
        assert os.path.abspath(path) in repr(sink)
    assert os.listdir() == []  # nothing is made before the sink is opened


@pytest.mark.parametrize(
    ("url", "kind"),
    [("file:logs", FileReader), ("file:t.jsonl", JsonLinesReader), ("sqlite:t.db", SQLiteReader)],
)
def test_stores_have_readers(url: str, kind: type) -> None:
    assert type(registry.reader_from_url(url)) is kind
    assert registry.is_readable(url)


@pytest.mark.parametrize("url", ["console:", "memory:"])
def test_others_have_none(url: str) -> None:
    assert not registry.is_readable(url)
    with pytest.raises(ConfigurationError, match="a store that can be read back: file, sqlite"):
        registry.reader_from_url(url)


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("", "sink: '' cannot be used; allowed: a URL such as"),
        ("./logs", "sink: './logs' cannot be used; allowed: a URL such as"),
        ("file:", "file: and a path, for example file:./traces"),
        ("sqlite://", "sqlite: and a path"),
        ("sqlite:///", "sqlite: and a path"),
        ("console:here", "console: without a path"),
        ("memory:?max_records=many", "max_records: 'many' cannot be used; allowed: a whole number"),
        ("memory:?max_records=0", "max_records: 0 cannot be used"),
        ("memory:?max=1", "parameter: 'max' cannot be used; allowed: one of max_records"),
        ("console:?color=pink", "color: 'pink' cannot be used; allowed: one of auto, always, never"),
        ("console:?stream=x", "parameter: 'stream' cannot be used; allowed: one of color"),
        ("sqlite:t.db?busy_timeout=soon", "busy_timeout: 'soon' cannot be used; allowed: a number"),
        ("sqlit:t.db", "did you mean sqlite:?"),
        ("nowhere:", "one of the schemes console, file, memory, sqlite"),
        ("redis://[::1", "a URL such as"),
    ],
)
def test_what_is_said_of_a_wrong_url(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        registry.sink_from_url(url)
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Trace(sinks=[url])


@pytest.mark.parametrize(
    "url",
    [
        "nowhere://user:hunter2@host/db",
        "nowhere://user:hun@ter2:hunter2@host/db",
        "nowhere://user:hunter2/x@host",
        "nowhere://host?password=hunter2",
        "nowhere://host?a=1&api_key=hunter2&b=2",
        "nowhere://user:hunter2@[host",
        "memory:?secret=hunter2",
        "memory:?token=hunter2&max_records=x",
    ],
)
def test_no_secret_is_shown(url: str) -> None:
    assert "hunter2" not in registry.shown(url)
    for use in (
        registry.sink_from_url,
        registry.reader_from_url,
        lambda url: Trace(sinks=[url]),
        asynctrace.configure,
    ):
        with pytest.raises(ConfigurationError) as caught:
            use(url)
        assert "hunter2" not in "".join(traceback.format_exception(caught.value)).replace(repr(url), "")
        assert "hunter2" not in str(caught.value)
        assert "hunter2" not in repr(caught.value)


def test_a_path_is_shown_whole() -> None:
    assert registry.shown("file:///home/me@here/logs") == "file:///home/me@here/logs"


@pytest.mark.parametrize(
    "path", ["logs", "/abs/logs", "//abs", "a b", "100%", "%20", "a#b?c=d", "ü", "a@b:c", "./x"]
)
def test_any_path_has_a_url(path: str) -> None:
    for scheme in ("file", "sqlite"):
        assert os.path.abspath(path).lstrip("/") in repr(
            registry.sink_from_url(registry.url_of(scheme, path))
        )


def test_equal_urls_are_known_as_such(alone: Path) -> None:
    forms = ["file:logs", "file:./logs", "file:logs/", f"file:{alone}/logs", f"file://{alone}/logs"]
    assert len(set(map(registry.canonical_url, forms))) == 1
    forms = ["sqlite:t.db", "sqlite:///t.db", f"sqlite:///{alone}/t.db"]
    assert len(set(map(registry.canonical_url, forms))) == 1
    different = ["memory:", "memory:?max_records=1", "file:logs", "file:log", "sqlite:logs"]
    assert len(set(map(registry.canonical_url, different))) == 5
    assert registry.canonical_url("sqlite:t?a=1&b=2") == registry.canonical_url("sqlite:t?b=2&a=1")


@pytest.mark.parametrize(
    ("text", "hint", "value"),
    [
        ("7", int, 7),
        ("7", int | None, 7),
        ("1e3", float, 1000.0),
        ("Yes", bool, True),
        ("off", bool, False),
        ("7", str, "7"),
        ("x", Any, "x"),
        ("logs", str | os.PathLike[str], "logs"),
    ],
)
def test_parameters_are_typed_by_the_signature(text: str, hint: Any, value: object) -> None:
    converted = registry.convert("p", text, hint)
    assert converted == value
    assert type(converted) is type(value)


def test_a_truth_that_is_none() -> None:
    with pytest.raises(ConfigurationError, match="p: 'maybe' cannot be used; allowed: one of 1, true"):
        registry.convert("p", "maybe", bool)


def test_the_docs_name_every_scheme_and_parameter() -> None:
    text = DOCS.read_text()
    for name, scheme in registry.SCHEMES.items():
        assert f"| `{name}:" in text
        factory = registry._load(scheme.sink, name, scheme.extra)
        row = next(line for line in text.splitlines() if line.startswith(f"| `{name}:` | `"))
        assert set(re.findall(r"`(\w+)`", row.split("|")[2])) >= set(
            registry._keywords(factory, 1 if scheme.takes_path else 0)
        )


# -- other packages ------------------------------------------------------------------------------------------

PIGEONS = """
from __future__ import annotations
from typing import TYPE_CHECKING
if TYPE_CHECKING:
    from nowhere import Batch

class PigeonSink:
    def __init__(self, target: str, birds: int = 1, *, ring: str = "none", **rest: object) -> None:
        self.target, self.birds, self.ring, self.written = target, birds, ring, []
    def __repr__(self) -> str:
        return f"<PigeonSink {self.target}>"
    async def open(self) -> None: ...
    async def write(self, batch: Batch) -> None:
        self.written += [record.message for record in batch]
    async def aclose(self) -> None: ...

def untyped(target, birds="1"):
    return PigeonSink(target, ring=birds)
"""


@pytest.fixture
def pigeons(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another package, installed."""
    (alone / "pigeons_for_tests.py").write_text(PIGEONS)
    info = alone / "pigeons_for_tests-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: pigeons-for-tests\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[asynctrace.sinks]\ncarrier = pigeons_for_tests:PigeonSink\nfeather = pigeons_for_tests:untyped\n"
        "lost = pigeons_for_tests:Nobody\ngone = pigeons_that_are_not_there:Sink\n"
    )
    monkeypatch.syspath_prepend(alone)
    yield
    sys.modules.pop("pigeons_for_tests", None)


@pytest.mark.usefixtures("pigeons")
def test_another_package_adds_a_scheme() -> None:
    with Trace(sinks=["carrier://loft/7?birds=3&ring=red"]) as trace:
        trace.info("coo")
        (sink,) = trace.sinks()
    assert (sink.target, sink.birds, sink.ring) == ("loft/7", 3, "red")
    assert "coo" in sink.written
    made: Any = registry.sink_from_url("feather:x?birds=two")
    assert (made.target, made.ring) == ("x", "two")


@pytest.mark.usefixtures("pigeons")
@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("carrier:x?birds=many", "birds: 'many' cannot be used; allowed: a whole number"),
        ("carrier:x?wings=2", "parameter: 'wings' cannot be used; allowed: one of birds, ring"),
        ("lost:x", "whose entry point pigeons_for_tests:Nobody can be loaded"),
        ("gone:x", "whose entry point pigeons_that_are_not_there:Sink can be loaded"),
    ],
)
def test_what_is_wrong_with_another_packages_scheme(url: str, message: str) -> None:
    with pytest.raises(ConfigurationError, match=re.escape(message)):
        Trace(sinks=[url])
