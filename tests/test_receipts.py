"""Whoever holds a receipt knows that the records of the block are safe, or which lane failed, why, and how many."""

import asyncio
import logging
import random
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

import loop_kit
import pytest
from lane_kit import QUICK, SPILLING, GateSink, Outcome, Remote, ScriptedSink, auntil
from loop_kit import NewLoop

import asynctrace
from asynctrace import (
    Batch,
    BatchTooLargeError,
    ClosedError,
    ConfigurationError,
    DeliveryError,
    LaneOptions,
    PartialWriteError,
    PermanentSinkError,
    Receipt,
    Record,
    Rejection,
    RetryPolicy,
    Trace,
    TransientSinkError,
)
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
anyio_backend = loop_kit.either_loop
new_loop = loop_kit.new_loop

SPILLS = replace(SPILLING, max_records=10, short=10, high_water=20)


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.2")
    return tmp_path / "state"


def rejecting(texts: Iterable[str]) -> Callable[[Batch], Exception | None]:
    """A store that takes everything but records with these messages."""

    def outcome(batch: Batch) -> Exception | None:
        rejections = [
            Rejection(i, "too odd") for i, record in enumerate(batch) if record.message in set(texts)
        ]
        return PartialWriteError(rejections) if rejections else None

    return outcome


def counts(receipt: Receipt) -> dict[str, tuple[int, int, int, int]]:
    return {lane.lane: (lane.safe, lane.spooled, lane.pending, lane.lost) for lane in receipt.lanes}


def failures(error: DeliveryError) -> list[tuple[str, str, int]]:
    return sorted((failure.lane, failure.reason, failure.records) for failure in error.failures)


@contextmanager
def undelivered() -> Iterator[pytest.ExceptionInfo[DeliveryError]]:
    """The block ends with a DeliveryError."""
    with pytest.raises(DeliveryError) as caught:
        yield caught


# -- what it waits for ---------------------------------------------------------------------------------------


async def test_leaving_waits_until_the_sinks_took_every_record() -> None:
    gate, other = GateSink(), ScriptedSink()
    left = asyncio.Event()
    async with Trace("r", sinks=[(gate, QUICK), (other, QUICK)]) as trace:

        async def work() -> Receipt:
            async with trace.receipt() as receipt:
                for i in range(1_000):
                    trace.info(f"m{i}")
            left.set()
            return receipt

        working = asyncio.create_task(work())
        await auntil(lambda: len(other.messages) == 1_000)
        assert not left.is_set(), "one of its sinks holds nothing yet"
        gate.gate.set()
        receipt = await asyncio.wait_for(working, 30)
        assert gate.messages == [f"m{i}" for i in range(1_000)]
        assert receipt.records == 1_000
        assert counts(receipt) == {"gate": (1_000, 0, 0, 0), "scripted": (1_000, 0, 0, 0)}
        assert receipt.failures == ()


async def test_it_covers_tasks_threads_spans_bound_handles_and_child_runs() -> None:
    sink, childs = ScriptedSink(), ScriptedSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        with trace.span("outer") as outer:
            async with trace.receipt() as receipt:
                trace.info("here")
                outer.info("in a span from outside")
                trace.bind(a=1).info("bound")
                await asyncio.create_task(trace.ainfo("a task"))  # type: ignore[arg-type]
                async with asyncio.TaskGroup() as group:
                    for i in range(3):
                        group.create_task(asyncio.to_thread(trace.info, f"thread {i}"))
                thread = threading.Thread(target=asynctrace.in_context(trace.info, "own thread"))
                thread.start()
                await asyncio.to_thread(thread.join)
                with outer.span("inner") as inner:  # two records of its own
                    inner.info("in the inner span")
                async with Trace("child", sinks=[(childs, QUICK)]) as child:  # two of its own, too
                    child.info("child")
        assert receipt.records == 14
        assert sorted(lane.safe for lane in receipt.lanes) == [3, 11]
        assert childs.messages == ["child"]
        assert len(sink.messages) == 9


