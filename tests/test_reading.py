"""``find_traces`` and ``find_trace``: the same answers from every store, in both colours."""

import asyncio
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

import asynctrace
from asynctrace import (
    CandidReader,
    ConfigurationError,
    Kind,
    Reader,
    RunSummary,
    SpanNode,
    Status,
    StoreError,
    Trace,
    TraceNotFoundError,
    afind_trace,
    afind_traces,
    find_trace,
    find_traces,
)
from asynctrace.sinks.memory import MemoryReader, MemorySink

STORES = ["memory", "file", "jsonl", "sqlite"]
TARGETS = {"file": "logs", "jsonl": "t.jsonl", "sqlite": "t.db"}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(scope="module")
def stores(place: Path) -> dict[str, str | Reader]:
    """One workload, in every store at once."""
    sink = MemorySink()
    urls = {"file": f"file:{place}/logs", "jsonl": f"file:{place}/t.jsonl", "sqlite": f"sqlite:{place}/t.db"}
    sinks = [sink, *urls.values()]
    with Trace("plain", sinks=sinks, name="checkout", fields={"user_id": "u1"}) as trace:
        trace.info("Extracted rows", rows=120)
        trace.warning("slow", ms=812)
        with trace.span("load", table="orders") as span:
            span.debug("loading")
            with trace.span("deep"):
                trace.info("in deep", tags=["a"])
        with Trace("child", sinks=sinks) as child:
            child.info("of the child")
    try:
        with Trace("broken/../\n", sinks=sinks, name="other") as trace, trace.span("failing"):
            trace.error("boom", workflow_name="checkout")
            raise ValueError("mine")
    except ValueError:
        pass
    for _ in range(2):
        with Trace("retried", sinks=sinks) as trace:
            trace.info("a try")
    asynctrace.shutdown()
    return {"memory": MemoryReader(sink), **urls}


@pytest.fixture(params=STORES)
def store(request: pytest.FixtureRequest, stores: dict[str, str | Reader]) -> str | Reader:
    return stores[request.param]


@pytest.fixture(params=STORES)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@contextmanager
def opened(place: Path, kind: str) -> Iterator[tuple[list[Any], str | Reader]]:
    """What to record with in a store of its own, and what to read it back by."""
    if kind == "memory":
        sink = MemorySink()
        yield [sink], MemoryReader(sink)
    else:
        url = f"{'sqlite' if kind == 'sqlite' else 'file'}:{place}/{TARGETS[kind]}"
        yield [url], url


NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
QUESTIONS: dict[str, tuple[dict[str, Any], list[str]]] = {
    "everything": ({}, ["retried", "broken/../\n", "plain", "child"]),
    "level": ({"level": "warning"}, ["broken/../\n", "plain"]),
    "level as number": ({"level": 40, "text": "boom"}, ["broken/../\n"]),
    "text": ({"text": "EXTRACTED"}, ["plain"]),
    "text of a span": ({"text": "failing"}, ["broken/../\n"]),
    "name": ({"name": "checkout"}, ["broken/../\n", "plain"]),
    "nobody's name": ({"name": "nobody"}, []),
    "field": ({"fields": {"rows": 120}}, ["plain"]),
    "column": ({"fields": {"user_id": "u1"}}, ["plain"]),
    "tags": ({"fields": {"tags": '["a"]'}}, ["plain"]),
    "both": ({"level": "error", "name": "checkout"}, ["broken/../\n"]),
    "limit": ({"limit": 2}, ["retried", "broken/../\n"]),
    "since": ({"since": NOW - HOUR}, ["retried", "broken/../\n", "plain", "child"]),
    "since then": ({"since": (NOW + HOUR).isoformat()}, []),
    "until": ({"until": NOW - HOUR}, []),
    "until, without a zone": (
        {"until": (NOW + HOUR).replace(tzinfo=None)},
        ["retried", "broken/../\n", "plain", "child"],
    ),
    "until, in nanoseconds": ({"until": 1}, []),
}


