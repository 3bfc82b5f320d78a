"""A Chore: blocking work besides the records, now and then, on a thread of its own."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from typing import Protocol

from asynctrace.pipeline.diagnostics import diagnostics

_LEAST = 1.0  # seconds between two looks whether a chore that still runs, or that failed, is due again


class Chore(Protocol):
    """What is to be done now and then while a pipeline has a home."""

    def due_in(self) -> float:
        """Seconds until it is due; 0 when it is."""

    def run(self) -> None:
        """Do it; blocks, on a thread of its own. The interpreter does not wait for it at its end."""


class ChoreTimer:
    """Starts the chore when it is due, as long as there is a loop to wait on.

    Args:
        chore: what to do; None: nothing, ever.
    """

    def __init__(self, chore: Chore | None) -> None:
        self._chore = chore
        self._timer: asyncio.TimerHandle | None = None
        self._thread: threading.Thread | None = None

    def begin(self, loop: asyncio.AbstractEventLoop) -> None:
        """Wait on that loop, which is running this."""
        if self._chore is not None:
            self._wait(loop, self._chore.due_in())

    def end(self) -> None:
        """Wait no more; what runs goes on."""
        timer, self._timer = self._timer, None
        if timer is not None:
            timer.cancel()

    def forget(self) -> None:
        """In a forked child: the timer and the thread are the parent's."""
        self._timer = self._thread = None

    def _wait(self, loop: asyncio.AbstractEventLoop, seconds: float) -> None:
        # Weakly held: a pipeline whose loop is not told that it ends must not wait there for an hour.
        self._timer = loop.call_later(seconds, _look, weakref.ref(self), loop)

    def look(self, loop: asyncio.AbstractEventLoop) -> None:
        """Start the chore if it is due, and wait for the next time."""
        chore = self._chore
        if self._timer is None or chore is None:
            return
        if not chore.due_in() and (self._thread is None or not self._thread.is_alive()):
            self._thread = threading.Thread(
                target=_run, args=(chore,), name="asynctrace retention", daemon=True
            )
            try:
                self._thread.start()
            except RuntimeError:  # the interpreter ends
                return
        self._wait(loop, max(_LEAST, chore.due_in()))


def _look(held: weakref.ref[ChoreTimer], loop: asyncio.AbstractEventLoop) -> None:
    timer = held()
    if timer is not None:
        timer.look(loop)


def _run(chore: Chore) -> None:
    try:
        chore.run()
    except Exception as error:  # nobody waits for it
        diagnostics.say(logging.WARNING, ("chore", type(error).__name__), "%r failed: %r", chore, error)
