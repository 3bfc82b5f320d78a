"""SIGTERM, where somebody asked for it: deliver what there is, then leave the rest to the handler from before.

The handler itself delivers nothing: it may have struck between any two instructions of the main thread, inside a lock
of ours too. It starts a thread and lets the main thread go on; when everything is delivered, or the deadline has
passed, the signal is sent again, for whoever would have had it without us.
"""

from __future__ import annotations

import _thread
import logging
import os
import signal
import threading
from collections.abc import Callable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from asynctrace.pipeline import home
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.diagnostics import diagnostics

if TYPE_CHECKING:
    from asynctrace.pipeline.pipeline import Pipeline

_Handler = Callable[[int, FrameType | None], Any]

_LOOK = 0.02
"""Seconds between two looks at the progress of local stores, which moves the deadline."""

_previous: _Handler | None = None  # whom to leave the signal to; None: the default, which ends the process
_delivering = False
_delivered = False  # and sent the signal again
_turn = 0  # counts signals, so that a thread that was overtaken by an impatient one keeps quiet


def handle(wanted: bool) -> None:
    """Take over SIGTERM, or give it back. Left alone: a signal that is ignored, and one that an event loop handles.

    Args:
        wanted: whether to handle it.
    """
    if threading.current_thread() is not threading.main_thread():
        if wanted and os.name == "posix" and signal.getsignal(signal.SIGTERM) is not _on_sigterm:
            diagnostics.say(
                logging.WARNING,
                ("sigterm",),
                "handle_sigterm: only the main thread can take over a signal; call configure() there",
            )
    elif wanted and os.name == "posix":
        _take_over()
    elif signal.getsignal(signal.SIGTERM) is _on_sigterm:
        signal.signal(signal.SIGTERM, _previous or signal.SIG_DFL)


def _take_over() -> None:
    global _previous
    handler = signal.getsignal(signal.SIGTERM)
    if handler is _on_sigterm or handler in (signal.SIG_IGN, None):  # None: not set from Python
        return
    if callable(handler) and _belongs_to_a_loop(handler):  # its callback runs whatever we do, and at once
        return
    _previous = handler if callable(handler) else None
    signal.signal(signal.SIGTERM, _on_sigterm)


def _belongs_to_a_loop(handler: Any) -> bool:
    return str(getattr(handler, "__module__", "")).partition(".")[0] in ("asyncio", "uvloop")


def _on_sigterm(number: int, frame: FrameType | None) -> None:
    global _delivering, _delivered, _turn
    _turn += 1
    previous = _previous
    if previous is None:
        # From here on the signal ends the process: a second one at once, and ours at last, whatever the main thread
        # is in.
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        _start(_close_all, _die)
    elif _delivering or _delivered:
        _delivering = _delivered = False
        previous(number, frame)
    else:
        _delivering = True
        turn = _turn
        _start(_nothing, lambda: _send_again(turn))


def _start(last: Callable[[], None], then: Callable[[], None]) -> None:
    try:
        # Not threading.Thread: the main thread may have been interrupted inside a lock of that module.
        _thread.start_new_thread(_see_to, (last, then))
    except RuntimeError:  # the interpreter is at its end, and starts no thread any more
        if not home.is_ending():
            then()


def _see_to(last: Callable[[], None], then: Callable[[], None]) -> None:
    """Have everything delivered, then the last thing done; neither a lock nor a hung sink holds the end back.

    What was emitted before the signal has as long as local stores make progress. The rest of the program goes on
    meanwhile, and may emit for ever: for that there is one time-out and no more.
    """
    flushed, done = _thread.allocate_lock(), _thread.allocate_lock()
    flushed.acquire()
    done.acquire()

    def work() -> None:
        try:
            home.guarded(_flush_all)
            flushed.release()
            last()
        finally:
            done.release()

    try:
        _thread.start_new_thread(work, ())
        pipelines = home.pipelines()
        deadline = _Progressing(pipelines)
        while not (in_time := flushed.acquire(timeout=_LOOK)) and deadline.left():
            pass
        done.acquire(timeout=home.LONGEST_END + (deadline.timeout if in_time else 0.0))
    finally:
        then()


def _flush_all() -> None:
    pipelines = home.pipelines()
    flushing = [(pipeline, pipeline.begin_flush()) for pipeline in pipelines]
    deadline = _Progressing(pipelines)
    for pipeline, flushed in flushing:
        while not pipeline.wait(flushed, _LOOK) and deadline.left():
            pass


def _close_all() -> None:
    closing = [(pipeline, pipeline.closing.begin(home.LEAST)) for pipeline in home.pipelines()]
    for pipeline, closed in closing:
        if not pipeline.wait(closed, home.LEAST + home.GRACE):  # its event loop does not come round
            home.guarded(pipeline.closing.drain_now)


class _Progressing:
    """A deadline that moves as long as local stores make records safe that were there when it began.

    Args:
        pipelines: whose stores; the longest of their ``close_timeout`` counts.
    """

    def __init__(self, pipelines: Sequence[Pipeline]) -> None:
        self.timeout = max((pipeline.close_timeout for pipeline in pipelines), default=0.0)
        self._pipelines = pipelines
        self._deadline = Deadline(self.timeout)
        self._seen = self._progress()
        self._enough = self._seen + sum(pipeline.closing.owed for pipeline in pipelines)

    def _progress(self) -> int:
        return sum(pipeline.closing.progress for pipeline in self._pipelines)

    def left(self) -> float:
        seen = self._progress()
        if self._seen < seen <= self._enough:
            self._seen = seen
            self._deadline.extend()
        return self._deadline.left()


def _nothing() -> None:
    pass


def _die() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _send_again(turn: int) -> None:
    global _delivering, _delivered
    if _delivering and turn == _turn:
        _delivering, _delivered = False, True
        main = threading.main_thread().ident
        assert main is not None
        signal.pthread_kill(main, signal.SIGTERM)  # to the main thread, which may be in a call that it ends


def _after_fork() -> None:
    global _delivering, _delivered
    _delivering = _delivered = False


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
