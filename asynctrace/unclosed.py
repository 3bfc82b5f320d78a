"""Runs that nobody has closed: they end with the program, before the pipelines close.

A program that has ended in order is not to look like one that was killed. How it ended is known as far as Python tells:
an exception that nobody handled, or none.
"""

from __future__ import annotations

import atexit
import os
import sys
from contextlib import suppress
from typing import TYPE_CHECKING

from asynctrace.pipeline.home import call_early, guarded

if TYPE_CHECKING:
    from asynctrace.trace import Trace

MOST = 5_000
"""Runs that are remembered, the newest, 4 KB each: a program that closes none must not fill its memory with them."""

_LAST = -100  # priority among the finalisers of multiprocessing: behind the users'

_open: dict[Trace, None] = {}  # in the order in which they were opened; strong: often nobody else holds them
_hooked = False


def remember(trace: Trace) -> None:
    """The run has begun here."""
    global _hooked
    if not _hooked:
        _hooked = True
        _hook()
    _open[trace] = None
    if len(_open) > MOST:
        with suppress(RuntimeError, StopIteration):  # another thread opens or closes one
            _open.pop(next(iter(_open)), None)


def forget(trace: Trace) -> None:
    """The run has ended."""
    _open.pop(trace, None)


def _hook() -> None:
    """Have the runs end behind the users' own functions at exit, and before the pipelines, whose hook is there."""
    atexit.unregister(_end_all)
    atexit.register(_end_all)
    process = sys.modules.get("multiprocessing.process")
    if process is not None and process.parent_process() is not None:
        # A child that was forked calls no atexit function before 3.13, and from then on only after our early flush.
        from multiprocessing.util import Finalize

        Finalize(None, _end_all_of_child, exitpriority=_LAST)
        call_early(_end_all_before_the_flush)


def _end_all() -> None:
    interactive = hasattr(sys, "ps1") or sys.flags.interactive  # there, an exception ends nothing
    error = getattr(sys, "last_exc", None) or getattr(sys, "last_value", None)  # the one before 3.12
    _end(None if interactive else error)


def _end_all_of_child() -> None:
    _end(sys.exc_info()[1])


def _end_all_before_the_flush() -> None:
    """From 3.13 on a child that was forked runs its finalisers last; what is known here is the code it ends with."""
    frame = sys._getframe()
    while frame.f_code.co_name != "_bootstrap":
        if frame.f_back is None:
            return
        frame = frame.f_back
    code = frame.f_locals.get("exitcode")
    _end(SystemExit(code) if code else None)


def _end(error: BaseException | None) -> None:
    while _open:
        for trace in list(_open):
            forget(trace)
            guarded(trace._end_with_program, error)


def _after_fork() -> None:
    global _hooked
    _hooked = False
    _open.clear()  # they are the parent's, and go on there


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