@pytest.mark.parametrize("durability", ["process", "disk"])
async def test_with_a_journal(state: Path, tmp_path: Path, durability: Literal["process", "disk"]) -> None:
    """Records with numbers of their own, made by a quicker path while nobody waits for any."""
    sinks = [f"sqlite:{tmp_path}/t.db"]
    async with Trace("r", sinks=sinks, durability=durability) as trace:
        trace.info("before")
        async with trace.receipt() as receipt:
            trace.info("m", a=1)
            trace.error("%s", "n")
            with trace.span("s") as span:
                span.info("o")
            await asyncio.to_thread(trace.info, "thread")
            async with Trace("child", sinks=[f"sqlite:{tmp_path}/child.db"], durability=durability) as child:
                child.info("child")
        plain = child.pipeline.intake.append
        assert plain == child.pipeline.intake._append  # type: ignore[attr-defined]  # it journals again
        assert receipt.records == 9
        assert [(lane.safe, lane.safety) for lane in receipt.lanes] == [(6, durability), (3, durability)]
        trace.info("after")
    assert len(asynctrace.find_trace("r", f"sqlite:{tmp_path}/t.db").records) == 6


async def test_what_others_record_meanwhile_does_not_count() -> None:
    sink = ScriptedSink([rejecting({"other"})] * 1_000)
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        stop = False

        async def others() -> None:
            while not stop:
                trace.info("other")
                await asyncio.sleep(0)

        other = asyncio.create_task(others())
        for _ in range(20):
            async with trace.receipt() as receipt:
                trace.info("mine")
                await asyncio.sleep(0.001)
            assert receipt.records == 1
        stop = True
        await other
        trace.info("afterwards")
        assert receipt.records == 1
    assert sink.messages.count("mine") == 20


async def test_a_task_that_outlives_the_block_is_not_waited_for() -> None:
    gate = GateSink()
    async with Trace("r", sinks=[(gate, QUICK)]) as trace:
        go_on = asyncio.Event()

        async def later() -> None:
            await go_on.wait()
            trace.info("later")

        gate.gate.set()
        async with trace.receipt() as receipt:
            trace.info("inside")
            task = asyncio.create_task(later())
        gate.gate.clear()
        go_on.set()
        await task
        assert receipt.records == 1
        gate.gate.set()


async def test_what_lanes_and_processors_hold_back_is_not_waited_for() -> None:
    def no_debug(record: Record) -> Record | None:
        return None if record.message == "processor" else record

    picky, plain = ScriptedSink(), ScriptedSink()
    pipeline = asynctrace.Pipeline(processors=[no_debug])
    pipeline.add_sink(picky, replace(QUICK, admit=lambda record: record.message != "rule"))
    pipeline.add_sink(plain, replace(QUICK, level=asynctrace.Level.WARNING))
    async with pipeline, Trace("r", sinks=[MemorySink()]) as trace:
        trace._outlet.intake = trace._intake = pipeline.intake  # type: ignore[union-attr]
        async with trace.receipt() as receipt:
            trace.info("processor")
            trace.info("rule")
            trace.info("level")
            trace.error("all")
        assert receipt.records == 4
        assert counts(receipt) == {"scripted": (2, 0, 0, 0), "scripted-2": (1, 0, 0, 0)}


async def test_an_empty_block_waits_for_nothing() -> None:
    gate = GateSink()
    async with Trace("r", sinks=[(gate, QUICK)]) as trace:
        trace.info("before")
        async with trace.receipt(timeout=None) as receipt:
            pass
        assert (receipt.records, receipt.lanes, receipt.failures) == (0, (), ())
        gate.gate.set()


