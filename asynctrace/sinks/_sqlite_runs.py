"""Runs as a listing shows them, counted by SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from asynctrace.core import timestamp
from asynctrace.core.level import LABELS, Level
from asynctrace.core.query import Query
from asynctrace.core.record import Kind, Status
from asynctrace.core.summary import RunSummary
from asynctrace.sinks._liveness import derive_status
from asynctrace.sinks._sqlite_query import conditions, level_in, teach
from asynctrace.sinks._sqlite_rows import metadata_of
from asynctrace.sinks._sqlite_schema import EVENTS, TRACES, columns_of

_STATUSES = {status.label: status for status in Status}
_ERRORS = ", ".join(f"'{label}'" for level, label in LABELS.items() if level >= Level.ERROR)
_WARNING = Level.WARNING.label
_SPAN_START, _RUN_START, _RUN_END = Kind.SPAN_START.label, Kind.RUN_START.label, Kind.RUN_END.label
_IDENTITY = ("parent_run_id", "run_name", "trace_id", "process", "hostname")
_AMONG_WANTED = "run_id IN (SELECT run_id FROM temp.wanted)"


@dataclass(slots=True)
class _Attempt:
    """One attempt of a run, over both tables."""

    name: str
    first: str
    last: str
    identity: dict[str, Any] = field(default_factory=dict)
    started: int = 0
    boot: str = ""
    status: Status = Status.RUNNING
    duration_ms: float | None = None
    records: int = 0
    errors: int = 0
    warnings: int = 0
    spans: int = 0


_Runs = dict[str, dict[str, _Attempt]]  # by run id and name of the attempt
_Tables = dict[str, tuple[str, ...]]  # the columns of each table that is there


def runs_of(connection: sqlite3.Connection, query: Query) -> list[RunSummary]:
    """The runs that the query wants, newest first; blocks. The connection is not for use again."""
    tables = _tables(connection)
    connection.execute("BEGIN")  # one state of the file for all that follows
    among = _narrow(connection, query, tables)
    if query.limit is not None:
        among = _want(connection, _newest(connection, tables, among, query.limit))
    runs = _count_all(connection, tables, among)
    newest_first = sorted(runs.items(), key=lambda run: (_last(run[1]), run[0]), reverse=True)
    return [_summary(run_id, attempts) for run_id, attempts in newest_first[: query.limit]]


def run_of(connection: sqlite3.Connection, run_id: str) -> RunSummary | None:
    """The one run, if it is there; blocks. The connection is not for use again."""
    connection.execute("BEGIN")
    runs = _count_all(connection, _tables(connection), _want(connection, {run_id}))
    return _summary(run_id, runs[run_id]) if run_id in runs else None


def _tables(connection: sqlite3.Connection) -> _Tables:
    return {table: present for table in (TRACES, EVENTS) if (present := columns_of(connection, table))}


def _newest(connection: sqlite3.Connection, tables: _Tables, among: str, limit: int) -> set[str]:
    """So many runs by their last record, and those that end at the same moment as the last of them.

    Walks back from the newest record, so that a short listing of a large file counts few rows.
    """
    parts = [f"SELECT datetime, run_id FROM {table} WHERE {among}" for table in tables]
    newest: set[str] = set()
    last = ""
    for moment, run_id in connection.execute(f"{' UNION ALL '.join(parts)} ORDER BY 1 DESC"):
        if len(newest) >= limit and moment != last:
            break
        if run_id not in newest:
            newest.add(run_id)
            last = moment
    return newest


def _want(connection: sqlite3.Connection, run_ids: Iterable[str]) -> str:
    connection.execute("DROP TABLE IF EXISTS temp.wanted")
    connection.execute("CREATE TEMP TABLE wanted (run_id)")
    for run_id in run_ids:
        connection.execute("INSERT INTO temp.wanted VALUES (?)", (run_id,))
    return _AMONG_WANTED


def _count_all(connection: sqlite3.Connection, tables: _Tables, among: str) -> _Runs:
    runs: _Runs = {}
    for table, present in tables.items():
        _count(connection, runs, table, present, among)
    if EVENTS in tables:
        _learn_starts_and_ends(connection, runs, among)
    return runs


def _narrow(connection: sqlite3.Connection, query: Query, tables: _Tables) -> str:
    """A condition that leaves the rows of runs with a record that the query admits."""
    parts, values = [], []
    for table, present in tables.items():
        condition, given = conditions(query, table, present)
        parts.append(f"SELECT run_id FROM {table} WHERE {condition}")
        values += given
    if all(part.endswith(" WHERE 1") for part in parts):
        return "1"
    teach(connection, query)
    connection.execute(f"CREATE TEMP TABLE wanted AS {' UNION '.join(parts)}", values)
    return _AMONG_WANTED


def _count(
    connection: sqlite3.Connection, runs: _Runs, table: str, present: tuple[str, ...], among: str
) -> None:
    attempt = "coalesce(attempt, '')" if "attempt" in present else "''"
    identity = ", ".join(f"max({name})" if name in present else "NULL" for name in _IDENTITY)
    if table == TRACES:
        level = level_in(present)
        counts = f"count(*), sum({level} IN ({_ERRORS})), sum({level} = '{_WARNING}'), 0"
    else:
        counts = f"0, 0, 0, sum(kind = '{_SPAN_START}')"
    statement = (
        f"SELECT run_id, {attempt}, min(datetime), max(datetime), {counts}, {identity} "
        f"FROM {table} WHERE {among} GROUP BY 1, 2"
    )
    for (
        run_id,
        name,
        first,
        last,
        *numbers,
        parent,
        run_name,
        trace_id,
        process,
        hostname,
    ) in connection.execute(statement):
        known = runs.setdefault(run_id, {}).setdefault(name, _Attempt(name, first, last))
        known.first, known.last = min(known.first, first), max(known.last, last)
        if not known.identity:
            values = (parent, run_name, trace_id, process, hostname)
            known.identity = dict(zip(_IDENTITY, values, strict=True))
        records, errors, warnings, spans = numbers
        known.records += records
        known.errors += errors
        known.warnings += warnings
        known.spans += spans


def _learn_starts_and_ends(connection: sqlite3.Connection, runs: _Runs, among: str) -> None:
    statement = (
        f"SELECT run_id, attempt, kind, status, duration_ms, metadata, {', '.join(_IDENTITY)} FROM {EVENTS} "
        f"WHERE kind IN ('{_RUN_START}', '{_RUN_END}') AND {among} ORDER BY datetime, producer, seq"
    )
    for run_id, name, kind, status, duration_ms, metadata, *identity in connection.execute(statement):
        attempt = runs[run_id][name]
        if kind == _RUN_END:
            attempt.status = _STATUSES.get(status, Status.OK)
            attempt.duration_ms = duration_ms
        else:
            attempt.identity = dict(zip(_IDENTITY, identity, strict=True))
            facts = metadata_of(metadata) if metadata is not None else {}
            started, boot = facts.get("process_started"), facts.get("boot_id")
            attempt.started = started if isinstance(started, int) else 0
            attempt.boot = boot if isinstance(boot, str) else ""


def _last(attempts: dict[str, _Attempt]) -> str:
    return max(attempt.last for attempt in attempts.values())


def _summary(run_id: str, attempts: dict[str, _Attempt]) -> RunSummary:
    newest = max(attempts.values(), key=lambda attempt: (attempt.first, attempt.name))
    identity = newest.identity
    status = derive_status(
        newest.status,
        hostname=identity["hostname"] or "",
        pid=identity["process"] or 0,
        started=newest.started,
        boot=newest.boot,
    )
    return RunSummary(
        run_id=run_id,
        parent_run_id=identity["parent_run_id"],
        name=identity["run_name"],
        trace_id=identity["trace_id"] or f"{0:032x}",
        status=status,
        attempts=len(attempts),
        started_ns=_stamp(min(attempt.first for attempt in attempts.values())),
        ended_ns=_stamp(_last(attempts)),
        duration_ms=newest.duration_ms,
        records=sum(attempt.records for attempt in attempts.values()),
        errors=sum(attempt.errors for attempt in attempts.values()),
        warnings=sum(attempt.warnings for attempt in attempts.values()),
        spans=sum(attempt.spans for attempt in attempts.values()),
    )


def _stamp(text: str) -> int:
    try:
        return timestamp.from_text(text)
    except ValueError:  # another tool's own form of a moment
        return 0