@pytest.mark.parametrize("question", QUESTIONS)
def test_every_store_gives_the_same_runs(stores: dict[str, str | Reader], question: str) -> None:
    conditions, expected = QUESTIONS[question]
    answers = {name: find_traces(store, **conditions) for name, store in stores.items()}
    for answer in answers.values():
        assert answer == answers["memory"]
    assert [run.run_id for run in answers["memory"]] == expected


def test_both_colours_give_the_same(store: str | Reader) -> None:
    async def ask() -> tuple[list[RunSummary], asynctrace.StoredRun]:
        return await afind_traces(store, name="checkout"), await afind_trace("plain", store)

    assert asyncio.run(ask()) == (find_traces(store, name="checkout"), find_trace("plain", store))

    async def ask_in_a_loop() -> list[RunSummary]:
        return find_traces(store)  # blocks this loop, not the answer

    assert asyncio.run(ask_in_a_loop()) == find_traces(store)


def test_a_run_is_read_back_whole(stores: dict[str, str | Reader], store: str | Reader) -> None:
    run = find_trace("plain", store)
    assert run == find_trace("plain", stores["memory"])
    assert run.run_id == "plain"
    assert [record.message for record in run] == ["Extracted rows", "slow", "loading", "in deep"]
    assert run.records == tuple(run)
    assert run.records[0].fields == {"rows": 120, "user_id": "u1"}
    kinds = [record.kind for record in run.entries]
    assert (kinds[0], kinds[-1]) == (Kind.RUN_START, Kind.RUN_END)
    summary = run.summary
    assert (summary.name, summary.status, summary.attempts) == ("checkout", Status.OK, 1)
    assert (summary.records, summary.errors, summary.warnings, summary.spans) == (4, 0, 1, 2)
    assert summary.started_ns < summary.ended_ns
    assert summary.duration_ms == run.entries[-1].duration_ms
    assert summary.problems == ()


def shape(node: SpanNode) -> tuple[str, str, list[str], list[Any]]:
    return node.name, node.status.label, [r.message for r in node.records], [shape(n) for n in node.children]


def test_the_tree_of_a_run(store: str | Reader) -> None:
    (root,) = find_trace("plain", store).attempts()
    assert shape(root) == (
        "checkout",
        "ok",
        ["Extracted rows", "slow"],
        [("load", "ok", ["loading"], [("deep", "ok", ["in deep"], [])])],
    )
    assert root.duration_ms is not None
    assert root.children[0].duration_ms is not None
    assert root.children[0].duration_ms <= root.duration_ms


def test_a_failed_run(store: str | Reader) -> None:
    run = find_trace("broken/../\n", store)
    (root,) = run.attempts()
    assert shape(root) == ("other", "error", [], [("failing", "error", ["boom"], [])])
    assert (run.summary.status, run.summary.errors) == (Status.ERROR, 1)
    exception = run.entries[-1].exception
    assert exception is not None
    assert (exception.type, exception.message) == ("ValueError", "mine")


def test_attempts_and_children(store: str | Reader) -> None:
    retried = find_trace("retried", store)
    assert [shape(root) for root in retried.attempts()] == [("retried", "ok", ["a try"], [])] * 2
    assert retried.summary.attempts == 2
    child, parent = find_trace("child", store), find_trace("plain", store)
    assert child.summary.parent_run_id == "plain"
    assert child.summary.trace_id == parent.summary.trace_id


def test_a_retry_inside_its_first_attempt_is_an_attempt() -> None:
    sink = MemorySink()
    with Trace("r", sinks=[sink]) as outer, outer.span("s"), Trace("r", sinks=[sink]) as inner:
        inner.info("again")
    roots = find_trace("r", MemoryReader(sink)).attempts()
    assert [shape(root) for root in roots] == [
        ("r", "ok", [], [("s", "ok", [], [])]),
        ("r", "ok", ["again"], []),
    ]


