"""The Intake: the one ``asyncio.Queue`` of a pipeline, open to every thread."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from itertools import repeat, starmap
from typing import Any

from asynctrace.core.level import Level
from asynctrace.core.record import RawRecord
from asynctrace.pipeline import awaited
from asynctrace.pipeline.allowance import Allowance
from asynctrace.pipeline.room import Room

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
        block_timeout: seconds that a thread waits for room before a record is dropped.
        is_at_home: whether the writer's loop is running.
    """

    def __init__(
        self,
        max_records: int,
        max_bytes: int,
        wake: Callable[[], None],
        *,
        block_timeout: float = 0.0,
        is_at_home: Callable[[], bool] = lambda: True,
    ) -> None:
        self.records: deque[RawRecord | Barrier] = deque()
        super().__init__()
        self.append: Callable[[RawRecord | Barrier], None] = self.records.append
        self.plain_append: Callable[[RawRecord | Barrier], None] | None = (
            None  # set aside while somebody waits
        )
        self.claims: dict[int, awaited.Claims] = {}  # who waits for which record in the queue, by its id
        self.pending = False
        self._allowance = Allowance(max_records, max_bytes)
        self.limit = self._allowance.next_look  # with so many, a producer asks full()
        self.barriers = 0  # how many barriers are in the queue: the writer looks for them only then
        self.dropped = 0
        self.dropped_untold = 0  # dropped since the writer last made them part of its numbering
        self.block_timeout = block_timeout
        self._is_at_home = is_at_home
        self._wake = wake
        self._waiter: asyncio.Future[None] | None = None
        self._lock = threading.RLock()  # re-entrant: a signal handler or a finaliser may emit inside
        self._room = Room(lambda: self.crowded, self._ask)
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

        Without room, errors may use the reserve, and a patient caller, who will wait for room, exceeds it; others
        wait here if they may, and are dropped and counted if that does not help.
        """
        if len(self.records) >= self.limit:
            self._look()
        if (
            patient
            or not self.crowded
            or (record.level >= Level.ERROR and len(self.records) < self.capacity)
            or (self.block_timeout and self._may_wait() and self._room.wait_in_thread(self.block_timeout))
        ):
            self.append(record)
        else:
            self._drop()
            awaited.drop(self, INTAKE_FULL)
        if not self.pending:
            self.wake()

    def _drop(self) -> None:
        with self._lock:
            self.dropped += 1
            self.dropped_untold += 1

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

    def full(self) -> bool:
        """Whether there is no room for others than errors; asked when ``limit`` records wait.

        That many may only mean that it is time to look at their sizes.
        """
        self._look()
        return self.crowded

    def _look(self) -> None:
        with self._lock:
            self._allowance.look(self.records)
            self.limit = self._allowance.next_look

    def room(self) -> Coroutine[Any, Any, None]:
        """An awaitable that ends when there is room again."""
        return self._room.wait()

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

    def close(self) -> None:
        """The pipeline is closed, and nothing in memory any more."""

    # -- the writer, on its loop -----------------------------------------------------------------------------

    @property
    def waiting(self) -> bool:
        """Whether the writer can take something now."""
        return bool(self.records or self.dropped_untold)

    @property
    def queued(self) -> int:
        """Records that the writer has not taken, dropped ones that it has not been told of included."""
        return len(self.records) - self.barriers + self.dropped_untold

    @property
    def unprotected(self) -> int:
        """Records that should be in a journal and are not."""
        return 0

    def close_gaps(self) -> bool:
        """No more records come in; whether that makes some that were held back ready to be taken."""
        return False

    def woken(self) -> None:
        """End the writer's wait."""
        waiter = self._waiter
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    async def wait(self) -> None:
        """Wait until there may be something in the queue; afterwards ``pending`` is set."""
        self.pending = False  # before the look: whoever appends from now on wakes us
        if self._room:  # who began to wait while the last records were taken
            self._let_in()
        if not self.waiting:
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
        if self._room:
            self._let_in()

    def put_back(self, items: Sequence[RawRecord | Barrier]) -> None:
        """What was taken last and could not be offered comes first again."""
        self.records.extendleft(reversed(items))

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

    def release_waiters(self) -> None:
        """Let everybody go who waits for room; their records are in the queue already."""
        self._room.let_all_in()

    def _let_in(self) -> None:
        self._room.let_in(self._allowance.plain - len(self.records))

    def _ask(self) -> None:
        if not self.pending:
            self.wake()

    def _may_wait(self) -> bool:
        """Whether this thread may stand still: it runs no event loop, and the home loop, in another one, goes on."""
        return asyncio._get_running_loop() is None and self._is_at_home()
