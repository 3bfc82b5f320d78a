"""Bounds in bytes: what waits for the writer and in the lanes, what one write holds, what errors have in reserve."""

import asyncio
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lane_kit import BLOCKED, QUICK, GatedRemote, GateSink, ScriptedSink, ablocked, auntil, check_marks

import asynctrace
from asynctrace import Batch, LaneOptions, LaneStats, RetryPolicy, Trace, TransientSinkError
from asynctrace.core.record import RawRecord
from asynctrace.core.size import RAW_BYTES, RECORD_BYTES, raw_size, text_size
from asynctrace.pipeline.allowance import Allowance
from asynctrace.testing import make_context

MIB = 1 << 20

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]


CONTEXT = make_context("r")


def raw(message: str, fields: bytes | None = None) -> RawRecord:
    return RawRecord(20, CONTEXT, None, message, fields, None, 0)


# -- what a record counts ------------------------------------------------------------------------------------


def test_a_text_counts_its_bytes_in_utf_8() -> None:
    for text in ("", "abc", "é", "世界", "\U0001f600", "a\ud800"):
        assert text_size(text) == len(text.encode("utf-8", "surrogatepass"))


async def test_a_record_counts_its_message_its_fields_its_stack_and_a_constant() -> None:
    sink = GateSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        await auntil(sink.waiting.is_set)

        async def grown(record: Callable[[], None]) -> int:
            before = trace.pipeline.stats().lanes[0].pending_bytes
            record()
            await auntil(lambda: trace.pipeline.stats().queued == 0)
            return trace.pipeline.stats().lanes[0].pending_bytes - before

        assert await grown(lambda: trace.info("m" * 1_000)) == RECORD_BYTES + 1_000
        assert await grown(lambda: trace.info("世" * 1_000)) == RECORD_BYTES + 3_000
        assert 1_000 < await grown(lambda: trace.info("", text="x" * 1_000)) - RECORD_BYTES < 1_020
        try:
            raise ValueError("x" * 5_000)
        except ValueError:
            assert await grown(lambda: trace.exception("")) > RECORD_BYTES + 5_000
        sink.gate.set()
        await trace.aflush()
        assert trace.pipeline.stats().lanes[0].pending_bytes == 0


# -- the Intake ----------------------------------------------------------------------------------------------


def fill(allowance: Allowance, records: deque[Any], message: str, most: int = 10**9) -> int:
    """Append until there is no room; how many went in."""
    count = 0
    while count < most:
        if len(records) >= allowance.next_look:
            allowance.look(records)
        if len(records) >= allowance.plain:
            break
        records.append(raw(message))
        count += 1
    return count


def test_records_of_one_size_fill_the_bytes_but_for_the_reserve() -> None:
    for length in (10, 1_000, 100_000):
        allowance, records = Allowance(1_000_000, 64 * MIB), deque[Any]()
        fill(allowance, records, "m" * length)
        held = len(records) * (length + RAW_BYTES)
        assert 0.8 * 64 * MIB < held <= 0.9 * 64 * MIB + 16 * MIB
        assert allowance.capacity > len(records), "errors find room yet"


def test_small_records_are_bounded_by_their_number() -> None:
    allowance, records = Allowance(1_000, 64 * MIB), deque[Any]()
    assert fill(allowance, records, "m") == 900
    assert allowance.capacity == 1_000


def test_a_burst_of_large_records_behind_small_ones_is_seen_in_time() -> None:
    allowance, records = Allowance(1_000_000, 64 * MIB), deque[Any]()
    fill(allowance, records, "m", most=20_000)
    large = fill(allowance, records, "m" * MIB)
    assert large <= 128, "twice the bound at most"


def test_what_the_writer_takes_makes_room_of_its_size() -> None:
    allowance, records = Allowance(1_000_000, 64 * MIB), deque[Any]()
    fill(allowance, records, "m" * 100_000)
    for _ in range(100):
        size = raw_size(records.popleft())
        allowance.took(1, size, len(records))
    assert 90 <= fill(allowance, records, "m" * 100_000) <= 110


def test_an_empty_queue_has_forgotten_its_estimates() -> None:
    allowance, records = Allowance(1_000_000, 64 * MIB), deque[Any]()
    fill(allowance, records, "m" * MIB)
    count = len(records)
    records.clear()
    allowance.took(count, 5, 0)  # whatever was estimated
    assert fill(allowance, records, "m", most=100_000) == 100_000


def test_one_record_goes_in_however_large_it_is() -> None:
    allowance, records = Allowance(1_000, 100), deque[Any]()
    assert fill(allowance, records, "m" * 10_000) >= 1


