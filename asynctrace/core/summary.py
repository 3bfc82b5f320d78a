"""One run, told in one line: what a listing of runs shows, and how it follows from the records."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from asynctrace.core.level import Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record, Status
from asynctrace.core.run import Run


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


class _Attempt:
    __slots__ = ("duration_ms", "first_ns", "run", "started", "status")

    def __init__(self, run: Run, first_ns: int) -> None:
        self.run = run
        self.first_ns = first_ns
        self.started = (0, "")  # what RUN_START says about the process: clock ticks, boot id
        self.status = Status.RUNNING
        self.duration_ms: float | None = None


class RunFold:
    """Tells a run from its records, one at a time, in any order; the same record must not come twice.

    Ids and name are those of the newest attempt: the one whose oldest record is the newest.
    """

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = {}
        self._started_ns = 0
        self._ended_ns = 0
        self._records = 0
        self._errors = 0
        self._warnings = 0
        self._spans = 0

    def __bool__(self) -> bool:
        return bool(self._attempts)

    def add(self, record: Record) -> None:
        """Count one record of the run."""
        time_ns, kind = record.time_ns, record.kind
        if not self._attempts:
            self._started_ns = self._ended_ns = time_ns
        elif time_ns < self._started_ns:
            self._started_ns = time_ns
        elif time_ns > self._ended_ns:
            self._ended_ns = time_ns
        run = record.context.run
        attempt = self._attempts.get(run.attempt)
        if attempt is None:
            attempt = self._attempts[run.attempt] = _Attempt(run, time_ns)
        elif time_ns < attempt.first_ns:
            attempt.first_ns = time_ns
        if kind is Kind.LOG:
            self._records += 1
            if record.level >= Level.ERROR:
                self._errors += 1
            elif record.level >= Level.WARNING:
                self._warnings += 1
        elif kind is Kind.SPAN_START:
            self._spans += 1
        elif kind is Kind.RUN_START:
            attempt.run = run
            ticks, boot = record.own_fields.get("process_started"), record.own_fields.get("boot_id")
            attempt.started = (ticks if isinstance(ticks, int) else 0, boot if isinstance(boot, str) else "")
        elif kind is Kind.RUN_END:
            attempt.duration_ms = record.duration_ms
            attempt.status = record.status if record.status is not None else Status.OK

    @property
    def process(self) -> ProcessInfo:
        """The process of the newest attempt, with its start and boot as far as the records tell.

        Raises:
            ValueError: there is no record yet.
        """
        newest = self._newest()
        process, (started, boot) = newest.run.process, newest.started
        return ProcessInfo(
            process.pid,
            process.hostname,
            process.ip_address,
            process.python_version,
            process.package_version,
            started,
            boot,
        )

    def summary(self, problems: Iterable[str] = ()) -> RunSummary:
        """The run as told so far; a run without an end is RUNNING.

        Args:
            problems: what could not be read, in words.

        Raises:
            ValueError: there is no record yet.
        """
        newest = self._newest()
        return RunSummary(
            run_id=newest.run.run_id,
            parent_run_id=newest.run.parent_run_id,
            name=newest.run.name,
            trace_id=newest.run.trace_id,
            status=newest.status,
            attempts=len(self._attempts),
            started_ns=self._started_ns,
            ended_ns=self._ended_ns,
            duration_ms=newest.duration_ms,
            records=self._records,
            errors=self._errors,
            warnings=self._warnings,
            spans=self._spans,
            problems=tuple(problems),
        )

    def _newest(self) -> _Attempt:
        if not self._attempts:
            raise ValueError("a run without any record cannot be told")
        return max(self._attempts.values(), key=lambda attempt: (attempt.first_ns, attempt.run.attempt))