def test_a_run_and_a_span_that_have_not_ended() -> None:
    sink = MemorySink()
    with Trace("r", sinks=[sink]) as trace:
        trace.span("open").start()
        trace.flush(10)
        run = find_trace("r", MemoryReader(sink))
    (root,) = run.attempts()
    assert shape(root) == ("r", "running", [], [("open", "running", [], [])])
    assert root.duration_ms is root.children[0].duration_ms is None
    assert run.summary.status is Status.RUNNING


# -- what is not there ---------------------------------------------------------------------------------------


def test_a_run_that_is_not_there_names_run_and_store(
    stores: dict[str, str | Reader], store: str | Reader
) -> None:
    for ask in (find_trace, lambda run_id, store: asyncio.run(afind_trace(run_id, store))):
        with pytest.raises(TraceNotFoundError) as caught:
            ask("nobody", store)
        assert (caught.value.run_id, caught.value.store) == (
            "nobody",
            store if isinstance(store, str) else str(store),
        )
        assert str(caught.value) == f"no run 'nobody' in {caught.value.store}"
        assert isinstance(caught.value, LookupError)


@pytest.mark.parametrize("url", ["file:missing", "file:missing.jsonl", "sqlite:missing.db"])
def test_a_store_that_is_not_there(alone: Path, url: str) -> None:
    with pytest.raises(StoreError, match="missing"):
        find_traces(url)
    with pytest.raises(StoreError, match="missing") as caught:
        find_trace("r", url)
    assert not isinstance(caught.value, TraceNotFoundError)
    assert list(alone.iterdir()) == []