async def test_nested_receipts_count_each_for_itself() -> None:
    sink = ScriptedSink([rejecting({"odd"})] * 100)
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        with undelivered() as caught:
            async with trace.receipt() as outer:
                trace.info("a")
                async with trace.receipt() as inner:
                    trace.info("b")
                    trace.info("c")
                assert (inner.records, inner.failures) == (2, ())
                with pytest.raises(DeliveryError):
                    async with trace.receipt():
                        trace.info("odd")
                trace.info("d")
        assert failures(caught.value) == [("scripted", "too odd", 1)]
        assert outer.records == 5
        assert counts(outer) == {"scripted": (4, 0, 0, 1)}


async def test_a_hundred_tasks_each_with_a_receipt_of_its_own() -> None:
    sink = ScriptedSink()

    async def work(trace: Trace, name: int) -> int:
        async with trace.receipt() as receipt:
            for i in range(name):
                await trace.ainfo(f"{name} {i}")
                await asyncio.sleep(0)
        assert counts(receipt) == ({"scripted": (name, 0, 0, 0)} if name else {})
        return receipt.records

    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        assert await asyncio.gather(*[work(trace, name) for name in range(100)]) == list(range(100))


async def test_nothing_is_left_on_the_path_of_a_record_afterwards() -> None:
    async with Trace("r", sinks=[(ScriptedSink(), QUICK)]) as trace:
        plain = trace.pipeline.intake.append
        async with trace.receipt(), trace.receipt():
            assert trace.pipeline.intake.append != plain
            trace.info("m")
        assert trace.pipeline.intake.append == plain
        assert trace.pipeline.intake.claims == {}


async def test_what_the_writer_says_in_the_stream_is_nobodys() -> None:
    """The pipeline starts inside the block, but does not carry its context."""
    gate = GateSink()
    tight = replace(QUICK, capacity=10, when_full="drop_newest", high_water=5)
    async with Trace("r", sinks=[(gate, tight)]) as trace:
        with undelivered() as caught:
            async with trace.receipt() as receipt:
                for i in range(100):
                    trace.info(f"m{i}")
                await auntil(gate.waiting.is_set)
                await auntil(lambda: trace.pipeline.stats().queued == 0)
                gate.gate.set()
        assert receipt.records == 100
        ((lane, reason, lost),) = failures(caught.value)
        assert (lane, reason) == ("gate", "lane full (drop_newest)")
        assert counts(receipt) == {"gate": (100 - lost, 0, 0, lost)}
        await trace.aflush()
        assert gate.messages[-1] == "asynctrace.dropped"


# -- what it says of what is not safe ------------------------------------------------------------------------


async def test_rejected_records_are_named_by_lane_reason_and_number() -> None:
    odd, dead, fine = (
        ScriptedSink([rejecting({"odd", "odder"})] * 10),
        ScriptedSink([PermanentSinkError("no such table")] * 10),
        ScriptedSink(),
    )
    async with Trace("r", sinks=[(odd, QUICK), (dead, QUICK), (fine, QUICK)]) as trace:
        await trace.aflush()
        with undelivered() as caught:
            async with trace.receipt() as receipt:
                for text in ("a", "odd", "b", "odder"):
                    trace.info(text)
        assert failures(caught.value) == [("scripted", "too odd", 2), ("scripted-2", "no such table", 4)]
        assert receipt.failures == caught.value.failures
        assert "scripted-2: 4 record(s): no such table" in str(caught.value)
        assert counts(receipt)["scripted-3"] == (4, 0, 0, 0)


async def test_what_finds_no_room_is_a_failure_of_every_lane() -> None:
    asynctrace.configure(MemorySink(), MemorySink(), queue_size=100)
    trace = asynctrace.get_trace("r")
    loop = trace.pipeline.loop
    assert loop is not None
    release = threading.Event()
    loop.call_soon_threadsafe(release.wait, 30)  # the writer stands still
    with undelivered() as caught:
        async with trace.receipt() as receipt:
            for i in range(200):
                trace.info(f"m{i}")
            release.set()
    lost = receipt.records - receipt.lanes[0].safe
    assert receipt.records == 200
    assert lost > 100
    assert failures(caught.value) == [("memory", "intake full", lost), ("memory-2", "intake full", lost)]


