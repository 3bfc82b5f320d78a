"""What a lane does with each answer of its sink, with too many records, and beside lanes that are worse off."""

import asyncio
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from lane_kit import QUICK, GateSink, ScriptedSink, auntil, check_marks

from asynctrace import (
    Batch,
    BatchTooLargeError,
    DeliveryError,
    LaneOptions,
    LaneStats,
    Level,
    PartialWriteError,
    PermanentSinkError,
    Pipeline,
    Record,
    Rejection,
    RetryPolicy,
    SinkClosedError,
    Trace,
    TransientSinkError,
)
from asynctrace.ports import LocalSink
from asynctrace.sinks.memory import MemorySink

pytestmark = pytest.mark.anyio


def names(count: int, first: int = 0) -> list[str]:
    return [f"m{i}" for i in range(first, first + count)]


async def deliver(sink: ScriptedSink, count: int = 10, options: LaneOptions = QUICK) -> LaneStats:
    """Record so many messages in one burst into that sink; the lane's page after the end of the run."""
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        for name in names(count):
            trace.info(name)
        await trace.aflush()
    stats = pipeline.stats()
    (lane,) = stats.lanes
    assert stats.balanced, lane
    assert lane.pending == 0
    assert lane.emitted == count + 2  # the run's start and end
    check_marks(sink.marks, lane, len(sink.records))
    return lane


# -- the answers of a sink -----------------------------------------------------------------------------------


async def test_a_transient_error_has_the_same_batch_tried_again() -> None:
    sink = ScriptedSink([TransientSinkError("away"), OSError("reset"), TransientSinkError("busy")])
    stats = await deliver(sink)
    assert sink.messages == names(10)
    assert sink.sizes[:4] == [sink.sizes[0]] * 4, "the batch that failed came again as it was"
    assert (stats.retries, stats.failed, stats.lost) == (3, 3, 0)
    assert stats.last_error == "TransientSinkError: busy"


async def test_a_destination_that_asks_to_be_left_alone_is_left_alone() -> None:
    times: list[float] = []

    def busy(batch: Batch) -> Exception:
        times.append(time.monotonic())
        return TransientSinkError("slow down", retry_after=0.2)

    def fine(batch: Batch) -> None:
        times.append(time.monotonic())

    await deliver(ScriptedSink([busy, fine]))
    assert times[1] - times[0] >= 0.2


async def test_retries_end_when_the_policy_says_so() -> None:
    sink = ScriptedSink([TransientSinkError("away")] * 3)
    options = replace(QUICK, retry=RetryPolicy(base=0.001, attempts=3))
    stats = await deliver(sink, options=options)
    assert stats.dead == sink.sizes[0]
    assert stats.delivered + stats.dead == 12


async def test_retries_end_when_the_total_time_is_over() -> None:
    def away(batch: Batch) -> Exception | None:
        return TransientSinkError("away") if len(batch) else None  # but for the marks that tell of it

    sink = ScriptedSink([away] * 100_000)
    options = replace(QUICK, retry=RetryPolicy(base=0.001, ceiling=0.002, total=0.05))
    stats = await deliver(sink, options=options)
    assert stats.dead == 12
    assert stats.retries > 1


async def test_a_pause_that_the_destination_asks_for_beyond_the_total_is_not_begun() -> None:
    sink = ScriptedSink([TransientSinkError("busy", retry_after=3_600)])
    stats = await deliver(sink, options=replace(QUICK, retry=RetryPolicy(total=60.0)))
    assert stats.dead == sink.sizes[0]
    assert stats.retries == 0


async def test_a_batch_that_is_too_large_is_halved_until_it_fits() -> None:
    def at_most_three(batch: Batch) -> Exception | None:
        return BatchTooLargeError("too large") if len(batch) > 3 else None

    sink = ScriptedSink([at_most_three] * 50)
    stats = await deliver(sink)
    assert sink.messages == names(10), "in order, nothing lost, nothing twice"
    assert stats.lost == 0
    assert max(size for size in sink.sizes[-3:]) <= 3


async def test_a_single_record_that_is_too_large_is_dead_and_its_neighbours_are_not() -> None:
    def not_m4(batch: Batch) -> Exception | None:
        return BatchTooLargeError("m4") if any(record.message == "m4" for record in batch) else None

    sink = ScriptedSink([not_m4] * 50)
    stats = await deliver(sink)
    assert sink.messages == [name for name in names(10) if name != "m4"]
    assert stats.dead == 1


