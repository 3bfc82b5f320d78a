"""One workload in every local store: the same question gets the same answer."""

import asyncio
from pathlib import Path
from typing import Any, TypeVar

import pytest
from store_kit import listed

from asynctrace.core.batch import Batch
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.query import Query
from asynctrace.core.record import Kind, Record, Status, Usage
from asynctrace.core.summary import RunSummary
from asynctrace.ports import Reader
from asynctrace.sinks.file import FileReader, FileSink
from asynctrace.sinks.jsonl import JsonLinesReader, JsonLinesSink
from asynctrace.sinks.memory import MemoryReader, MemorySink
from asynctrace.sinks.sqlite import SQLiteReader, SQLiteSink
from asynctrace.testing import make_batch, make_context, make_record, make_run
from asynctrace.testing.records import START_NS, STEP_NS

T = TypeVar("T")
STORES = ("memory", "directory", "lines", "sqlite")


def workload() -> list[Batch]:
    checkout = make_context("checkout-1", name="checkout", fields={"user_id": "u1", "region": "eu"})
    child = make_context("child", parent_run_id="checkout-1", name="child")
    retry = make_context("retried", attempt="attempt-2")
    odd = make_context("../odd\n", name="odd", fields={"tags": ["a", 1], "nested": {"x": [None, 1.5, "é"]}})
    error = ExceptionInfo("KeyError", "'x'", "Traceback\nKeyError: 'x'\n")
    return [
        make_run(context=checkout, logs=10),
        Batch(
            [
                make_record(20, "load", context=checkout, kind=Kind.SPAN_START, span_id=7, parent_span_id=1,
                task="t"), make_record(21, "Loaded ROWS", context=checkout, span_id=7, fields={"rows": 120,
                "ok": True}), make_record(22, "slow", context=checkout, level=Level.WARNING, usage=Usage(1.5,
                99.0)), make_record(23, "boom é", context=checkout, level=Level.ERROR, exception=error),
                make_record(24, "dead", context=checkout, level=Level.CRITICAL, fields={"user_id": "u2"}),
                make_record(25, "load", context=checkout, kind=Kind.SPAN_END, span_id=7, status=Status.ERROR,
                duration_ms=5.0),
            ]
        ),
        make_run(context=child, first=30, status=Status.CANCELLED),
        make_run("retried", first=40, status=Status.ERROR),
        make_run(context=retry, first=50, producer="00000000000000bb"),
        make_run(context=odd, first=60, status=None),
        make_batch(2, first=70, run_id="only-logs"),
        Batch([make_record(80, "É upper", run_id="unicode", fields={"workflow_name": "checkout", "none":
        None})]), Batch([make_record(81, "typed", run_id="typed", fields={"error_code": 404, "stage_name": True,
        "job_name": {"a": 1, "b": [None]}, "environment": "[not json", "sizes": [1, 2, [3]]}),
        make_record(82, "caf\\udce9", run_id="typed", fields={"environment": "caf\\udce9",
        "place": "caf\\udce9", "ratio": "NaN"})]),
        Batch([make_record(n, "same moment", run_id="moment", time_ns=START_NS) for n in (93, 90,
        92, 91)]),
    ]  # fmt: skip


QUERIES = {
    "everything": Query(),
    "level debug": Query(level=Level.DEBUG),
    "level warning": Query(level=Level.WARNING),
    "level error": Query(level=Level.ERROR),
    "level between": Query(level=35),
    "floor debug": Query(floor=Level.DEBUG),
    "floor warning": Query(floor=Level.WARNING),
    "floor error": Query(floor=Level.ERROR),
    "floor above all": Query(floor=51),
    "floor and level": Query(floor=Level.INFO, level=Level.WARNING),
    "floor and limit": Query(floor=Level.ERROR, limit=1),
    "since": Query(since_ns=START_NS + 23 * STEP_NS),
    "since, not whole": Query(since_ns=START_NS + 23 * STEP_NS + 1),
    "until": Query(until_ns=START_NS + 23 * STEP_NS),
    "between": Query(since_ns=START_NS + 21 * STEP_NS, until_ns=START_NS + 45 * STEP_NS),
    "never": Query(since_ns=START_NS + 10**15),
    "text": Query(text="rows"),
    "text of all": Query(text=""),
    "text with wildcards": Query(text="%"),
    "text beyond ascii": Query(text="é"),
    "text beyond text": Query(text="caf\udce9"),
    "text of a start": Query(text="load"),
    "name": Query(name="checkout"),
    "no such name": Query(name="nobody"),
    "column": Query(fields={"user_id": "u1"}),
    "overridden column": Query(fields={"user_id": "u2"}),
    "column as text": Query(fields={"tags": '["a",1]'}),
    "column as the list it was": Query(fields={"tags": ["a", 1]}),
    "column as a tuple": Query(fields={"tags": ("a", 1)}),
    "member of a list in a column": Query(fields={"tags": "a"}),
    "number in a list in a column": Query(fields={"tags": 1}),
    "no member of a list in a column": Query(fields={"tags": "1"}),
    "another list in a column": Query(fields={"tags": [1, "a"]}),
    "number in a column": Query(fields={"error_code": 404}),
    "number in a column as another": Query(fields={"error_code": 404.0}),
    "number in a column as text": Query(fields={"error_code": "404"}),
    "truth in a column": Query(fields={"stage_name": True}),
    "dict in a column": Query(fields={"job_name": {"b": [None], "a": 1}}),
    "column without a value": Query(fields={"user_id": None}),
    "column without a value, of those with another": Query(fields={"user_id": None, "tags": "a"}),
    "text in a column that looks like a list": Query(fields={"environment": "[not json"}),
    "part of such a text": Query(fields={"environment": "not json"}),
    "column beyond text": Query(fields={"environment": "caf\udce9"}),
    "own field beyond text": Query(fields={"place": "caf\udce9", "ratio": float("nan")}),
    "member of a list": Query(fields={"sizes": 2}),
    "list": Query(fields={"sizes": [1, 2, [3]]}),
    "list in a list": Query(fields={"sizes": [3]}),
    "member of a list in a list": Query(fields={"sizes": 3}),
    "dict": Query(fields={"nested": {"x": (None, 1.5, "é")}}),
    "bound field": Query(fields={"region": "eu"}),
    "own field": Query(fields={"rows": 120}),
    "own field of another type": Query(fields={"rows": "120"}),
    "true is one": Query(fields={"ok": 1}),
    "nested field": Query(fields={"nested": {"x": [None, 1.5, "é"]}}),
    "field without a value": Query(fields={"none": None}),
    "two fields": Query(fields={"region": "eu", "rows": 120}),
    "all together": Query(level=Level.INFO, text="o", name="checkout", fields={"region": "eu"}),
    "limit": Query(limit=2),
    "no room": Query(limit=0),
    "limit and text": Query(text="e", limit=3),
}