def test_a_look_at_a_queue_that_others_append_to_and_take_from() -> None:
    allowance, records = Allowance(1_000_000, 64 * MIB), deque[Any]()
    done = threading.Event()
    record = raw("m")

    def append() -> None:
        while not done.is_set():
            records.append(record)

    def take() -> None:
        while not done.is_set():
            with suppress(IndexError):
                records.popleft()

    threads = [threading.Thread(target=work) for work in (append, append, take)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        for thread in threads:
            thread.start()
        for _ in range(40_000):  # an iterator breaks in one look of 35,000
            allowance.look(records)
            if len(records) > 10_000:
                records.clear()
                allowance.took(10_000, 0, 0)
    finally:
        done.set()
        for thread in threads:
            thread.join()
        sys.setswitchinterval(interval)
    assert allowance.capacity > 0


async def test_memory_stays_bounded_with_messages_of_a_mebibyte() -> None:
    asynctrace.configure(queue_bytes=32 * MIB, redact="off")
    sink = GateSink()
    async with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        await ablocked(trace, sink)
        for i in range(1_000):
            trace.info(f"{i} " + "m" * MIB)
        stats = trace.pipeline.stats()
        held = len(trace.pipeline.intake.records)
        assert 20 <= held <= 64, "twice the bound at most"
        assert stats.dropped == 1_000 - held
        for i in range(4):
            trace.error(f"error {i} " + "m" * MIB)
        assert trace.pipeline.stats().dropped >= stats.dropped
        sink.gate.set()
        await trace.aflush()
        assert trace.pipeline.stats().balanced
        pipeline = trace.pipeline
    check_marks(sink.marks, pipeline.stats().lanes[0], len(sink.records))


async def test_errors_have_a_reserve_in_bytes() -> None:
    asynctrace.configure(queue_bytes=10 * MIB)
    sink = GateSink()
    async with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        await ablocked(trace, sink)
        text = "m" * 10_000
        for _ in range(2_000):
            trace.info(text)
        dropped = trace.pipeline.stats().dropped
        assert dropped > 900
        for _ in range(50):
            trace.error(text)
        assert trace.pipeline.stats().dropped == dropped
        for _ in range(2_000):
            trace.error(text)
        assert trace.pipeline.stats().dropped > dropped
        sink.gate.set()


async def test_ainfo_waits_for_room_in_bytes() -> None:
    asynctrace.configure(queue_bytes=16 * MIB, redact="off")
    sink = GateSink()
    async with Trace("r", sinks=[(sink, BLOCKED)]) as trace:
        await ablocked(trace, sink)
        done: list[int] = []

        async def produce() -> None:
            for i in range(100):
                await trace.ainfo(f"{i} " + "m" * MIB)
                done.append(i)

        producing = asyncio.create_task(produce())
        await auntil(lambda: len(done) >= 14)
        await asyncio.sleep(0.01)
        assert len(done) <= 32
        sink.gate.set()
        await producing
        await trace.aflush()
    assert [int(m.split()[0]) for m in sink.messages[1:]] == list(range(100))


# -- lanes ---------------------------------------------------------------------------------------------------


async def deliver(options: LaneOptions, sizes: list[int]) -> ScriptedSink:
    sink = ScriptedSink()
    async with Trace("r", sinks=[(sink, options)]) as trace:
        for i, size in enumerate(sizes):
            trace.info(f"{i} " + "m" * size)
        await trace.aflush()
    assert [int(m.split()[0]) for m in sink.messages] == list(range(len(sizes)))
    return sink


async def test_a_write_has_no_more_bytes_than_max_bytes_says() -> None:
    written: list[int] = []

    class Measuring(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            written.append(batch.size)
            await super().write(batch)

    sink = Measuring()
    async with Trace("r", sinks=[(sink, replace(QUICK, max_bytes=100_000))]) as trace:
        for i in range(500):
            trace.info(f"{i} " + "m" * (1_000 + 37 * i))
        trace.info("500 " + "m" * 250_000)
        trace.info("501 ")
        await trace.aflush()
    assert [int(m.split()[0]) for m in sink.messages] == list(range(502))
    assert all(size <= 100_000 or count == 1 for size, count in zip(written, sink.sizes, strict=True))
    assert max(written) > 250_000, "one record is written however large it is"
    assert sum(written) > 100_000 * len(written) / 4, "and batches are not needlessly small"


async def test_a_batch_of_many_bytes_ends_the_linger() -> None:
    sink = ScriptedSink()
    options = replace(QUICK, linger=3_600.0, trigger=1_000, max_bytes=10_000)
    async with Trace("r", sinks=[(sink, options)]) as trace:
        for _ in range(4):
            trace.info("m" * 4_000)
        await auntil(lambda: sink.sizes)


def bytes_lane(when_full: str) -> LaneOptions:
    return replace(QUICK, when_full=when_full, capacity_bytes=100_000, high_water_bytes=50_000, patience=0.02)


async def overfill(when_full: str) -> tuple[GateSink, LaneStats]:
    """A lane that holds 100 kB gets 300 kB of records, and an error in the middle, while its sink does not answer."""
    sink = GateSink()
    async with Trace("r", sinks=[(sink, bytes_lane(when_full))]) as trace:
        await auntil(sink.waiting.is_set)
        for i in range(300):
            (trace.error if i == 150 else trace.info)(f"m{i:03} " + "x" * (483))
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        assert 80_000 < trace.pipeline.stats().lanes[0].pending_bytes <= 100_000 + 2_000
        sink.gate.set()
        await trace.aflush()
        await auntil(lambda: "asynctrace.dropped" in sink.messages)
        pipeline = trace.pipeline
    (lane,) = pipeline.stats().lanes
    assert lane.balanced
    check_marks(sink.marks, lane, len(sink.records))
    return sink, lane


async def test_a_lane_that_drops_the_newest_is_bounded_in_bytes() -> None:
    sink, lane = await overfill("drop_newest")
    kept = [int(m[1:4]) for m in sink.messages if m.startswith("m")]
    assert kept == [*range(len(kept) - 1), 150], "the oldest, and the error in its reserve"
    assert lane.dropped == {"lane full (drop_newest)": 300 - len(kept)}


async def test_a_lane_that_drops_the_oldest_is_bounded_in_bytes() -> None:
    sink, lane = await overfill("drop_oldest")
    kept = [int(m[1:4]) for m in sink.messages if m.startswith("m")]
    assert kept == [150, *range(300 - len(kept) + 1, 300)], "the newest, and the error"
    assert lane.dropped == {"lane full (drop_oldest)": 300 - len(kept)}


async def test_the_oldest_make_room_for_a_large_record_and_one_too_large_for_all_is_taken_alone() -> None:
    sink = GateSink()
    async with Trace("r", sinks=[(sink, bytes_lane("drop_oldest"))]) as trace:
        await auntil(sink.waiting.is_set)
        for i in range(100):
            trace.info(f"m{i}")
        trace.info("large " + "x" * 70_000)
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        lane = trace.pipeline.stats().lanes[0]
        assert 0 < lane.lost < 100
        trace.info("huge " + "x" * 200_000)
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        lane = trace.pipeline.stats().lanes[0]
        assert lane.pending_bytes > 200_000
        trace.info("small")
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        assert trace.pipeline.stats().lanes[0].lost == lane.lost + 1
        sink.gate.set()
        await trace.aflush()
        assert "small" in sink.messages


async def test_the_writer_waits_for_a_lane_with_many_bytes() -> None:
    class Slow(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            await asyncio.sleep(0.001)
            await super().write(batch)

    sink = Slow()
    options = replace(
        QUICK, high_water_bytes=200_000, capacity_bytes=4_000_000, max_bytes=50_000, patience=60.0
    )
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        for i in range(1_000):
            trace.info(f"m{i} " + "x" * 5_000)
        await trace.aflush()
    assert pipeline.stats().lanes[0].lost == 0
    assert len(sink.messages) == 1_000


async def test_a_lane_with_many_bytes_spills_and_reads_back_in_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))

    class Remote(ScriptedSink):
        up = False
        largest = 0

        async def write(self, batch: Batch) -> None:
            if not self.up:
                raise TransientSinkError("away")
            self.largest = max(self.largest, sum(len(record.message) for record in batch))
            await super().write(batch)

        def __repr__(self) -> str:
            return "<Remote>"

    sink = Remote()
    options = LaneOptions(
        when_full="spill",
        high_water_bytes=100_000,
        max_bytes=50_000,
        retry=RetryPolicy(base=0.001, ceiling=0.002),
    )
    async with Trace("r", sinks=[(sink, options)]) as trace:
        for i in range(200):
            trace.info(f"m{i} " + "x" * 5_000)
        await auntil(lambda: trace.pipeline.stats().lanes[0].spooled > 150)
        # On disk, not in memory.
        await auntil(lambda: trace.pipeline.stats().lanes[0].pending_bytes < 100_000)
        sink.up = True
        await trace.aflush()
        assert trace.pipeline.stats().lanes[0].lost == 0
    assert [m.split()[0] for m in sink.messages] == [f"m{i}" for i in range(200)]
    assert sink.largest <= 50_000


# -- a lane smaller than what the writer has in hand ---------------------------------------------------------

PATIENT = LaneOptions(patience=60.0)


@pytest.mark.parametrize(
    "bounds",
    [
        {"capacity": 1_000},
        {"capacity": 1_000, "when_full": "spill"},
        {"capacity_bytes": 200_000},
        {"capacity": 100, "high_water": 50},
        {"capacity": 100, "high_water": 100, "when_full": "spill"},
        {"capacity_bytes": 20_000, "when_full": "spill"},
        {"capacity": 2},
        {"high_water": 100, "trigger": 1_000, "linger": 3_600.0},
    ],
    ids=str,
)
def test_a_healthy_store_gets_every_record_whichever_bound_is_given(
    bounds: dict[str, Any], tmp_path: Path
) -> None:
    trace = Trace("r", sinks=[(f"sqlite:{tmp_path}/t.db", replace(PATIENT, **bounds))])
    pipeline = trace.pipeline
    with trace:
        for i in range(3_000):
            trace.info(f"m{i}")
        assert trace.flush(60)
        (lane,) = pipeline.stats().lanes
        assert (lane.delivered, lane.lost) == (lane.emitted, 0)
        assert lane.balanced
    records = asynctrace.find_trace("r", f"sqlite:{tmp_path}/t.db")
    assert [record.message for record in records if record.kind is asynctrace.Kind.LOG] == [
        f"m{i}" for i in range(3_000)
    ]


@pytest.mark.parametrize(
    "bounds",
    [{"capacity": 250, "high_water": 100}, {"capacity": 20}, {"capacity_bytes": 50_000}],
    ids=str,
)
async def test_a_hung_sink_has_all_its_records_on_disk_however_small_its_memory(
    bounds: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    sink = GatedRemote()
    options = replace(PATIENT, when_full="spill", **bounds)
    async with Trace("r", sinks=[(sink, options)]) as trace:
        for i in range(5_000):
            trace.info(f"m{i}")
        lane = trace.pipeline.stats
        await auntil(lambda: lane().queued == 0 and lane().lanes[0].spooled > 4_000)
        assert lane().lanes[0].lost == 0
        assert lane().balanced
        sink.gate.set()
        assert await trace.aflush(60)
        assert sink.messages == [f"m{i}" for i in range(5_000)]
        check_marks(sink.marks, lane().lanes[0], len(sink.records))


async def test_what_waits_at_the_door_is_in_the_ledger_and_flushed_in_order() -> None:
    sink = GateSink()
    options = replace(QUICK, capacity=10, patience=3_600.0, mark_every=7)
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        await auntil(sink.waiting.is_set)
        for i in range(100):
            (trace.error if i % 10 == 0 else trace.info)(f"m{i}")
        await auntil(lambda: pipeline.stats().queued == 0)
        (lane,) = pipeline.stats().lanes
        assert lane.balanced
        assert (lane.pending, lane.lost) == (lane.emitted, 0)
        assert lane.pending_bytes > 101 * RECORD_BYTES
        flushing = asyncio.create_task(trace.aflush())
        sink.gate.set()
        assert await flushing
        assert sink.messages == [f"m{i}" for i in range(100)]
    (lane,) = pipeline.stats().lanes
    check_marks(sink.marks, lane, len(sink.records))


def test_bounds_that_are_not_given_follow_from_those_that_are() -> None:
    default = LaneOptions().bounds
    assert (default.high_water, default.capacity) == (8_192, 1_000_000)
    assert (default.high_water_bytes, default.capacity_bytes) == (32 * MIB, 512 * MIB)
    assert LaneOptions(capacity=1_000).bounds.high_water == 500
    assert LaneOptions(capacity=1).bounds.high_water == 1
    assert LaneOptions(capacity_bytes=MIB).bounds.high_water_bytes == MIB // 2
    assert LaneOptions(high_water=3_000_000).bounds.capacity == 6_000_000
    assert replace(LaneOptions(capacity=1_000), capacity=100).bounds.high_water == 50


@pytest.mark.parametrize(
    ("bounds", "said"),
    [
        (
            {"high_water": 101, "capacity": 100},
            "LaneOptions.high_water: 101 cannot be used; allowed: at most capacity, which is 100",
        ),
        ({"high_water_bytes": 2 * MIB, "capacity_bytes": MIB}, "LaneOptions.high_water_bytes: 2097152"),
    ],
)
def test_bounds_that_contradict_are_an_error_at_once(bounds: dict[str, int], said: str) -> None:
    with pytest.raises(asynctrace.ConfigurationError, match=said):
        LaneOptions(**bounds)
