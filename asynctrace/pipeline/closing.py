"""A Closing: how a pipeline ends, and how its tasks end with their loop, within a deadline."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Callable, Collection
from time import monotonic

from asynctrace.errors import DeliveryError
from asynctrace.pipeline import home
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.flushing import Flushing
from asynctrace.pipeline.lane import Lane
from asynctrace.pipeline.residence import Phase, Residence

_SAME_END = 3.0
"""Seconds between two ends that are one: ``asyncio.run`` ends its loop, or somebody closes, then the program ends."""

_LOOK_AGAIN = 1.0
"""Seconds after which closing looks whether somebody has moved its deadline."""


class Closing:
    """Ends what a residence began: delivers until the deadline, closes the sinks, leaves.

    Args:
        residence: whose end it is.
        flushing: tells what is left.
        timeout: seconds that it may take while no local store makes progress.
    """

    def __init__(self, residence: Residence, flushing: Flushing, timeout: float) -> None:
        self.timeout = timeout
        self._residence = residence
        self._flushing = flushing
        self._deadline = Deadline(timeout)
        self._spent = 0.0  # seconds that ends of loops and of the process have waited for nothing
        self._spent_at = 0.0
        self._task: asyncio.Task[None] | None = None
        self._ending: dict[Lane, asyncio.Task[None]] = {}  # told to end, and not seen off yet
        self._leaving: dict[Lane, concurrent.futures.Future[None]] = {}  # taken out, and not at their end yet
        residence.closing = self

    def begin(self, timeout: float) -> concurrent.futures.Future[None]:
        """Refuse a new home, have the closing done at the present one; the future is done when it is closed."""
        residence = self._residence
        with residence.lock:
            residence.leave_standstill()
            if residence.is_closed:
                return residence.ended
            self._deadline = Deadline(timeout)
            if residence.loop is None and not residence.idle:
                residence.start()
            residence.phase = Phase.CLOSING
            if residence.loop is None:
                residence.leave()
            else:
                residence.call(lambda: self._close_here(self._deadline))
        return residence.ended

    def spend(self, seconds: float) -> None:
        """An end has waited so long for nothing, no local store's progress either: what follows at once waits less."""
        self._spent += seconds
        self._spent_at = monotonic()

    def forget_spent(self) -> None:
        """Another end begins, unless the last one was just now."""
        if monotonic() - self._spent_at > _SAME_END:
            self._spent = 0.0

    @property
    def patience(self) -> float:
        """Seconds that are left for the end that has begun."""
        return max(home.LEAST, self.timeout - self._spent)

    def wait(self, closed: concurrent.futures.Future[None]) -> None:
        """Wait in this thread for what :meth:`begin` began, until the deadline."""
        while not self._residence.wait(closed, left := self._deadline.left(home.GRACE)) and left > 0:
            pass  # progress may have moved the deadline meanwhile
        self._say_unsafe(closed)

    def hasten(self) -> None:
        """Have it end now: what is not safe goes to the disk, if the lane has one."""
        self._deadline.hasten()
        if self._residence.loop is not None:
            self._residence.call(self._hasten_lanes)

    def _hasten_lanes(self) -> None:
        for lane in self._residence.roster.lanes:
            lane.follow_deadline()

    async def see_through(self, closed: concurrent.futures.Future[None]) -> None:
        """Wait for it on any event loop; a cancellation waits too, until the deadline, and is then passed on."""
        cancelled: asyncio.CancelledError | None = None
        if not closed.done():
            deadline = self._deadline
            ended = asyncio.wrap_future(closed)
            while not ended.done() and (left := deadline.left(home.GRACE)):
                try:
                    await asyncio.wait({ended}, timeout=left)
                except asyncio.CancelledError as error:
                    cancelled = error
        self._say_unsafe(closed)
        if cancelled is not None:
            raise cancelled

    def _say_unsafe(self, closed: concurrent.futures.Future[None]) -> None:
        report = self._flushing.report(done=closed.done())
        if not closed.done():
            self.forget_spent()
            self.spend(self.timeout)
        if not report:
            producer = self._residence.producer
            diagnostics.say(logging.ERROR, ("close", producer), "closing: %s", DeliveryError(report.failures))

    @property
    def progress(self) -> int:
        """Records that local stores have made safe so far."""
        return self._residence.roster.progress

    @property
    def owed(self) -> int:
        """Records in memory that local stores have yet to make safe."""
        intake = self._residence.intake
        return self._residence.roster.owed(intake.queued + intake.barriers)

    def drain_now(self) -> None:
        """Write what is left with plain blocking calls: the event loop does not come round any more."""
        self._residence.drain_now()

    def take_out(self, lane: Lane) -> concurrent.futures.Future[None] | None:
        """Remove the lane; a future that is done when its sink is closed, None when it was never open."""
        residence = self._residence
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        done.set_running_or_notify_cancel()  # whoever waits may be cancelled, the removal goes on

        async def end(deadline: Deadline) -> None:
            await self._see_off([lane], deadline)
            if self._leaving.pop(lane, None) is not None:
                lane.release()
                done.set_result(None)

        def take_out() -> bool:
            if residence.roster.take_out(lane):
                if residence.loop is not None:
                    self._leaving[lane] = done
                    deadline = Deadline(self.timeout)
                    self._begin_end(lane, deadline)
                    residence.create_hidden_task(end(deadline), f"asynctrace lane {lane.name} is taken out")
                    return True
                lane.finish_now()
                lane.release()
            return False

        return done if residence.on_home(take_out) else None

    def home_is_gone(self) -> None:
        """Lanes that were being taken out on that loop end here: nobody will come back to them."""
        self._ending.clear()
        while self._leaving:
            lane, done = self._leaving.popitem()
            lane.finish_now()
            lane.release()
            done.set_result(None)

    # -- on the home loop ------------------------------------------------------------------------------------

    def _close_here(self, deadline: Deadline) -> None:
        if self._residence.loop is not asyncio._get_running_loop():  # the home was left meanwhile
            return
        self._task = self._residence.create_task(self._shut_down(deadline), "asynctrace closing")
        self._task.add_done_callback(lambda task: self._close_again(task, deadline))

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

    async def end_of_loop(self) -> None:
        """The loop is going: wait for the tasks that still log, deliver, leave the home."""
        self.forget_spent()
        deadline = Deadline(self.timeout)
        while home.others_end() and deadline.left():
            await self._residence.writer.drain()
            await asyncio.sleep(0.001)
        await self._end(deadline)
        if deadline.left() < home.LEAST:  # lanes end at the deadline by timers of their own
            self.spend(self.timeout)

    async def _end(self, deadline: Deadline) -> None:
        """Stop the tasks, deliver until the deadline, close the sinks, leave."""
        residence, current = self._residence, asyncio.current_task()
        while (other := residence.ender) is not None and other is not current and not other.done():
            await asyncio.wait({other})
        if residence.loop is not asyncio.get_running_loop():  # the other one left
            return
        residence.ender = current
        writer = residence.tasks.pop(None, None)
        if writer is not None and writer is not current:
            writer.cancel()
            await asyncio.wait({writer}, timeout=deadline.left())
        intake, left = residence.intake, self._left(deadline)
        while (intake.waiting or intake.close_gaps()) and left():
            await residence.writer.wait_for_lanes(left)  # else all records are in memory as finished ones
            residence.writer.step()
            await asyncio.sleep(0)
        for lane in residence.roster.lanes:
            self._begin_end(lane, deadline)
        await self._see_off(self._ending, deadline)  # those that are being taken out as well
        if residence.loop is asyncio.get_running_loop():
            residence.leave()

    def _left(self, deadline: Deadline) -> Callable[[], float]:
        """What tells the seconds left, and moves the deadline when a local store has made progress.

        Lanes that have been told to end do that themselves.
        """
        safe = self.progress

        def left() -> float:
            nonlocal safe
            if safe != (safe := self.progress):
                deadline.extend()
            return deadline.left()

        return left

    def _begin_end(self, lane: Lane, deadline: Deadline) -> None:
        """Have the lane deliver, and close its sink, by itself."""
        if lane not in self._ending:
            task = self._residence.tasks.pop(lane, None)
            if task is None or task.done():  # it failed, and nobody had begun it again yet
                task = self._residence.create_hidden_task(lane.run(), f"asynctrace lane {lane.name} ends")
            self._ending[lane] = task
        lane.end_by(deadline)

    async def _see_off(self, lanes: Collection[Lane], deadline: Deadline) -> None:
        """Wait for the ends of the lanes; a sink that does not come to one is left behind."""
        while ending := {lane: task for lane, task in self._ending.items() if lane in lanes}:
            left = min(_LOOK_AGAIN, *[deadline.left(lane.grace) for lane in ending])
            await asyncio.wait(ending.values(), timeout=left, return_when=asyncio.FIRST_COMPLETED)
            for lane, task in ending.items():
                if self._ending.get(lane) is task and (task.done() or not deadline.left(lane.grace)):
                    del self._ending[lane]
                    self._check_end(lane, task)

    def _check_end(self, lane: Lane, task: asyncio.Task[None]) -> None:
        if not task.done():
            task.cancel()
            home.leave_behind(task)
            lane.abandon("not delivered in time")
            lane.say("the sink does not end its call, and is left behind")
        elif task.cancelled() or task.exception() is not None:  # a bug of ours or of a policy
            lane.abandon("lane failed")
            if not task.cancelled():
                lane.say("ending failed: %r", task.exception())