async def test_a_permanent_error_gives_up_the_batch_and_no_other() -> None:
    sink = ScriptedSink([PermanentSinkError("no such table")])
    stats = await deliver(sink)
    assert stats.dead == sink.sizes[0]
    assert stats.delivered == 12 - stats.dead > 0
    assert stats.retries == 0
    assert sink.opened == 2, "opened anew after it"


async def test_a_partial_write_keeps_what_was_stored_and_retries_or_buries_the_rest() -> None:
    def partly(batch: Batch) -> Exception:
        index = {record.message: i for i, record in enumerate(batch)}
        return PartialWriteError(
            [
                Rejection(index["m2"], "never"),
                Rejection(index["m5"], "later", True),
                Rejection(index["m7"], "x", True),
            ]
        )

    sink = ScriptedSink([partly])
    stats = await deliver(sink)
    assert sorted(sink.messages) == sorted(name for name in names(10) if name != "m2")
    assert sink.sizes[1] == 2, "only the two that may succeed later came again"
    assert (stats.dead, stats.delivered) == (1, 11)


async def test_a_partial_write_without_progress_pauses_between_tries() -> None:
    def all_later(batch: Batch) -> Exception:
        return PartialWriteError([Rejection(i, "later", True) for i in range(len(batch))])

    sink = ScriptedSink([all_later] * 1_000)
    options = replace(QUICK, retry=RetryPolicy(base=0.001, attempts=5))
    stats = await deliver(sink, options=options)
    assert stats.dead >= 1
    assert max(sink.sizes.count(size) for size in sink.sizes) <= 10, "the policy bounds these tries too"


async def test_a_place_that_is_rejected_twice_does_not_upset_the_ledger() -> None:
    stats = await deliver(ScriptedSink([PartialWriteError([Rejection(0, "twice"), Rejection(0, "twice")])]))
    assert (stats.dead, stats.delivered) == (1, 11)


class Misnaming(ScriptedSink):
    """Stores nothing of its first batches, and says so of a place that they do not have."""

    def __init__(self, times: int, index: Callable[[Batch], object]) -> None:
        super().__init__()
        self.times = times
        self.index = index

    async def write(self, batch: Batch) -> None:
        if len(self.sizes) < self.times:
            self.sizes.append(len(batch))
            raise PartialWriteError([Rejection(0, "poison"), Rejection(self.index(batch), "poison")])  # type: ignore[arg-type]
        await super().write(batch)


@pytest.mark.parametrize("index", [len, lambda batch: -1, lambda batch: "1"], ids=["one-based", "-1", "text"])
async def test_rejections_that_name_no_place_of_the_batch_are_a_surprise_and_nothing_counts_as_stored(
    index: Callable[[Batch], object],
) -> None:
    sink = Misnaming(3, index)
    stats = await deliver(sink)
    assert sink.sizes[0] == sink.sizes[1] == sink.sizes[2], "all of it, as with any surprise"
    assert (stats.dead, stats.delivered) == (sink.sizes[0], len(sink.records))
    named = repr(index(Batch(sink.records[:1] * sink.sizes[0])))
    said = f"names the record at index {named} (poison); allowed: 0 to {sink.sizes[0] - 1}"
    assert stats.last_error == f"IndexError: PartialWriteError {said}"


async def test_after_rejections_that_name_no_place_of_the_batch_all_of_it_comes_again() -> None:
    sink = Misnaming(2, len)
    stats = await deliver(sink)
    assert sink.messages == names(10)
    assert (stats.lost, stats.retries) == (0, 2)


