"""The JournalSync: has the disk hold what a journal took, a moment after it took it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from time import sleep

from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.journal_segment import Segment
from asynctrace.worker import Worker

SYNC_INTERVAL = 0.01
"""Seconds between two fsyncs while records arrive: what a power failure may cost."""


class JournalSync:
    """One fsync, in a thread of its own, for all that came meanwhile.

    Args:
        segments: those that have been written to.
    """

    def __init__(self, segments: Callable[[], Sequence[Segment]]) -> None:
        self._segments = segments
        self._worker = Worker("asynctrace journal to disk")
        self._unsynced = False
        self._syncing = False

    def soon(self) -> None:
        """Something was written; any thread."""
        self._unsynced = True
        if not self._syncing:
            self._syncing = True
            try:
                self._worker.submit(self._sync)
            except RuntimeError:  # no thread starts any more
                self._syncing = False
                self._sync_now()

    def _sync(self) -> None:
        """As long as there is something."""
        while self._wants_sync():
            sleep(SYNC_INTERVAL)
            self._sync_now()
        self._syncing = False
        if self._wants_sync():  # written between the two lines above
            self.soon()

    def _wants_sync(self) -> bool:
        return self._unsynced

    def _sync_now(self) -> None:
        self._unsynced = False
        try:
            for segment in self._segments():
                segment.sync()
        except OSError as error:
            message = "the journal is not on disk: %r"
            diagnostics.say(logging.WARNING, ("journal", message), message, error)

    def end(self) -> None:
        """Nothing more is written."""
        self._worker.shutdown()
