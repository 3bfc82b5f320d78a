"""One run, told in one line: what a listing of runs shows."""

from __future__ import annotations

from dataclasses import dataclass

from asynctrace.core.record import Status


@dataclass(frozen=True, slots=True)
class RunSummary:
    """A run as a store knows it, over all its attempts.

    Args:
        run_id: the run.
        parent_run_id: the run that started it, if any.
        name: the run's name, if it has one.
        trace_id: W3C trace id, 32 hex digits.
        status: of the newest attempt. RUNNING without a living process is given as INTERRUPTED.
        attempts: how many attempts the store knows (at least 1).
        started_ns: wall-clock stamp of the oldest record.
        ended_ns: wall-clock stamp of the newest record.
        duration_ms: of the newest attempt by its own monotonic clock; None when it has not ended.
        records: how many log records.
        errors: how many of them at level error or above.
        warnings: how many of them at level warning.
        spans: how many spans were started.
        problems: what could not be read (a torn line), in words; empty when all is well.
    """

    run_id: str
    parent_run_id: str | None
    name: str | None
    trace_id: str
    status: Status
    attempts: int
    started_ns: int
    ended_ns: int
    duration_ms: float | None
    records: int
    errors: int
    warnings: int
    spans: int
    problems: tuple[str, ...] = ()
