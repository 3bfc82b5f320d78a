"""A Pipeline: one Intake, one Writer, a lane for each sink, at home on one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from enum import Enum
from types import TracebackType
from typing import Any, TypeVar

from asynctrace.core.ids import new_producer
from asynctrace.core.redaction import Redactor
from asynctrace.core.run import RunContext
from asynctrace.errors import ClosedError, ConfigurationError, DeliveryError, LaneFailure
from asynctrace.pipeline import home
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.intake import Barrier, Intake
from asynctrace.pipeline.lane import LAST_RESORT, Lane
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.pipeline.options import LOCAL, REMOTE, LaneOptions
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.state_directory import StateDirectory, lane_key
from asynctrace.pipeline.undisturbed import undisturbed
from asynctrace.pipeline.writer import DEFAULT_LINGER, Writer
from asynctrace.ports import LocalSink, Processor, Sink

DEFAULT_CLOSE_TIMEOUT = 5.0
"""Seconds that closing may take; a back end that is down must not hang the exit."""

DEFAULT_CAPACITY = 1_000_000
"""Records in the Intake: about 250 bytes each while they wait there."""

_RESTART = 1.0
"""Seconds before a task that failed begins again."""

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

    Starts nothing before the first record. ``async with`` puts its home on the running loop; without, its
    home is the one loop thread of the process.

    Args:
        sinks: where the records go; a lane for each.
        processors: called by the writer on each finished record; None filters it.
        linger: seconds that the writer waits for more records after the first of a burst.
        capacity: records that the Intake holds.
        close_timeout: seconds that closing may take while no local store makes progress.
        state: where what cannot be delivered is kept until the next start; None: nowhere.
        options: how the lanes behave; by default :data:`LOCAL` for local sinks and :data:`REMOTE` for others.
        redactor: takes the secrets out of each record, after the processors; by default ``Redactor()``.

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
        redactor: Redactor | None = None,
        state: StateDirectory | None = None,
    ) -> None:
        self.redactor = redactor or Redactor()
        self.intake = Intake(capacity, self._wake)
        self.close_timeout = close_timeout
        self._processors = tuple(processors)
        self._linger = linger
        self._options = options
        self._state_directory = state
        self._lock = threading.RLock()  # re-entrant: a finaliser may emit while we start
        self._lanes: list[Lane] = []
        self._removed: list[Lane] = []
        self._state = _State.NEW
        self._home: asyncio.AbstractEventLoop | None = None  # given by `async with`; None: the loop thread
        self._inherited: list[object] = []
        self._draining = False
        self._ender: asyncio.Task[Any] | None = None  # who is in `_end`: one at a time
        self._ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._sifting = False
        self._followers: list[weakref.WeakMethod[Callable[[int], None]]] = []
        self._number(new_producer())
        for sink in sinks:
            self._new_lane(sink, options)
        home.register(self)

    def _number(self, producer: str) -> None:
        self._finisher = Finisher(producer, self._processors, self.redactor)
        self._writer = Writer(self.intake, self._finisher, self._lanes, self._linger)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._tasks: dict[Lane | None, asyncio.Task[None]] = {}

    def __repr__(self) -> str:
        return (
            f"<Pipeline {self._finisher.producer} {self._state.value}: {', '.join(map(repr, self.sinks()))}>"
        )

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
            if self._tasks:
                self._run(lane)

        self._on_home(add)

    async def aremove_sink(self, sink: AnySink) -> None:
        """Deliver what is on its way to the sink, close it, take it out.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        lane = self._lane_of(sink)
        await self.aflush(self.close_timeout)
        done = self._take_out(lane)
        if done is not None:
            await asyncio.wrap_future(done)

    def remove_sink(self, sink: AnySink) -> None:
        """As :meth:`aremove_sink`; waits at most ``close_timeout`` seconds.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        lane = self._lane_of(sink)
        self.flush(self.close_timeout)
        done = self._take_out(lane)
        if done is not None:
            self.wait(done, self.close_timeout + home.GRACE)

    def _lane_of(self, sink: AnySink) -> Lane:
        lane = next((lane for lane in self._lanes if lane.sink is sink), None)
        if lane is None:
            raise ConfigurationError("sink", repr(sink), f"one of {self.sinks()!r}")
        return lane

    def _take_out(self, lane: Lane) -> concurrent.futures.Future[None] | None:
        """Remove the lane; a future that is done when its sink is closed, None when it was never open."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()

        async def end() -> None:
            try:
                await self._stop([lane], Deadline(self.close_timeout))
            finally:
                lane.abandon("lane removed")
                lane.release()
                done.set_result(None)

        def take_out() -> bool:
            if lane in self._lanes:
                self._lanes.remove(lane)
                self._removed.append(lane)
                if self._loop is not None:
                    home.create_task(end(), f"asynctrace lane {lane.name} ends", self._loop)
                    return True
                lane.finish_now()
                lane.release()
            return False

        return done if self._on_home(take_out) else None

    def _new_lane(self, sink: AnySink, options: LaneOptions | None) -> Lane:
        for verb in ("open", "write", "aclose"):
            if not callable(getattr(sink, verb, None)):
                raise ConfigurationError("sink", repr(sink), "an object with open, write and aclose")
        kind = type(sink).__name__.removesuffix("Sink").lower() or "sink"
        taken = {lane.name for lane in (*self._lanes, *self._removed)}
        name = next(n for n in (kind, *(f"{kind}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        options = options or (LOCAL if isinstance(sink, LocalSink) else REMOTE)
        shelter = self._new_shelter(kind, name, sink, options)
        lane = Lane(name, sink, options, self.producer, self._finisher.next_seq, self._tell_drops, shelter)
        self._lanes.append(lane)
        self._sifting = self._sifting or lane.sifting
        for each in self._lanes:
            each.sifting = self._sifting
        if lane.options.level is not None:
            self._tell_level()
        return lane

    def _new_shelter(self, kind: str, name: str, sink: AnySink, options: LaneOptions) -> Shelter | None:
        # An object that does not say where it writes to could be any other at the next start.
        nameless = type(sink).__repr__ is object.__repr__
        if self._state_directory is None or nameless or not options.spool_max_bytes:
            return None
        return Shelter(
            self._state_directory,
            lane_key(kind, repr(sink)),
            name,
            max_bytes=options.spool_max_bytes,
            max_age=options.spool_max_age,
        )

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
        self._call_home(self.intake.woken)

    def _call_home(self, function: Callable[[], None]) -> None:
        """Have the function called on the home loop, which is found first if there is none."""
        loop = self._loop
        if loop is None:
            self._start()
            loop = self._loop
        if loop is None:  # nobody is at home any more: what there was has been written on the spot
            return
        try:
            loop.call_soon_threadsafe(undisturbed, function)
        except RuntimeError:  # the loop was closed under us
            self._loop_is_gone(loop)
            self._start()

    def _start(self) -> None:
        with self._lock:
            if self._loop is not None:
                return
            if self.closed or home.is_over():
                self._late()
                return
            try:
                loop = self._home or loop_thread.loop()
                loop.call_soon_threadsafe(undisturbed, self._start_tasks, loop)
            except RuntimeError:  # a closed home, or the interpreter starts no thread any more
                if self._home is not None:
                    self._home = None
                    self._start()
                else:
                    self.drain_now()
            else:
                self._loop = loop

    def _start_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        if self._loop is None:  # an interrupt came between the two last lines of `_start`
            self._loop = loop
        if self._loop is not loop or self._tasks:
            return
        if self._state is _State.NEW:  # closing may have begun before the loop came round to this
            self._state = _State.RUNNING
        home.watch(loop)
        self._run(None)
        for lane in self._lanes:
            self._run(lane)

    def _run(self, lane: Lane | None) -> None:
        """Start the lane's task; None stands for the writer's."""
        if lane is None:
            task = home.create_task(self._run_writer(), f"asynctrace writer {self.producer}", self._loop)
        else:
            task = home.create_task(lane.run(), f"asynctrace lane {lane.name}", self._loop)
        self._tasks[lane] = task
        task.add_done_callback(lambda ended: self._task_ended(lane, ended))

    def _task_ended(self, lane: Lane | None, task: asyncio.Task[None]) -> None:
        """Begin again if it was not we who ended it: somebody cancelled all tasks, or an interrupt struck."""
        error = None if task.cancelled() else task.exception()
        if self._tasks.get(lane) is not task:
            return
        pause = 0.0
        if isinstance(error, Exception):  # a bug of ours or of a policy: say it, and do not spin
            pause = _RESTART
            diagnostics.say(
                logging.ERROR, ("task", type(error).__name__), "%r failed: %r", task.get_name(), error
            )
        task.get_loop().call_later(pause, self._run_again, lane, task)

    def _run_again(self, lane: Lane | None, ended: asyncio.Task[None]) -> None:
        if self._tasks.get(lane) is ended:
            self._run(lane)

    async def _run_writer(self) -> None:
        try:
            await self._writer.run()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or self._tasks.get(None) is not task:  # stopped by ourselves
                raise
            # asyncio.run cancels every task at its end, ours among those that still log in their `finally`.
            task.uncancel()
            await self._end_of_loop()

    def _late(self) -> None:
        """Records after the end: local stores still take them."""
        if self.intake.records or self.intake.dropped_untold:
            diagnostics.say(
                logging.WARNING,
                ("late", self.producer),
                "records after the end of their pipeline go straight to local stores",
            )
        self.drain_now()

    # -- flushing --------------------------------------------------------------------------------------------

    async def aflush(self, timeout: float | None = None) -> list[LaneFailure]:
        """Wait until every record emitted so far is safe in every lane, or settled otherwise.

        May be awaited on any event loop. When the home loop ends meanwhile, the next home goes on with it.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            The lanes that were not done in time.
        """
        if asyncio._get_running_loop() is None:  # a forked child inside the parent's coroutine
            return self.flush(timeout)
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self.begin_flush())
        except TimeoutError:
            return self._unsafe()
        return []

    def flush(self, timeout: float | None = None) -> list[LaneFailure]:
        """As :meth:`aflush`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it only hurries the writer, and says so once.
        """
        if not self.wait(self.begin_flush(), timeout):
            return self._unsafe()
        return []

    def begin_flush(self) -> concurrent.futures.Future[None]:
        """Put a barrier behind everything emitted so far; done when all of that is settled."""
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        with self._lock:
            self._leave_standstill()
            if self._loop is None and self._idle:
                done.set_result(None)
                return done

        def reached() -> None:
            countdown = _Countdown(len(self._lanes), done)
            for lane in self._lanes:
                lane.settled(countdown.one)

        self.intake.put_barrier(Barrier(reached))
        self._call_home(self._look)
        return done

    @property
    def _idle(self) -> bool:
        queued = self.intake.records or self.intake.dropped_untold
        return not queued and not any(lane.pending for lane in self._lanes)

    def _look(self) -> None:
        self._writer.hurry()
        self.intake.woken()

    def _unsafe(self) -> list[LaneFailure]:
        queued = max(0, len(self.intake.records) - self.intake.barriers)
        failures = [lane.failure(queued) for lane in self._lanes]
        return [failure for failure in failures if failure is not None]

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

    def start(self) -> None:
        """Begin without a record: what earlier processes left is delivered."""
        self._start()

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

        A cancellation is obeyed after the deadline at the latest: the records come first. A second call waits
        for the first.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        if asyncio._get_running_loop() is None:  # a forked child inside the parent's coroutine
            self.close(timeout)
            return
        seconds = self.close_timeout if timeout is None else timeout
        closed = self.begin_close(seconds)
        if not closed.done():
            await _see_through(closed, self._deadline)
        self._say_unsafe()

    def close(self, timeout: float | None = None) -> None:
        """As :meth:`aclose`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it schedules the closing and names ``aclose``.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        self.finish_close(self.begin_close(self.close_timeout if timeout is None else timeout))

    def begin_close(self, timeout: float) -> concurrent.futures.Future[None]:
        """Refuse a new home, have the closing done at the present one; the future is done when it is closed.

        Args:
            timeout: seconds that it may take without progress.
        """
        with self._lock:
            self._leave_standstill()
            if self.closed:
                return self._ended
            self._deadline = Deadline(timeout)
            if self._loop is None and not self._idle:
                self._start()
            self._state = _State.CLOSING
            if self._loop is None:
                self._leave()
            else:
                self._call_home(lambda: self._close_here(self._deadline))
        return self._ended

    @property
    def progress(self) -> int:
        """Records that local stores have made safe so far."""
        return sum(lane.counts.delivered for lane in self._lanes if isinstance(lane.sink, LocalSink))

    def finish_close(self, closed: concurrent.futures.Future[None]) -> None:
        """Wait in this thread for what ``begin_close`` began, until the deadline."""
        while not self.wait(closed, left := self._deadline.left(home.GRACE)) and left > 0:
            pass  # progress may have moved the deadline meanwhile
        self._say_unsafe()

    def _close_here(self, deadline: Deadline) -> None:
        if self._loop is not asyncio._get_running_loop():  # the home was left meanwhile
            return
        self._closing = home.create_task(self._shut_down(deadline), "asynctrace closing")
        self._closing.add_done_callback(lambda task: self._close_again(task, deadline))

    def _close_again(self, task: asyncio.Task[None], deadline: Deadline) -> None:
        if task.cancelled():  # before its first step, with all tasks of the loop
            self._close_here(deadline)

    async def _shut_down(self, deadline: Deadline) -> None:
        while True:
            try:
                await self._end(deadline)
                return
            except asyncio.CancelledError:  # with all tasks of the loop; the deadline bounds us anyway
                task = asyncio.current_task()
                if task is not None:
                    task.uncancel()

    async def _end_of_loop(self) -> None:
        """The loop is going: wait for the tasks that still log, deliver, leave the home."""
        deadline = Deadline(self.close_timeout)
        while home.others_end() and deadline.left():
            await self._writer.drain()
            await asyncio.sleep(0.001)
        await self._end(deadline)

    async def _end(self, deadline: Deadline) -> None:
        """Stop the tasks, deliver until the deadline, close the sinks, leave."""
        current = asyncio.current_task()
        while (other := self._ender) is not None and other is not current and not other.done():
            await asyncio.wait({other})
        if self._loop is not asyncio.get_running_loop():  # the other one left
            return
        self._ender = current
        writer = self._tasks.pop(None, None)
        if writer is not None and writer is not current:
            writer.cancel()
            await asyncio.wait({writer}, timeout=deadline.left())
        while (self.intake.records or self.intake.dropped_untold) and deadline.left():
            self._writer.step()
            await asyncio.sleep(0)
        await self._stop(self._lanes, deadline)
        self._leave()

    async def _stop(self, lanes: Sequence[Lane], deadline: Deadline) -> None:
        """End the lanes' tasks, deliver, close the sinks; a sink that hangs is left behind."""
        tasks = {task for lane in lanes if (task := self._tasks.pop(lane, None)) is not None}
        for task in tasks:
            task.cancel()
        await _bounded(tasks, deadline)
        endings = {
            home.create_task(_end_lane(lane, deadline), "asynctrace lane ends"): lane for lane in lanes
        }
        for task in await _bounded(set(endings), deadline, LAST_RESORT + 0.2):
            task.cancel()
            endings[task].abandon("not delivered in time")

    def _leave(self) -> None:
        """Without a home; the next record finds one, or, after the end, goes straight to local stores."""
        with self._lock:
            self._loop = self._home = self._ender = None
            self._tasks = {}
            for lane in self._lanes:
                lane.rehome()
            if self._state is _State.CLOSING:
                self._state = _State.CLOSED
                home.unregister(self)
            self.intake.release_waiters()
            self.intake.pending = False
        if self.intake.records or self.intake.dropped_untold:  # appended meanwhile, without a wake-up
            self._start()
        elif self.closed:
            self.drain_now()
        if self.closed and not self._ended.done():
            self._ended.set_result(None)

    def _leave_standstill(self) -> None:
        """Leave a home that stands still: to make it run here would make the user's own tasks run too."""
        loop = self._loop
        if loop is not None and not loop.is_running():
            self._loop_is_gone(loop)

    def _loop_is_gone(self, loop: asyncio.AbstractEventLoop) -> None:
        """Find another home for what is left; nobody can end the tasks on the old one."""
        with self._lock:
            if self._loop is not loop:
                return
            tasks, self._tasks = self._tasks, {}
            self._inherited.append(tasks)
            for task in tasks.values():
                _abandon(task)
            closing = self._state is _State.CLOSING
            if closing:
                self._state = _State.RUNNING
            self._leave()
            if closing:
                self.begin_close(self.close_timeout)

    def drain_now(self) -> None:
        """Write what is left with plain blocking calls; for moments when no event loop can run."""
        undisturbed(self._drain_now)

    def _drain_now(self) -> None:
        with self._lock:
            if self._draining:  # a signal handler or a finaliser emitted while this thread is at it
                return
            self._draining = True
            try:
                self.intake.pending = False  # who appends from now on comes here, and waits for the lock
                while self.intake.records or self.intake.dropped_untold:
                    self._writer.step()
                for lane in self._lanes:
                    lane.finish_now()
                    if self._state is _State.CLOSED:
                        lane.release()
                self.intake.release_waiters()
            finally:
                self._draining = False

    def leave_loop(self, loop: asyncio.AbstractEventLoop) -> None:
        """That loop is about to be closed: have what is left delivered at another home."""
        if self._loop is loop:
            self._loop_is_gone(loop)
            self.flush(self.close_timeout)

    def after_fork(self) -> None:
        """In a forked child: everything inherited is the parent's; keep it, use none of it, start afresh."""
        self._inherited += [self._lock, self._tasks, self._loop, self._home, self._writer, self._ender]
        self._lock = threading.RLock()
        self._home = self._ender = None
        self._draining = False
        self._ended = concurrent.futures.Future()
        self.intake.clear()
        if self.closed:
            self._state = _State.CLOSED
            self._ended.set_result(None)
        else:
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
        """Call the function where nothing else touches the lanes; its value.

        Raises:
            TimeoutError: the home loop did not answer.
        """
        with self._lock:  # nothing starts meanwhile
            loop = self._loop
            if loop is None or not loop.is_running() or loop is asyncio._get_running_loop():
                return function()
        result: concurrent.futures.Future[_T] = concurrent.futures.Future()

        def call() -> None:
            try:
                result.set_result(function())
            except BaseException as error:
                result.set_exception(error)

        try:
            loop.call_soon_threadsafe(undisturbed, call)
        except RuntimeError:  # closed meanwhile
            with self._lock:
                return function()
        return result.result(timeout)

    def wait(self, done: concurrent.futures.Future[None], timeout: float | None) -> bool:
        """Wait in this thread for what the home loop does; whether it is done."""
        loop = self._loop
        running = asyncio._get_running_loop()
        if done.done():
            return True
        if loop is not None and loop is running:
            # Waiting would keep the loop from doing what we wait for.
            diagnostics.say(
                logging.WARNING,
                ("wait on home loop", self.producer),
                "close() or flush() on the pipeline's own event loop cannot wait; "
                "use `await aclose()` or `aflush()`",
            )
            return True
        try:
            done.result(timeout)
        except (TimeoutError, concurrent.futures.TimeoutError):
            return False
        return True


def _abandon(task: asyncio.Task[None]) -> None:
    """Leave the task behind on a loop that is closed or stands still."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]
    coroutine = task.get_coro()
    if isinstance(coroutine, Coroutine) and inspect.getcoroutinestate(coroutine) == inspect.CORO_CREATED:
        coroutine.close()  # else it would complain that it was never awaited
    with suppress(RuntimeError):  # closed; if it only stands still, the task must not go on as it was
        task.get_loop().call_soon_threadsafe(task.cancel)


class _Countdown:
    """Completes a future when so many have come in."""

    def __init__(self, count: int, done: concurrent.futures.Future[None]) -> None:
        self._left = count + 1
        self._done = done
        self.one()

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            with suppress(concurrent.futures.InvalidStateError):  # who waited has given up
                self._done.set_result(None)


async def _end_lane(lane: Lane, deadline: Deadline) -> None:
    await lane.finish(deadline)
    await lane.aclose(deadline)


async def _bounded(
    tasks: set[asyncio.Task[None]], deadline: Deadline, grace: float = 0.0
) -> set[asyncio.Task[None]]:
    """Wait for the tasks until the deadline; those that are not done."""
    while tasks:
        left = max(0.1, deadline.left(grace))
        _, tasks = await asyncio.wait(tasks, timeout=left)
        if not deadline.left(grace):
            break
    return tasks


async def _see_through(closed: concurrent.futures.Future[None], deadline: Deadline) -> None:
    """Wait for the closing; a cancellation waits too, until the deadline, and is then passed on."""
    ended = asyncio.wrap_future(closed)
    cancelled: asyncio.CancelledError | None = None
    while not ended.done() and (left := deadline.left(home.GRACE)):
        try:
            await asyncio.wait({ended}, timeout=left)
        except asyncio.CancelledError as error:
            cancelled = error
    if cancelled is not None:
        raise cancelled
