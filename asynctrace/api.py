"""The process-wide verbs: the current trace, ``get_trace``, and flushing or ending everything at once."""

from __future__ import annotations

import asyncio
import atexit
import logging
import os
import sys
import threading
from collections.abc import Mapping
from typing import Any

from asynctrace import settings
from asynctrace.core import ids
from asynctrace.core.context import current_trace as _current
from asynctrace.core.process import ProcessInfo
from asynctrace.core.run import Run, RunContext
from asynctrace.emitter import Emitter
from asynctrace.errors import ConfigurationError, DeliveryError, LaneFailure
from asynctrace.pipeline import home
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.intake import DONE
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.options import LOCAL, LaneOptions
from asynctrace.span import Span
from asynctrace.trace import BoundTrace, Trace

_CONFIGURATION = ("trace_type", "handlers", "fail_silently", "enable_write_log")
"""Keys of ``extras`` that configure; they never become fields, for they carry passwords."""


# -- the current trace -------------------------------------------------------------------------------------------


class _Nowhere:
    """Stands for the Intake where there is no trace: counts what it is given."""

    records = ()
    limit = 0
    pending = True
    full = False

    def __init__(self) -> None:
        self.ignored = 0

    def append(self, record: object) -> None:
        self.ignored += 1

    def put_record(self, record: object, *, patient: bool) -> None:
        self.ignored += 1

    def room(self) -> Any:
        return DONE


