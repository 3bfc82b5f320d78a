"""Output: the standard streams of a command, which may be closed, full or left by whoever read them."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, TextIO, cast

from asynctrace.cli.exits import OutputClosedError, OutputFailedError


@contextmanager
def watched() -> Iterator[None]:
    """Inside, what cannot be printed is an error of its own, whoever prints: a command, rich or typer.

    What cannot be said on standard error is dropped: there is nobody left to tell.

    Raises:
        OutputClosedError: nobody reads the output any more.
        OutputFailedError: it cannot be written.
    """
    before = sys.stdout, sys.stderr
    for stream in before:
        if isinstance(stream, io.TextIOWrapper):  # an ASCII terminal gets escapes, not an error
            stream.reconfigure(errors="backslashreplace")
    sys.stdout, sys.stderr = cast("tuple[TextIO, TextIO]", (_Output(before[0]), _Error(before[1])))
    try:
        yield
    finally:
        sys.stdout, sys.stderr = before


class _Stream:
    """A text stream whose failures are told apart from those of what is printed."""

    def __init__(self, stream: TextIO | None) -> None:
        # Python has None for a descriptor that was closed when the process started.
        self._stream: TextIO = io.StringIO() if stream is None else stream
        self._is_closed = stream is None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)

    def write(self, text: str) -> int:
        try:
            if self._is_closed and text:
                raise OSError("it is closed")
            return self._stream.write(text)
        except OSError as error:
            self._fail(error)
            return len(text)

    def flush(self) -> None:
        try:
            self._stream.flush()
        except OSError as error:
            self._fail(error)

    def _fail(self, error: OSError) -> None:
        # Python would try once more to write what is left, at exit, and complain.
        with suppress(OSError):
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, self._stream.fileno())
            os.close(nowhere)


class _Output(_Stream):
    _failure: OSError | None = None

    def write(self, text: str) -> int:
        if self._failure is not None:  # somebody, trying what the stream takes, passed over it
            self._fail(self._failure)
        return super().write(text)

    def _fail(self, error: OSError) -> None:
        super()._fail(error)
        self._failure = error
        if isinstance(error, BrokenPipeError):
            raise OutputClosedError from error
        raise OutputFailedError(f"cannot write to standard output: {error.strerror or error}") from error


class _Error(_Stream):
    """Drops what cannot be said."""
