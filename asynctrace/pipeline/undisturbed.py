"""Holds back Ctrl-C while our own code moves records: it strikes between the steps of our tasks, never within one.

Python raises ``KeyboardInterrupt`` between any two instructions of the main thread. On an event loop that
``asyncio.run`` does not guard, that may be the two that take a record out of one place and put it into another.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]  # what it has of signal is typed there
import asyncio
import signal
import threading
from collections.abc import Callable, Coroutine, Generator
from functools import partial
from types import CodeType, FrameType
from typing import Any, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

_Handler = Callable[[int, FrameType | None], Any]

# The functions of :mod:`signal` look for an enum member of the handler's value, and describe the handler in the error
# that says that there is none, with the loop and the task that it holds: 50 µs, twice a step.
_get_handler: Callable[[int], Any] = _signal.getsignal
_set_handler: Callable[[int, Any], Any] = _signal.signal

_original: _Handler | None = None  # whose place we have taken, for the time of one step
_held = False  # an interrupt came meanwhile


def undisturbed(function: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T:
    """Call the function; an interrupt that comes meanwhile is raised afterwards, a second one at once."""
    if not _take_over():
        return function(*args, **kwargs)
    try:
        return function(*args, **kwargs)
    finally:
        if _give_back():
            _raise_on(asyncio._get_running_loop())


class UndisturbedCoroutine(Coroutine[Any, Any, None]):
    """Each step of the coroutine is :func:`undisturbed`.

    Args:
        inner: the coroutine, for a task.
    """

    def __init__(self, inner: Coroutine[Any, Any, None]) -> None:
        self._inner = inner
        self.__name__ = getattr(inner, "__name__", type(inner).__name__)
        self.__qualname__ = getattr(inner, "__qualname__", self.__name__)

    def send(self, value: Any) -> Any:
        """One step."""
        return undisturbed(self._inner.send, value)

    def throw(self, *error: Any) -> Any:
        """One step, which begins with the exception."""
        return undisturbed(self._inner.throw, *error)

    def close(self) -> None:
        """End the coroutine where it stands."""
        self._inner.close()

    def __await__(self) -> Generator[Any, None, None]:
        return self._inner.__await__()

    # What asyncio and inspect look at to describe a task.

    @property
    def cr_code(self) -> CodeType | None:
        return getattr(self._inner, "cr_code", None)

    @property
    def cr_frame(self) -> FrameType | None:
        return getattr(self._inner, "cr_frame", None)

    @property
    def cr_running(self) -> bool:
        return getattr(self._inner, "cr_running", False)

    @property
    def cr_suspended(self) -> bool:
        return getattr(self._inner, "cr_suspended", False)

    @property
    def cr_await(self) -> Any:
        return getattr(self._inner, "cr_await", None)


def _take_over() -> bool:
    """Whether an interrupt could be raised here, and is held back from now on."""
    global _original
    if threading.current_thread() is not threading.main_thread():
        return False  # Python runs signal handlers in the main thread only
    handler = _get_handler(signal.SIGINT)
    if not callable(handler) or not _raises(handler):
        return False
    _original = handler
    try:
        _set_handler(signal.SIGINT, _hold)
    except ValueError:  # an interpreter that handles no signals
        return False
    return True


def _raises(handler: _Handler) -> bool:
    """Whether the handler is one that raises KeyboardInterrupt: Python's own, or that of ``asyncio.run``.

    The user's own handlers are left alone; so are those that an event loop answers by its wake-up descriptor.
    """
    if isinstance(handler, partial):
        return isinstance(getattr(handler.func, "__self__", None), asyncio.Runner)
    return handler is signal.default_int_handler


def _hold(number: int, frame: FrameType | None) -> None:
    global _held
    if not _held:
        _held = True
        return
    if _original is not None:  # the second Ctrl-C: the step takes too long for whoever presses it
        _original(number, frame)


def _give_back() -> bool:
    """Whether an interrupt was held back."""
    global _held
    if _get_handler(signal.SIGINT) is _hold:  # else the user's code has set its own meanwhile
        _set_handler(signal.SIGINT, _original)
    held, _held = _held, False
    return held


def _raise_on(loop: asyncio.AbstractEventLoop | None) -> None:
    """Raise the interrupt: in a callback of its own, if a loop runs, so that no task takes it for its own end."""
    if loop is None:
        signal.raise_signal(signal.SIGINT)
    else:
        _waiting.append(loop)
        loop.call_soon(raise_waiting, loop)


_waiting: list[asyncio.AbstractEventLoop] = []  # loops that an interrupt waits for


def raise_waiting(loop: asyncio.AbstractEventLoop) -> None:
    """Raise the interrupt that waits for this loop; also called at its close, should it not have come round to it."""
    if loop in _waiting:
        _waiting.remove(loop)
        signal.raise_signal(signal.SIGINT)


def forget() -> None:
    """In a forked child: an interrupt that waits there is the parent's."""
    global _held
    _held = False
    _waiting.clear()