@pytest.mark.parametrize(
    ("conditions", "message"),
    [
        ({"level": "loud"}, "level: 'loud' cannot be used"),
        ({"since": "yesterday"}, "since: 'yesterday' cannot be used; allowed: a datetime, ISO 8601 text"),
        ({"until": "tomorrow"}, "until: 'tomorrow' cannot be used"),
        ({"limit": 0}, "limit: 0 cannot be used; allowed: a whole number from 1"),
        ({"store": "memory:"}, "store: 'memory:' cannot be used; allowed: a store that can be read back"),
        ({"store": "redis://u:hunter2@h"}, "store: 'redis://\\*\\*\\*@h' cannot be used"),
    ],
)
def test_a_question_that_cannot_be_asked(conditions: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        find_traces(**{"store": "sqlite:t.db", **conditions})


# -- the default store ---------------------------------------------------------------------------------------


def test_without_a_store_the_first_readable_one_is_asked(
    alone: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_SINKS", "console:?color=never file:logs sqlite:t.db")
    with Trace("r") as trace:
        trace.info("x")
    assert [run.run_id for run in find_traces()] == ["r"]
    with pytest.raises(TraceNotFoundError, match=r"logs$"):
        find_trace("other")
    asynctrace.configure(("sqlite:t.db", asynctrace.LaneOptions()))
    with pytest.raises(TraceNotFoundError, match=r"t\.db$"):
        find_trace("other")


def test_without_any_that_can_be_read_it_says_so(alone: Path) -> None:
    asynctrace.configure("memory:", MemorySink())
    with pytest.raises(ConfigurationError, match="store: 'memory: <MemorySink of 0 records>' cannot be used"):
        find_traces()


def test_a_store_that_is_asked_more_than_once(place: Path, stores: dict[str, str | Reader]) -> None:
    async def ask() -> tuple[list[RunSummary], str]:
        reader = asynctrace.open_store(f"sqlite:{place}/t.db")
        try:
            return await afind_traces(reader), (await afind_trace("plain", reader)).run_id
        finally:
            await reader.aclose()

    assert asyncio.run(ask()) == (find_traces(stores["memory"]), "plain")


@pytest.mark.parametrize("limit", [None, 1, 2, 50])
def test_a_level_is_found_however_far_behind_the_beginning_it_is(
    tmp_path: Path, kind: str, limit: int | None
) -> None:
    with opened(tmp_path, kind) as (sinks, store):
        for name in ("older", "bad"):
            with Trace(name, sinks=sinks) as trace:
                for _ in range(40):
                    with trace.span("step"):
                        pass
                trace.error("boom")
        with Trace("good", sinks=sinks) as trace:
            trace.info("fine")
        for level in ("warning", "error"):
            found = find_traces(store, level=level, limit=limit)
            assert [run.run_id for run in found] == ["bad", "older"][:limit]
        assert [run.run_id for run in find_traces(store, level="critical", limit=limit)] == []


VALUES: dict[str, tuple[Any, list[Any]]] = {
    "list": (["nightly", 3], [["nightly", 3], "nightly", 3]),
    "dict": ({"a": [1, None]}, [{"a": [1, None]}]),
    "number": (3, [3, 3.0]),
    "ratio": (0.5, [0.5]),
    "truth": (True, [True]),
    "nothing": (None, [None]),
    "text": ("nightly", ["nightly"]),
}


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("field", ["tags", "mine"])
def test_a_field_is_found_by_its_value_whatever_its_type(
    tmp_path: Path, kind: str, field: str, value: str
) -> None:
    given, finding = VALUES[value]
    with opened(tmp_path, kind) as (sinks, store):
        with Trace("run", sinks=sinks) as trace:
            trace.info("x", **{field: given})
        for wanted in finding:
            assert [run.run_id for run in find_traces(store, fields={field: wanted})] == ["run"], wanted
        assert find_traces(store, fields={field: "other"}) == []
        assert find_traces(store, fields={field: ["other"]}) == []


def test_a_text_is_also_looked_for_in_the_names_of_spans_and_of_the_run(tmp_path: Path, kind: str) -> None:
    with opened(tmp_path, kind) as (sinks, store):
        with Trace("named", name="a needle", sinks=sinks) as trace:
            trace.info("hay")
        with Trace("plain", sinks=sinks) as trace, trace.span("haystack"):
            trace.info("nothing")
        assert [run.run_id for run in find_traces(store, text="NEEDLE")] == ["named"]
        assert [run.run_id for run in find_traces(store, text="hay")] == ["plain", "named"]
        assert [run.run_id for run in find_traces(store, text="needle", level="warning")] == []


@pytest.mark.parametrize("given", [5, "caf\udce9", b"bytes", "nul\0", ("a", 1)], ids=ascii)
def test_a_run_id_reads_back_as_it_was_given(tmp_path: Path, kind: str, given: Any) -> None:
    with opened(tmp_path, kind) as (sinks, store):
        with Trace(given, sinks=sinks) as trace:
            trace.info("here")
        run = find_trace(given, store)
        assert [record.message for record in run] == ["here"]
        assert find_trace(run.run_id, store) == run


@pytest.mark.parametrize("text", ["caf\udce9", "plain"], ids=ascii)
def test_names_and_messages_are_found_as_they_were_given(tmp_path: Path, kind: str, text: str) -> None:
    with opened(tmp_path, kind) as (sinks, store):
        with Trace("run", name=text, sinks=sinks) as trace:
            trace.info(text)
        assert [run.run_id for run in find_traces(store, name=text, text=text)] == ["run"]


WRONG: dict[str, list[Any]] = {
    "level": ["loud", -1, 1.5, True, [], object()],
    "since": [1.5, True, "yesterday", [], b"2025", date(2025, 1, 1)],
    "until": ["", 1.5, False, {}],
    "text": [5, b"x", ["x"], True],
    "name": [5, b"x", ["x"]],
    "fields": [5, "tags", ["tags"], [], [("a", 1)]],
    "limit": ["x", "3", 1.5, 0, -1, True, [1]],
    "store": [5, b"sqlite:t.db", Path("t.db"), MemoryReader, MemorySink(), "", "t.db", "console:", "nope:x"],
}


@pytest.mark.parametrize(("name", "value"), [(name, value) for name in WRONG for value in WRONG[name]])
def test_an_argument_that_cannot_be_used_is_named(tmp_path: Path, name: str, value: Any) -> None:
    url = f"sqlite:{tmp_path}/t.db"
    arguments = {"store": url, **{name: value}}
    with pytest.raises(ConfigurationError) as raised:
        find_traces(**arguments)
    assert (raised.value.name, raised.value.value) == (name, value)
    assert raised.value.allowed
    with pytest.raises(ConfigurationError, match=name):
        asyncio.run(afind_traces(**arguments))
    if name in ("text", "name", "fields"):
        with pytest.raises(ConfigurationError, match=name):
            asynctrace.Query(**{name: value})


@pytest.mark.parametrize("store", WRONG["store"])
def test_a_store_that_cannot_be_used_is_named_by_whoever_reads_it(store: Any) -> None:
    reads: list[Callable[[], object]] = [
        lambda: find_trace("run", store),
        lambda: asyncio.run(afind_trace("run", store)),
        lambda: asynctrace.open_store(store),
        lambda: asynctrace.verify(store),
        lambda: asyncio.run(asynctrace.averify(store)),
        lambda: asynctrace.prune(store, days=1),
        lambda: asyncio.run(asynctrace.aprune(store, days=1)),
    ]
    for read in reads:
        with pytest.raises(ConfigurationError) as raised:
            read()
        assert (raised.value.name, raised.value.value) == ("store", store)


def test_no_run_id_is_an_error_and_so_is_a_path_that_is_none(tmp_path: Path) -> None:
    nothing: Any = None
    with pytest.raises(ConfigurationError, match="run_id: None"):
        find_trace(nothing, f"sqlite:{tmp_path}/t.db")
    for url in ("file:./a%00b", "file:./a%00b.jsonl", "sqlite:./a%00b"):
        with pytest.raises(ConfigurationError, match="path"):
            find_traces(url)


@pytest.mark.parametrize(
    ("name", "value"),
    [("days", value) for value in ("x", -1, float("nan"), float("inf"), True, [], "", 0)]
    + [("max_bytes", value) for value in ("x", -1, 1.5, True, [], "")],
)
def test_what_is_to_be_pruned_is_a_number(tmp_path: Path, name: str, value: Any) -> None:
    arguments: dict[str, Any] = {name: value}
    with pytest.raises(ConfigurationError) as raised:
        asynctrace.prune(f"sqlite:{tmp_path}/t.db", **arguments)
    assert (raised.value.name, raised.value.value) == (name, value) or value != value


@pytest.mark.parametrize("timeout", ["x", -1, float("nan"), float("inf"), True, None, []])
def test_a_timeout_of_a_delivery_is_a_number_of_seconds(timeout: Any) -> None:
    for deliver in (asynctrace.areplay_spools, asynctrace.arecover):
        with pytest.raises(ConfigurationError, match="timeout"):
            asyncio.run(deliver(timeout=timeout))


def test_where_records_are_recovered_from_and_to_are_texts() -> None:
    for name, value in (("to", 5), ("to", Path("x")), ("to", b"x"), ("state_dir", 5), ("state_dir", b"x")):
        arguments: dict[str, Any] = {name: value}
        with pytest.raises(ConfigurationError, match=name):
            asyncio.run(asynctrace.arecover(**arguments))


@pytest.mark.parametrize("lane", ["nope", 5, b"x", ["x"], True])
def test_a_lane_that_is_not_there_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lane: Any
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path))
    reads: list[Callable[[Any], object]] = [
        lambda lane: list(asynctrace.dead_letters(lane)),
        asynctrace.replay_dead_letters,
        asynctrace.purge_dead_letters,
        asynctrace.purge_spools,
    ]
    for read in reads:
        with pytest.raises(ConfigurationError) as raised:
            read(lane)
        assert raised.value.value == lane


