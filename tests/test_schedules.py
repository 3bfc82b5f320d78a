"""Random schedules of emits, faults, restarts, cancels and ends: the ledger balances, the stores hold what it says.

A few hundred in each run; 10,000 with ``LONG_RUNS=1`` (``nox -s long``).
"""

from __future__ import annotations

import asyncio
import gc
import os
import resource
import shutil
import signal
import tempfile
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from lane_kit import until
from schedule_kit import (
    Key,
    LocalStore,
    LoopWorker,
    SkippedTime,
    SkippingLoop,
    Store,
    end_loop,
    run_on,
    skipped_time,
)

import asynctrace
from asynctrace import (
    DeliveryError,
    Kind,
    LaneOptions,
    LaneStats,
    Level,
    Pipeline,
    RetryPolicy,
    Trace,
    Verdict,
    averify,
)
from asynctrace.testing import faults

LONG = bool(os.environ.get("LONG_RUNS"))
SCHEDULES = 10_000 if LONG else 300

pytestmark = pytest.mark.timeout(3 * 3600 if LONG else 240)

# -- what may happen -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Emit:
    """So many records, one way or another."""

    count: int
    how: Literal["info", "ainfo", "span", "threads"]
    level: Level = Level.INFO


@dataclass(frozen=True)
class Fail:
    """The next writes to that store go like this."""

    store: int
    steps: tuple[faults.Fault, ...]


@dataclass(frozen=True)
class Turn:
    """From now on, writes to that store go like this."""

    store: int
    weather: faults.Fault


@dataclass(frozen=True)
class Wait:
    """Time passes."""

    seconds: float


@dataclass(frozen=True)
class Flush:
    """A flush, left alone, given a deadline, or cancelled."""

    timeout: float
    cancel_after: float | None = None


@dataclass(frozen=True)
class Receipt:
    """A block that ends when its records are safe, or with an error."""

    count: int
    to: Literal["sink", "disk"]
    timeout: float


@dataclass(frozen=True)
class CancelAll:
    """Somebody cancels every task of the loop but his own."""


@dataclass(frozen=True)
class Plug:
    """The last store is taken out, or put in again; whoever takes it out may be cancelled."""

    cancelled: bool = False


@dataclass(frozen=True)
class Disk:
    """The disk of the state directory is full, or has room again."""

    full: bool


@dataclass(frozen=True)
class Close:
    """The run ends in good order, however often the closing is cancelled."""

    timeout: float
    cancels: int = 0


@dataclass(frozen=True)
class Leave:
    """The loop ends, and nobody has closed anything, or only afterwards."""

    how: Literal["run", "bare", "standing"]


Op = Emit | Fail | Turn | Wait | Flush | Receipt | CancelAll | Plug | Disk


@dataclass(frozen=True)
class Life:
    """From one start to the next."""

    ops: tuple[Op, ...]
    end: Close | Leave


@dataclass(frozen=True)
class Setup:
    """Which stores, and how they are delivered to."""

    lanes: tuple[tuple[bool, LaneOptions], ...]  # whether it is a local one
    queue_size: int = 1_000_000
    disk_seconds: float = 0.0
    disk_fails: bool = True  # when the schedule says so
    durability: Literal["process"] | None = None


fault = st.one_of(
    st.just(faults.Fine()),
    st.builds(faults.Slow, st.sampled_from([0.01, 0.3, 2.0])),
    st.just(faults.Hang()),
    st.just(faults.Away()),
    st.builds(faults.RateLimited, st.sampled_from([None, 0.05, 3.0])),
    st.builds(faults.TooLarge, st.sampled_from([0, 1, 3])),
    st.just(faults.Refused()),
    st.builds(faults.Partial, st.integers(0, 3), st.integers(0, 9), retryable=st.booleans()),
    st.builds(faults.DiskFull, st.sampled_from([0, 2])),
    st.builds(faults.Crash, st.sampled_from([0, 2, None])),
    st.just(faults.Surprise()),
)  # fmt: skip
weather = st.sampled_from([faults.Fine(), faults.Away(), faults.Hang(), faults.Slow(0.2), faults.Fine()])
store = st.integers(0, 2)
levels = st.sampled_from([Level.DEBUG, Level.INFO, Level.INFO, Level.ERROR])
emit = st.builds(
    Emit, st.integers(1, 60), st.sampled_from(["info", "info", "ainfo", "span", "threads"]), levels
)
op = st.one_of(
    emit,
    emit,
    st.builds(Fail, store, st.lists(fault, min_size=1, max_size=4).map(tuple)),
    st.builds(Turn, store, weather),
    st.builds(Wait, st.sampled_from([0.0, 0.004, 0.1, 1.5, 20.0])),
    st.builds(Flush, st.sampled_from([0.0, 0.1, 5.0]), st.sampled_from([None, None, 0.0, 0.05])),
    st.builds(
        Receipt, st.integers(1, 30), st.sampled_from(["sink", "sink", "disk"]), st.sampled_from([0.1, 5.0])
    ),
    st.just(CancelAll()),
    st.builds(Plug, st.booleans()),
    st.builds(Disk, st.booleans()),
)
end = st.one_of(
    st.builds(Close, st.sampled_from([0.05, 1.0, 5.0]), st.sampled_from([0, 0, 1, 3])),
    st.builds(Close, st.sampled_from([0.05, 1.0, 5.0]), st.sampled_from([0, 0, 1, 3])),
    st.builds(Leave, st.sampled_from(["run", "run", "run", "bare", "standing"])),
)
life = st.builds(Life, st.lists(op, max_size=8).map(tuple), end)


