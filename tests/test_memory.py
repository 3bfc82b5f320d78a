"""The sink in memory and its reader."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

import pytest

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.level import Level
from asynctrace.core.query import Query
from asynctrace.core.record import Status
from asynctrace.errors import ConfigurationError
from asynctrace.sinks.memory import MemoryReader, MemorySink
from asynctrace.testing import make_batch, make_record, make_run
from asynctrace.testing.records import PRODUCER, START_NS, STEP_NS

T = TypeVar("T")


def listed(items: AsyncIterator[T]) -> list[T]:
    async def main() -> list[T]:
        return [item async for item in items]

    return asyncio.run(main())


def test_it_keeps_records_and_marks_in_order() -> None:
    sink = MemorySink()
    sink.write_now(Batch(make_batch(3).records, [Mark(PRODUCER, 0, 2, 3)]))
    sink.write_now(make_batch(3, first=3))
    assert [record.seq for record in sink.records] == [0, 1, 2, 3, 4, 5]
    assert sink.marks == (Mark(PRODUCER, 0, 2, 3),)
    assert repr(sink) == "<MemorySink of 6 records>"


def test_the_same_batch_is_kept_once_until_it_is_cleared() -> None:
    sink, batch = MemorySink(), Batch(make_batch().records, [Mark(PRODUCER, 0, 2, 3)])
    sink.write_now(batch)
    sink.write_now(batch)
    assert (len(sink.records), len(sink.marks)) == (3, 1)
    sink.clear()
    assert (sink.records, sink.marks) == ((), ())
    sink.write_now(batch)
    assert len(sink.records) == 3


def test_the_newest_records_stay() -> None:
    sink = MemorySink(max_records=4)
    sink.write_now(make_batch(3))
    sink.write_now(make_batch(3, first=3))
    assert [record.seq for record in sink.records] == [2, 3, 4, 5]


def test_no_room_at_all_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="max_records"):
        MemorySink(max_records=0)


def test_the_reader_answers_as_other_readers_do() -> None:
    sink = MemorySink()
    sink.write_now(make_run("a", status=Status.ERROR))
    sink.write_now(make_run("b", first=100))
    sink.write_now(Batch([make_record(50, "slow", run_id="a", level=Level.WARNING)]))
    reader = MemoryReader(sink)
    assert [(run.run_id, run.status, run.records) for run in listed(reader.runs())] == [
        ("b", Status.OK, 3),
        ("a", Status.ERROR, 4),
    ]
    assert [run.run_id for run in listed(reader.runs(Query(text="SLOW")))] == ["a"]
    assert [run.run_id for run in listed(reader.runs(Query(limit=1)))] == ["b"]
    assert [record.seq for record in listed(reader.records("a"))] == [0, 1, 2, 3, 4, 50]
    assert [record.seq for record in listed(reader.records("a", Query(limit=2)))] == [0, 1]
    assert listed(reader.records("nobody")) == []
    asyncio.run(reader.aclose())


def test_old_runs_go_and_marks_say_so() -> None:
    sink = MemorySink()
    sink.write_now(make_run("old"))
    sink.write_now(make_run("new", first=100))
    reader = MemoryReader(sink)
    assert asyncio.run(reader.prune(START_NS + 50 * STEP_NS)) == 5
    assert [run.run_id for run in listed(reader.runs())] == ["new"]
    assert listed(reader.marks()) == [Mark(PRODUCER, 0, 4, admitted=0, pruned=5)]
