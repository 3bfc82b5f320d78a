"""The Intake: the one ``asyncio.Queue`` of a pipeline, open to every thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from itertools import repeat, starmap
from typing import Any

from asynctrace.core.level import Level
from asynctrace.core.record import RawRecord
from asynctrace.pipeline import awaited
from asynctrace.pipeline.allowance import Allowance

SAFETY_TIMER = 1.0
"""Seconds after which an idle writer looks at the queue unasked: a lost wake-up would cost a second, not a hang."""

INTAKE_FULL = "intake full"


class Barrier:
    """A place in the queue; the writer calls ``reached`` when everything before it has been offered."""

    __slots__ = ("reached",)

    def __init__(self, reached: Callable[[], None]) -> None:
        self.reached = reached


class Intake(asyncio.Queue[RawRecord | Barrier]):
    """Records on their way to the writer.

    A producer in any thread appends (atomic) and, if ``pending`` is clear, calls :meth:`wake`: one wake-up a burst.
    The writer clears ``pending`` before it looks, and then waits.

    Args:
        max_records: room; errors find a tenth of it reserved.
        max_bytes: likewise, see :mod:`asynctrace.core.size`.
        wake: asks the writer, from any thread, to call :meth:`woken` on its loop.
    """

    def __init__(self, max_records: int, max_bytes: int, wake: Callable[[], None]) -> None:
        self.records: deque[RawRecord | Barrier] = deque()
        super().__init__()
        self.append = self.records.append
        self.plain_append: Callable[[RawRecord | Barrier], None] | None = (
            None  # set aside while somebody waits
        )
        self.claims: dict[int, awaited.Claims] = {}  # who waits for which record in the queue, by its id
        self.pending = False
        self._allowance = Allowance(max_records, max_bytes)
        self.limit = self._allowance.next_look  # with so many, a producer takes the long way
        self.barriers = 0  # how many barriers are in the queue: the writer looks for them only then
        self.dropped = 0
        self.dropped_untold = 0  # dropped since the writer last made them part of its numbering
        self._wake = wake
        self._waiter: asyncio.Future[None] | None = None
        self._lock = threading.RLock()  # re-entrant: a signal handler or a finaliser may emit inside
        self._room: deque[tuple[asyncio.AbstractEventLoop, asyncio.Future[None]]] = deque()
        awaited.register(self)

    def _init(self, maxsize: int) -> None:
        # asyncio.Queue asks its subclasses for the storage; ours is the deque that producers append to.
        self._queue = self.records

    # -- producers, any thread -------------------------------------------------------------------------------

    def wake(self) -> None:
        """Have the writer look; called when ``pending`` was found clear."""
        self.pending = True
        self._wake()

    def put_record(self, record: RawRecord, *, patient: bool) -> None:
        """Take a record the long way.

        Without room, errors may use the reserve, and a patient caller, who will wait for room, exceeds it; anything
        else is dropped and counted.
        """
        if len(self.records) >= self.limit:
            self._look()
        if patient or not self.crowded or (record.level >= Level.ERROR and len(self.records) < self.capacity):
            self.append(record)
        else:
            with self._lock:
                self.dropped += 1
                self.dropped_untold += 1
            awaited.drop(self, INTAKE_FULL)
        if not self.pending:
            self.wake()

    def put_barrier(self, barrier: Barrier) -> None:
        """Mark this place in the queue; the caller wakes the writer."""
        with self._lock:
            self.barriers += 1
        self.records.append(barrier)

    @property
    def crowded(self) -> bool:
        """Whether the room is used up, the reserve for errors aside."""
        return len(self.records) >= self._allowance.plain

    @property
    def capacity(self) -> int:
        """Records that it holds at most, of the size of those that wait."""
        return self._allowance.capacity

    def _look(self) -> None:
        with self._lock:
            self._allowance.look(self.records)
            self.limit = self._allowance.next_look

    def room(self) -> Coroutine[Any, Any, None]:
        """An awaitable that ends when there is room again."""
        return _Room(self)

    def clear(self) -> None:
        """Forget everything: in a forked child it is the parent's."""
        self.records.clear()
        self.claims.clear()
        self._room.clear()
        self._waiter = None
        self._lock = threading.RLock()
        self.pending = False
        self.barriers = self.dropped = self.dropped_untold = 0
        self._allowance.clear()
        self.limit = self._allowance.next_look

    # -- the writer, on its loop -----------------------------------------------------------------------------

    def woken(self) -> None:
        """End the writer's wait."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until there may be something in the queue; afterwards ``pending`` is set."""
        self.pending = False  # before the look: whoever appends from now on wakes us
        if self._room:  # who began to wait while the last records were taken
            self._admit_waiters()
        if not self.records and not self.dropped_untold:
            loop = asyncio.get_running_loop()
            self._waiter = waiter = loop.create_future()
            timer = loop.call_later(SAFETY_TIMER, self.woken)
            try:
                await waiter
            finally:
                timer.cancel()
                if self._waiter is waiter:  # else a writer at another home waits now
                    self._waiter = None
        self.pending = True

    def rehome(self) -> None:
        """Forget the event loop that is gone; who waits for room is on loops of his own."""
        self._waiter = None

    def get_batch(self, most: int) -> list[RawRecord | Barrier]:
        """Take at most so many from the front, without waiting."""
        popleft = self.records.popleft
        self._look()
        most = min(most, len(self.records), self._allowance.at_once)
        # In C all the way: a KeyboardInterrupt between two of them would lose those already taken.
        return list(starmap(popleft, repeat((), most)))

    def took(self, count: int, size: int) -> None:
        """So many records of that size were taken: who waits for room may have it.

        Args:
            count: records.
            size: bytes, see :func:`~asynctrace.core.size.raw_size`.
        """
        with self._lock:
            self._allowance.took(count, size, len(self.records))
            self.limit = self._allowance.next_look
        if self._room and not self.crowded:
            self._admit_waiters()

    def take_dropped(self) -> int:
        """How many were dropped since the last call; their numbers are skipped."""
        if not self.dropped_untold:
            return 0
        with self._lock:
            dropped, self.dropped_untold = self.dropped_untold, 0
        return dropped

    def barrier_reached(self) -> None:
        """One was taken out of the queue."""
        with self._lock:
            self.barriers -= 1

    def forget_writer(self) -> None:
        """The writer's loop is gone; waking it there would fail."""
        self._waiter = None

    def release_waiters(self) -> None:
        """Let everybody go who waits for room; their records are in the queue already."""
        while self._room:
            self._wake_one()

    def _admit_waiters(self) -> None:
        for _ in range(min(len(self._room), self._allowance.plain - len(self.records))):
            self._wake_one()

    def _wake_one(self) -> None:
        loop, future = self._room.popleft()
        try:
            loop.call_soon_threadsafe(_finish, future)
        except RuntimeError:  # that loop is closed, nobody waits there any more
            pass

    async def _wait_for_room(self) -> None:
        if not self.crowded:
            return
        loop = asyncio.get_running_loop()
        future = loop.create_future()
        self._room.append((loop, future))
        if not self.pending:
            self.wake()
        await future


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Done(Coroutine[Any, Any, None]):
    """An awaitable that has ended already; one serves everybody, any number of times."""

    # Awaiting calls this C method of an exhausted iterator, which returns the iterator: no Python frame.
    __await__ = iter(()).__iter__  # type: ignore[assignment]

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass


class _Room(Coroutine[Any, Any, None]):
    """Waits for room when awaited; dropping it unawaited loses nothing and warns nobody."""

    def __init__(self, intake: Intake) -> None:
        self._intake = intake
        self._waiting: Coroutine[Any, Any, None] | None = None

    def _begin(self) -> Coroutine[Any, Any, None]:
        if self._waiting is None:
            self._waiting = self._intake._wait_for_room()
        return self._waiting

    def __await__(self) -> Generator[Any, Any, None]:
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        return self._begin().send(value)

    def throw(self, *error: Any) -> Any:
        return self._begin().throw(*error)

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.close()


DONE: Coroutine[Any, Any, None] = _Done()
"""What an awaitable method returns when there was room."""
