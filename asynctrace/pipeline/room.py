"""The Room: who waits for room in the Intake, first come, first served; coroutines on any event loop, and threads."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Callable, Coroutine, Generator
from contextlib import suppress
from typing import Any


class Room:
    """A line of those who wait.

    Args:
        is_full: whether there is none.
        ask: has the writer look, which lets people in.
    """

    def __init__(self, is_full: Callable[[], bool], ask: Callable[[], None]) -> None:
        self._is_full = is_full
        self._ask = ask
        self._line: deque[Callable[[], bool]] = deque()  # call one to let it in; false: it has given up

    def __len__(self) -> int:
        return len(self._line)

    def wait(self) -> Coroutine[Any, Any, None]:
        """An awaitable that ends when there is room."""
        return _Awaitable(self)

    async def wait_in_line(self) -> None:
        """Wait until there is room; a cancellation leaves the line."""
        if not self._is_full():
            return
        loop = asyncio.get_running_loop()
        future = loop.create_future()

        def let_in() -> bool:
            if future.done():
                return False
            try:
                loop.call_soon_threadsafe(_finish, future)
            except RuntimeError:  # that loop is closed, nobody waits there any more
                return False
            return True

        self._line.append(let_in)
        self._ask()
        try:
            await future
        except BaseException:
            with suppress(ValueError):  # it was let in meanwhile
                self._line.remove(let_in)
            raise

    def wait_in_thread(self, timeout: float) -> bool:
        """Wait in this thread; whether there is room.

        Args:
            timeout: seconds.
        """
        come = threading.Event()

        def let_in() -> bool:
            come.set()
            return True

        self._line.append(let_in)
        self._ask()
        try:
            if come.wait(timeout):
                return True
        finally:
            try:
                self._line.remove(let_in)
            except ValueError:  # it was let in meanwhile
                come.set()
        return come.is_set()

    def let_in(self, count: int) -> None:
        """Let so many in who still wait."""
        with suppress(IndexError):  # the line is empty; others leave it meanwhile
            while count > 0:
                count -= self._line.popleft()()

    def let_all_in(self) -> None:
        """Let everybody go: nobody is at home who could let them in."""
        with suppress(IndexError):
            while True:
                self._line.popleft()()

    def clear(self) -> None:
        """Forget everybody: in a forked child they are the parent's."""
        self._line.clear()


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class _Done(Coroutine[Any, Any, None]):
    """An awaitable that has ended already; one serves everybody, any number of times."""

    # Awaiting calls this C method of an exhausted iterator, which returns the iterator: no Python frame.
    __await__ = iter(()).__iter__  # type: ignore[assignment]

    def send(self, value: Any) -> Any:
        raise StopIteration

    def throw(self, *error: Any) -> Any:
        raise error[0]

    def close(self) -> None:
        pass


class _Awaitable(Coroutine[Any, Any, None]):
    """Waits for room when awaited; dropping it unawaited loses nothing and warns nobody."""

    def __init__(self, room: Room) -> None:
        self._room = room
        self._waiting: Coroutine[Any, Any, None] | None = None

    def _begin(self) -> Coroutine[Any, Any, None]:
        if self._waiting is None:
            self._waiting = self._room.wait_in_line()
        return self._waiting

    def __await__(self) -> Generator[Any, Any, None]:
        return self._begin().__await__()

    def send(self, value: Any) -> Any:
        return self._begin().send(value)

    def throw(self, *error: Any) -> Any:
        return self._begin().throw(*error)

    def close(self) -> None:
        if self._waiting is not None:
            self._waiting.close()


DONE: Coroutine[Any, Any, None] = _Done()
"""What an awaitable method returns when there was room."""
