"""Where in which run the running code is; follows tasks, ``to_thread`` and copied contexts."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Any

from asynctrace.core.exceptions import Caught
from asynctrace.core.run import Run
from asynctrace.core.status import Status


class SpanContext:
    """A place in a run's tree of spans.

    Args:
        run: the run that the span belongs to.
        name: what people call the span.
        span_id: W3C span id, 64 bits.
        parent: the enclosing span of the same run, or None at the top.

    Attributes:
        task: the asyncio task that entered it, until its start has been recorded.
        duration_ns: how long it lasted, once it has ended.
        status: how it ended, once it has.
        caught: the exception that ended it, if one did.
    """

    __slots__ = ("caught", "duration_ns", "name", "parent", "run", "span_id", "status", "task")

    run: Run
    name: str
    span_id: int
    parent: SpanContext | None
    task: Any
    duration_ns: int
    status: Status
    caught: Caught | None


def make_span(run: Run, span_id: int) -> SpanContext:
    """A span that is known by its id only, for records that were read back."""
    span = SpanContext()
    span.run, span.name, span.span_id, span.parent = run, "", span_id, None
    return span


current_span: ContextVar[SpanContext | None] = ContextVar("asynctrace_span", default=None)
current_trace: ContextVar[Any] = ContextVar("asynctrace_trace", default=None)


def span_of(run: Run, span: SpanContext | None) -> SpanContext | None:
    """The innermost enclosing span that belongs to the run: code may log to an outer run inside an inner one."""
    while span is not None and span.run is not run:
        span = span.parent
    return span
