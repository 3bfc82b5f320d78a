"""The Shelter: what of one lane outlives the process, its spool and its dead letters."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from concurrent.futures import Future
from concurrent.futures import TimeoutError as LateError
from contextlib import suppress
from functools import partial

from asynctrace.core.record import Record
from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.overflow import PATIENCE, Overflow
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.worker import Worker


class Shelter:
    """Finds the lane's place in the state directory when it is needed; makes nothing before.

    Args:
        state: the directory.
        key: of the lane there, see :func:`~asynctrace.pipeline.state_directory.lane_key`.
        lane: the lane's name.
        max_bytes: of the spool.
        max_age: seconds that a record is worth delivering.
    """

    def __init__(self, state: StateDirectory, key: str, lane: str, *, max_bytes: int, max_age: float) -> None:
        self._state = state
        self._key = key
        self._lane = lane
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._worker = Worker(f"asynctrace spool {lane}")
        self._overflow: Overflow | None = None
        self._letters: DeadLetters | None = None
        self._burying: Future[None] | None = None

    @property
    def overflow(self) -> Overflow | None:
        """The lane's side of its spool; None while nothing can be written."""
        if self._overflow is None and (directory := self._state.spool(self._key)) is not None:
            spool = Spool(directory, max_bytes=self._max_bytes, max_age=self._max_age)
            self._overflow = Overflow(spool, self._worker)
        return self._overflow

    def bury(self, records: Sequence[Record], *, sink: str, reason: str, traceback: str) -> None:
        """Keep the records as dead letters: on an event loop soon, elsewhere now. A failure is said, not raised."""
        if self._letters is None:
            directory = self._state.dead_letters(self._key)
            if directory is None:
                self._state.complain()
                return
            self._letters = DeadLetters(directory)
        add = partial(
            self._bury, self._letters, records, lane=self._lane, sink=sink, reason=reason, traceback=traceback
        )
        if asyncio._get_running_loop() is not None:
            with suppress(RuntimeError):  # no thread starts any more: below
                self._burying = self._worker.submit(add)
                return
        add()

    def _bury(self, letters: DeadLetters, records: Sequence[Record], **how: str) -> None:
        try:
            given_up = letters.add(records, **how)
        except Exception as error:
            diagnostics.say(
                logging.ERROR,
                ("dead letters", self._lane),
                "lane %s: dead letters are lost: %r",
                self._lane,
                error,
            )
            return
        if given_up:
            diagnostics.say(
                logging.WARNING,
                ("dead letters full", self._lane),
                "lane %s: the oldest %d dead letters were given up for new ones",
                self._lane,
                given_up,
            )

    def complain(self) -> None:
        """Say that there is something to keep and nothing to keep it in."""
        self._state.complain()

    async def settle(self) -> None:
        """Wait for dead letters that are being written, for a moment."""
        if self._burying is not None:
            await asyncio.wait({asyncio.wrap_future(self._burying)}, timeout=PATIENCE)
            self._burying = None

    def settle_now(self) -> None:
        """The same in this thread."""
        if self._burying is not None:
            with suppress(LateError):
                self._burying.result(PATIENCE)
            self._burying = None

    def release(self) -> None:
        """Let other lanes and processes have what is on disk.

        Raises:
            OSError: the spool does not answer.
        """
        if self._overflow is not None:
            self._overflow.release()
        self._worker.shutdown()