@st.composite
def options(draw: st.DrawFn) -> LaneOptions:
    tiny = draw(st.booleans())
    return LaneOptions(
        linger=draw(st.sampled_from([0.0, 0.0, 0.5])),
        trigger=draw(st.sampled_from([1, 10])),
        max_records=draw(st.sampled_from([1, 7, 16, 1024])),
        short=draw(st.sampled_from([3, 250])),
        write_timeout=draw(st.sampled_from([0.1, 5.0])),
        high_water=draw(st.sampled_from([None, 1, 8])) if tiny else None,
        capacity=draw(st.sampled_from([10, 40])) if tiny else 100_000,
        when_full=draw(st.sampled_from(["wait", "spill", "spill", "drop_oldest", "drop_newest"])),
        patience=draw(st.sampled_from([0.0, 0.25])),
        retry=RetryPolicy(
            base=0.01,
            ceiling=draw(st.sampled_from([0.05, 1.0])),
            attempts=draw(st.sampled_from([None, None, 3])),
            total=draw(st.sampled_from([None, None, 2.0])),
        ),
        level=draw(st.sampled_from([None, None, None, Level.INFO])),
        mark_every=draw(st.sampled_from([1, 5, 10_000])),
        spool_max_bytes=draw(st.sampled_from([0, 8_000, 1 << 28, 1 << 28])),
    )


setups = st.builds(
    Setup,
    st.lists(st.tuples(st.booleans(), options()), min_size=1, max_size=3).map(tuple),
    st.sampled_from([20, 1_000_000, 1_000_000]),
    st.sampled_from([0.0, 0.0, 0.02, 1.0]),
    st.sampled_from([False, False, True]),
    st.sampled_from([None, None, "process"]),
)

# -- how it happens ------------------------------------------------------------------------------------------


@contextmanager
def full_disk_allowed() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def fill_disk(full: bool) -> None:
    """No file grows any more: what the kernel then answers is an error as of a full disk."""
    _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 if full else most, most))