async def test_a_sink_that_is_away_is_named_after_the_timeout() -> None:
    away = Remote(up=False)
    options = replace(QUICK, spool_max_bytes=0)
    async with Trace("r", sinks=[(away, options), MemorySink()]) as trace:
        with undelivered() as caught:
            async with trace.receipt(timeout=0.2) as receipt:
                trace.info("m")
        assert failures(caught.value) == [("remote", "TransientSinkError: nobody there", 1)]
        assert counts(receipt) == {"remote": (0, 0, 1, 0), "memory": (1, 0, 0, 0)}
        away.up = True
        async with trace.receipt() as receipt:
            trace.info("n")
        assert away.messages == ["m", "n"]


async def test_what_is_on_disk_is_safe_there_but_not_in_the_sink(state: Path) -> None:
    away = Remote(up=False)
    async with Trace("r", sinks=[(away, SPILLS)]) as trace:
        for i in range(100):
            trace.info(f"before {i}")
        await auntil(lambda: trace.pipeline.stats().lanes[0].spooled > 50)
        async with trace.receipt(to="disk") as receipt:
            for i in range(100):
                trace.info(f"m{i}")
        assert counts(receipt) == {"remote": (0, 100, 0, 0)}
        with undelivered() as caught:
            async with trace.receipt(to="sink", timeout=0.3):
                trace.info("more")
        assert failures(caught.value) == [("remote", "waits on disk: TransientSinkError: nobody there", 1)]
        back = asyncio.Event()

        async def come_back() -> None:
            await back.wait()
            away.up = True

        coming = asyncio.create_task(come_back())
        async with trace.receipt(to="sink") as receipt:
            trace.info("at last")
            back.set()
        await coming
        assert counts(receipt) == {"remote": (1, 0, 0, 0)}
        assert away.messages[-2:] == ["more", "at last"]


class Hung(Remote):
    """While it is down it does not even refuse."""

    async def write(self, batch: Batch) -> None:
        while not self.up:  # noqa: ASYNC110  # many writes come and go, which an Event would have to outlive
            await asyncio.sleep(0.01)
        await super().write(batch)


@pytest.mark.parametrize("kind", [Remote, Hung])
@pytest.mark.parametrize("when_full", ["spill", "wait"])
@pytest.mark.parametrize("count", [1, 250])
async def test_what_the_sink_does_not_take_soon_goes_to_the_disk_if_that_is_enough(
    state: Path, kind: type[Remote], when_full: Literal["spill", "wait"], count: int
) -> None:
    away = kind(up=False)
    options = LaneOptions(max_records=100, short=100, when_full=when_full, retry=RetryPolicy(base=3600))
    async with Trace("r", sinks=[(away, options)]) as trace:
        for turn in range(3):
            async with trace.receipt(to="disk") as receipt:
                for i in range(count):
                    trace.info(f"{turn} {i}")
            assert counts(receipt) == {"remote" if kind is Remote else "hung": (0, count, 0, 0)}
            lane = trace.pipeline.stats().lanes[0]
            assert lane.balanced
            assert lane.spooled == 1 + (turn + 1) * count
        away.up = True
        async with trace.receipt(to="sink") as receipt:
            trace.info("at last")
        assert away.messages == [*(f"{turn} {i}" for turn in range(3) for i in range(count)), "at last"]
        lane = trace.pipeline.stats().lanes[0]
        assert lane.balanced
        assert (lane.spooled, lane.lost) == (0, 0)
    assert len({record.seq for record in away.records}) == len(away.records) == 3 * count + 3


async def test_a_destination_that_is_left_alone_does_not_keep_records_from_the_disk(state: Path) -> None:
    away = Remote(up=False)
    options = LaneOptions(breaker_failures=1, breaker_cooldown=3600.0, retry=RetryPolicy(base=0.001))
    async with Trace("r", sinks=[(away, options)]) as trace:
        trace.info("before")
        await auntil(lambda: trace.pipeline.stats().lanes[0].failed)
        async with trace.receipt(to="disk") as receipt:
            trace.info("m")
        assert counts(receipt) == {"remote": (0, 1, 0, 0)}


