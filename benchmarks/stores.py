"""The anchors' table: the documents' columns and indexes, a unique key; and what is in a file afterwards."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable

import msgspec

from asynctrace import Record

COLUMNS = (
    "run_id",
    "parent_run_id",
    "level",
    "message",
    "mode",
    "datetime",
    "process",
    "thread",
    "filename",
    "lineno",
    "cut_id",
    "workflow_name",
    "stage_name",
    "job_name",
    "duration_ms",
    "memory_usage_mb",
    "cpu_usage_percent",
    "trace_id",
    "span_id",
    "parent_span_id",
    "exception_type",
    "exception_message",
    "stack_trace",
    "error_code",
    "user_id",
    "tenant_id",
    "environment",
    "hostname",
    "ip_address",
    "python_version",
    "package_version",
    "tags",
    "metadata",
    "created_at",
    "producer",
    "seq",
)
_INTEGER = {"process", "thread", "lineno", "seq"}
_REAL = {"duration_ms", "memory_usage_mb", "cpu_usage_percent"}
_INDEXED = ("run_id", "parent_run_id", "datetime", "level")
INSERT = f"INSERT INTO traces ({', '.join(COLUMNS)}) VALUES ({', '.join('?' * len(COLUMNS))})"

Row = tuple[object, ...]


def open_table(path: str) -> sqlite3.Connection:
    """A file with the table, four indexes and a unique key; WAL, ``synchronous=NORMAL``, 64 MB of cache."""
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    connection.execute("PRAGMA cache_size=-65536")
    kinds = [f"{name} {_kind(name)}" for name in COLUMNS]
    connection.execute(f"CREATE TABLE traces (id INTEGER PRIMARY KEY AUTOINCREMENT, {', '.join(kinds)})")
    for name in _INDEXED:
        connection.execute(f"CREATE INDEX idx_traces_{name} ON traces ({name})")
    connection.execute("CREATE UNIQUE INDEX idx_traces_producer_seq ON traces (producer, seq)")
    return connection


def _kind(name: str) -> str:
    return "INTEGER" if name in _INTEGER else "REAL" if name in _REAL else "TEXT"


def insert(connection: sqlite3.Connection, rows: Iterable[Row]) -> None:
    """``executemany`` in one transaction: how SQLite is usually written to."""
    connection.execute("BEGIN")
    connection.executemany(INSERT, rows)
    connection.execute("COMMIT")


def row_of(record: Record) -> Row:
    """The record's values for :data:`COLUMNS`."""
    values = record.to_dict()
    values["metadata"] = msgspec.json.encode(values["metadata"]).decode()
    values["created_at"] = values["datetime"]
    return tuple(values[name] for name in COLUMNS)


def stored(path: str, like: str = "%order placed%") -> int:
    """How many log records with such a message a file holds."""
    with sqlite3.connect(path) as connection:
        count: int = connection.execute(
            "SELECT count(*) FROM traces WHERE message LIKE ?", (like,)
        ).fetchone()[0]
    connection.close()
    return count