@pytest.fixture(scope="module")
def readers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Reader]:
    place = tmp_path_factory.mktemp("stores")
    memory = MemorySink()
    sinks: list[Any] = [
        memory,
        FileSink(place / "logs"),
        JsonLinesSink(place / "traces.jsonl"),
        SQLiteSink(place / "traces.db"),
    ]

    async def main() -> None:
        for sink in sinks:
            await sink.open()
            for batch in workload():
                await sink.write(batch)
            await sink.aclose()

    asyncio.run(main())
    return dict(zip(STORES, _readers(place, memory), strict=True))


def _readers(place: Path, memory: MemorySink) -> list[Reader]:
    return [
        MemoryReader(memory),
        FileReader(place / "logs"),
        JsonLinesReader(place / "traces.jsonl"),
        SQLiteReader(place / "traces.db"),
    ]


async def answer(reader: Reader, query: Query) -> tuple[list[RunSummary], dict[str, list[dict[str, Any]]]]:
    try:
        runs = await listed(reader.runs(query))
        everything = await listed(reader.runs(Query()))
        found: dict[str, list[Record]] = {
            run.run_id: await listed(reader.records(run.run_id, query)) for run in everything
        }
    finally:
        await reader.aclose()
    return runs, {run_id: [record.to_dict() for record in records] for run_id, records in found.items()}


@pytest.mark.parametrize("store", STORES[1:])
@pytest.mark.parametrize("name", QUERIES)
def test_every_store_answers_as_memory_does(readers: dict[str, Reader], store: str, name: str) -> None:
    query = QUERIES[name]
    wanted_runs, wanted_records = asyncio.run(answer(readers["memory"], query))
    runs, records = asyncio.run(answer(readers[store], query))
    assert runs == wanted_runs
    assert records == wanted_records


def test_the_questions_tell_something(readers: dict[str, Reader]) -> None:
    answers = {name: asyncio.run(answer(readers["memory"], query)) for name, query in QUERIES.items()}
    assert len(answers["everything"][0]) == 8
    assert sum(len(found) for found in answers["everything"][1].values()) == sum(map(len, workload()))
    empty = {name for name, (runs, _) in answers.items() if not runs}
    assert empty == {
        "never",
        "floor above all",
        "text with wildcards",
        "no such name",
        "own field of another type",
        "no room",
        "no member of a list in a column",
        "another list in a column",
        "part of such a text",
        "member of a list in a list",
    }


@pytest.mark.parametrize("store", STORES)
def test_every_run_is_found_by_its_id(readers: dict[str, Reader], store: str) -> None:
    async def main() -> None:
        reader = readers[store]
        for run in await listed(reader.runs(Query())):
            assert await reader.find(run.run_id) == run
        for nobody in ("", "checkout", "checkout-", "../odd", "\x00"):
            assert await reader.find(nobody) is None
            assert await listed(reader.records(nobody, Query())) == []
        await reader.aclose()

    asyncio.run(main())


@pytest.mark.parametrize("store", STORES)
def test_every_store_tells_the_same_numbers(readers: dict[str, Reader], store: str) -> None:
    async def main() -> list[tuple[str, int]]:
        try:
            ranges = await listed(readers[store].numbers())
        finally:
            await readers[store].aclose()
        return sorted((producer, seq) for producer, first, last in ranges for seq in range(first, last + 1))

    assert asyncio.run(main()) == sorted((r.producer, r.seq) for batch in workload() for r in batch)
