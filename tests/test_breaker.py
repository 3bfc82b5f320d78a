"""When a destination that is away is left alone: the decision with a clock passed in, and a lane that obeys it."""

import asyncio
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from lane_kit import QUICK, Remote, ScriptedSink, auntil

import asynctrace
from asynctrace import (
    Batch,
    BatchTooLargeError,
    ConfigurationError,
    LaneOptions,
    LaneStats,
    PartialWriteError,
    PermanentSinkError,
    Rejection,
    RetryPolicy,
    Trace,
    TransientSinkError,
)
from asynctrace.pipeline.breaker import SCATTER, CircuitBreaker
from asynctrace.pipeline.options import LOCAL, REMOTE
from asynctrace.sinks.memory import MemorySink
from asynctrace.testing import ManualClock


def breaker(clock: ManualClock, failures: int | None = 3, **how: Any) -> CircuitBreaker:
    return CircuitBreaker(failures, 30.0, now=clock.monotonic, uniform=min, **how)


# -- the decision --------------------------------------------------------------------------------------------


def test_it_opens_after_so_many_failures_in_a_row_and_not_before() -> None:
    one = breaker(ManualClock())
    for expected in ("closed", "closed", "open"):
        assert one.wait() == 0.0
        one.failed()
        assert one.state == expected


def test_an_answer_in_between_begins_the_count_anew() -> None:
    one = breaker(ManualClock())
    for _ in range(10):
        one.failed()
        one.failed()
        one.answered()
    assert one.state == "closed"


def test_while_it_is_open_nothing_is_tried_and_then_exactly_one_probe() -> None:
    clock = ManualClock()
    one = breaker(clock, failures=1)
    one.failed()
    assert one.wait() == 30.0
    clock.advance(29.0)
    assert (one.wait(), one.state) == (1.0, "open")
    clock.advance(1.0)
    assert one.state == "half-open"
    assert one.wait() == 0.0, "the probe"
    assert one.wait() > 0.0, "and no second one while it is on its way"
    clock.advance(3_600.0)
    assert one.wait() > 0.0, "however long it takes"
    assert one.state == "half-open"


def test_the_probe_decides() -> None:
    clock = ManualClock()
    one = breaker(clock)
    for _ in range(3):
        one.failed()
    clock.advance(30.0)
    assert one.wait() == 0.0
    one.failed()
    assert (one.state, one.wait()) == ("open", 30.0), "one failure is enough now"
    clock.advance(30.0)
    assert one.wait() == 0.0
    one.answered()
    assert (one.state, one.wait()) == ("closed", 0.0)
    one.failed()
    assert one.state == "closed", "the count is anew, too"


def test_a_probe_that_is_broken_off_lets_the_next_one_through() -> None:
    clock = ManualClock()
    one = breaker(clock, failures=1)
    one.failed()
    clock.advance(30.0)
    assert one.wait() == 0.0
    one.broken_off()
    assert one.wait() == 0.0
    one.answered()
    assert one.state == "closed"


def test_it_stays_open_as_long_as_the_destination_asks() -> None:
    one = breaker(ManualClock(), failures=1)
    one.failed(retry_after=600.0)
    assert one.wait() == 600.0
    other = breaker(ManualClock(), failures=1)
    other.failed(retry_after=1.0)
    assert other.wait() == 30.0


def test_processes_do_not_probe_in_step() -> None:
    waits = set()
    for _ in range(20):
        one = CircuitBreaker(1, 30.0, now=ManualClock().monotonic)
        one.failed()
        waits.add(one.wait())
    assert len(waits) == 20
    assert all(30.0 <= wait <= 30.0 * (1 + SCATTER) for wait in waits)


def test_half_open_before_its_time_lets_one_probe_through() -> None:
    clock = ManualClock()
    one = breaker(clock, failures=1)
    one.half_open()
    assert one.state == "closed", "there is nothing to open"
    one.failed()
    one.half_open()
    assert (one.state, one.wait()) == ("half-open", 0.0)
    one.failed()
    assert one.state == "open"


