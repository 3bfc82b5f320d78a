"""The current trace: that of the running code, the process's own, or none."""

from __future__ import annotations

import logging
import os
import sys
import threading
from typing import Any

from asynctrace import composition, settings
from asynctrace.core.context import current_trace as _current
from asynctrace.core.process import ProcessInfo
from asynctrace.core.run import Run, RunContext
from asynctrace.core.status import Status
from asynctrace.emitter import Emitter, recording
from asynctrace.outlet import Nowhere
from asynctrace.pipeline.awaited import Place
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.receipt import DEFAULT_TIMEOUT, Receipt
from asynctrace.span import Span, new_span
from asynctrace.trace import Trace


@recording
class NoTrace(Emitter):
    """What :func:`current_trace` gives where there is none and nothing is configured: counts, and warns."""

    def __init__(self) -> None:
        self._nowhere = Nowhere()
        self._intake = self._nowhere  # type: ignore[assignment]
        nobody = Run("", trace_id=0, span_id=0, process=ProcessInfo(0, "", "", "", ""))
        self._context = RunContext(nobody, {})

    @property
    def run_id(self) -> str:
        """No run, no id: an empty text."""
        return self._context.run.run_id

    @property
    def trace_id(self) -> str:
        """Zeros, which W3C defines as no trace."""
        return self._context.run.trace_id

    @property
    def fields(self) -> dict[str, Any]:
        """None are bound, none are kept."""
        return {}

    @property
    def ignored(self) -> int:
        """Records, span starts and span ends that went nowhere."""
        return self._nowhere.ignored

    def bind(self, /, **fields: Any) -> NoTrace:
        """Itself."""
        return self

    def opt(self, *, stacklevel: int = 1) -> NoTrace:
        """Itself."""
        return self

    def receipt(self, *, to: Place = "sink", timeout: float | None = DEFAULT_TIMEOUT) -> Receipt:
        """A receipt for what other traces record in the block."""
        return Receipt(None, to, timeout)

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span whose records go nowhere."""
        self._begin()
        return new_span(self, name, fields)

    def _begin(self) -> None:
        diagnostics.say(
            logging.WARNING,
            ("no trace",),
            "records are made outside any trace and nothing is configured: they go nowhere; open a Trace "
            "or call asynctrace.configure()",
        )


_no_trace = NoTrace()
_own: Trace | None = None
_lock = threading.RLock()


def current_trace() -> Trace | NoTrace:
    """The trace that the running code belongs to.

    Outside any: the process's own run when something is configured; else one that counts what it is given, and
    warns.

    Example:
        >>> with Trace("run-42", sinks=["memory:"]):
        ...     current_trace().run_id
        'run-42'
    """
    trace: Trace | None = _current.get()
    if trace is not None:
        return trace
    return _own_run() if settings.is_configured() else _no_trace


def _own_run() -> Trace:
    global _own
    with _lock:
        before = _own
        if before is not None and before.status is Status.RUNNING and composition.is_default(before.pipeline):
            return before
        _own = Trace(name=os.path.basename(sys.argv[0] if sys.argv else "") or "python")
        pipeline = _own.pipeline
        own = _own
    if before is not None:
        before.close(pipeline.close_timeout)
    return own


def end_own_run(timeout: float | None = None) -> None:
    """End the process's own run, if there is one."""
    if (own := _take_own()) is not None:
        own.close(timeout)


async def aend_own_run(timeout: float | None = None) -> None:
    """As :func:`end_own_run`, without blocking the event loop."""
    if (own := _take_own()) is not None:
        await own.aclose(timeout)


def _take_own() -> Trace | None:
    global _own
    with _lock:
        own, _own = _own, None
        return own


def _after_fork() -> None:
    global _own, _lock
    _own, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
