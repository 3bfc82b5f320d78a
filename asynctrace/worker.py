"""One daemon thread for the blocking calls of one sink, reader or lane."""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Executor, Future
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from asynctrace.lending import Lender

P = ParamSpec("P")
T = TypeVar("T")

_Task = tuple["Future[Any]", Callable[[], Any]]


class Worker(Executor):
    """An executor of one thread that does not hold back the end of the interpreter.

    ``concurrent.futures`` joins the threads of its pools at exit: a write that is stuck in a dead network
    file system would hang the program for ever. The loop's default executor is shared: six
    ``to_thread(flush)`` on it fill it and wait for the very writes that queue behind them.

    The thread starts with the first call and ends with :meth:`shutdown`, or when nobody holds the worker any
    more.

    Args:
        name: of the thread, for people who look at a list of threads.
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._tasks: SimpleQueue[_Task | None] = SimpleQueue()
        self._started = False
        self._lock = threading.Lock()
        self._end: weakref.finalize[..., Worker] | None = None

    def submit(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call it on the thread, after all that was submitted before.

        Raises:
            RuntimeError: no thread can start any more, the interpreter is going away.
        """
        with self._lock:
            if not self._started:
                threading.Thread(target=_work, args=(self._tasks,), name=self._name, daemon=True).start()
                self._end = weakref.finalize(self, self._tasks.put, None)
                self._end.atexit = False
                self._started = True
        future: Future[T] = Future()
        self._tasks.put((future, lambda: fn(*args, **kwargs)))
        return future

    async def run(self, fn: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
        """The same, awaited. Cancelled before its turn it is not called; afterwards it goes on unattended.

        Raises:
            RuntimeError: as :meth:`submit`.
        """
        with Lender(asyncio.get_running_loop()):
            return await asyncio.wrap_future(self.submit(fn, *args, **kwargs))

    def shutdown(self, wait: bool = False, *, cancel_futures: bool = False) -> None:
        """End the thread after what was submitted so far; never waits for it."""
        with self._lock:
            if self._end is not None:
                self._end()
                self._end = None
            self._started = False
            self._tasks = SimpleQueue()


def _work(tasks: SimpleQueue[_Task | None]) -> None:
    while (task := tasks.get()) is not None:
        future, call = task
        if not future.set_running_or_notify_cancel():
            continue
        try:
            result = call()
        except BaseException as error:  # as concurrent.futures does: it belongs to who waits for the result
            future.set_exception(error)
        else:
            future.set_result(result)
        del task, future, call  # an idle thread must not keep a batch alive