def test_without_a_number_it_never_opens() -> None:
    one = breaker(ManualClock(), failures=None)
    for _ in range(10_000):
        one.failed()
    assert (one.state, one.wait()) == ("closed", 0.0)


# -- the options ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "allowed"),
    [
        (
            {"breaker_failures": 0},
            "LaneOptions.breaker_failures: 0 cannot be used; allowed: a whole number above 0",
        ),
        ({"breaker_failures": 2.5}, "breaker_failures: 2.5"),
        (
            {"breaker_cooldown": 0.0},
            "breaker_cooldown: 0.0 cannot be used; allowed: a number of seconds above 0",
        ),
        ({"breaker_cooldown": float("nan")}, "breaker_cooldown: nan"),
        (
            {"write_timeout": 0},
            "write_timeout: 0 cannot be used; allowed: a number of seconds above 0, or None",
        ),
        ({"write_timeout": "60"}, "write_timeout: '60'"),
        (
            {"when_full": "block"},
            "when_full: 'block' cannot be used; allowed: wait, spill, drop_oldest, drop_newest",
        ),
        ({"capacity": 0}, "capacity: 0"),
        ({"retry": 5}, "retry: 5 cannot be used; allowed: a RetryPolicy"),
        ({"linger": -1.0}, r"linger: -1\.0"),
        ({"admit": "errors"}, "admit: 'errors' cannot be used; allowed: a callable, or None"),
    ],
)
def test_a_wrong_option_is_an_error_at_once(wrong: dict[str, Any], allowed: str) -> None:
    with pytest.raises(ConfigurationError, match=allowed):
        LaneOptions(**wrong)


@pytest.mark.parametrize(
    "wrong", [{"attempts": 0}, {"base": -1.0}, {"ceiling": "30"}, {"total": 0}, {"total": float("nan")}]
)
def test_a_wrong_retry_policy_is_an_error_at_once(wrong: dict[str, Any]) -> None:
    (name,) = wrong
    with pytest.raises(ConfigurationError, match=f"RetryPolicy.{name}"):
        RetryPolicy(**wrong)


def test_remote_lanes_have_one_and_local_lanes_have_none() -> None:
    assert REMOTE.breaker_failures is not None
    assert LOCAL.breaker_failures is None


# -- a lane with one -----------------------------------------------------------------------------------------

OPENS = replace(QUICK, breaker_failures=3, breaker_cooldown=3_600.0)


def page(trace: Trace) -> LaneStats:
    return trace.pipeline.stats().lanes[0]


@pytest.mark.anyio
async def test_an_open_lane_tries_nothing_not_even_for_a_flush() -> None:
    sink = Remote(up=False)
    async with Trace("r", sinks=[(sink, OPENS)]) as trace:
        await auntil(lambda: page(trace).breaker == "open")
        for i in range(20):
            trace.info(f"m{i}")
            await trace.aflush(0.001)
        assert len(sink.sizes) == 3
        assert page(trace).pending == 21, "they wait"
        await trace.aclose(0.1)
        assert len(sink.sizes) == 4, "closing has one last probe"


