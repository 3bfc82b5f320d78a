"""What sinks raise that is no error: it must not end the program, nor the tasks that serve other sinks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager


class EscapedError(Exception):
    """A sink raised what is not for us: ``SystemExit`` would end the program, a cancellation the task of the lane.

    Args:
        error: what it raised.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(f"the sink raised {error!r}")


@contextmanager
def held_in() -> Iterator[None]:
    """Make a surprise of whatever a sink raises, but for an interrupt and for a cancellation by ourselves.

    Raises:
        EscapedError: it was neither these nor an ``Exception``.
    """
    task = _current_task()
    try:
        yield
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        if task is not None:
            if isinstance(error, asyncio.CancelledError) and task.cancelling():
                raise
            if isinstance(error, GeneratorExit) and _current_task() is not task:
                raise  # nobody holds the task any more, and its coroutine is being closed
        raise EscapedError(error) from error


def _current_task() -> asyncio.Task[object] | None:
    return None if asyncio._get_running_loop() is None else asyncio.current_task()