def torn_store(place: Path, kind: str, content: bytes | int) -> tuple[str, str]:
    """A store without one whole line, and how it is told; a number: the first bytes of what was recorded."""
    url = f"file:{place}/{TARGETS[kind]}"
    with Trace("lost", sinks=[url]) as trace:
        trace.info("never read")
    asynctrace.shutdown()
    paths = [place / "t.jsonl"] if kind == "jsonl" else list((place / "logs" / "run_id=lost").glob("*.jsonl"))
    for path in paths:
        path.write_bytes(path.read_bytes()[:content] if isinstance(content, int) else content)
    return url, "t.jsonl: line 1 torn" if kind == "jsonl" else "run_id=lost: events.jsonl: line 1 torn"


@pytest.mark.parametrize("content", [100, 1, b"garbage", b"\0\xff\n", b'{"a": 1}\n', b"[]\n{}\n"], ids=repr)
@pytest.mark.parametrize("kind", ["file", "jsonl"])
def test_a_store_without_one_whole_line_says_so(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, kind: str, content: bytes | int
) -> None:
    url, told = torn_store(tmp_path, kind, content)
    reader = asynctrace.open_store(url)
    assert isinstance(reader, CandidReader)
    with caplog.at_level("WARNING", "asynctrace"):
        assert find_traces(url) == []
        assert told in caplog.text
        assert find_traces(reader, limit=5) == []
    assert told in reader.problems()
    with pytest.raises(TraceNotFoundError):
        find_trace("lost", reader)
    assert told in asynctrace.verify(url).problems
    asyncio.run(reader.aclose())