@pytest.mark.anyio
async def test_closing_an_open_lane_does_not_wait_for_nothing_and_spools(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "60")
    started = time.monotonic()
    async with Trace("r", sinks=[(Remote(up=False), OPENS)]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        await auntil(lambda: page(trace).breaker == "open")
    assert time.monotonic() - started < 30
    (lane,) = pipeline.stats().lanes
    assert (lane.spooled, lane.lost) == (3, 0)
    assert lane.balanced


@pytest.mark.anyio
async def test_the_last_probe_delivers_when_the_destination_is_back() -> None:
    sink = Remote(up=False)
    async with Trace("r", sinks=[(sink, replace(OPENS, max_records=2, short=2))]) as trace:
        pipeline = trace.pipeline
        await auntil(lambda: page(trace).breaker == "open")
        for i in range(20):
            trace.info(f"m{i}")
        sink.up, sink.script = True, []
    (lane,) = pipeline.stats().lanes
    assert sink.messages == [f"m{i}" for i in range(20)], "all that waited, for the probe closed the breaker"
    assert (lane.breaker, lane.lost) == ("closed", 0)


@pytest.mark.anyio
async def test_it_half_opens_by_itself_and_nothing_is_lost() -> None:
    states: list[str] = []
    sink = Remote(up=False)
    async with Trace("r", sinks=[(sink, replace(OPENS, breaker_cooldown=0.01))]) as trace:
        trace.info("m")
        await auntil(lambda: states.append(page(trace).breaker) or len(sink.sizes) > 6)
        sink.up, sink.script = True, []
        await auntil(lambda: page(trace).breaker == "closed")
        await trace.aflush()
        assert sink.messages == ["m"]
    assert "open" in states


@pytest.mark.anyio
@pytest.mark.parametrize("kind", ["too large", "rejected", "permanent"])
async def test_a_destination_that_answers_is_not_away(kind: str) -> None:
    answers = {
        "too large": BatchTooLargeError("413"),
        "rejected": PartialWriteError([Rejection(0, "no")]),
        "permanent": PermanentSinkError("no such table"),
    }
    sink = ScriptedSink([TransientSinkError("1"), TransientSinkError("2"), answers[kind]] * 20)
    async with Trace("r", sinks=[(sink, replace(OPENS, max_records=4, short=4))]) as trace:
        for i in range(20):
            trace.info(f"m{i}")
        await trace.aflush()
        assert page(trace).breaker == "closed"
        assert page(trace).pending == 0


@pytest.mark.anyio
async def test_writes_that_hang_open_it_as_well() -> None:
    class Hung(ScriptedSink):
        async def write(self, batch: Batch) -> None:
            self.sizes.append(len(batch))
            await asyncio.Event().wait()

    sink = Hung()
    async with Trace("r", sinks=[(sink, replace(OPENS, write_timeout=0.01))]) as trace:
        await auntil(lambda: page(trace).breaker == "open")
        assert len(sink.sizes) == 3
        await trace.aclose(0.1)


@pytest.mark.anyio
async def test_a_probe_that_the_end_of_its_loop_cuts_off_is_not_the_last(tmp_path: Path) -> None:
    """Its home is gone, and the next one has to try again."""

    class HungOnce(MemorySink):
        hangs = True

        async def write(self, batch: Batch) -> None:
            if self.hangs:
                await asyncio.Event().wait()
            await super().write(batch)

    sink = HungOnce()
    options = replace(OPENS, breaker_failures=1, breaker_cooldown=0.01, write_timeout=0.01)
    loop = asyncio.new_event_loop()
    trace = Trace("r", sinks=[(sink, options)])

    async def hang() -> None:
        await trace.__aenter__()
        await auntil(lambda: page(trace).breaker == "half-open")

    await asyncio.to_thread(loop.run_until_complete, hang())
    sink.hangs = False
    await asyncio.to_thread(loop.close)
    await auntil(lambda: len(sink.records) == 1)
    await asyncio.to_thread(trace.close)
    assert len(sink.records) == 2


@pytest.mark.anyio
async def test_a_local_store_with_one_still_gets_its_last_write() -> None:
    class Locked(MemorySink):
        async def write(self, batch: Batch) -> None:
            raise TransientSinkError("locked")

    sink = Locked()
    async with Trace("r", sinks=[(sink, OPENS)]) as trace:
        pipeline = trace.pipeline
        trace.info("m")
        await auntil(lambda: page(trace).breaker == "open")
        await trace.aclose(0.1)
    (lane,) = pipeline.stats().lanes
    assert (lane.delivered, lane.lost) == (3, 0)


@pytest.mark.anyio
async def test_the_state_is_told_to_those_who_watch() -> None:
    async with Trace("r", sinks=[(Remote(up=False), OPENS)]) as trace:
        await auntil(lambda: page(trace).breaker == "open")
        text = asynctrace.to_prometheus(trace.pipeline.stats())
        assert 'lane="remote",state="open"} 1' in text
        assert 'lane="remote",state="closed"} 0' in text
        await trace.aclose(0.1)
