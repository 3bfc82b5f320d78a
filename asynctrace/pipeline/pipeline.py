"""A Pipeline: one Intake, one Writer, a lane for each sink, at home on one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
import sys
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum
from time import monotonic
from types import TracebackType
from typing import Any, TypeVar

from asynctrace.core.ids import new_producer
from asynctrace.errors import ClosedError, ConfigurationError, DeliveryError, LaneFailure
from asynctrace.pipeline import home
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.intake import Barrier, Intake
from asynctrace.pipeline.lane import Lane
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.pipeline.options import LOCAL, REMOTE, LaneOptions
from asynctrace.pipeline.writer import DEFAULT_LINGER, Writer
from asynctrace.ports import LocalSink, Processor, Sink

DEFAULT_CLOSE_TIMEOUT = 5.0
"""Seconds that closing may take; a back end that is down must not hang the exit."""

DEFAULT_CAPACITY = 1_000_000
"""Records in the Intake: about 250 bytes each while they wait there."""

AnySink = Sink | LocalSink
_S = TypeVar("_S")
_T = TypeVar("_T")


class _State(Enum):
    NEW = "new"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


class Pipeline:
    """Takes records from every thread and delivers them to its sinks.

    Starts nothing before the first record. ``async with`` puts its home on the running loop; without, its home is
    the one loop thread of the process.

    Args:
        sinks: where the records go; a lane for each.
        processors: called by the writer on each finished record; None filters it.
        linger: seconds that the writer waits for more records after the first of a burst.
        capacity: records that the Intake holds.
        close_timeout: seconds that closing may take.
        options: how the lanes behave; by default :data:`LOCAL` for local sinks and :data:`REMOTE` for others.

    Example:
        >>> from asynctrace.sinks.memory import MemorySink
        >>> Pipeline(MemorySink()).stats().emitted
        0
    """

    def __init__(
        self,
        *sinks: AnySink,
        processors: Sequence[Processor] = (),
        linger: float = DEFAULT_LINGER,
        capacity: int = DEFAULT_CAPACITY,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        options: LaneOptions | None = None,
    ) -> None:
        self.intake = Intake(capacity, self._wake)
        self.close_timeout = close_timeout
        self._processors = tuple(processors)
        self._linger = linger
        self._options = options
        self._lock = threading.RLock()  # re-entrant: a finaliser may emit while we start
        self._lanes: list[Lane] = []
        self._removed: list[Lane] = []
        self._state = _State.NEW
        self._home: asyncio.AbstractEventLoop | None = None  # given by `async with`; None: the loop thread
        self._inherited: list[object] = []
        self._sifting = False
        self._followers: list[weakref.WeakMethod[Callable[[int], None]]] = []
        self._number(new_producer())
        for sink in sinks:
            self._new_lane(sink, options)
        home.register(self)

    def _number(self, producer: str) -> None:
        self._finisher = Finisher(producer, self._processors)
        self._writer = Writer(self.intake, self._finisher, self._lanes, self._linger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[Lane | None, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return f"<Pipeline {self._finisher.producer} {self._state.value}: {', '.join(map(repr, self.sinks()))}>"

    @property
    def producer(self) -> str:
        """The id under which this pipeline numbers its records in this process."""
        return self._finisher.producer

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The home loop, once there is one."""
        return self._loop or self._home

    @property
    def closed(self) -> bool:
        """Whether closing has begun."""
        return self._state in (_State.CLOSING, _State.CLOSED)

    # -- sinks -----------------------------------------------------------------------------------------------

    def sinks(self, kind: type[_S] | None = None) -> list[Any]:
        """The sinks, or those of one type, in the order they were added."""
        return [lane.sink for lane in self._lanes if kind is None or isinstance(lane.sink, kind)]

    def add_sink(self, sink: AnySink, options: LaneOptions | None = None) -> None:
        """Open a lane to the sink; it sees the records that the writer takes from now on.

        Args:
            sink: the destination.
            options: how its lane behaves; the pipeline's own by default.
        """

        def add() -> None:
            lane = self._new_lane(sink, options or self._options)
            if self._loop is not None:
                self._start_lane(lane)

        self._on_home(add)

    async def aremove_sink(self, sink: AnySink) -> None:
        """Deliver what is on its way to the sink, close it, take it out.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        await self._reach(lambda: self._remove(sink))

    def remove_sink(self, sink: AnySink) -> None:
        """As :meth:`aremove_sink`; waits at most ``close_timeout`` seconds.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        self._reach_now(lambda: self._remove(sink), self.close_timeout)

    async def _remove(self, sink: AnySink) -> None:
        lane = next((lane for lane in self._lanes if lane.sink is sink), None)
        if lane is None:
            raise ConfigurationError("sink", repr(sink), f"one of {self.sinks()!r}")
        if self._loop is not None:
            await self._flush()
        self._lanes.remove(lane)
        self._removed.append(lane)
        await self._end_lane(lane, monotonic() + self.close_timeout)

    def _new_lane(self, sink: AnySink, options: LaneOptions | None) -> Lane:
        for verb in ("open", "write", "aclose"):
            if not callable(getattr(sink, verb, None)):
                raise ConfigurationError("sink", repr(sink), "an object with open, write and aclose")
        kind = type(sink).__name__.removesuffix("Sink").lower() or "sink"
        taken = {lane.name for lane in (*self._lanes, *self._removed)}
        name = next(n for n in (kind, *(f"{kind}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        default = LOCAL if isinstance(sink, LocalSink) else REMOTE
        lane = Lane(name, sink, options or default, self.producer, self._finisher.next_seq)
        self._lanes.append(lane)
        self._sifting = self._sifting or lane.sifting
        for each in self._lanes:
            each.sifting = self._sifting
        if lane.options.level is not None:
            self._tell_level()
        return lane

    # -- levels ----------------------------------------------------------------------------------------------

    def follow_level(self, follower: Callable[[int], None]) -> None:
        """Tell the bound method, weakly held, now and later: the lowest level that a lane asks for by itself.

        A lane without a level takes what each run asks for, and does not count.
        """
        with self._lock:
            self._followers = [known for known in self._followers if known() is not None]
            self._followers.append(weakref.WeakMethod(follower))
            lowest = self._lowest_level()
        if lowest is not None:
            follower(lowest)

    def _lowest_level(self) -> int | None:
        levels = [lane.options.level for lane in self._lanes if lane.options.level is not None]
        return min(levels, default=None)

    def _tell_level(self) -> None:
        with self._lock:
            lowest, followers = self._lowest_level(), list(self._followers)
        for known in followers:
            follower = known()
            if follower is not None and lowest is not None:
                follower(lowest)

    def _tell_drops(self, lane: Lane, reason: str, count: int, run: RunContext) -> None:
        if self._state is _State.RUNNING and None in self._tasks:  # else nobody would deliver it in time
            self._writer.tell_drops(reason, count, run, lane.name)

    # -- starting --------------------------------------------------------------------------------------------

    def _wake(self) -> None:
        """Have the writer look at the queue; any thread, called by the Intake."""
        loop = self._loop
        if loop is None:
            self._start()
            return
        try:
            loop.call_soon_threadsafe(self.intake.woken)
        except RuntimeError:  # the loop was closed under us
            self._loop_is_gone(loop)
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._loop is not None:
                return
            if self.closed:
                self._late()
                return
            try:
                loop = self._home or loop_thread.loop()
                self._loop = loop
                loop.call_soon_threadsafe(self._start_tasks)
            except RuntimeError:  # a closed home, or the interpreter starts no thread any more
                self._loop = None
                if self._home is not None:
                    self._home = None
                    self._start()
                else:
                    self.drain_now()

    def _start_tasks(self) -> None:
        assert self._loop is not None
        if self._state is _State.NEW:  # closing may have begun before the loop came round to this
            self._state = _State.RUNNING
        home.watch(self._loop)
        self._tasks[None] = home.create_task(self._run_writer(), f"asynctrace writer {self.producer}")
        for lane in self._lanes:
            self._start_lane(lane)

    def _start_lane(self, lane: Lane) -> None:
        self._tasks[lane] = home.create_task(lane.run(), f"asynctrace lane {lane.name}")

    async def _run_writer(self) -> None:
        try:
            await self._writer.run()
        except asyncio.CancelledError:
            # asyncio.run cancels every task at its end, ours among those that still log in their `finally`.
            if self._state is _State.RUNNING and self._loop is asyncio.get_running_loop():
                await self._end_of_loop()
            raise

    def _late(self) -> None:
        """Records after the end: local stores still take them."""
        diagnostics.say(
            logging.WARNING, ("late", self.producer), "records after the pipeline was closed go straight to local stores"
        )
        self.drain_now()

    # -- flushing --------------------------------------------------------------------------------------------

    async def aflush(self, timeout: float | None = None) -> list[LaneFailure]:
        """Wait until every record emitted so far is safe in every lane, or settled otherwise.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The lanes that were not done in time.
        """
        try:
            async with asyncio.timeout(timeout):
                await self._reach(self._flush)
        except TimeoutError:
            return self._unsafe()
        return []

    def flush(self, timeout: float | None = None) -> list[LaneFailure]:
        """As :meth:`aflush`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it only hurries the writer, and says so once.
        """
        try:
            self._reach_now(self._flush, timeout)
        except (TimeoutError, concurrent.futures.TimeoutError):
            return self._unsafe()
        return []

    async def _flush(self) -> None:
        if self._loop is None and not self.intake.records:
            return
        if self._loop is None:
            self._start()
        reached = asyncio.get_running_loop().create_future()
        self.intake.append(Barrier(lambda: reached.done() or reached.set_result(None)))
        self.intake.barriers += 1
        self._writer.hurry()
        self.intake.woken()
        await reached
        await asyncio.gather(*[lane.settled() for lane in self._lanes])

    def _unsafe(self) -> list[LaneFailure]:
        queued = len(self.intake.records)
        pending = [(lane, lane.pending + queued) for lane in self._lanes]
        return [
            LaneFailure(lane.name, lane.counts.last_error or "not delivered in time", count)
            for lane, count in pending
            if count
        ]

    # -- closing ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Pipeline:
        self.settle_on(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def settle_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make that loop the home, if the pipeline has none yet.

        Raises:
            ClosedError: the pipeline has been closed.
        """
        if self.closed:
            raise ClosedError(f"{self!r} has been closed; make a new one")
        if self._loop is None and self._home is None:
            self._home = loop

    async def aclose(self, timeout: float | None = None) -> None:
        """Deliver what was emitted, close the sinks; what is not safe at the deadline is counted and told.

        A cancellation is obeyed after the deadline at the latest: the records come first. A second call waits for
        the first.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        await self._reach(lambda: self._close(self.close_timeout if timeout is None else timeout))

    def close(self, timeout: float | None = None) -> None:
        """As :meth:`aclose`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it schedules the closing and names ``aclose``.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        seconds = self.close_timeout if timeout is None else timeout
        try:
            self._reach_now(lambda: self._close(seconds), seconds + 1.0)
        except (TimeoutError, concurrent.futures.TimeoutError):
            self._say_unsafe()

    async def _close(self, timeout: float) -> None:
        if self._state in (_State.NEW, _State.RUNNING) and self._loop is None and not self.intake.records:
            self._state = _State.CLOSED
            home.unregister(self)
            return
        if self._state is _State.CLOSED:
            return
        if self._loop is None:
            self._start()
        if self._state is not _State.CLOSING:
            self._state = _State.CLOSING
            self._closing = home.create_task(self._shut_down(monotonic() + timeout), "asynctrace closing")
        await _see_through(self._closing, timeout)

    async def _shut_down(self, deadline: float) -> None:
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(max(0.0, deadline - monotonic())):
                    await self._flush()
        finally:
            await self._end(deadline)
            self._state = _State.CLOSED
            home.unregister(self)

    async def _end_of_loop(self) -> None:
        """The loop is going: wait for the tasks that still log, deliver, leave the home."""
        deadline = monotonic() + self.close_timeout
        while home.others_alive() and monotonic() < deadline:
            await self._writer.drain()
            await asyncio.sleep(0.001)
        await self._end(deadline)

    async def _end(self, deadline: float) -> None:
        """Stop the tasks, deliver what is left within the deadline (monotonic seconds), close the sinks."""
        tasks, self._tasks = self._tasks, {}
        current = asyncio.current_task()
        stopped = [task for task in tasks.values() if task is not current]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)
        while self.intake.records or self.intake.dropped_untold:
            self._writer.step()
            await asyncio.sleep(0)
        await asyncio.gather(*[self._end_lane(lane, deadline) for lane in self._lanes])
        self._leave()

    async def _end_lane(self, lane: Lane, deadline: float) -> None:
        task = self._tasks.pop(lane, None)
        if task is not None:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
        await lane.finish(deadline)
        await lane.aclose(deadline)
        lane.finish_now()

    def _leave(self) -> None:
        """Without a home; the next record finds a new one."""
        self._loop = self._home = None
        self._tasks = {}
        for lane in self._lanes:
            lane.rehome()
        self.intake.release_waiters()
        self.intake.pending = False

    def _loop_is_gone(self, loop: asyncio.AbstractEventLoop) -> None:
        with self._lock:
            if self._loop is loop:
                for task in self._tasks.values():
                    task._log_destroy_pending = False  # type: ignore[attr-defined]  # nobody can finish it
                self._inherited.append(self._tasks)
                self._leave()

    def drain_now(self) -> None:
        """Write what is left with plain blocking calls; for moments when no event loop can run."""
        with self._lock:
            while self.intake.records or self.intake.dropped_untold:
                self._writer.step()
            for lane in self._lanes:
                lane.finish_now()
            self.intake.release_waiters()
            self.intake.pending = False

    def end_with_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """The loop is about to be closed, or the interpreter ends: deliver while it still can run."""
        if self._loop is not loop:
            return
        if not loop.is_running() and not loop.is_closed() and asyncio._get_running_loop() is None:
            with suppress(RuntimeError):
                loop.run_until_complete(self._end(monotonic() + self.close_timeout))
                return
        self._loop_is_gone(loop)
        self.drain_now()

    def after_fork(self) -> None:
        """In a forked child: everything inherited is the parent's; keep it, use none of it, start afresh."""
        self._inherited += [self._lock, self._tasks, self._loop, self._home, self._writer]
        self._lock = threading.RLock()
        self._home = None
        self.intake.clear()
        if not self.closed:
            self._state = _State.NEW
        lanes, self._lanes = self._lanes, []
        self._inherited.append(lanes)
        self._number(new_producer())
        for lane in lanes:
            self._new_lane(lane.sink, lane.options)

    def _say_unsafe(self) -> None:
        unsafe = self._unsafe()
        if unsafe:
            diagnostics.say(logging.ERROR, ("close", self.producer), "closing: %s", DeliveryError(unsafe))

    # -- asking from anywhere --------------------------------------------------------------------------------

    def stats(self) -> PipelineStats:
        """The ledger now; taken on the home loop, so that it balances to the record."""
        try:
            return self._on_home(self._stats, timeout=1.0)
        except (TimeoutError, concurrent.futures.TimeoutError):
            return self._stats(approximate=True)

    def _stats(self, approximate: bool = False) -> PipelineStats:
        queued = len(self.intake.records) - self.intake.barriers + self.intake.dropped_untold
        return PipelineStats(
            producer=self.producer,
            emitted=self._finisher.next_seq - 1 + queued,
            queued=queued,
            dropped=self.intake.dropped,
            lanes=tuple(lane.stats(queued) for lane in self._lanes),
            approximate=approximate,
        )

    def _on_home(self, function: Callable[[], _T], timeout: float | None = 5.0) -> _T:
        """Call the function where nothing else touches the lanes; its value."""
        loop = self._loop
        if loop is None or loop.is_closed() or not loop.is_running() or loop is asyncio._get_running_loop():
            with self._lock:
                return function()
        result: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        loop.call_soon_threadsafe(call)
        return result.result(timeout)

    async def _reach(self, make: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Run the coroutine on the home loop and wait for it on this one."""
        loop = self._loop or self._home
        if loop is None and self.intake.records:
            self._start()
            loop = self._loop
        if loop is None or loop is asyncio.get_running_loop() or loop.is_closed():
            await make()
            return
        await asyncio.wrap_future(asyncio.run_coroutine_threadsafe(make(), loop))

    def _reach_now(self, make: Callable[[], Coroutine[Any, Any, None]], timeout: float | None) -> None:
        """Run the coroutine on the home loop and wait for it in this thread."""
        loop = self._loop or self._home
        if loop is None and self.intake.records:
            self._start()
            loop = self._loop
        running = asyncio._get_running_loop()
        if loop is None or loop.is_closed():
            if self._state is not _State.CLOSED:
                _run_without_loop(make())
        elif loop is running:
            # Waiting would keep the loop from doing what we wait for.
            diagnostics.say(
                logging.WARNING,
                ("wait on home loop", self.producer),
                "close() or flush() on the pipeline's own event loop cannot wait; use `await aclose()` or `aflush()`",
            )
            home.create_task(make(), "asynctrace scheduled")
        elif loop.is_running():
            asyncio.run_coroutine_threadsafe(make(), loop).result(timeout)
        elif running is None:
            loop.run_until_complete(asyncio.wait_for(make(), timeout))
        else:
            self.drain_now()


def _run_without_loop(coroutine: Coroutine[Any, Any, None]) -> None:
    """Run a coroutine that has nothing to wait for: the pipeline was never started."""
    try:
        coroutine.send(None)
    except StopIteration:
        return
    coroutine.close()


async def _see_through(task: asyncio.Task[None], timeout: float) -> None:
    """Wait for the task; a cancellation waits too, until the deadline, and is then passed on."""
    end = monotonic() + timeout + 1.0
    cancelled: asyncio.CancelledError | None = None
    while not task.done() and monotonic() < end:
        try:
            await asyncio.wait({task}, timeout=end - monotonic())
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled


