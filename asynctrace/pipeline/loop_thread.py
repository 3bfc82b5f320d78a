"""The one daemon thread of the process that runs an event loop for code that has none."""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Coroutine
from typing import Any, TypeVar

from asynctrace.core.silence import Silence

_THREAD_NAME = "asynctrace"
_logger = logging.getLogger("asynctrace")

_T = TypeVar("_T")


class LoopThread:
    """An event loop in a daemon thread, started when it is first asked for.

    A daemon, because a thread that must be joined hangs the interpreter's exit; it works until the very end.
    """

    def __init__(self) -> None:
        self._lock = threading.RLock()  # re-entrant: a finaliser may emit while we start
        self._loop: asyncio.AbstractEventLoop | None = None
        self._abandoned: list[asyncio.AbstractEventLoop] = []

    def loop(self) -> asyncio.AbstractEventLoop:
        """The running loop.

        Raises:
            RuntimeError: the interpreter is shutting down and starts no thread any more.
        """
        with self._lock:
            if self._loop is None or self._loop.is_closed():
                loop = _new_loop()
                thread = threading.Thread(target=_run, args=(loop,), name=_THREAD_NAME, daemon=True)
                try:
                    thread.start()
                except RuntimeError:
                    loop.close()
                    raise
                self._loop = loop
            return self._loop

    def wait_for(self, coroutine: Coroutine[Any, Any, _T]) -> _T:
        """Run the coroutine there and block the calling thread until it ends; what it returns or raises.

        Raises:
            RuntimeError: the interpreter is shutting down and starts no thread any more.
        """
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop()).result()

    def after_fork(self) -> None:
        """In the child the thread is gone. The loop is kept unused: closing it would break the parent's."""
        self._lock = threading.RLock()
        if self._loop is not None:
            self._abandoned.append(self._loop)
            self._loop = None


def _new_loop() -> asyncio.AbstractEventLoop:
    # asyncio tells that a loop is made; this one is not the program's.
    silence, logger = Silence(), logging.getLogger("asyncio")
    silence.cover(threading.current_thread())
    logger.addFilter(silence)
    try:
        return asyncio.new_event_loop()
    finally:
        logger.removeFilter(silence)


def _run(loop: asyncio.AbstractEventLoop) -> None:
    asyncio.set_event_loop(loop)
    while not loop.is_closed():
        try:
            loop.run_forever()
        except BaseException:
            # A sink, a rule or a processor raised SystemExit: it is not theirs to end the loop that serves all.
            _logger.exception("the loop thread goes on")


loop_thread = LoopThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=loop_thread.after_fork)
