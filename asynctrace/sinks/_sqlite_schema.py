"""The tables: what the documents' SQL statements read, and what a reader needs to give records back equal.

``traces`` holds log records only, so that every statement that counts or measures sees log records only.
``trace_events`` holds the starts and ends of spans and runs, ``trace_marks`` what the lanes say about gaps.

Of the columns behind ``created_at`` the documents know nothing; they stand last, so that ``SELECT *`` begins
as documented and a table made by another tool can be completed in place.
"""

from __future__ import annotations

import sqlite3

_COLUMNS = """
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    run_id TEXT NOT NULL,
    parent_run_id TEXT,
    level TEXT NOT NULL,
    message TEXT NOT NULL,
    mode TEXT NOT NULL,
    datetime TEXT NOT NULL,
    process INTEGER NOT NULL,
    thread INTEGER NOT NULL,
    filename TEXT NOT NULL,
    lineno INTEGER NOT NULL,
    cut_id TEXT,
    workflow_name TEXT,
    stage_name TEXT,
    job_name TEXT,
    duration_ms REAL,
    memory_usage_mb REAL,
    cpu_usage_percent REAL,
    trace_id TEXT,
    span_id TEXT,
    parent_span_id TEXT,
    exception_type TEXT,
    exception_message TEXT,
    stack_trace TEXT,
    error_code TEXT,
    user_id TEXT,
    tenant_id TEXT,
    environment TEXT,
    hostname TEXT,
    ip_address TEXT,
    python_version TEXT,
    package_version TEXT,
    tags TEXT,
    metadata TEXT,
    created_at TIMESTAMP DEFAULT CURRENT_TIMESTAMP"""

ADDED_COLUMNS = {
    "producer": "TEXT",
    "seq": "INTEGER",
    "attempt": "TEXT",
    "run_name": "TEXT",
    "status": "TEXT",
    "task": "TEXT",
}
"""Columns behind the documented ones: the idempotence key, and what a Record has besides."""

TRACES, EVENTS, MARKS = "traces", "trace_events", "trace_marks"

_added = "".join(f",\n    {name} {kind}" for name, kind in ADDED_COLUMNS.items())
_DOCUMENTED_INDEXES = ("run_id", "parent_run_id", "datetime", "level")

_TABLES = (
    f"CREATE TABLE IF NOT EXISTS {TRACES} ({_COLUMNS}{_added}\n)",
    f"CREATE TABLE IF NOT EXISTS {EVENTS} ({_COLUMNS}{_added},\n    kind TEXT NOT NULL\n)",
    f"""CREATE TABLE IF NOT EXISTS {MARKS} (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    producer TEXT NOT NULL,
    "first" INTEGER NOT NULL,
    "last" INTEGER NOT NULL,
    admitted INTEGER NOT NULL,
    filtered INTEGER NOT NULL,
    dropped INTEGER NOT NULL,
    pruned INTEGER NOT NULL
)""",
)
_INDEXES = (
    *(f"CREATE INDEX IF NOT EXISTS idx_traces_{name} ON {TRACES} ({name})" for name in _DOCUMENTED_INDEXES),
    f"CREATE UNIQUE INDEX IF NOT EXISTS idx_traces_producer_seq ON {TRACES} (producer, seq)",
    f"CREATE INDEX IF NOT EXISTS idx_trace_events_run_id ON {EVENTS} (run_id, kind)",
    f"CREATE INDEX IF NOT EXISTS idx_trace_events_datetime ON {EVENTS} (datetime)",
    f"CREATE UNIQUE INDEX IF NOT EXISTS idx_trace_events_producer_seq ON {EVENTS} (producer, seq)",
    f"CREATE UNIQUE INDEX IF NOT EXISTS idx_trace_marks_all ON {MARKS} "
    '(producer, "first", "last", admitted, filtered, dropped, pruned)',
)
_EXPECTED = frozenset(
    {TRACES, EVENTS, MARKS}
    | {statement.split()[statement.split().index("EXISTS") + 1] for statement in _INDEXES}
)


def columns_of(connection: sqlite3.Connection, table: str) -> tuple[str, ...]:
    """The column names of a table, in order; empty when it is not there."""
    return tuple(row[0] for row in connection.execute("SELECT name FROM pragma_table_info(?)", (table,)))


def is_complete(connection: sqlite3.Connection) -> bool:
    """Whether the file is in WAL mode and has every table, column and index."""
    if connection.execute("PRAGMA journal_mode").fetchone()[0] != "wal":
        return False
    present = {row[0] for row in connection.execute("SELECT name FROM sqlite_master")}
    return present >= _EXPECTED and ADDED_COLUMNS.keys() <= set(columns_of(connection, TRACES))


def create(connection: sqlite3.Connection) -> None:
    """Bring the file into WAL mode and add what is missing; what is there stays as it is.

    The caller holds the lock that keeps other processes out: SQLite refuses a change of the journal mode at
    once, whatever the busy timeout, while another connection is at work.
    """
    connection.execute("PRAGMA journal_mode=WAL").fetchone()
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in _TABLES:
            connection.execute(statement)
        present = columns_of(connection, TRACES)
        for name, kind in ADDED_COLUMNS.items():
            if name not in present:  # the table was made by another tool
                connection.execute(f"ALTER TABLE {TRACES} ADD COLUMN {name} {kind}")
        for statement in _INDEXES:
            connection.execute(statement)
        connection.execute("COMMIT")
    except BaseException:
        connection.execute("ROLLBACK")
        raise
