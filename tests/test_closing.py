"""How lanes end: a write that is going on is not sent again, no lane waits for another, no sink holds the end back."""

import asyncio
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import loop_kit
import pytest
from lane_kit import DEADLINE, QUICK, ScriptedSink, auntil, until
from loop_kit import NewLoop

import asynctrace
from asynctrace import Batch, Trace
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
anyio_backend = loop_kit.either_loop
new_loop = loop_kit.new_loop


def run(main: Callable[[], object], new_loop: NewLoop) -> None:
    with asyncio.Runner(loop_factory=new_loop) as runner:
        runner.run(main())  # type: ignore[arg-type]


# -- a write that is going on --------------------------------------------------------------------------------


class Keyless(ScriptedSink):
    """Has the records as soon as it is given them, answers later, and would take them a second time."""

    def __init__(self) -> None:
        super().__init__()
        self.given = threading.Event()
        self.broken_off = 0

    async def write(self, batch: Batch) -> None:
        await super().write(batch)
        self.given.set()
        try:
            await asyncio.sleep(0.1)
        except asyncio.CancelledError:
            self.broken_off += 1
            raise

    def check(self, *messages: str) -> None:
        assert self.messages == list(messages)
        numbers = [record.seq for record in self.records]
        assert numbers == list(range(1, len(numbers) + 1))
        assert self.broken_off == 0


def test_leaving_a_block_lets_a_write_end(new_loop: NewLoop) -> None:
    sink = Keyless()
    with Trace("r", sinks=[(sink, QUICK)]) as trace:
        trace.info("m")
        until(sink.given.is_set)
    sink.check("m")
    sink = Keyless()

    async def main() -> None:
        async with Trace("r", sinks=[(sink, QUICK)]) as trace:
            trace.info("m")
            await auntil(sink.given.is_set)

    run(main, new_loop)
    sink.check("m")


def test_shutdown_lets_a_write_end() -> None:
    sink = Keyless()
    asynctrace.configure((sink, QUICK))
    trace = asynctrace.get_trace("r")
    trace.info("m")
    until(sink.given.is_set)
    asynctrace.shutdown()
    sink.check("m")


def test_the_end_of_a_loop_lets_a_write_end(new_loop: NewLoop) -> None:
    sink = Keyless()
    trace = Trace("r", sinks=[(sink, QUICK)])

    async def main() -> None:
        await trace.__aenter__()
        trace.info("m")
        await auntil(sink.given.is_set)

    run(main, new_loop)
    sink.check("m")
    trace.close()
    sink.check("m")


def test_who_cancels_all_tasks_breaks_off_no_write(new_loop: NewLoop) -> None:
    sink = Keyless()

    async def main() -> None:
        async with Trace("r", sinks=[(sink, QUICK)]) as trace:
            trace.info("m0")
            await auntil(sink.given.is_set)
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
            trace.info("m1")
            await trace.aflush()

    run(main, new_loop)
    sink.check("m0", "m1")


def test_taking_out_a_sink_lets_a_write_end() -> None:
    sink = Keyless()
    removed = threading.Event()
    with Trace("r", sinks=[(sink, QUICK), MemorySink()]) as trace:

        def flow() -> None:
            while not removed.is_set():
                trace.info("m")
                time.sleep(0.001)

        flowing = threading.Thread(target=flow)
        flowing.start()
        until(sink.given.is_set)
        trace.remove_sink(sink)
        removed.set()
        flowing.join()
        assert sink.closed == 1
        sink.check(*["m"] * (len(sink.records) - 1))


def test_a_sink_that_is_being_taken_out_when_its_loop_ends(new_loop: NewLoop) -> None:
    sink = Keyless()
    taking_out: list[asyncio.Task[None]] = []

    async def main() -> None:
        trace = Trace("r", sinks=[(sink, QUICK), MemorySink()])
        await trace.__aenter__()
        trace.info("m")
        await trace.aflush()
        trace.info("n")
        sink.given.clear()
        await auntil(sink.given.is_set)
        taking_out.append(asyncio.create_task(trace.aremove_sink(sink)))
        await asyncio.sleep(0)

    run(main, new_loop)
    sink.check("m", "n")


