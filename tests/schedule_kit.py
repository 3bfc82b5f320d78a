"""What random schedules run on: an event loop that skips waiting, and stores that fail as told and remember."""

from __future__ import annotations

import asyncio
import math
import selectors
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

from asynctrace import Batch, LocalSink, PartialWriteError, Record, SinkClosedError
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.sinks.memory import MemoryReader, MemorySink
from asynctrace.testing.faults import Fault, Fine
from asynctrace.worker import Worker

Key = tuple[str, int]

MOST_TURNS = 50_000
"""Turns of a loop without any time passing after which it counts as spinning."""

_STEP = 0.002  # seconds

# -- time ----------------------------------------------------------------------------------------------------


class SkippedTime:
    """The machine's monotonic clock and what was skipped of it, for several loops at once.

    Time is skipped when all of them have nothing to do, up to the first moment that one of them waits for.
    """

    def __init__(self) -> None:
        self._skipped = 0.0
        self.hurried = False
        """Whether the loop thread skips by itself: while the main thread waits for it, outside any loop."""
        self.thread: SkippingLoop | None = None
        """The loop of the loop thread, once that was started."""

    def monotonic(self) -> float:
        return time.monotonic() + self._skipped

    def skip_to(self, moment: float) -> None:
        self._skipped += max(0.0, moment - self.monotonic())


class _SkippingSelector(selectors.DefaultSelector):  # type: ignore[misc,valid-type]
    """Waits for nothing but other threads: where its loop would sleep, the time goes on at once."""

    def __init__(self, clock: SkippedTime, in_thread: bool) -> None:
        super().__init__()
        self.idle_until: float | None = None  # None: busy
        self.lock = threading.RLock()
        self._clock = clock
        self._in_thread = in_thread
        self._turns = 0

    def select(self, timeout: float | None = None) -> Any:
        self._turns += 1
        assert self._turns < MOST_TURNS, "the loop spins"
        if timeout is not None and timeout <= 0:
            return super().select(0)
        self._turns = 0
        moment = math.inf if timeout is None else self._clock.monotonic() + timeout
        with self.lock:  # nobody calls us between the look and the word that we are idle
            if events := super().select(0):
                return events
            self.idle_until = moment
        try:
            return self._wait(moment) if self._in_thread else self._skip(moment)
        finally:
            self.idle_until = None

    def _wait(self, moment: float) -> Any:
        """In the loop thread: somebody else skips, or, one little step after the other, we do."""
        while (left := moment - self._clock.monotonic()) > 0:
            if events := super().select(min(left, _STEP if self._clock.hurried else 1.0)):
                return events
            if self._clock.hurried and not _somebody_writes():
                self._clock.skip_to(min(moment, self._clock.monotonic() + 50 * _STEP))
        return super().select(0)

    def _skip(self, moment: float) -> Any:
        patience = time.monotonic() + 30.0
        while True:
            other = self._clock.thread.selector if self._clock.thread is not None else None
            if _somebody_writes() or (other is not None and other.idle_until is None):
                events = super().select(0.0005)
                assert events or time.monotonic() < patience, "the other thread never comes to rest"
            else:
                events = super().select(0)
            if events:
                return events
            until = other.idle_until if other is not None else math.inf
            if until is None:
                continue
            if moment == until == math.inf:
                events = super().select(5.0)
                assert events, "nothing will ever happen any more"
                return events
            self._clock.skip_to(min(moment, until))
            if until <= self._clock.monotonic() and self._clock.thread is not None:
                self._clock.thread.call_soon_threadsafe(int)
            if moment <= self._clock.monotonic():
                return []


def _somebody_writes() -> bool:
    return any(thread.name == "asynctrace last write" for thread in threading.enumerate())


class SkippingLoop(asyncio.SelectorEventLoop):
    """An event loop on skipped time."""

    def __init__(self, clock: SkippedTime, in_thread: bool = False) -> None:
        self._clock = clock
        self.selector = _SkippingSelector(clock, in_thread)
        super().__init__(self.selector)

    def time(self) -> float:
        return self._clock.monotonic()

    def call_soon_threadsafe(self, *args: Any, **kwargs: Any) -> asyncio.Handle:  # type: ignore[override]
        with self.selector.lock:
            self.selector.idle_until = None
            return super().call_soon_threadsafe(*args, **kwargs)


