"""A Silence: what libraries log of our doing stays out of the program's logging."""

from __future__ import annotations

import logging
import threading
import weakref


class Silence(logging.Filter):
    """Drops what certain threads log, on the loggers that it is added to; what others log there passes.

    A program that sends its logging to its traces would otherwise record the storing of each record, for ever.
    """

    def __init__(self) -> None:
        super().__init__()
        self._threads: weakref.WeakSet[threading.Thread] = weakref.WeakSet()

    def cover(self, thread: threading.Thread) -> None:
        """From now on that thread is silent, until it ends."""
        self._threads.add(thread)

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record, which the calling thread logs, passes."""
        return threading.current_thread() not in self._threads