@dataclass
class Lives:
    """Goes through a schedule and keeps the pages of the ledger."""

    setup: Setup
    clock: SkippedTime
    stores: list[Store] = field(default_factory=list)
    pipelines: list[Pipeline] = field(default_factory=list)
    open_traces: list[Trace] = field(default_factory=list)
    standing: list[SkippingLoop] = field(default_factory=list)
    called: int = 0
    one_by_one: bool = True  # each life closed before the next began
    disk_was_full: bool = False
    plugged: bool = False  # whether a store was ever taken out: its page of the ledger goes with it

    def __post_init__(self) -> None:
        for number, (is_local, _) in enumerate(self.setup.lanes):
            self.stores.append((LocalStore if is_local else Store)(f"store-{number}"))

    def lanes(self) -> list[tuple[Any, LaneOptions]]:
        return [(store, options) for store, (_, options) in zip(self.stores, self.setup.lanes, strict=True)]

    # -- one life

    def live(self, life: Life) -> None:
        loop = SkippingLoop(self.clock)
        try:
            run_on(loop, self._main(life))
            self._end(loop, life.end)
        finally:
            fill_disk(False)
            if isinstance(life.end, Leave) and life.end.how == "standing":
                self.standing.append(loop)
            else:
                loop.close()

    async def _main(self, life: Life) -> None:
        run_id = f"life-{len(self.pipelines)}"
        trace = Trace(run_id, sinks=self.lanes(), durability=self.setup.durability)
        await trace.__aenter__()
        self.pipelines.append(trace.pipeline)
        self.open_traces.append(trace)
        threads: list[threading.Thread] = []
        for op in life.ops:
            await self._do(op, trace, threads)
            self.check_pages(trace.pipeline)
        for thread in threads:
            thread.join()
        if isinstance(life.end, Close):
            self.open_traces.remove(trace)
            await _close(trace, life.end)
            assert trace.pipeline.closed
            for page in self.check_pages(trace.pipeline):
                assert page.pending == 0, f"closed, and nobody has them: {page}"

    async def _do(self, op: Op, trace: Trace, threads: list[threading.Thread]) -> None:
        match op:
            case Emit():
                await self._emit(op, trace, threads)
            case Fail(number, steps):
                self.stores[number % len(self.stores)].script.extend(steps)
            case Turn(number, now):
                self.stores[number % len(self.stores)].weather = now
            case Wait(seconds):
                await asyncio.sleep(seconds)
            case Flush(timeout, None):
                await trace.aflush(timeout)
            case Flush(timeout, after):
                flush = asyncio.ensure_future(trace.aflush(timeout))
                await asyncio.sleep(after or 0.0)
                flush.cancel()
                await asyncio.wait({flush})
            case Receipt():
                await self._receipt(op, trace)
            case CancelAll():
                for task in asyncio.all_tasks() - {asyncio.current_task()}:
                    task.cancel()
                await asyncio.sleep(0)
            case Plug(cancelled):
                await self._plug(trace, cancelled)
            case Disk(full):
                if self.setup.disk_fails:
                    fill_disk(full)
                    self.disk_was_full = self.disk_was_full or full

    async def _emit(self, op: Emit, trace: Trace, threads: list[threading.Thread]) -> None:
        numbers = range(self.called, self.called + op.count)
        self.called += op.count
        match op.how:
            case "info":
                for number in numbers:
                    _record(trace, op.level, number)
            case "ainfo":
                waiting = [asyncio.ensure_future(trace.ainfo(str(number))) for number in numbers]
                for task in waiting[::3]:  # the record is made by the call: nothing is lost with the wait
                    task.cancel()
                await asyncio.wait(waiting, timeout=30.0)
                for task in waiting:
                    task.cancel()
            case "span":
                with suppress(asyncio.CancelledError):
                    async with trace.span("work") as span:
                        for number in numbers:
                            _record(span, op.level, number)
                            await asyncio.sleep(0)
            case "threads":
                thread = threading.Thread(target=lambda: [_record(trace, op.level, n) for n in numbers])
                thread.start()
                threads.append(thread)

    async def _receipt(self, op: Receipt, trace: Trace) -> None:
        texts = [str(number) for number in range(self.called, self.called + op.count)]
        self.called += op.count
        with suppress(DeliveryError):
            async with trace.receipt(to=op.to, timeout=op.timeout):
                for text in texts:
                    trace.info(text)
            if op.to == "sink":
                for store in trace.sinks(Store):
                    missing = set(texts) - {record.message for record in store.memory.records}
                    assert not missing, f"a receipt for what {store} never got: {missing}"

    async def _plug(self, trace: Trace, cancelled: bool) -> None:
        self.plugged = True
        out = self.stores[-1]
        if out not in trace.sinks():
            trace.add_sink((out, self.setup.lanes[-1][1]))
            return
        taking_out = asyncio.ensure_future(trace.aremove_sink(out))
        if cancelled:
            await asyncio.sleep(0.01)
            taking_out.cancel()
            await asyncio.wait({taking_out})
        else:
            await taking_out
            assert out not in trace.sinks()

    def _end(self, loop: SkippingLoop, end: Close | Leave) -> None:
        self.one_by_one = self.one_by_one and isinstance(end, Close)
        match end:
            case Close() | Leave("run"):
                end_loop(loop)
            case Leave("bare"):
                self.clock.hurried = True
                try:
                    loop.close()
                finally:
                    self.clock.hurried = False

    # -- afterwards

    def close_the_rest(self) -> None:
        """Close what was left open, from a place without an event loop."""
        for store in self.stores:
            store.script.clear()
            store.weather = faults.Fine()
        self.clock.hurried = True
        try:
            for trace in self.open_traces:
                trace.close(2.0)
                # A machine that is busy may let the deadline pass before the loop thread has come to its end.
                until(lambda pipeline=trace.pipeline: not any(p.pending for p in self.check_pages(pipeline)))
        finally:
            self.clock.hurried = False
        self.open_traces.clear()

    def recover(self) -> None:
        """One more life, in which all is well, takes up what the others left."""
        self.live(Life((Emit(1, "info"), Flush(10_000.0)), Close(60.0)))
        for page in self.check_pages(self.pipelines[-1]):
            assert page.spooled == 0, f"still on disk: {page}"
        for loop in self.standing:  # what was left behind there must not do anything any more
            run_on(loop, asyncio.sleep(1.0))

    def check_pages(self, pipeline: Pipeline) -> tuple[LaneStats, ...]:
        """The equation holds at every moment, not only when all is quiet."""
        stats = pipeline.stats()
        assert not stats.approximate
        for page in stats.lanes:
            assert page.balanced, page
            counts = (
                page.delivered,
                page.filtered,
                page.pending,
                page.spooled,
                page.dead,
                *page.dropped.values(),
            )
            assert min(counts) >= 0, page
        return stats.lanes

    # -- what must be true in the end

    def check(self) -> None:
        for number, store in enumerate(self.stores):
            pages = [
                page
                for pipeline in self.pipelines
                for page in pipeline.stats().lanes
                if page.sink == repr(store)
            ]
            whole = not (self.plugged and number == len(self.stores) - 1)
            self._check_store(store, pages, whole)
            found = asyncio.run(averify(store.reader()))
            assert found.doubles == 0
            if self.setup.lanes[number][1].spool_max_bytes and not self.disk_was_full:
                assert found.verdict is not Verdict.LOSS, found
            elif whole:  # what explains an absence may have found no place, but nothing else is missing
                assert found.lost <= sum(page.lost for page in pages), found

    def _check_store(self, store: Store, pages: list[LaneStats], whole: bool) -> None:
        stored, promised = store.keys, store.promised
        given = {pipeline.producer: pipeline.stats().emitted for pipeline in self.pipelines}
        assert all(1 <= seq <= given[producer] for producer, seq in stored), "nobody emitted that"
        assert set(promised) <= set(stored)
        # A disk that cannot even note what was delivered gives it out again: late doubles, never a loss.
        exact = not self.disk_was_full
        again = [key for key, times in promised.items() if times > 1]
        # A last write that was left behind with its loop may have succeeded; the store keeps one of the two.
        left_behind = isinstance(store, LocalStore) and not self.one_by_one
        assert not again or left_behind or not exact, f"delivered, and then again: {again}"
        messages = Counter(
            record.message
            for record in store.memory.records
            if record.kind is Kind.LOG and record.message != "asynctrace.dropped"
        )
        assert set(messages) <= {str(number) for number in range(self.called)}
        assert not messages or max(messages.values()) == 1, "one call, two records"
        # What a lane that was taken out left on disk is for whoever looks first, the lane of another life perhaps:
        # between two lanes that deliver beside each other there is no order.
        in_order = [key for key in stored if key not in store.put_off] if whole else []
        _check_order(in_order)
        if whole and exact and self.one_by_one and not self.setup.disk_seconds:
            lives = [pipeline.producer for pipeline in self.pipelines]
            assert [lives.index(producer) for producer, _ in in_order] == sorted(
                lives.index(producer) for producer, _ in in_order
            ), "what an earlier life left came behind what a later one recorded"
        if whole:
            delivered = sum(page.delivered for page in pages)
            assert delivered == len(promised) if exact else delivered >= len(promised)
            lost = sum(page.filtered + page.lost for page in pages)
            emitted = sum(page.emitted for page in pages)
            assert emitted == len(promised) + lost if exact else emitted <= len(promised) + lost
            assert sum(given.values()) == sum(page.emitted for page in pages)
            # What a store kept although it said no is there and counted as lost: never the other way round.
            missing = sum(given.values()) - len(stored)
            assert missing <= lost
            assert missing == lost or not exact or set(stored) - set(promised)


