"""Where pipelines live and how they end: the hooks on loops, on the interpreter's exit and on forks."""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import logging
import os
import threading
import weakref
from collections.abc import Callable, Coroutine
from contextvars import Context
from time import monotonic
from typing import TYPE_CHECKING, Any

from asynctrace.pipeline.lane import LAST_RESORT
from asynctrace.pipeline.undisturbed import UndisturbedCoroutine, forget, raise_waiting

if TYPE_CHECKING:
    from asynctrace.pipeline.pipeline import Pipeline

_logger = logging.getLogger("asynctrace")

_pipelines: set[Pipeline] = set()  # strong: a pipeline that nobody holds may still hold records
_own_tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
_left_behind: set[asyncio.Task[Any]] = set()
_watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_hooked = False
_over = False
_ending = False

GRACE = LAST_RESORT + 0.5
"""Seconds beyond a deadline in which closing still may end by itself."""

LONGEST_END = 2 * GRACE
"""Seconds beyond a deadline for those who must not wait for a closing that hangs itself."""

_LOOK = 0.02
"""Seconds between two looks at the progress of local stores."""

LEAST = 0.2
"""Seconds that closing has at exit, however long flushing took: what the users' atexit functions recorded."""


def register(pipeline: Pipeline) -> None:
    """Remember the pipeline until it is closed; hook into the end of the process at first use."""
    global _hooked, _over
    _pipelines.add(pipeline)
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        # Runs before the users' atexit functions, so it flushes and closes nothing.
        if not call_early(_flush_all):  # `atexit` calls no newcomers either
            _over = True


def call_early(function: Callable[[], None]) -> bool:
    """Have it called at exit before the users' atexit functions; False when the interpreter is shutting down already.

    It is the only hook in a child forked by multiprocessing. It is private: where it is missing, nothing is called.
    """
    register_early = getattr(threading, "_register_atexit", None)
    if register_early is not None:
        try:
            register_early(function)
        except RuntimeError:
            return False
    return True


def unregister(pipeline: Pipeline) -> None:
    """The pipeline is closed."""
    _pipelines.discard(pipeline)


def is_over() -> bool:
    """Whether the first record came so late that no hook will be called any more."""
    return _over


def is_ending() -> bool:
    """Whether the hooks at the interpreter's exit have begun: they deliver, whoever else would."""
    return _ending


def pipelines() -> list[Pipeline]:
    """All that are not closed."""
    return list(_pipelines)


def create_task(
    coroutine: Coroutine[Any, Any, None], name: str, loop: asyncio.AbstractEventLoop | None = None
) -> asyncio.Task[None]:
    """A task of our own: the end of a loop does not wait for it as for the user's, nor does Ctrl-C strike in it."""
    own = UndisturbedCoroutine(coroutine)
    # A context of its own: what whoever happens to start us has in his is not ours to see, and not ours to keep.
    task = (loop or asyncio.get_running_loop()).create_task(own, name=name, context=Context())
    _own_tasks.add(task)
    return task


def create_hidden_task(
    coroutine: Coroutine[Any, Any, None], name: str, loop: asyncio.AbstractEventLoop | None = None
) -> asyncio.Task[None]:
    """A task of our own that calls a sink: ``asyncio.all_tasks`` does not list it.

    The end of ``asyncio.run`` cancels every task that is listed, which would break off a write that is going on, and
    waits for all of them, however long one refuses to end. This one is ended, or left behind, by whoever made it.
    """
    task = create_task(coroutine, name, loop)
    asyncio._unregister_task(task)
    return task


def leave_behind(task: asyncio.Task[None]) -> None:
    """Nobody waits for the task any more; should its loop end before it does, nobody hears of that."""
    if not task.done():
        task._log_destroy_pending = False  # type: ignore[attr-defined]
        # Else its coroutine is closed when nobody happens to hold it, which a sink may refuse as loudly as its end.
        _left_behind.add(task)
        task.add_done_callback(_left_behind.discard)


def others_end() -> bool:
    """Whether tasks of the user were cancelled on this loop and have not ended yet.

    One that was not cancelled may be who cancelled all others and now waits for them, us included.
    """
    return any(task.cancelling() for task in asyncio.all_tasks() if task not in _own_tasks)


def watch(loop: asyncio.AbstractEventLoop) -> None:
    """Have the pipelines of that loop delivered before it is closed.

    ``close`` is wrapped on the instance: a bare loop offers no other hook. ``finally`` blocks of asynchronous
    generators have run by then.
    """
    if loop in _watched:
        return
    _watched.add(loop)
    close = loop.close

    def close_after_delivery() -> None:
        if not loop.is_running() and not loop.is_closed():
            left: list[Pipeline] = []
            for pipeline in pipelines():
                guarded(_leave, pipeline, loop, left)
            _flush(left)
        close()
        raise_waiting(loop)

    loop.close = close_after_delivery  # type: ignore[method-assign]


def _leave(pipeline: Pipeline, loop: asyncio.AbstractEventLoop, left: list[Pipeline]) -> None:
    if pipeline.leave_loop(loop):
        pipeline.closing.forget_spent()
        left.append(pipeline)


def _begin_exit() -> None:
    global _ending
    if not _ending:
        _ending = True
        for pipeline in pipelines():
            pipeline.closing.forget_spent()


def _flush_all() -> None:
    _begin_exit()
    _flush(pipelines())


def _flush(ending: list[Pipeline]) -> None:
    started = monotonic()
    flushing = [(pipeline, pipeline.closing.progress, pipeline.begin_flush()) for pipeline in ending]
    for pipeline, progress, flushed in flushing:  # all at once, one deadline
        guarded(_wait, pipeline, progress, flushed, started)


def _wait(
    pipeline: Pipeline, progress: int, flushed: concurrent.futures.Future[None], last_progress: float
) -> None:
    end = last_progress + pipeline.closing.patience
    while not (done := pipeline.wait(flushed, _LOOK)) and monotonic() < end:
        if progress != pipeline.closing.progress:
            progress, last_progress = pipeline.closing.progress, monotonic()
    if not done:
        pipeline.closing.spend(monotonic() - last_progress)


def _close_all() -> None:
    _begin_exit()
    closing = [(pipeline, pipeline.closing.begin(pipeline.closing.patience)) for pipeline in pipelines()]
    try:
        for pipeline, done in closing:
            guarded(pipeline.closing.wait, done)
    except KeyboardInterrupt:
        for pipeline, _ in closing:
            pipeline.closing.hasten()
        for pipeline, done in closing:
            guarded(pipeline.closing.wait, done)
        raise


def guarded(function: Any, *args: object) -> None:
    """At the end nobody is left to take an error."""
    try:
        function(*args)
    except Exception:
        _logger.exception("ending a pipeline failed")


def _after_fork() -> None:
    global _ending
    _ending = False
    forget()
    _own_tasks.clear()
    for pipeline in pipelines():
        pipeline.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
