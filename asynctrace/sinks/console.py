"""Records for people, a line each, on a terminal or in a pipe."""

from __future__ import annotations

import errno
import io
import os
import sys
import threading
import time
from typing import Literal, get_args

from asynctrace.core.allowed import is_choice
from asynctrace.core.batch import Batch
from asynctrace.errors import (
    ConfigurationError,
    PermanentSinkError,
    SinkClosedError,
    SinkError,
    TransientSinkError,
)
from asynctrace.ports import LocalSink
from asynctrace.sinks._painter import Painter
from asynctrace.sinks._printing import NOBODY_READS, Printing, TextStream
from asynctrace.worker import Worker

Color = Literal["auto", "always", "never"]
"""``auto``: colours on a terminal only. ``always``: also in a pipe. ``never``: nowhere."""

_GONE = (errno.EPIPE, errno.EBADF, errno.ENXIO)  # the reader of the pipe, or the terminal, has gone for good
_PATIENCE = 1.0  # seconds that the end of the program waits for a pipe that nobody reads


class ConsoleSink(LocalSink):
    """Writes records as readable lines, spans with their durations, exceptions with their stacks.

    Control characters are escaped: no message can drive the terminal. A pipe that nobody reads holds back
    this sink's own thread only. A batch that comes right again, because nobody knew how far its writing had come, is
    taken up where it was; one that comes again after others is shown again.

    Args:
        stream: where to; left out, ``sys.stderr`` as it is when the sink opens.
        color: see :data:`Color`.

    Raises:
        ConfigurationError: an argument is none of these.
    """

    safety = "memory"

    def __init__(self, *, stream: TextStream | None = None, color: Color = "auto") -> None:
        if not is_choice(color, get_args(Color)):
            raise ConfigurationError("color", color, ", ".join(get_args(Color)))
        if stream is not None and not all(
            callable(getattr(stream, verb, None)) for verb in ("write", "flush")
        ):
            raise ConfigurationError("stream", stream, "an object with write and flush, or None")
        self._stream = stream
        self._color = color
        self._output: _Output | None = None
        self._printing: Printing | None = None
        self._lock = threading.Lock()  # of the stream: a thread that is left behind may still be at it
        self._process = os.getpid()

    def __repr__(self) -> str:
        return f"ConsoleSink(color={self._color!r})"

    async def open(self) -> None:
        """Look at the stream: whether it is a terminal.

        Raises:
            PermanentSinkError: the program has no such stream (a service without a console), or it is closed.
        """
        if self._output is not None:
            self._output.end()
        self._output = _Output(self._target(), self._color)

    async def write(self, batch: Batch) -> None:
        """Write the batch; when this returns, the terminal or the pipe has it.

        Raises:
            TransientSinkError: input/output error, disk full.
            PermanentSinkError: the reader of the pipe, or the terminal, has gone.
            SinkClosedError: before ``open`` or after ``aclose``.
        """
        output = self._output
        if output is None:
            raise SinkClosedError(f"{self!r} is not open")
        printing, first = self._printing_of(batch, output.stream), 0
        async for part in batch.slices():
            printing.paint(output.painter, part, first)
            first += len(part)
            try:
                await output.worker.run(self._put, printing, output.descriptor, None)
            except (OSError, ValueError) as error:
                raise _translate(error) from error
            except RuntimeError as error:
                raise TransientSinkError(f"no thread can start: {error}") from error

    async def aclose(self) -> None:
        """End the thread when it has written what it has; the stream stays open, it is not ours."""
        output, self._output = self._output, None
        if output is not None:
            output.end()

    def write_now(self, batch: Batch) -> None:
        """Write the batch by plain calls; a pipe that nobody reads is waited for a second.

        Raises:
            TransientSinkError, PermanentSinkError: as ``write``.
        """
        if not batch:
            return
        stream = self._target()
        painter = self._output.painter if self._output is not None else _painter(stream, self._color)
        printing = self._printing_of(batch, stream)
        printing.paint(painter, batch, 0)
        try:
            self._put(printing, _descriptor(stream), _PATIENCE)
        except (OSError, ValueError) as error:
            raise _translate(error) from error

    def _printing_of(self, batch: Batch, stream: TextStream) -> Printing:
        """What was begun of the batch, if it is the last one; else a new beginning."""
        if self._process != os.getpid():  # a forked child: the thread that holds the lock is the parent's
            self._process = os.getpid()
            self._lock = threading.Lock()
            self._printing = None
        printing = self._printing
        if printing is None or not printing.is_of(batch, stream):
            printing = self._printing = Printing(batch, stream)
        return printing

    def _put(self, printing: Printing, descriptor: int | None, patience: float | None) -> None:
        """Write what is left; who waited for another thread to write it may find nothing."""
        deadline = None if patience is None else time.monotonic() + patience
        if not self._lock.acquire(timeout=-1 if patience is None else patience):
            raise TimeoutError(errno.ETIMEDOUT, NOBODY_READS)
        try:
            printing.put(descriptor, deadline)
        finally:
            self._lock.release()

    def _target(self) -> TextStream:
        stream = self._stream or sys.stderr
        if stream is None or getattr(stream, "closed", False):
            raise PermanentSinkError("the console's stream is closed or not there")
        return stream


class _Output:
    """What belongs to one ``open``."""

    def __init__(self, stream: TextStream, color: Color) -> None:
        self.stream = stream
        self.painter = _painter(stream, color)
        self.worker = Worker("asynctrace console")
        # Our own, or a thread that is stuck would write to whatever gets the number after the stream was
        # closed.
        descriptor = _descriptor(stream)
        self.descriptor = None if descriptor is None else os.dup(descriptor)
        self._process = os.getpid()

    def end(self) -> None:
        if os.getpid() != self._process:
            return  # a forked child: the thread and the descriptor are the parent's
        if self.descriptor is not None:
            try:
                self.worker.submit(os.close, self.descriptor)
            except RuntimeError:  # no thread can start any more, so none runs
                os.close(self.descriptor)
        self.worker.shutdown()


def _painter(stream: TextStream, color: Color) -> Painter:
    return Painter(color=color == "always" or (color == "auto" and _is_terminal(stream)))


def _is_terminal(stream: TextStream) -> bool:
    isatty = getattr(stream, "isatty", None)
    return isatty is not None and bool(isatty())


def _descriptor(stream: TextStream) -> int | None:
    fileno = getattr(stream, "fileno", None)
    try:
        return None if fileno is None else int(fileno())
    except (io.UnsupportedOperation, ValueError):
        return None  # text kept in memory


def _translate(error: OSError | ValueError) -> SinkError:
    if isinstance(error, ValueError):  # "I/O operation on closed file"
        return PermanentSinkError(f"console: {error}")
    message = f"console: {error.strerror or error}"
    return PermanentSinkError(message) if error.errno in _GONE else TransientSinkError(message)
