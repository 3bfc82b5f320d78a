"""Finished records with fixed ids, for tests of sinks and readers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Kind, Record, Status, Usage
from asynctrace.core.run import Run, RunContext
from asynctrace.core.site import Site

START_NS = 1_700_000_000_000_000_000
"""Wall-clock stamp of record number 0: 2023-11-14 22:13:20 UTC."""

STEP_NS = 1_000_000
"""Time between two numbers: a millisecond."""

PRODUCER = "00000000000000aa"
TRACE_ID = 0x0AF7651916CD43DD8448EB211C80319C
SPAN_ID = 0xB7AD6B7169203331

PROCESS = ProcessInfo(
    pid=4242,
    hostname="host.test",
    ip_address="192.0.2.1",
    python_version="3.11.7",
    package_version="0.0.0",
)
"""A process of another machine, so that no reader looks for it on this one."""


def make_context(
    run_id: str = "run-1",
    *,
    fields: Mapping[str, Any] | None = None,
    process: ProcessInfo = PROCESS,
    parent_run_id: str | None = None,
    name: str | None = None,
    attempt: str = "attempt-1",
) -> RunContext:
    """A run with fields bound to it; records of one run should share it.

    >>> make_context("job-7").run.cut_id
    'job-7'
    """
    run = Run(
        run_id,
        trace_id=TRACE_ID,
        span_id=SPAN_ID,
        process=process,
        parent_run_id=parent_run_id,
        name=name,
        attempt=attempt,
    )
    return RunContext(run, fields or {})


def make_record(
    seq: int = 0,
    message: str = "message",
    *,
    context: RunContext | None = None,
    run_id: str = "run-1",
    producer: str = PRODUCER,
    kind: Kind = Kind.LOG,
    level: Level = Level.INFO,
    time_ns: int | None = None,
    fields: Mapping[str, Any] | None = None,
    span_id: int = 0,
    parent_span_id: int = 0,
    site: Site | None = None,
    thread: int = 1,
    usage: Usage | None = None,
    exception: ExceptionInfo | None = None,
    duration_ms: float | None = None,
    status: Status | None = None,
    task: str | None = None,
) -> Record:
    """A record; its time follows from its number.

    Args:
        seq: the record's number with its producer.
        message: the text.
        context: the run and its bound fields; made from ``run_id`` when left out.
        time_ns: wall-clock stamp; left out, :data:`START_NS` and :data:`STEP_NS` for each number.
        fields: the record's own fields, in canonical form.

    The other arguments are those of :class:`Record`.

    >>> make_record(3, "loaded", fields={"rows": 120}).datetime
    '2023-11-14 22:13:20.003000'
    """
    return Record(
        producer,
        seq,
        kind,
        START_NS + seq * STEP_NS if time_ns is None else time_ns,
        level,
        context or make_context(run_id),
        span_id,
        parent_span_id,
        message,
        dict(fields or {}),
        site or Site("example.py", 10),
        thread,
        usage,
        0,
        exception,
        duration_ms,
        status,
        task,
    )


def make_batch(
    count: int = 3,
    *,
    first: int = 0,
    run_id: str = "run-1",
    producer: str = PRODUCER,
    context: RunContext | None = None,
    marks: Sequence[Mark] = (),
) -> Batch:
    """A batch of log records, numbered one after another.

    >>> [record.message for record in make_batch(2, first=5)]
    ['message 5', 'message 6']
    """
    shared = context or make_context(run_id)
    numbers = range(first, first + count)
    return Batch([make_record(n, f"message {n}", context=shared, producer=producer) for n in numbers], marks)


def make_run(
    run_id: str = "run-1",
    *,
    first: int = 0,
    logs: int = 3,
    status: Status | None = Status.OK,
    context: RunContext | None = None,
    producer: str = PRODUCER,
) -> Batch:
    """One attempt of a run from start to end: its start, log records, its end.

    Args:
        run_id: the run.
        first: number of the first record.
        logs: how many log records.
        status: how it ended; None when it has not.
        context: the run and its bound fields; made from ``run_id`` when left out.
        producer: who numbers the records.
    """
    shared = context or make_context(run_id)
    process = shared.run.process
    records = [
        make_record(
            first,
            "run started",
            context=shared,
            producer=producer,
            kind=Kind.RUN_START,
            span_id=shared.run.span_id,
            fields={"process_started": process.started, "boot_id": process.boot},
        ),
        *make_batch(logs, first=first + 1, producer=producer, context=shared),
    ]
    if status is not None:
        last = first + 1 + logs
        duration_ms = (last - first) * STEP_NS / 1_000_000
        records.append(
            make_record(
                last,
                "run ended",
                context=shared,
                producer=producer,
                kind=Kind.RUN_END,
                span_id=shared.run.span_id,
                status=status,
                duration_ms=duration_ms,
            )
        )
    return Batch(records)