def _record(handle: Any, level: Level, number: int) -> None:
    {Level.DEBUG: handle.debug, Level.INFO: handle.info, Level.ERROR: handle.error}[level](str(number))


async def _close(trace: Trace, end: Close) -> None:
    closing = asyncio.ensure_future(trace.aclose(end.timeout))
    for _ in range(end.cancels):
        await asyncio.sleep(0.01)
        closing.cancel()
    await asyncio.wait({closing})
    if not closing.cancelled():
        closing.result()


def _check_order(keys: list[Key]) -> None:
    newest: dict[str, int] = {}
    for producer, seq in keys:
        assert seq > newest.get(producer, 0), f"{producer} {seq} came behind {newest[producer]}"
        newest[producer] = seq


# -- the proof -----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def clock() -> Iterator[SkippedTime]:
    with skipped_time() as clock:
        yield clock


@pytest.fixture
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    # On a file system in memory where there is one: thousands of schedules, each with its fsyncs.
    memory = Path("/dev/shm")
    path = Path(tempfile.mkdtemp(dir=memory if os.access(memory, os.W_OK) else None))
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(path / "state"))
    monkeypatch.setenv("ASYNCTRACE_CLOSE_TIMEOUT", "0.05")
    asynctrace.shutdown()
    yield path / "state"
    asynctrace.shutdown()
    shutil.rmtree(path)