class LoopWorker(Worker):
    """A thread for blocking calls, played on the event loop that asks: each call takes its time, one after another.

    Args:
        name: of the thread that it stands for.
    """

    seconds = 0.0
    """What each call takes."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self._calls: deque[tuple[_Played, Callable[[], Any]]] = deque()

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future = _Played(self)
        self._calls.append((future, lambda: fn(*args, **kwargs)))
        self.arrange(future)
        return future

    def arrange(self, future: _Played) -> None:
        """Have the call made on the running loop; a loop that is gone would never make it."""
        loop = asyncio._get_running_loop()
        if loop is None:
            self.play_until(future)
        elif loop is not future.loop:
            future.loop = loop
            loop.call_later(self.seconds, self.play_until, future)

    def play_until(self, future: Future[Any]) -> None:
        """Make all calls up to that one."""
        while not future.done() and self._calls:
            played, call = self._calls.popleft()
            if not played.set_running_or_notify_cancel():
                continue
            try:
                result = call()
            except BaseException as error:
                played.set_exception(error)
            else:
                played.set_result(result)


class _Played(Future[Any]):
    def __init__(self, worker: LoopWorker) -> None:
        super().__init__()
        self.loop: asyncio.AbstractEventLoop | None = None
        self._worker = worker

    def add_done_callback(self, fn: Callable[[Future[Any]], object]) -> None:
        super().add_done_callback(fn)
        if not self.done():
            self._worker.arrange(self)

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self._worker.play_until(self)
        return super().result(timeout)


@contextmanager
def skipped_time() -> Iterator[SkippedTime]:
    """Inside, delivery goes by a clock that can skip, and blocking calls of lanes are played on the loop."""
    clock = SkippedTime()
    replaced: list[tuple[dict[str, Any], str, Any]] = []
    defaults: list[tuple[Any, Any]] = []
    for name, module in list(sys.modules.items()):
        if not name.startswith("asynctrace.") or name.startswith("asynctrace.testing"):
            continue
        for attribute, value in list(vars(module).items()):
            if value is time.monotonic:
                replaced.append((vars(module), attribute, clock.monotonic))
            elif value is Worker and name.startswith("asynctrace.pipeline"):
                replaced.append((vars(module), attribute, LoopWorker))
            elif isinstance(value, type) and time.monotonic in (
                getattr(value.__init__, "__defaults__", None) or ()  # type: ignore[misc]
            ):
                defaults.append((value.__init__, value.__init__.__defaults__))  # type: ignore[misc]
    before = [(names, attribute, names[attribute]) for names, attribute, _ in replaced]
    for names, attribute, new in replaced:
        names[attribute] = new
    before_thread, loop_thread._loop = loop_thread._loop, SkippingLoop(clock, in_thread=True)
    clock.thread = loop_thread._loop
    thread = threading.Thread(target=clock.thread.run_forever, name="asynctrace", daemon=True)
    thread.start()
    for function, given in defaults:
        function.__defaults__ = tuple(clock.monotonic if each is time.monotonic else each for each in given)
    try:
        yield clock
    finally:
        loop_thread._loop = before_thread
        clock.thread.call_soon_threadsafe(clock.thread.stop)
        thread.join()
        clock.thread.close()
        for names, attribute, old in before:
            names[attribute] = old
        for function, given in defaults:
            function.__defaults__ = given


def run_on(loop: asyncio.AbstractEventLoop, main: Coroutine[Any, Any, None]) -> None:
    """Run it as ``asyncio.run`` does, but leave the loop as it stands: its end is part of the schedule."""
    asyncio.set_event_loop(loop)
    try:
        loop.run_until_complete(main)
    finally:
        asyncio.set_event_loop(None)


def end_loop(loop: asyncio.AbstractEventLoop) -> None:
    """What ``asyncio.run`` does at its end."""
    asyncio.set_event_loop(loop)
    try:
        tasks = asyncio.all_tasks(loop)
        for task in tasks:
            task.cancel()
        if tasks:
            loop.run_until_complete(asyncio.gather(*tasks, return_exceptions=True))
        loop.run_until_complete(loop.shutdown_asyncgens())
    finally:
        asyncio.set_event_loop(None)
        loop.close()


# -- stores --------------------------------------------------------------------------------------------------


class Store:
    """A keyed store that fails as its script says, and remembers what it promised.

    Args:
        name: tells it from others, at the next start too.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.memory = MemorySink()
        self.script: deque[Fault] = deque()
        self.weather: Fault = Fine()
        self.promised: Counter[Key] = Counter()
        """How often a write that held the record ended well: more than once is a double delivery."""
        self.put_off: set[Key] = set()
        """Records that came later than their neighbours, for the store once refused them for a while."""
        self.writes = 0
        self._is_open = False

    def __repr__(self) -> str:
        return f"<Store test://{self.name}>"

    @property
    def keys(self) -> list[Key]:
        """What is stored, in the order it came."""
        return [(record.producer, record.seq) for record in self.memory.records]

    def reader(self) -> MemoryReader:
        return MemoryReader(self.memory)

    async def open(self) -> None:
        self._is_open = True

    async def aclose(self) -> None:
        self._is_open = False

    async def write(self, batch: Batch) -> None:
        # Two lives that hold the same object may both have opened and one of them closed it.
        if not self._is_open:
            raise SinkClosedError(f"{self!r} is not open")
        self.writes += 1
        step = self.script.popleft() if self.script else self.weather
        kept: list[Record] = []

        def keep(records: Any) -> None:
            self.memory.write_now(Batch(records))
            kept.extend(records)

        try:
            await step(batch, keep)
        except PartialWriteError as error:
            rejected = {rejection.index for rejection in error.rejections}
            self.put_off.update((batch[i].producer, batch[i].seq) for i in rejected)
            self._promise([record for place, record in enumerate(batch) if place not in rejected])
            self.memory.write_now(Batch((), batch.marks))
            raise
        self._promise(batch.records)
        self.memory.write_now(Batch((), batch.marks))

    def _promise(self, records: Any) -> None:
        self.promised.update((record.producer, record.seq) for record in records)


class LocalStore(Store, LocalSink):
    """The same, on this machine: it can also be written to without an event loop."""

    def write_now(self, batch: Batch) -> None:
        fails = self.script.popleft() if self.script else self.weather
        if not isinstance(fails, Fine):
            raise OSError("the disk of the store is full")
        self.memory.write_now(batch)
        self._promise(batch.records)
