"""The pipeline as a whole: the ledger, levels of trust in what users hand in, and the tally of its marks."""

import asyncio
import random
import threading
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lane_kit import QUICK, GateSink, ScriptedSink, auntil, until

import asynctrace
from asynctrace import (
    BatchTooLargeError,
    ConfigurationError,
    Mark,
    PartialWriteError,
    PermanentSinkError,
    Pipeline,
    Record,
    Rejection,
    Trace,
    TransientSinkError,
)
from asynctrace.pipeline.tally import Tally
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


def put(pipeline: Pipeline, count: int) -> None:
    """Records of a run whose trace lives elsewhere."""
    with Trace("r", sinks=[MemorySink()]) as trace:
        intake, trace._intake = trace._intake, pipeline.intake
        for i in range(count):
            trace.info(f"m{i}")
        trace._intake = intake


# -- starting ------------------------------------------------------------------------------------------------


def test_nothing_starts_before_the_first_record() -> None:
    threads = threading.enumerate()
    sink = ScriptedSink()
    pipeline = asynctrace.configure((sink, QUICK))
    assert pipeline.stats().emitted == 0
    pipeline.flush()
    pipeline.close()
    assert threading.enumerate() == threads
    assert sink.opened == sink.closed == 0


def test_a_sink_without_the_three_verbs_is_refused() -> None:
    with pytest.raises(ConfigurationError, match="an object with open, write and aclose"):
        Pipeline(object())  # type: ignore[arg-type]


def test_a_sink_that_is_not_there_cannot_be_removed() -> None:
    pipeline = Pipeline(MemorySink())
    with pytest.raises(ConfigurationError, match="sink"):
        pipeline.remove_sink(MemorySink())
    pipeline.close()


def test_lanes_of_one_kind_have_names_of_their_own() -> None:
    pipeline = Pipeline(MemorySink(), MemorySink(), ScriptedSink())
    assert [lane.lane for lane in pipeline.stats().lanes] == ["memory", "memory-2", "scripted"]
    pipeline.close()


def test_sinks_are_added_and_removed_from_any_thread() -> None:
    first, second = MemorySink(), ScriptedSink()
    with Trace("r", sinks=[first]) as trace:
        trace.info("m0")
        trace.flush()
        trace.add_sink((second, QUICK))
        trace.info("m1")
        trace.remove_sink(first)
        trace.info("m2")
        assert trace.sinks() == [second]
    assert second.messages == ["m1", "m2"]
    assert [r.message for r in first.records if r.kind is asynctrace.Kind.LOG] == ["m0", "m1"]