# -- a sink that does not end --------------------------------------------------------------------------------


class Stubborn(ScriptedSink):
    """Swallows that many cancellations, then takes its time to end."""

    def __init__(self, swallows: int) -> None:
        super().__init__()
        self.swallows = swallows
        self.released = threading.Event()

    async def write(self, batch: Batch) -> None:
        while self.swallows:
            try:
                await self._hang()
                return
            except asyncio.CancelledError:
                self.swallows -= 1
        try:
            await self._hang()
        finally:
            await self._hang()

    async def _hang(self) -> None:
        while not self.released.is_set():  # noqa: ASYNC110  # released from other threads
            await asyncio.sleep(0.01)


class Steady(ScriptedSink):
    """Healthy, and so slow that there is a lot to deliver yet when the pipeline closes."""

    async def write(self, batch: Batch) -> None:
        await asyncio.sleep(0.01)
        await super().write(batch)


@pytest.mark.parametrize("swallows", [0, 1, 1_000_000])
async def test_a_lane_delivers_beside_one_that_does_not_end(swallows: int) -> None:
    stubborn, steady = Stubborn(swallows), Steady()
    options = replace(QUICK, max_records=16, short=16)
    async with Trace("r", sinks=[(stubborn, QUICK), (steady, options)]) as trace:
        pipeline = trace.pipeline
        for i in range(500):
            trace.info(f"m{i}")
        await auntil(lambda: pipeline.stats().queued == 0)
        await trace.aclose(timeout=2.0)
    assert steady.messages == [f"m{i}" for i in range(500)]
    left, served = pipeline.stats().lanes
    assert left.dropped == {"not delivered in time": 502}
    assert (served.delivered, served.lost, served.spooled) == (502, 0, 0)
    stubborn.released.set()


@pytest.mark.parametrize("swallows", [3, 1_000_000])
@pytest.mark.parametrize("closes", [True, False])
def test_a_sink_that_swallows_cancellations_does_not_hold_back_the_end_of_a_loop(
    swallows: int, closes: bool, new_loop: NewLoop
) -> None:
    sink = Stubborn(swallows)
    trace = Trace("r", sinks=[(sink, QUICK)])

    async def main() -> None:
        await trace.__aenter__()
        trace.pipeline.close_timeout = 0.2
        trace.info("m")
        await asyncio.sleep(0.05)
        if closes:
            await trace.aclose()

    rescue = threading.Timer(DEADLINE, sink.released.set)  # else a loop that waits would wait for ever
    rescue.start()
    run(main, new_loop)
    assert not sink.released.is_set()
    rescue.cancel()
    assert trace.pipeline.stats().lanes[0].delivered == 0
    trace.close()


# -- a sink that raises what is no error ---------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), BaseException("odd")], ids=repr
)
@pytest.mark.parametrize("where", ["open", "write", "aclose"])
def test_whatever_a_sink_raises_is_a_surprise(error: BaseException, where: str, new_loop: NewLoop) -> None:
    class Odd(ScriptedSink):
        async def open(self) -> None:
            self.raise_in("open")

        async def write(self, batch: Batch) -> None:
            self.raise_in("write")
            await super().write(batch)

        async def aclose(self) -> None:
            self.raise_in("aclose")

        def raise_in(self, here: str) -> None:
            if here == where:
                raise error

    odd, healthy = Odd(), ScriptedSink()

    async def main() -> None:
        async with Trace("r", sinks=[(odd, replace(QUICK, surprises=2)), (healthy, QUICK)]) as trace:
            pipelines.append(trace.pipeline)
            trace.info("m")
            await trace.aflush()

    pipelines: list[asynctrace.Pipeline] = []
    run(main, new_loop)
    assert healthy.messages == ["m"]
    lane = pipelines[0].stats().lanes[0]
    assert lane.balanced
    if where == "aclose":
        assert odd.messages == ["m"]
    else:
        assert lane.dead == 3
        assert lane.last_error == f"EscapedError: the sink raised {error!r}"
