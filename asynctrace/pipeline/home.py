"""Where pipelines live and how they end: the hooks on loops, on the interpreter's exit and on forks."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import threading
import weakref
from collections.abc import Coroutine
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from asynctrace.pipeline.pipeline import Pipeline

_logger = logging.getLogger("asynctrace")

_pipelines: set[Pipeline] = set()  # strong: a pipeline that nobody holds may still hold records
_own_tasks: weakref.WeakSet[asyncio.Task[Any]] = weakref.WeakSet()
_watched: weakref.WeakSet[asyncio.AbstractEventLoop] = weakref.WeakSet()
_hooked = False


def register(pipeline: Pipeline) -> None:
    """Remember the pipeline until it is closed; hook into the end of the process at first use."""
    global _hooked
    _pipelines.add(pipeline)
    if not _hooked:
        _hooked = True
        atexit.register(_close_all)
        # Runs before the users' atexit functions and joins no daemon thread, so it flushes and closes nothing; it is
        # the only hook in a child forked by multiprocessing. It is private: guarded.
        register_early = getattr(threading, "_register_atexit", None)
        if register_early is not None:
            try:
                register_early(_flush_all)
            except RuntimeError:  # the interpreter is shutting down already
                pass


def unregister(pipeline: Pipeline) -> None:
    """The pipeline is closed."""
    _pipelines.discard(pipeline)


def pipelines() -> list[Pipeline]:
    """All that are not closed."""
    return list(_pipelines)


def create_task(coroutine: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
    """A task of our own: the end of a loop does not wait for it as for the user's."""
    task = asyncio.get_running_loop().create_task(coroutine, name=name)
    _own_tasks.add(task)
    return task


def others_alive() -> bool:
    """Whether tasks of the user are still running on this loop."""
    return any(task not in _own_tasks for task in asyncio.all_tasks())


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
            for pipeline in pipelines():
                _guarded(pipeline.end_with_loop, loop)
        close()

    loop.close = close_after_delivery  # type: ignore[method-assign]


def _flush_all() -> None:
    for pipeline in pipelines():
        _guarded(pipeline.flush, pipeline.close_timeout)


def _close_all() -> None:
    for pipeline in pipelines():
        _guarded(pipeline.close)


def _guarded(function: Any, *args: object) -> None:
    """At the end nobody is left to take an error."""
    try:
        function(*args)
    except Exception:
        _logger.exception("ending a pipeline failed")


def _after_fork() -> None:
    _own_tasks.clear()
    for pipeline in pipelines():
        pipeline.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