# -- the ledger ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(10))
async def test_the_ledger_balances_whatever_sinks_rules_and_processors_do(seed: int) -> None:
    chance = random.Random(seed)

    def outcome(batch: asynctrace.Batch) -> Exception | None:
        indices = chance.sample(range(len(batch)), len(batch) // 3)
        return chance.choice(
            [
                None,
                None,
                TransientSinkError("away"),
                BatchTooLargeError("large"),
                PermanentSinkError("no"),
                ValueError("surprise"),
                OSError("reset"),
                PartialWriteError([Rejection(i, "x", chance.random() < 0.5) for i in indices]),
            ]
        )

    def processor(record: Record) -> Record | None:
        roll = chance.random()
        if roll < 0.1:
            return None
        if roll < 0.2:
            raise ValueError("broken")
        return record

    sinks = [ScriptedSink([outcome] * 400) for _ in range(3)]
    small = replace(QUICK, capacity=50, high_water=20, patience=0.001, mark_every=17)
    how = [
        replace(small, when_full="wait"),
        replace(small, when_full="drop_oldest"),
        replace(small, when_full="drop_newest", admit=lambda record: record.seq % 3 > 0),
    ]
    pipeline = Pipeline(processors=[processor])
    for sink, options in zip(sinks, how, strict=True):
        pipeline.add_sink(sink, options)
    async with pipeline:
        for _ in range(20):
            await asyncio.to_thread(put, pipeline, chance.randrange(100))
            if chance.random() < 0.3:
                await pipeline.aflush(1)
            assert pipeline.stats().balanced
    stats = pipeline.stats()
    for sink, lane in zip(sinks, stats.lanes, strict=True):
        assert lane.balanced
        assert lane.pending == 0
        assert lane.delivered == len(sink.records)
        seqs = [record.seq for record in sink.records]
        assert len(seqs) == len(set(seqs)), "stored twice"
        check_owed(sink.marks, len(sink.records), lane.emitted)


def check_owed(marks: list[Mark], stored: int, emitted: int) -> None:
    """Marks may be missing at the end when the sink took the last batch badly; those that are there add up."""
    for mark in marks:
        assert mark.last - mark.first + 1 == mark.admitted + mark.filtered + mark.dropped, mark
    ranges = sorted((mark.first, mark.last) for mark in marks if mark.last >= mark.first)
    for before, after in pairwise(ranges):
        assert after[0] > before[1], "a number in two ranges"
    assert not ranges or ranges[-1][1] <= emitted
    if ranges and sum(last - first + 1 for first, last in ranges) == emitted:
        assert sum(mark.admitted for mark in marks) >= stored


def test_stats_from_another_thread_are_exact_and_say_when_they_are_not() -> None:
    sink = MemorySink()
    pipeline = asynctrace.configure(sink)
    with asynctrace.get_trace("r") as trace:
        trace.info("m")
        trace.flush()
        assert pipeline.stats().approximate is False
        release = threading.Event()
        assert pipeline.loop is not None
        pipeline.loop.call_soon_threadsafe(release.wait, 10)
        assert pipeline.stats().approximate is True
        release.set()
        until(lambda: pipeline.stats().approximate is False)


# -- hostile processors --------------------------------------------------------------------------------------


async def test_a_processor_that_exits_neither_ends_the_loop_thread_nor_loses_the_record() -> None:
    def hostile(record: Record) -> Record:
        if record.message == "m1" and not struck:
            struck.append(True)
            raise SystemExit("from a processor")
        return record

    struck: list[bool] = []
    sink = ScriptedSink()
    pipeline = Pipeline(sink, processors=[hostile], options=QUICK)
    await asyncio.to_thread(put, pipeline, 5)
    assert (await pipeline.aflush(5)).ok
    assert sink.messages == [f"m{i}" for i in range(5)]
    assert struck
    await pipeline.aclose()
    assert pipeline.stats().balanced


async def test_a_sink_that_raises_system_exit_does_not_end_the_loop_thread() -> None:
    class Exits(ScriptedSink):
        async def write(self, batch: asynctrace.Batch) -> None:
            self.sizes.append(len(batch))
            if len(self.sizes) == 1:
                raise SystemExit("from a sink")
            await super().write(batch)

    sink = Exits()
    pipeline = Pipeline(sink, options=QUICK)
    await asyncio.to_thread(put, pipeline, 5)
    assert (await pipeline.aflush(5)).ok
    assert sink.messages == [f"m{i}" for i in range(5)]
    await pipeline.aclose()


@pytest.mark.parametrize("result", [True, "text", 7, object()])
async def test_what_a_processor_gives_back_that_is_no_record_changes_nothing(result: object) -> None:
    sink = ScriptedSink()
    pipeline = Pipeline(sink, processors=[lambda record: result], options=QUICK)  # type: ignore[arg-type, return-value]
    await asyncio.to_thread(put, pipeline, 3)
    await pipeline.aclose()
    assert sink.messages == ["m0", "m1", "m2"]
    assert pipeline.stats().balanced


async def test_a_lane_taken_out_while_it_hangs_ends_by_the_deadline_and_is_counted() -> None:
    hung, healthy = GateSink(), ScriptedSink()
    async with Trace("r", sinks=[(hung, QUICK), (healthy, QUICK)]) as trace:
        trace.pipeline.close_timeout = 0.05
        trace.info("m0")
        await asyncio.wait_for(trace.aremove_sink(hung), 5)
        trace.pipeline.close_timeout = 5
        trace.info("m1")
        await auntil(lambda: trace.pipeline.stats().queued == 0)
    assert healthy.messages == ["m0", "m1"]


# -- the tally -----------------------------------------------------------------------------------------------


@given(
    st.lists(
        st.tuples(st.integers(0, 5), st.integers(0, 5), st.integers(0, 5), st.booleans()),
        min_size=1,
        max_size=30,
    )
)
def test_marks_add_up_however_they_are_lost_and_owed(steps: list[tuple[int, int, int, bool]]) -> None:
    """Each step: records delivered, filtered and dropped in one range, and whether the store takes the batch."""
    tally, next_seq, stored, marks = Tally("p", 1), 1, 0, []
    for delivered, filtered, dropped, succeeds in steps:
        next_seq += delivered + filtered + dropped
        tally.held_back(filtered)
        ended = tally.end_range(next_seq)
        carried = tally.take_owed()
        if ended is not None:
            tally.gave_out(delivered)
            carried.append(tally.mark(ended))
        if succeeds:
            marks += carried
            stored += delivered
        else:
            tally.not_stored(tuple(carried))
            if delivered:
                tally.lost_up_to(next_seq - 1, delivered)
    marks += tally.take_owed()
    for mark in marks:
        assert mark.last - mark.first + 1 == mark.admitted + mark.filtered + mark.dropped
    assert sum(mark.last - mark.first + 1 for mark in marks) == next_seq - 1
    assert sum(mark.admitted for mark in marks) == stored


def test_a_store_that_is_away_for_long_is_owed_one_mark() -> None:
    tally = Tally("p", 1)
    for last in range(10, 10_001, 10):
        ended = tally.end_range(last + 1)
        assert ended is not None
        tally.gave_out(10)
        tally.not_stored((*tally.take_owed(), tally.mark(ended)))
        tally.lost_up_to(last, 10)
    assert tally.take_owed() == [Mark("p", 1, 10_000, admitted=0, dropped=10_000)]