def test_a_torn_run_is_told_beside_whole_ones_and_only_then(tmp_path: Path) -> None:
    url, told = torn_store(tmp_path, "file", 100)
    for name in ("whole", "wholer"):
        with Trace(name, sinks=[url]) as trace:
            trace.info("fine")
    for conditions in ({}, {"limit": 1}, {"level": "error"}):
        reader = asynctrace.open_store(url)
        find_traces(reader, **conditions)  # type: ignore[arg-type]
        assert isinstance(reader, CandidReader)
        assert told in reader.problems()
        asyncio.run(reader.aclose())
    shutil.rmtree(tmp_path / "logs" / "run_id=lost")
    reader = asynctrace.open_store(url)
    assert len(find_traces(reader)) == 2
    assert find_traces(reader, level="error") == []
    assert isinstance(reader, CandidReader)
    assert reader.problems() == ()
    asyncio.run(reader.aclose())


def test_a_torn_mark_is_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with Trace("whole", sinks=[f"file:{tmp_path}/t.jsonl", f"file:{tmp_path}/logs"]) as trace:
        trace.info("read")
    asynctrace.shutdown()
    for path in (tmp_path / "t.jsonl", tmp_path / "logs" / "marks.jsonl"):
        path.write_bytes(path.read_bytes()[:-10])
    (run,) = find_traces(f"file:{tmp_path}/t.jsonl")
    (problem,) = run.problems
    assert problem.startswith("t.jsonl: line ")
    assert asynctrace.verify(f"file:{tmp_path}/t.jsonl").problems == (problem,)
    assert asynctrace.verify(f"file:{tmp_path}/logs").problems == ("marks.jsonl: line 1 torn",)


def test_messages_name_the_store_as_people_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for target, kind in (("t.db", "sqlite"), ("t.jsonl", "file"), ("logs", "file")):
        url, path = f"{kind}:{tmp_path}/{target}", f"{tmp_path}/{target}"
        with Trace("run", sinks=[url]) as trace:
            trace.info("here")
        reader = asynctrace.open_store(url)
        monkeypatch.setenv("ASYNCTRACE_SINKS", url)
        for store, named in ((url, url), (reader, path), (None, path)):
            with pytest.raises(TraceNotFoundError) as raised:
                find_trace("nope", store)
            assert str(raised.value) == f"no run 'nope' in {named}"
            assert asynctrace.verify(store).store == named
        asyncio.run(reader.aclose())
    with pytest.raises(TraceNotFoundError, match=r"^no run 'nope' in memory$"):
        find_trace("nope", MemoryReader(MemorySink()))
