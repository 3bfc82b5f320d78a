"""A Residence: the event loop that a pipeline lives on, its tasks there, and the moves to another one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import inspect
import logging
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextlib import suppress
from enum import Enum
from typing import TYPE_CHECKING, Any, TypeVar

from asynctrace.core.run import RunContext
from asynctrace.pipeline import home
from asynctrace.pipeline.chore import Chore, ChoreTimer
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.lane import Lane
from asynctrace.pipeline.loop_thread import loop_thread
from asynctrace.pipeline.roster import Roster
from asynctrace.pipeline.undisturbed import undisturbed
from asynctrace.pipeline.writer import Writer

if TYPE_CHECKING:
    from asynctrace.pipeline.closing import Closing

_RESTART = 1.0
"""Seconds before a task that failed begins again."""

_T = TypeVar("_T")


class Phase(Enum):
    """The life of a pipeline."""

    NEW = "new"
    RUNNING = "running"
    CLOSING = "closing"
    CLOSED = "closed"


class Residence:
    """Starts the writer and the lanes at the first wake-up, and again elsewhere when their loop goes.

    Args:
        intake: where the records are.
        roster: the lanes.
        writer: drains the one into the others.
        producer: the pipeline's, for people who look at a list of tasks.
        closed: called when the pipeline has closed.
        chore: done now and then, while there is a home; None: nothing.
    """

    closing: Closing
    """Set by it: it ends what begins here."""

    def __init__(
        self,
        intake: Intake,
        roster: Roster,
        writer: Writer,
        producer: str,
        closed: Callable[[], None],
        chore: Chore | None = None,
    ) -> None:
        self.intake = intake
        self.roster = roster
        self.writer = writer
        self.producer = producer
        self.lock = threading.RLock()  # re-entrant: a finaliser may emit while we start
        self.phase = Phase.NEW
        self.loop: asyncio.AbstractEventLoop | None = None  # where the tasks are
        self.chosen: asyncio.AbstractEventLoop | None = None  # by `async with`; None: the loop thread
        self.tasks: dict[Lane | None, asyncio.Task[None]] = {}  # None stands for the writer
        self.ender: asyncio.Task[Any] | None = None  # who is ending the tasks: one at a time
        self.ended: concurrent.futures.Future[None] = concurrent.futures.Future()
        self._closed = closed
        self._chores = ChoreTimer(chore)
        self._draining = False
        self._inherited: list[object] = []
        self._begun: weakref.WeakSet[asyncio.Task[None]] = weakref.WeakSet()

    @property
    def is_closed(self) -> bool:
        """Whether closing has begun."""
        return self.phase in (Phase.CLOSING, Phase.CLOSED)

    @property
    def idle(self) -> bool:
        """Whether there is nothing to deliver."""
        return not self._queued and not self.roster.pending

    @property
    def _queued(self) -> bool:
        return self.intake.waiting

    # -- moving in -------------------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the writer look at the queue; any thread, called by the Intake."""
        self.call(self.intake.woken)

    def call(self, function: Callable[[], None]) -> None:
        """Have the function called on the home loop, which is found first if there is none."""
        loop = self.loop
        if loop is None:
            self.start()
            loop = self.loop
        if loop is None:  # nobody is at home any more: what there was has been written on the spot
            return
        try:
            loop.call_soon_threadsafe(undisturbed, function)
        except RuntimeError:  # the loop was closed under us
            self._loop_is_gone(loop)
            self.start()

    def start(self) -> None:
        """Find a home, unless there is one; after the end, write on the spot."""
        with self.lock:
            if self.loop is not None:
                return
            if self.is_closed or home.is_over():
                self._late()
                return
            try:
                loop = self.chosen or loop_thread.loop()
                loop.call_soon_threadsafe(undisturbed, self._start_tasks, loop)
            except RuntimeError:  # a closed home, or the interpreter starts no thread any more
                if self.chosen is not None:
                    self.chosen = None
                    self.start()
                else:
                    self.drain_now()
            else:
                self.loop = loop

    def _start_tasks(self, loop: asyncio.AbstractEventLoop) -> None:
        if self.loop is None:  # an interrupt came between the two last lines of `start`
            self.loop = loop
        if self.loop is not loop or self.tasks:
            return
        if self.phase is Phase.NEW:  # closing may have begun before the loop came round to this
            self.phase = Phase.RUNNING
        home.watch(loop)
        self.run(None)
        for lane in self.roster.lanes:
            self.run(lane)
        self._chores.begin(loop)

    def run(self, lane: Lane | None) -> None:
        """Start the lane's task; None stands for the writer's."""
        if lane is None:
            task = self.create_task(self._run_writer(), f"asynctrace writer {self.producer}")
        else:
            task = self.create_hidden_task(lane.run(), f"asynctrace lane {lane.name}")
        self.tasks[lane] = task
        task.add_done_callback(lambda ended: self._task_ended(lane, ended))

    def create_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """A task at home; it is left behind with the home, whatever it is in the middle of."""
        task = home.create_task(coroutine, name, self.loop)
        self._begun.add(task)
        return task

    def create_hidden_task(self, coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        """The same for one that calls a sink: the end of the loop does not see it, the closing waits for it."""
        task = home.create_hidden_task(coroutine, name, self.loop)
        self._begun.add(task)
        return task

    def _task_ended(self, lane: Lane | None, task: asyncio.Task[None]) -> None:
        """Begin again if it was not we who ended it: somebody cancelled all tasks, or an interrupt struck."""
        error = None if task.cancelled() else task.exception()
        if self.tasks.get(lane) is not task:
            return
        pause = 0.0
        if isinstance(error, Exception):  # a bug of ours or of a policy: say it, and do not spin
            pause = _RESTART
            diagnostics.say(
                logging.ERROR, ("task", type(error).__name__), "%r failed: %r", task.get_name(), error
            )
        task.get_loop().call_later(pause, self._run_again, lane, task)

    def _run_again(self, lane: Lane | None, ended: asyncio.Task[None]) -> None:
        if self.tasks.get(lane) is ended:
            self.run(lane)

    async def _run_writer(self) -> None:
        try:
            await self.writer.run()
        except asyncio.CancelledError:
            task = asyncio.current_task()
            if task is None or self.tasks.get(None) is not task:  # stopped by ourselves
                raise
            # asyncio.run cancels every task at its end, ours among those that still log in their `finally`.
            task.uncancel()
            await self.closing.end_of_loop()

    def tell_drops(self, lane: str, reason: str, count: int, run: RunContext) -> None:
        """Have the stream say what the lane dropped, as long as somebody would deliver that in time."""
        if self.phase is Phase.RUNNING and None in self.tasks:
            self.writer.tell_drops(reason, count, run, lane)

    # -- moving out ------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Without a home; the next record finds one, or, after the end, goes straight to local stores."""
        with self.lock:
            self._chores.end()
            self.loop = self.chosen = self.ender = None
            self.tasks = {}
            self.writer.rehome()
            self.intake.rehome()
            for lane in self.roster.lanes:
                lane.rehome()
            if self.phase is Phase.CLOSING:
                self.phase = Phase.CLOSED
                self._closed()
            self.intake.release_waiters()
            self.intake.pending = False
        if self._queued:  # appended meanwhile, without a wake-up
            self.start()
        elif self.is_closed:
            self.drain_now()
        if self.is_closed and not self.ended.done():
            self.intake.close()
            self.ended.set_result(None)

    def leave_standstill(self) -> None:
        """Leave a home that stands still: to make it run here would make the user's own tasks run too."""
        loop = self.loop
        if loop is not None and not loop.is_running():
            self._loop_is_gone(loop)

    def leave_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """Leave that loop, which is about to be closed; whether it was the home."""
        if self.loop is not loop:
            return False
        self._loop_is_gone(loop)
        return True

    def _loop_is_gone(self, loop: asyncio.AbstractEventLoop) -> None:
        """Find another home for what is left; nobody can end the tasks on the old one."""
        with self.lock:
            if self.loop is not loop:
                return
            tasks, self._begun = list(self._begun), weakref.WeakSet()
            self._inherited.append(tasks)
            for task in tasks:
                if not task.done():
                    _abandon(task)
            self.tasks = {}
            self.closing.home_is_gone()
            closing = self.phase is Phase.CLOSING
            if closing:
                self.phase = Phase.RUNNING
            self.leave()
            if closing:
                self.closing.begin(self.closing.timeout)

    def drain_now(self) -> None:
        """Write what is left with plain blocking calls; for moments when no event loop can run."""
        undisturbed(self._drain_now)

    def _drain_now(self) -> None:
        with self.lock:
            if self._draining:  # a signal handler or a finaliser emitted while this thread is at it
                return
            self._draining = True
            try:
                self.intake.pending = False  # who appends from now on comes here, and waits for the lock
                self.writer.finish()
                for lane in self.roster.lanes:
                    lane.finish_now()
                    if self.phase is Phase.CLOSED:
                        lane.release()
                self.intake.release_waiters()
            finally:
                self._draining = False

    def _late(self) -> None:
        """Records after the end: local stores still take them."""
        # At exit, when the user's functions run that were registered before ours, there is no end of which to warn.
        if self._queued and not ((home.is_ending() or home.is_over()) and self.roster.is_local):
            diagnostics.say(
                logging.WARNING,
                ("late", self.producer),
                "records after the end of their pipeline go straight to local stores",
            )
        self.drain_now()

    def after_fork(self, writer: Writer, producer: str, inherited: list[Lane]) -> None:
        """In a forked child: everything inherited is the parent's; keep it, use none of it, start afresh."""
        self._inherited += [self.lock, self.tasks, self.loop, self.chosen, self.writer, self.ender, inherited]
        self.writer, self.producer = writer, producer
        self._chores.forget()
        self.lock = threading.RLock()
        self.loop = self.chosen = self.ender = None
        self.tasks = {}
        self._inherited.append(self._begun)
        self._begun = weakref.WeakSet()
        self._draining = False
        self.ended = concurrent.futures.Future()
        if self.is_closed:
            self.phase = Phase.CLOSED
            self.ended.set_result(None)
        else:
            self.phase = Phase.NEW

    # -- from outside ----------------------------------------------------------------------------------------

    def on_home(self, function: Callable[[], _T], timeout: float | None = 5.0) -> _T:
        """Call the function where nothing else touches the lanes; its value.

        Raises:
            TimeoutError: the home loop did not answer.
        """
        with self.lock:  # nothing starts meanwhile
            loop = self.loop
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
            with self.lock:
                return function()
        return result.result(timeout)

    def wait(self, done: concurrent.futures.Future[None], timeout: float | None) -> bool:
        """Wait in this thread for what the home loop does; whether it is done."""
        loop = self.loop
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