async def test_what_a_receipt_put_on_disk_is_there_for_the_next_start(state: Path) -> None:
    async with Trace("r", sinks=[(Remote(up=False), LaneOptions())]) as trace:
        trace.info("before")
        async with trace.receipt(to="disk"):
            trace.info("m")
        trace.info("after")
    back = Remote()
    async with Trace("r", sinks=[(back, LaneOptions())]) as trace:
        trace.info("next")
    assert back.messages == ["before", "m", "after", "next"]
    assert len({(record.producer, record.seq) for record in back.records}) == len(back.records) == 8


@pytest.mark.parametrize("seed", range(4))
async def test_receipts_to_disk_while_the_sink_comes_and_goes(state: Path, seed: int) -> None:
    chance = random.Random(seed)
    away = chance.choice([Remote, Hung])(up=False)
    options = LaneOptions(
        max_records=16, short=16, high_water=64, when_full="spill", retry=RetryPolicy(base=0.01)
    )
    emitted = 0
    async with Trace("r", sinks=[(away, options)]) as trace:
        for _ in range(8):
            away.up = chance.random() < 0.4
            async with trace.receipt(to="disk") as receipt:
                for _ in range(chance.randrange(1, 60)):
                    trace.info(f"m{emitted}")
                    emitted += 1
                    if chance.random() < 0.1:
                        await asyncio.sleep(0.001)
            (lane,) = receipt.lanes
            assert lane.safe + lane.spooled == receipt.records
            assert trace.pipeline.stats().balanced
        away.up = True
        async with trace.receipt(to="sink"):
            trace.info(f"m{emitted}")
    assert away.messages == [f"m{i}" for i in range(emitted + 1)]
    assert trace.pipeline.stats().balanced


async def test_a_lane_without_a_disk_has_nowhere_to_put_them() -> None:
    away = Remote(up=False)
    async with Trace("r", sinks=[(away, replace(QUICK, spool_max_bytes=0))]) as trace:
        with undelivered() as caught:
            async with trace.receipt(to="disk", timeout=1.0):
                trace.info("m")
        assert failures(caught.value) == [("remote", "TransientSinkError: nobody there", 1)]
        away.up = True


async def test_what_goes_to_the_disk_when_the_lane_ends_is_told(state: Path) -> None:
    away = Remote(up=False)
    with undelivered() as caught:
        async with asynctrace.current_trace().receipt(), Trace("r", sinks=[(away, SPILLS)]) as trace:
            trace.info("m")
    assert failures(caught.value) == [("remote", "waits on disk: TransientSinkError: nobody there", 3)]
    async with (
        asynctrace.current_trace().receipt(to="disk") as receipt,
        Trace("r", sinks=[(away, SPILLS)]) as trace,
    ):
        trace.info("m")
    assert counts(receipt) == {"remote": (0, 3, 0, 0)}


async def test_what_is_given_up_when_the_lane_ends_is_lost() -> None:
    hung = GateSink()
    with undelivered() as caught:
        async with asynctrace.current_trace().receipt():
            trace = Trace("r", sinks=[(hung, QUICK)])
            async with trace:
                trace.info("m")
                await trace.aclose(0.1)
    assert failures(caught.value) == [("gate", "not delivered in time", 3)]


async def test_retries_halves_and_rests_are_all_waited_for() -> None:
    def again(batch: Batch) -> Exception:
        return PartialWriteError([Rejection(i, "busy", retryable=True) for i in range(0, len(batch), 2)])

    script: list[Outcome] = [
        TransientSinkError("away"),
        BatchTooLargeError("large"),
        again,
        OSError("reset"),
        again,
    ]
    sink = ScriptedSink(script)
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        async with trace.receipt() as receipt:
            for i in range(100):
                trace.info(f"m{i}")
        assert counts(receipt) == {"scripted": (100, 0, 0, 0)}
        assert sorted(sink.messages) == sorted(f"m{i}" for i in range(100))


