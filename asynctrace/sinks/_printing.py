"""How far the printing of a batch has come, whoever goes on with it."""

from __future__ import annotations

import errno
import os
import select
import time
from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Protocol

from asynctrace.core.batch import Batch
from asynctrace.core.record import Record
from asynctrace.sinks._painter import Painter

NOBODY_READS = "nobody reads the console's pipe"
_AT_ONCE = 4096  # bytes that a pipe takes without waiting once it is ready (Linux: PIPE_BUF)


class TextStream(Protocol):
    """What the console needs of a stream."""

    def write(self, text: str, /) -> object: ...
    def flush(self) -> object: ...


class Printing:
    """A batch on its way to the stream, and how far it has come: painted by one thread, written by whoever may.

    Args:
        batch: what is printed.
        stream: where to.
    """

    def __init__(self, batch: Batch, stream: TextStream) -> None:
        self._batch = batch.identity
        self._stream = stream
        self._painted = 0  # records
        self._rest: deque[str | memoryview] = deque()  # painted, and not written

    def is_of(self, batch: Batch, stream: TextStream) -> bool:
        """Whether the batch is this one, on its way to the same stream."""
        return self._stream is stream and self._batch == batch.identity

    def paint(self, painter: Painter, records: Sequence[Record], first: int) -> None:
        """Paint those that are not painted yet; ``first`` is the place of the first one in the batch."""
        if self._painted < first + len(records):
            self._rest.append("".join(map(painter.line, islice(records, self._painted - first, None))))
            self._painted = first + len(records)

    def put(self, descriptor: int | None, deadline: float | None) -> None:
        """Write what is painted; one thread at a time.

        Args:
            descriptor: of the stream; None: it has none, and is written to by its own methods.
            deadline: monotonic seconds until which a pipe is waited for; None: for ever.

        Raises:
            TimeoutError: nobody reads the pipe.
        """
        stream, rest = self._stream, self._rest
        stream.flush()  # what the program itself wrote comes first
        while rest:
            if descriptor is None:
                stream.write(_text(rest[0], stream))
                stream.flush()
            else:
                # Past the stream's own buffer: a thread that is stuck in it keeps its lock, and the interpreter dies
                # of that lock at its end.
                part = _bytes(rest[0], stream)
                while part:
                    rest[0] = part
                    _wait(descriptor, deadline)
                    try:
                        part = part[os.write(descriptor, part[:_AT_ONCE]) :]
                    except BlockingIOError:
                        continue  # somebody made it non-blocking, and it is full
            rest.popleft()


def _encoding(stream: TextStream) -> str:
    return getattr(stream, "encoding", None) or "utf-8"


def _bytes(part: str | memoryview, stream: TextStream) -> memoryview:
    if isinstance(part, str):
        return memoryview(part.encode(_encoding(stream), "backslashreplace"))
    return part


def _text(part: str | memoryview, stream: TextStream) -> str:
    return part if isinstance(part, str) else str(part, _encoding(stream), "replace")


def _wait(descriptor: int, deadline: float | None) -> None:
    if not hasattr(select, "poll"):
        return  # Windows looks at sockets only
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    timeout = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
    if not poll.poll(timeout):
        raise TimeoutError(errno.ETIMEDOUT, NOBODY_READS)
