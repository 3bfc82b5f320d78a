"""Lends the interpreter to a thread that an event loop waits for.

A busy loop lets go of the interpreter's lock between two of its steps only, for the microsecond in which it looks for
events. That wakes a thread which waits for the lock, but too late; and the thread's patience, 5 ms, after which it
would be given the lock (``sys.setswitchinterval``), begins anew. Beside a loop that gives way every 2 ms each of the
thread's blocking calls may so take seconds (CPython 3.11 to 3.13, ``take_gil`` in ``Python/ceval_gil.c`` or
``Python/ceval_gil.h``). A pause of the loop's own thread that is long enough to be noticed ends that.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

_PATIENCE = 0.005  # seconds that the thread may take without a look at how busy the loop is
_AGAIN = 0.001  # seconds between two loans
_LATE = 0.001  # seconds: a timer of a loop that has time to spare is not so late
_LOAN = 0.000_05  # seconds, and what the system adds: a thread is awake by then


class Lender:
    """While it is entered, a loop that is too busy for the thread lends it the interpreter, again and again.

    Args:
        loop: waits for the thread.
        clock: monotonic seconds.
        pause: blocks for so many seconds, without the interpreter's lock.
    """

    __slots__ = ("_clock", "_due", "_loop", "_pause", "_timer")

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        *,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._loop = loop
        self._clock = clock
        self._pause = pause

    def __enter__(self) -> Lender:
        self._look_in(_PATIENCE)
        return self

    def __exit__(self, *exception: object) -> None:
        self._timer.cancel()

    def _look_in(self, seconds: float) -> None:
        self._due = self._clock() + seconds
        self._timer = self._loop.call_later(seconds, self._look)

    def _look(self) -> None:
        if self._clock() - self._due < _LATE:
            self._look_in(_PATIENCE)
        else:
            self._pause(_LOAN)
            self._look_in(_AGAIN)