@pytest.mark.parametrize("seed", range(5))
async def test_whatever_sinks_do_the_receipt_and_the_store_agree(seed: int) -> None:
    chance = random.Random(seed)

    def outcome(batch: Batch) -> Exception | None:
        indices = chance.sample(range(len(batch)), len(batch) // 3)
        return chance.choice(
            [
                None,
                TransientSinkError("away"),
                BatchTooLargeError("large"),
                PermanentSinkError("no"),
                ValueError("surprise"),
                PartialWriteError([Rejection(i, "x", chance.random() < 0.5) for i in indices]),
            ]
        )

    sinks = [ScriptedSink([outcome] * 300) for _ in range(2)]
    small = replace(QUICK, capacity=60, high_water=20, patience=0.001)
    lanes = [(sinks[0], replace(small, when_full="drop_oldest")), (sinks[1], small)]
    async with Trace("r", sinks=lanes) as trace:
        for turn in range(10):
            told: tuple[asynctrace.LaneFailure, ...] = ()
            try:
                async with trace.receipt() as receipt:
                    for i in range(chance.randrange(1, 100)):
                        trace.info(f"{turn} {i}")
            except DeliveryError as error:
                told = error.failures
            for lane, sink in zip(receipt.lanes, sinks, strict=True):
                stored = [message for message in sink.messages if message.startswith(f"{turn} ")]
                assert lane.safe == len(stored) == len(set(stored))
                assert lane.safe + lane.lost == receipt.records
                assert lane.lost == sum(failure.records for failure in told if failure.lane == lane.lane)
                assert lane.pending == lane.spooled == 0


# -- exceptions and cancellations ----------------------------------------------------------------------------


async def test_an_exception_of_the_block_is_not_masked(caplog: pytest.LogCaptureFixture) -> None:
    sink = ScriptedSink([PermanentSinkError("no such table")] * 10)
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        receipt = trace.receipt()

        async def work() -> None:
            async with receipt:
                trace.info("m")
                raise KeyError("mine")

        with caplog.at_level(logging.ERROR, "asynctrace"), pytest.raises(KeyError, match="mine"):
            await work()
        assert [failure.records for failure in receipt.failures] == [1], "it has waited all the same"
        assert any(
            "a block failed, and: scripted: 1 record" in record.getMessage() for record in caplog.records
        )


async def test_a_cancelled_block_is_left_at_once() -> None:
    gate = GateSink()
    async with Trace("r", sinks=[(gate, QUICK)]) as trace:

        async def work() -> None:
            async with trace.receipt(timeout=None):
                trace.info("m")
                await asyncio.Event().wait()

        task = asyncio.create_task(work())
        await auntil(gate.waiting.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        gate.gate.set()
    assert gate.messages == ["m"], "nobody waited, but nothing is lost"


async def test_a_cancellation_ends_the_waiting() -> None:
    gate = GateSink()
    async with Trace("r", sinks=[(gate, QUICK)]) as trace:

        async def work() -> None:
            async with trace.receipt(timeout=None):
                trace.info("m")

        task = asyncio.create_task(work())
        await auntil(gate.waiting.is_set)
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asyncio.wait_for(task, 10)
        gate.gate.set()
    assert gate.messages == ["m"]


async def test_left_in_another_context_than_entered() -> None:
    sink = ScriptedSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        receipt = trace.receipt()
        await asyncio.create_task(receipt.__aenter__())
        trace.info("not in its context")
        await asyncio.create_task(receipt.__aexit__(None, None, None))
        assert receipt.records == 0
        async with trace.receipt() as fine:
            trace.info("m")
        assert fine.records == 1


# -- without an event loop -----------------------------------------------------------------------------------


def test_in_plain_code_and_in_threads() -> None:
    sink = ScriptedSink()
    with Trace("r", sinks=[(sink, QUICK)]) as trace:
        with trace.receipt() as receipt:
            trace.info("m")
            thread = threading.Thread(target=trace.info, args=("carries no context",))
            thread.start()
            thread.join()
        assert receipt.records == 1
        assert "m" in sink.messages

        def work() -> None:
            with trace.receipt() as own:
                trace.info("own")
            receipts.append(own.records)

        receipts: list[int] = []
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert receipts == [1] * 8


def test_a_sync_receipt_times_out() -> None:
    gate = GateSink()
    with Trace("r", sinks=[(gate, QUICK)]) as trace:
        with undelivered() as caught, trace.receipt(timeout=0.1):
            trace.info("m")
        assert failures(caught.value) == [("gate", "not delivered in time", 1)]
        gate.gate.set()


async def test_from_another_thread_while_the_home_loop_runs() -> None:
    sink = ScriptedSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:

        def work() -> int:
            with trace.receipt() as receipt:
                trace.info("m")
            return receipt.records

        assert await asyncio.to_thread(work) == 1


async def test_on_the_home_loop_it_would_wait_for_itself_and_is_refused() -> None:
    async with Trace("r", sinks=[(ScriptedSink(), QUICK)]) as trace:
        with pytest.raises(ConfigurationError, match="async with"), trace.receipt():
            pass
        with trace.bind(a=1).span("s"), pytest.raises(ConfigurationError):
            trace.bind(a=1).receipt().__enter__()


async def test_a_sync_receipt_around_a_run_of_this_loop_says_that_it_cannot_know() -> None:
    asynctrace.configure(MemorySink())
    gate = GateSink()
    trace = Trace("r", sinks=[(gate, QUICK)])
    with undelivered() as caught, asynctrace.get_trace("other").receipt():
        await trace.__aenter__()
        trace.info("m")
    assert failures(caught.value) == [("gate", "not delivered in time", 2)]
    gate.gate.set()
    await trace.__aexit__(None, None, None)


def test_the_loop_is_closed_under_us(new_loop: NewLoop) -> None:
    sink = MemorySink()
    loop = new_loop()
    trace = Trace("r", sinks=[sink])
    loop.run_until_complete(trace.__aenter__())
    with trace.receipt() as receipt:
        trace.info("while it stands still")
        type(loop).close(loop)  # past the hook that we put on the instance
        trace.info("after it was closed")
    assert receipt.records == 2
    assert counts(receipt) == {"memory": (2, 0, 0, 0)}
    trace.close()


# -- misuse --------------------------------------------------------------------------------------------------


def test_it_is_used_once() -> None:
    with Trace("r", sinks=["memory:"]) as trace:
        receipt = trace.receipt()
        with receipt:
            pass
        with pytest.raises(ClosedError), receipt:
            pass


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"to": "moon"}, "to: 'moon' cannot be used; allowed: sink or disk"),
        ({"timeout": 0}, "timeout: 0 cannot be used; allowed: a number of seconds above 0, or None"),
        ({"timeout": -1.0}, "timeout: -1.0"),
        ({"timeout": float("nan")}, "timeout: nan"),
    ],
)
def test_bad_arguments(arguments: dict[str, object], message: str) -> None:
    with Trace("r", sinks=["memory:"]) as trace, pytest.raises(ConfigurationError) as caught:
        trace.receipt(**arguments)  # type: ignore[arg-type]
    assert message in str(caught.value)


def test_where_nothing_is_recorded_there_is_nothing_to_wait_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_ENABLED", "false")
    with Trace("r", sinks=[GateSink()]) as trace:
        with trace.receipt(timeout=None) as receipt:
            trace.info("m")
        assert receipt.records == 0


def test_before_it_is_entered_it_says_nothing() -> None:
    with Trace("r", sinks=["memory:"]) as trace:
        receipt = trace.receipt(to="disk")
        assert (receipt.records, receipt.lanes, receipt.failures) == (0, (), ())
        assert repr(receipt) == "<Receipt to disk: 0 records>"
