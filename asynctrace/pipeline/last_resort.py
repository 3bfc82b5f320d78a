"""A blocking call in a daemon thread of its own, which nobody has to wait for."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress


async def call_in_daemon(function: Callable[[], None]) -> None:
    """Call it off the event loop; cancelled, it is left to itself and holds nothing back."""
    done: Future[None] = Future()

    def call() -> None:
        error: BaseException | None = None
        try:
            function()
        except BaseException as raised:  # belongs to who waits
            error = raised
        with suppress(InvalidStateError):  # nobody waits any more
            if error is None:
                done.set_result(None)
            else:
                done.set_exception(error)

    try:
        threading.Thread(target=call, name="asynctrace last write", daemon=True).start()
    except RuntimeError:  # the interpreter starts no thread any more
        call()
    await asyncio.wrap_future(done)