async def test_a_last_write_that_names_no_place_of_the_batch_makes_nothing_safe() -> None:
    class Store(ScriptedSink, LocalSink):
        async def write(self, batch: Batch) -> None:
            raise TransientSinkError("away")

        def write_now(self, batch: Batch) -> None:
            raise PartialWriteError([Rejection(len(batch), "poison")])

    async with Trace("r", sinks=[(Store(), QUICK)]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        await trace.aclose(timeout=0.1)
    (lane,) = pipeline.stats().lanes
    assert (lane.delivered, lane.dropped) == (0, {"last write failed": 3})
    assert lane.balanced


async def test_a_surprise_is_tried_a_few_times_and_then_given_up() -> None:
    sink = ScriptedSink([ZeroDivisionError("a bug")] * 3)
    stats = await deliver(sink)
    assert sink.sizes[0] == sink.sizes[1] == sink.sizes[2]
    assert stats.dead == sink.sizes[0]
    assert stats.last_error == "ZeroDivisionError: a bug"


async def test_a_sink_that_somebody_closed_is_opened_again() -> None:
    sink = ScriptedSink([SinkClosedError("closed")] * 5)
    stats = await deliver(sink)
    assert sink.messages == names(10)
    assert (stats.lost, sink.opened) == (0, 6)


async def test_a_sink_that_cannot_be_opened_yet_does_not_stop_the_program() -> None:
    class AwayFirst(ScriptedSink):
        async def open(self) -> None:
            await super().open()
            if self.opened < 3:
                raise TransientSinkError("away")

    sink = AwayFirst()
    stats = await deliver(sink)
    assert sink.messages == names(10)
    assert stats.retries == 2


async def test_a_write_that_takes_too_long_is_tried_again() -> None:
    class SlowOnce(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            if not self.sizes:
                self.sizes.append(len(batch))
                await asyncio.Event().wait()
            await super().write(batch)

    sink = SlowOnce()
    stats = await deliver(sink, options=replace(QUICK, write_timeout=0.05))
    assert sink.messages == names(10)
    assert stats.last_error == "TransientSinkError: no answer within 0.05 s"


async def test_losses_are_raised_when_asked_for() -> None:
    sink = ScriptedSink([PermanentSinkError("no such table")])
    with pytest.raises(DeliveryError, match=r"no such table") as caught:
        async with Trace("r", sinks=[(sink, QUICK)], fail_silently=False) as trace:
            trace.info("m")
    (failure,) = caught.value.failures
    assert failure.records == sink.sizes[0]
    with pytest.raises(KeyError):  # never masks the body's own
        async with Trace("r", sinks=[(ScriptedSink([PermanentSinkError("x")]), QUICK)], fail_silently=False):
            raise KeyError


# -- what a lane takes ---------------------------------------------------------------------------------------


async def test_a_level_and_a_rule_decide_what_a_lane_takes() -> None:
    sink = ScriptedSink()
    options = replace(QUICK, level=Level.WARNING, admit=lambda record: record.message != "no")
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        for message in ("yes", "no"):
            trace.info(message)
            trace.warning(message)
    (lane,) = pipeline.stats().lanes
    assert sink.messages == ["yes"]
    assert (lane.emitted, lane.filtered, lane.delivered) == (6, 3, 3)
    assert lane.balanced
    check_marks(sink.marks, lane, len(sink.records))


async def test_a_rule_that_raises_admits() -> None:
    def broken(record: Record) -> bool:
        raise ValueError("broken rule")

    sink = ScriptedSink()
    stats = await deliver(sink, options=replace(QUICK, admit=broken))
    assert sink.messages == names(10)
    assert stats.filtered == 0


async def test_a_processor_filters_changes_or_fails_and_the_ledger_balances() -> None:
    def hostile(record: Record) -> Record | None:
        if record.message == "m3":
            return None
        if record.message == "m4":
            raise ValueError("broken processor")
        if record.message == "m5":
            record.message = "changed"
        return record

    sink = ScriptedSink()
    async with Pipeline(sink, processors=[hostile], options=QUICK) as pipeline:
        await record_into(pipeline, 10)
    (lane,) = pipeline.stats().lanes
    expected = [name if name != "m5" else "changed" for name in names(10) if name != "m3"]
    assert sink.messages == expected
    assert lane.filtered == 1
    assert lane.balanced
    check_marks(sink.marks, lane, len(sink.records))


async def record_into(pipeline: Pipeline, count: int, first: int = 0, **how: Callable[[str], None]) -> None:
    """Put records straight into a pipeline that no trace owns."""
    async with Trace("r", sinks=[MemorySink()]) as trace:
        taken, trace._intake = trace._intake, pipeline.intake
        for name in names(count, first):
            trace.info(name)
        trace._intake = taken


# -- too many records ----------------------------------------------------------------------------------------


def full_lane(when_full: str, **options: object) -> LaneOptions:
    return replace(QUICK, when_full=when_full, capacity=20, high_water=10, patience=0.02, **options)


async def overfill(options: LaneOptions) -> tuple[GateSink, LaneStats]:
    """Fifty records and an error in the middle into a lane that holds twenty, while its sink does not answer."""
    sink = GateSink()
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        await auntil(sink.waiting.is_set)  # the start of the run is in its hands
        for i in range(50):
            (trace.error if i == 25 else trace.info)(f"m{i}")
        await auntil(lambda: pipeline.stats().queued == 0)
        flushing = asyncio.create_task(trace.aflush())  # the writer comes back to a lane that has got nowhere
        await auntil(lambda: pipeline.stats().lanes[0].lost)
        sink.gate.set()
        await flushing
        await auntil(lambda: "asynctrace.dropped" in sink.messages)
    (lane,) = pipeline.stats().lanes
    assert lane.balanced, lane
    check_marks(sink.marks, lane, len(sink.records))
    told = next(record for record in sink.records if record.message == "asynctrace.dropped")
    reason = f"lane full ({options.when_full})"
    assert told.fields == {"count": lane.dropped[reason], "reason": reason, "lane": "gate"}
    return sink, lane


async def test_drop_newest_keeps_the_oldest_and_every_error() -> None:
    sink, lane = await overfill(full_lane("drop_newest"))
    assert [m for m in sink.messages if m.startswith("m")] == [*names(18), "m25"]
    assert lane.dropped == {"lane full (drop_newest)": 31}


async def test_drop_oldest_keeps_the_newest_and_every_error() -> None:
    sink, lane = await overfill(full_lane("drop_oldest"))
    assert [m for m in sink.messages if m.startswith("m")] == ["m25", *names(18, 32)]
    assert lane.dropped == {"lane full (drop_oldest)": 31}


async def test_wait_stops_waiting_for_a_lane_that_makes_no_progress_then_drops() -> None:
    sink, lane = await overfill(full_lane("wait"))
    assert "m25" in sink.messages
    assert lane.dropped["lane full (wait)"] == lane.lost > 0


async def test_flush_waits_for_an_old_error_that_drop_oldest_stepped_over() -> None:
    sink = GateSink()
    async with Trace("r", sinks=[(sink, full_lane("drop_oldest", max_records=1))]) as trace:
        await auntil(sink.waiting.is_set)
        trace.error("old")
        for i in range(40):
            trace.info(f"m{i}")
        flushing = asyncio.create_task(trace.aflush())
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        for i in range(40):
            trace.info(f"n{i}")
        await auntil(lambda: trace.pipeline.stats().queued == 0)
        assert not flushing.done()
        sink.gate.set()
        await flushing
        assert "old" in sink.messages


async def test_the_writer_waits_for_a_slow_local_lane_and_nothing_is_dropped() -> None:
    class Slow(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            await asyncio.sleep(0.001)
            await super().write(batch)

    sink, fast = Slow(), ScriptedSink()
    options = replace(QUICK, capacity=2_000, high_water=500, max_records=100)
    async with Trace("r", sinks=[(sink, options), (fast, QUICK)]) as trace:
        pipeline = trace.pipeline
        for i in range(10_000):
            trace.info(f"m{i}")
        await trace.aflush()
        assert pipeline.stats().lanes[0].lagging is False
    assert sink.messages == fast.messages == names(10_000)


# -- beside a lane that is worse off -------------------------------------------------------------------------


@pytest.mark.parametrize("when_full", ["wait", "spill", "drop_oldest", "drop_newest"])
async def test_a_slow_a_hung_and_a_dead_sink_do_not_hold_back_a_healthy_one(
    when_full: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))

    class Slow(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            await asyncio.sleep(0.05)
            await super().write(batch)

        def __repr__(self) -> str:
            return "<Slow>"

    class Hung(GateSink):
        def __repr__(self) -> str:
            return "<Hung>"

    class Dead(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            raise TransientSinkError("dead")

        def __repr__(self) -> str:
            return "<Dead>"

    slow, hung, dead, healthy = Slow(), Hung(), Dead(), ScriptedSink()
    # The disk makes progress, however slow it is; without one, those that get nowhere are not to hold the test up.
    patience = 30.0 if when_full == "spill" else 0.02
    options = replace(
        QUICK, when_full=when_full, capacity=5_000, high_water=100, patience=patience, max_records=100
    )
    async with Trace(
        "r", sinks=[(slow, options), (hung, options), (dead, options), (healthy, QUICK)]
    ) as trace:
        pipeline = trace.pipeline
        for i in range(10_000):
            trace.info(f"m{i}")
            if i % 1_000 == 0:
                await asyncio.sleep(0)
        await auntil(lambda: len(healthy.messages) >= 10_000)
        assert len(slow.messages) < 10_000
        await trace.aclose(timeout=0.1)
    assert [m for m in healthy.messages if m.startswith("m")] == names(10_000), "complete and in order"
    assert [m for m in slow.messages if m.startswith("m")] == sorted(
        (m for m in slow.messages if m.startswith("m")), key=lambda m: int(m[1:])
    )
    stats = pipeline.stats()
    assert stats.balanced
    lanes = {lane.lane: lane for lane in stats.lanes}
    assert lanes["scripted"].delivered == lanes["scripted"].emitted
    assert (lanes["hung"].delivered, lanes["dead"].delivered) == (0, 0)
    for name in ("hung", "dead"):
        lane = lanes[name]
        assert lane.spooled + lane.lost == lane.emitted
        assert lane.spooled > (9_000 if when_full == "spill" else 0)


async def test_flush_hurries_the_pause_before_a_retry() -> None:
    sink = ScriptedSink([TransientSinkError("away")])
    options = replace(QUICK, retry=RetryPolicy(base=3_600, ceiling=3_600))
    async with Trace("r", sinks=[(sink, options)]) as trace:
        trace.info("m")
        await auntil(lambda: trace.pipeline.stats().lanes[0].retries == 1)
        await asyncio.wait_for(trace.aflush(), 5)
        assert sink.messages == ["m"]


async def test_closing_does_not_sleep_past_its_deadline_in_a_pause(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "60")
    sink = ScriptedSink([TransientSinkError("away")] * 100)
    options = replace(QUICK, retry=RetryPolicy(base=3_600, ceiling=3_600))
    started = time.monotonic()
    async with Trace("r", sinks=[(sink, options)]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        await auntil(lambda: pipeline.stats().lanes[0].retries == 1)
        await trace.aclose(timeout=0.1)
    assert time.monotonic() - started < 30
    (lane,) = pipeline.stats().lanes
    assert lane.dropped == {"not delivered in time": 3}
    assert sink.closed == 1


async def test_a_sink_that_swallows_cancellation_is_left_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    class Stubborn(ScriptedSink):
        def __init__(self) -> None:
            super().__init__()
            self.released = asyncio.Event()

        async def write(self, batch: Batch) -> None:
            while not self.released.is_set():
                try:
                    await self.released.wait()
                except asyncio.CancelledError:
                    pass

    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "60")
    stubborn, healthy = Stubborn(), MemorySink()
    started = time.monotonic()
    async with Trace("r", sinks=[(stubborn, QUICK), healthy]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        await auntil(lambda: len(healthy.records) == 2)
        await trace.aclose(timeout=0.1)
    assert time.monotonic() - started < 30
    assert len(healthy.records) == 3
    lost = pipeline.stats().lanes[0]
    assert lost.balanced
    assert lost.dropped == {"not delivered in time": 3}
    stubborn.released.set()


# -- adding and removing -------------------------------------------------------------------------------------


async def test_sinks_come_and_go_while_records_flow_and_none_is_lost() -> None:
    first, second = ScriptedSink(), ScriptedSink()
    async with Trace("r", sinks=[(first, QUICK)]) as trace:
        stop = asyncio.Event()
        count = 0

        async def flow() -> None:
            nonlocal count
            while not stop.is_set():
                for _ in range(10):
                    await trace.ainfo(f"m{count}")
                    count += 1
                await asyncio.sleep(0)

        flowing = asyncio.create_task(flow())
        await auntil(lambda: len(first.records) > 100)
        trace.add_sink((second, QUICK))
        await auntil(lambda: len(second.records) > 100)
        before = count
        await trace.aremove_sink(first)
        until_removed = first.messages
        await auntil(lambda: count > before + 100)
        stop.set()
        await flowing
    assert first.closed == 1
    assert first.messages == until_removed == names(len(until_removed))
    assert len(until_removed) >= before, "what was emitted before the removal is in the sink"
    start = int(second.messages[0][1:])
    assert second.messages == names(count - start, start)
