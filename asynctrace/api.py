"""The process-wide verbs: ``get_trace``, and flushing, ending or measuring everything at once."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from time import monotonic
from typing import Any

from asynctrace import composition, current, settings
from asynctrace.core.arguments import seconds_to_wait
from asynctrace.core.redaction_match import Redaction
from asynctrace.errors import DeliveryError
from asynctrace.extras import split_extras
from asynctrace.pipeline import home
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.report import FlushReport, joined
from asynctrace.trace import Trace


def get_trace(
    run_id: str | None = None, parent_run_id: str | None = None, extras: Mapping[str, Any] | None = None
) -> Trace:
    """An open trace on the process default, or on the handlers that ``extras`` names.

    Args:
        run_id: as of :class:`Trace`.
        parent_run_id: as of :class:`Trace`.
        extras: ``trace_type``, ``handlers``, ``fail_silently`` and ``enable_write_log`` configure and are
            never stored; so do ``path``, ``buffer_size`` and ``flush_interval`` beside a ``trace_type`` of
            ``"file"`` or ``"sqlite"``. The rest are fields.

    Raises:
        ConfigurationError: a handler, or what else configures, cannot be used.

    Example:
        >>> trace = get_trace("run-43", extras={"trace_type": "memory", "user_id": "u1"})
        >>> trace.info("started")
        >>> trace.close()
    """
    fields, sinks, fail_silently = split_extras({} if extras is None else extras)
    trace = Trace(
        run_id, parent_run_id=parent_run_id, sinks=sinks, fields=fields, fail_silently=fail_silently
    )
    trace._begin()
    return trace


def flush(timeout: float | None = None) -> FlushReport:
    """Wait until every record emitted so far in this process is safe, or settled otherwise.

    Args:
        timeout: seconds for all pipelines together; None waits as long as it takes.

    Returns:
        What is safe, on disk or pending in each lane.

    Raises:
        DeliveryError: records were not safe in time.
    """
    seconds = seconds_to_wait(timeout)
    end = None if seconds is None else monotonic() + seconds
    return _judge(
        [
            pipeline.flush(None if end is None else max(0.0, end - monotonic()))
            for pipeline in home.pipelines()
        ]
    )


async def aflush(timeout: float | None = None) -> FlushReport:
    """As :func:`flush`, without blocking the event loop."""
    seconds = seconds_to_wait(timeout)
    return _judge(await asyncio.gather(*[pipeline.aflush(seconds) for pipeline in home.pipelines()]))


def shutdown(timeout: float | None = None) -> None:
    """End every pipeline of this process and forget the process default; a later trace makes new ones.

    Args:
        timeout: seconds for each; by default its ``close_timeout``.
    """
    seconds = seconds_to_wait(timeout)
    current.end_own_run(seconds)
    for pipeline in home.pipelines():
        pipeline.close(seconds)
    composition.forget()


async def ashutdown(timeout: float | None = None) -> None:
    """As :func:`shutdown`, without blocking the event loop."""
    seconds = seconds_to_wait(timeout)
    await current.aend_own_run(seconds)
    await asyncio.gather(*[pipeline.aclose(seconds) for pipeline in home.pipelines()])
    composition.forget()


def stats() -> tuple[PipelineStats, ...]:
    """The ledgers of all pipelines of this process that are not closed."""
    return tuple(pipeline.stats() for pipeline in home.pipelines())


def explain_redaction(message: str = "", /, **fields: Any) -> tuple[Redaction, ...]:
    """What would be redacted in such a record by the settings in force, and why; nothing is recorded.

    Args:
        message: the message, or any text.
        fields: key-values, as ``info`` takes them.

    Raises:
        ConfigurationError: a setting cannot be used.

    Example:
        >>> [(found.path, found.rule) for found in explain_redaction("ok", db={"password": "hunter2"})]
        [('fields.db.password', 'password')]
    """
    return composition.redactor_of(settings.current()).explain(message, fields)


def _judge(reports: Sequence[FlushReport]) -> FlushReport:
    failures = [failure for report in reports for failure in report.failures]
    if failures:
        raise DeliveryError(failures)
    return joined(reports)