def go_through(
    clock: SkippedTime, state: Path, monkeypatch: pytest.MonkeyPatch, setup: Setup, lives: list[Life]
) -> None:
    shutil.rmtree(state, ignore_errors=True)
    monkeypatch.setenv("ASYNCTRACE_QUEUE_SIZE", str(setup.queue_size))
    monkeypatch.setattr(LoopWorker, "seconds", setup.disk_seconds)
    story = Lives(setup, clock)
    with full_disk_allowed():
        try:
            for each in lives:
                story.live(each)
            story.close_the_rest()
            story.recover()
            story.check()
        finally:
            asynctrace.shutdown()
            for loop in story.standing:
                loop.close()


@settings(
    max_examples=SCHEDULES,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(setup=setups, lives=st.lists(life, min_size=1, max_size=4))
def test_the_ledger_balances_and_the_stores_hold_what_it_says(
    clock: SkippedTime, state: Path, monkeypatch: pytest.MonkeyPatch, setup: Setup, lives: list[Life]
) -> None:
    go_through(clock, state, monkeypatch, setup, lives)


QUICK = LaneOptions(when_full="spill", retry=RetryPolicy(base=0.01, ceiling=0.05))
SPILLING = replace(QUICK, max_records=7, high_water=1)
DOWN = Turn(0, faults.Away())


@pytest.mark.parametrize(
    ("options", "lives"),
    [
        pytest.param(
            replace(QUICK, spool_max_bytes=8_000),
            [Life((DOWN, Emit(60, "info")), Close(0.05))],
            id="what found no room on disk at the end is explained in the store",
        ),
        pytest.param(
            SPILLING,
            [Life((DOWN, Fail(0, (faults.TooLarge(0), faults.Fine())), Emit(20, "info")), Close(0.05))],
            id="of a batch from disk that was halved only the half that was not delivered comes again",
        ),
        pytest.param(
            SPILLING,
            [Life((DOWN, Fail(0, (faults.Partial(1, retryable=True),)), Emit(20, "info")), Close(0.05))],
            id="of a batch from disk that was taken in part only the rest comes again",
        ),
        pytest.param(
            replace(QUICK, write_timeout=60.0),
            [
                Life(
                    (
                        Fail(0, (faults.Slow(2.0), faults.Slow(2.0))),
                        Emit(5, "info"),
                        Wait(0.1),
                        CancelAll(),
                        Wait(0.004),
                    ),
                    Leave("bare"),
                )
            ],
            id="a deadline of a loop that was closed does not strike on the next one",
        ),
        pytest.param(
            replace(QUICK, max_records=1, mark_every=1),
            [Life((Fail(0, (faults.Partial(0, 0), faults.Refused())), Flush(0.0)), Close(0.05))],
            id="a correction is not taken for a part of the range behind it",
        ),
    ],
)
def test_schedules_that_once_went_wrong(
    clock: SkippedTime,
    state: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    options: LaneOptions,
    lives: list[Life],
) -> None:
    for is_local in (False, True):
        go_through(clock, state, monkeypatch, Setup(((is_local, options),)), lives)
    assert clock.thread is not None
    # What is still to come there.
    asyncio.run_coroutine_threadsafe(asyncio.sleep(0.2), clock.thread).result(10)
    gc.collect()
    assert "was destroyed" not in caplog.text
    assert "Exception in callback" not in caplog.text


def test_what_is_rejected_of_two_ranges_at_once_is_told_in_each(
    clock: SkippedTime, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lane = LaneOptions(
        max_records=16,
        short=3,
        write_timeout=0.1,
        patience=0.0,
        mark_every=1,
        retry=RetryPolicy(base=0.01, ceiling=0.05, attempts=3),
        spool_max_bytes=8_000,
    )
    faulty = replace(lane, max_records=1, retry=RetryPolicy(base=0.01, ceiling=0.05), spool_max_bytes=0)
    lives = [
        Life(
            (
                Turn(2, faults.Hang()),
                Emit(18, "info", Level.DEBUG),
                Fail(2, (faults.Fine(), faults.Partial(0, 0, retryable=True))),
            ),
            Close(0.05),
        ),
        Life((), Close(1.0)),
    ]
    setup = Setup(((False, faulty), (False, faulty), (False, lane)), queue_size=20)
    go_through(clock, state, monkeypatch, setup, lives)
