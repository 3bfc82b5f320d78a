"""Context for thread pools: ``to_thread`` carries it, ``loop.run_in_executor`` and ``Executor.submit`` do not."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Executor, Future
from contextvars import Context, copy_context
from functools import partial
from typing import Any, ParamSpec, TypeVar

_P = ParamSpec("_P")
_T = TypeVar("_T")


def in_context(function: Callable[_P, _T], /, *args: Any, **kwargs: Any) -> Callable[..., _T]:
    """A callable that runs the function in a copy of the context of now: the same trace, the same span.

    Example:
        >>> from concurrent.futures import ThreadPoolExecutor
        >>> with ThreadPoolExecutor() as pool:
        ...     pool.submit(in_context(max, 2, 3)).result()
        3
    """
    return partial(_run, copy_context(), function, *args, **kwargs)


def _run(context: Context, function: Callable[..., _T], /, *args: Any, **kwargs: Any) -> _T:
    # A copy for each call: a context cannot be entered twice at once, and `pool.map` would.
    return context.copy().run(function, *args, **kwargs)


class ContextExecutor(Executor):
    """An executor whose work runs in the context of whoever submitted it; for threads.

    Args:
        executor: does the work; it is shut down with this one.
    """

    def __init__(self, executor: Executor) -> None:
        self._executor = executor

    def submit(self, fn: Callable[_P, _T], /, *args: _P.args, **kwargs: _P.kwargs) -> Future[_T]:
        """Submit the call together with a copy of the context."""
        return self._executor.submit(partial(copy_context().run, fn, *args, **kwargs))

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Shut the executor down."""
        self._executor.shutdown(wait, cancel_futures=cancel_futures)
