"""The Shelter: what of one lane outlives the process, its spool and its dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from functools import partial

from asynctrace.core.clock import SYSTEM_CLOCK
from asynctrace.core.record import Record
from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.overflow import PATIENCE, Overflow, Recovery
from asynctrace.pipeline.segments import FSYNC_INTERVAL
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.worker import Worker

_UNBURIED = 1_000  # batches of dead letters in memory while no disk takes them


class Shelter:
    """Finds the lane's place in the state directory when it is needed; makes nothing before.

    Args:
        state: the directory.
        key: of the lane there, see :func:`~asynctrace.pipeline.state_directory.lane_key`.
        lane: the lane's name.
        max_bytes: of the spool.
        max_age: seconds that a record is worth delivering.
        fsync_interval: seconds between two fsyncs of the spool; see
            :class:`~asynctrace.pipeline.segments.Segments`.
        recovery: brings what is in journals to the spool, before that is adopted; None: nothing does.
    """

    def __init__(
        self,
        state: StateDirectory,
        key: str,
        lane: str,
        *,
        max_bytes: int,
        max_age: float,
        fsync_interval: float | None = FSYNC_INTERVAL,
        recovery: Recovery | None = None,
    ) -> None:
        self._recovery = recovery
        self._state = state
        self.key = key
        self._lane = lane
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._fsync_interval = fsync_interval
        self._worker = Worker(f"asynctrace spool {lane}")
        self._overflow: Overflow | None = None
        self._unburied: deque[Callable[[DeadLetters], int]] = deque(maxlen=_UNBURIED)
        self._burying: Future[None] | None = None

    @property
    def overflow(self) -> Overflow | None:
        """The lane's side of its spool; None while nothing can be written."""
        if self._overflow is None and (directories := self._state.spools(self.key)):
            spool = Spool(
                directories[0],
                elsewhere=directories[1:],
                max_bytes=self._max_bytes,
                max_age=self._max_age,
                fsync_interval=self._fsync_interval,
            )
            self._overflow = Overflow(spool, self._worker, self._recovery)
        return self._overflow

    def bury(self, records: Sequence[Record], *, sink: str, reason: str, traceback: str) -> None:
        """Keep the records as dead letters: on an event loop soon, elsewhere now. A failure is said, not raised.

        What no disk takes now stays in memory and is tried again with the next ones, and at the end.
        """
        add = partial(
            DeadLetters.add,
            records=records,
            lane=self._lane,
            sink=sink,
            reason=reason,
            traceback=traceback,
            time_ns=SYSTEM_CLOCK.time_ns(),
        )
        if asyncio._get_running_loop() is not None:
            with suppress(RuntimeError):  # no thread starts any more: below
                self._burying = self._worker.submit(self._bury, add)
                return
        self._bury(add)

    def _bury(self, add: Callable[[DeadLetters], int] | None = None) -> None:
        if add is not None:
            if len(self._unburied) == self._unburied.maxlen:
                self._say("dead letters lost", "dead letters are lost: %d batches wait already", _UNBURIED)
            self._unburied.append(add)
        while self._unburied:
            if not self._find_room(self._unburied[0]):
                return
            self._unburied.popleft()

    def _find_room(self, add: Callable[[DeadLetters], int]) -> bool:
        directories = self._state.dead_letters(self.key)
        if not directories:
            self._state.complain()
            return False
        failure: Exception | None = None
        for directory in directories:
            try:
                given_up = add(DeadLetters(directory))
            except Exception as error:
                failure = failure or error
                continue
            if given_up:
                self._say(
                    "dead letters full", "the oldest %d dead letters were given up for new ones", given_up
                )
            return True
        self._say("dead letters", "dead letters cannot be written and stay in memory: %r", failure)
        return False

    def _say(self, cause: str, message: str, *args: object) -> None:
        diagnostics.say(logging.WARNING, (cause, self._lane), f"lane {self._lane}: {message}", *args)

    def complain(self) -> None:
        """Say that there is something to keep and nothing to keep it in."""
        self._state.complain()

    async def settle(self) -> None:
        """Wait for dead letters that are being written, for a moment."""
        if self._burying is not None:
            await asyncio.wait({asyncio.wrap_future(self._burying)}, timeout=PATIENCE)
            self._burying = None
        if self._unburied:
            with suppress(RuntimeError):
                await asyncio.wait({asyncio.wrap_future(self._worker.submit(self._bury))}, timeout=PATIENCE)

    def settle_now(self) -> None:
        """The same in this thread."""
        if self._burying is not None:
            with suppress(LateError):
                self._burying.result(PATIENCE)
            self._burying = None
        if self._unburied:
            self._bury()

    def release(self) -> None:
        """Let other lanes and processes have what is on disk.

        Raises:
            OSError: the spool does not answer.
        """
        if self._overflow is not None:
            self._overflow.release()
        self._worker.shutdown()