class NoTrace(Emitter):
    """What ``current_trace`` gives where there is none and nothing is configured: counts, and warns once."""

    def __init__(self) -> None:
        self._nowhere = _Nowhere()
        self._intake = self._nowhere  # type: ignore[assignment]
        self._context = RunContext(
            Run("", trace_id=0, span_id=0, process=ProcessInfo(0, "", "", "", "")), {}
        )
        self._span = None

    @property
    def run_id(self) -> str:
        """No run, no id."""
        return ""

    @property
    def ignored(self) -> int:
        """Records that went nowhere."""
        return self._nowhere.ignored

    def bind(self, **fields: Any) -> NoTrace:
        """Itself."""
        return self

    def opt(self, *, stacklevel: int = 1) -> NoTrace:
        """Itself."""
        return self

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span whose records go nowhere."""
        self._begin()
        return Span(self._intake, self._context, 0, str(name), fields)

    def _begin(self) -> None:
        diagnostics.say(
            logging.WARNING,
            ("no trace",),
            "records are made outside any trace and nothing is configured: they go nowhere; open a Trace or call "
            "asynctrace.configure()",
        )


_no_trace = NoTrace()
_process_trace: Trace | None = None
_lock = threading.RLock()


def current_trace() -> Trace | BoundTrace | NoTrace:
    """The trace that the running code belongs to.

    Outside any: the process's own run when something is configured; else a trace that only counts and warns once.
    """
    trace: Trace | None = _current.get()
    if trace is not None:
        return trace
    if settings.has_default():
        return _own_run()
    return _no_trace


def _own_run() -> Trace:
    global _process_trace
    with _lock:
        if _process_trace is None or _process_trace.status.label != "running":
            _process_trace = Trace(name=os.path.basename(sys.argv[0] if sys.argv else "") or "python")
            _process_trace._begin()
            atexit.register(_process_trace.close)  # after the hooks of the pipeline, so it runs before them
        return _process_trace


def _after_fork() -> None:
    global _process_trace, _lock
    _process_trace, _lock = None, threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


# -- the source documents' spelling ------------------------------------------------------------------------------


def get_trace(
    run_id: str | None = None, parent_run_id: str | None = None, extras: Mapping[str, Any] | None = None
) -> Trace:
    """An open trace on the process default, or on the handlers that ``extras`` names.

    Args:
        run_id: as of :class:`Trace`.
        parent_run_id: as of :class:`Trace`.
        extras: ``trace_type``, ``handlers``, ``fail_silently`` and ``enable_write_log`` configure and are never
            stored; the rest are fields.

    Raises:
        ConfigurationError: a handler cannot be used.

    Example:
        >>> trace = get_trace("run-43", extras={"trace_type": "memory", "user_id": "u1"})
        >>> trace.info("started")
        >>> trace.close()
    """
    extras = dict(extras or {})
    configuration = {name: extras.pop(name) for name in _CONFIGURATION if name in extras}
    trace = Trace(
        run_id,
        parent_run_id=parent_run_id,
        sinks=_sinks_of(configuration),
        fields=extras,
        fail_silently=bool(configuration.get("fail_silently", True)),
    )
    trace._begin()
    return trace


_KINDS = {"file": "file:./logs", "sqlite": settings.DEFAULT_STORE, "console": "console:", "memory": "memory:"}


def _sinks_of(configuration: Mapping[str, Any]) -> list[settings.SinkLike] | None:
    if not configuration.get("enable_write_log", True):
        return []
    kind = configuration.get("trace_type")
    handlers = configuration.get("handlers")
    if handlers is None:
        if kind is None:
            return None
        if kind not in _KINDS:
            raise ConfigurationError("trace_type", kind, f"multi with handlers, or one of {', '.join(_KINDS)}")
        return [_KINDS[kind]]
    return [_sink_of(handler) for handler in handlers]


def _sink_of(handler: Any) -> settings.SinkLike:
    if not isinstance(handler, Mapping):
        return handler  # type: ignore[no-any-return]  # a URL or a sink
    kind = handler.get("type")
    if kind not in _KINDS:
        raise ConfigurationError("handler type", kind, f"one of {', '.join(_KINDS)}")
    path = handler.get("path")
    sink = settings.make_sink(f"{kind}:{os.fspath(path).replace('?', '%3F')}" if path is not None else _KINDS[kind])
    return sink, _options_of(handler)


def _options_of(handler: Mapping[str, Any]) -> LaneOptions:
    """``flush_interval`` in seconds; ``buffer_size`` in records for databases, in bytes for files (not needed here)."""
    interval = handler.get("flush_interval")
    size = handler.get("buffer_size") if handler.get("type") == "sqlite" else None
    if interval is None and size is None:
        return LOCAL
    try:
        return LaneOptions(linger=float(interval or 0.0), trigger=int(size or LOCAL.short))
    except (TypeError, ValueError) as error:
        raise ConfigurationError("handler", dict(handler), "flush_interval in seconds, buffer_size a number") from error


# -- everything at once ------------------------------------------------------------------------------------------


def flush(timeout: float | None = None) -> None:
    """Wait until every record emitted so far in this process is safe.

    Args:
        timeout: seconds for all pipelines together; None waits as long as it takes.

    Raises:
        DeliveryError: records were not safe in time.
    """
    _judge([failure for pipeline in home.pipelines() for failure in pipeline.flush(timeout)])


async def aflush(timeout: float | None = None) -> None:
    """As :func:`flush`, without blocking the event loop."""
    results = await asyncio.gather(*[pipeline.aflush(timeout) for pipeline in home.pipelines()])
    _judge([failure for result in results for failure in result])


def shutdown(timeout: float | None = None) -> None:
    """End every pipeline of this process; a later trace makes new ones.

    Args:
        timeout: seconds for each; by default its ``close_timeout``.
    """
    _end_own_run()
    for pipeline in home.pipelines():
        pipeline.close(timeout)
    settings.forget_default()


async def ashutdown(timeout: float | None = None) -> None:
    """As :func:`shutdown`, without blocking the event loop."""
    _end_own_run()
    await asyncio.gather(*[pipeline.aclose(timeout) for pipeline in home.pipelines()])
    settings.forget_default()


def _end_own_run() -> None:
    global _process_trace
    with _lock:
        trace, _process_trace = _process_trace, None
    if trace is not None:
        atexit.unregister(trace.close)
        trace._end(None, None)


def stats() -> tuple[PipelineStats, ...]:
    """The ledgers of all pipelines of this process that are not closed."""
    return tuple(pipeline.stats() for pipeline in home.pipelines())


def _judge(failures: list[LaneFailure]) -> None:
    if failures:
        raise DeliveryError(failures)
