"""A Query as SQL: the database admits exactly the records that :meth:`Query.admits` does."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from asynctrace.core import timestamp
from asynctrace.core.codec import to_json
from asynctrace.core.level import LABELS
from asynctrace.core.query import Query, column_has, has
from asynctrace.core.run import COLUMN_FIELD_SET
from asynctrace.sinks._sqlite_rows import metadata_of
from asynctrace.sinks._sqlite_schema import TRACES

_LOWER, _ADMITS, _COLUMN_HAS = "asynctrace_lower", "asynctrace_admits_fields", "asynctrace_column_has"
_NEVER, _ALWAYS = "0", "1"
_FIRST_NS = timestamp.from_text("1000-01-01 00:00:00")  # before it and from the next on,
_END_NS = timestamp.from_text("9999-12-31 23:59:59") + 1_000_000_000  # years have not four digits
_BEFORE_ALL, _BEHIND_ALL = "", "~"


def teach(connection: sqlite3.Connection, query: Query) -> None:
    """Give the connection the functions that the conditions of this query call."""
    in_metadata = {name: value for name, value in query.fields.items() if name not in COLUMN_FIELD_SET}

    def admits_fields(text: str | None) -> bool:
        metadata = metadata_of(text) if text is not None else {}
        return all(name in metadata and has(metadata[name], value) for name, value in in_metadata.items())

    def column_has_value(name: str, text: object) -> bool:
        return column_has(None if text is None else str(text), query.fields[name])

    # SQLite's own lower() folds ASCII only.
    connection.create_function(_LOWER, 1, str.lower, deterministic=True)
    connection.create_function(_ADMITS, 1, admits_fields)
    connection.create_function(_COLUMN_HAS, 2, column_has_value)


def conditions(query: Query, table: str, present: Sequence[str]) -> tuple[str, list[object]]:
    """What a row of the table must meet, as an SQL expression with its values.

    Args:
        query: the query, its limit aside.
        table: where the rows are.
        present: the columns of that table: one made by another tool has fewer.
    """
    parts: list[str] = []
    values: list[object] = []

    def require(condition: str, *given: object) -> None:
        if all(_is_storable(value) for value in given):
            parts.append(condition)
            values.extend(given)
        else:
            parts.append(_NEVER)  # no record holds such a value

    lowest = max(query.floor, query.level if table == TRACES else 0)
    if lowest > min(LABELS):
        labels = [label for level, label in LABELS.items() if level >= lowest]
        require(f"{level_in(present)} IN ({', '.join('?' * len(labels))})", *labels)
    if query.since_ns is not None:
        require("datetime >= ?", moment(query.since_ns))
    if query.until_ns is not None:
        require("datetime < ?", moment(query.until_ns))
    if query.text is not None:
        require(f"instr({_LOWER}(message), ?) > 0", query.text.lower())
    if query.name is not None:
        names = [name for name in ("run_name", "workflow_name") if name in present]
        require(f"? IN ({', '.join(names)})", query.name)
    in_columns = [name for name in query.fields if name in COLUMN_FIELD_SET]
    for name in in_columns:
        value = query.fields[name]
        if name not in present or value is None:
            parts.append(f"{name} IS NULL" if name in present else _NEVER if value is not None else _ALWAYS)
        elif isinstance(value, str):
            # An index serves both halves; only a list has to be decoded.
            is_listed = f"{name} >= '[' AND {name} < '\\' AND {_COLUMN_HAS}(?, {name})"
            require(f"({name} = ? OR ({is_listed}))", value, name)
        else:
            require(f"{_COLUMN_HAS}(?, {name})", name)
    if len(in_columns) < len(query.fields):
        for name in query.fields.keys() - set(in_columns):
            # Cheaper than decoding; the encoder writes a name in one way only.
            if "producer" in present:
                require("instr(metadata, ?) > 0", to_json(name).decode())
        require(f"{_ADMITS}(metadata)")
    return " AND ".join(parts) or "1", values


def moment(time_ns: int) -> str:
    """The text that compares with a stored ``datetime`` as the stamp does with the record's, cut to µs."""
    if time_ns < _FIRST_NS:
        return _BEFORE_ALL
    rounded_up = -(-time_ns // 1000) * 1000
    return timestamp.to_text(rounded_up) if rounded_up < _END_NS else _BEHIND_ALL


def level_in(present: Sequence[str]) -> str:
    """The expression for a row's level: other tools write it in capitals, too."""
    return "level" if "producer" in present else "lower(level)"


def storable(text: str) -> str:
    """The text; one that no record holds in place of a text that SQLite cannot take."""
    return text if _is_storable(text) else "\0not text"


def _is_storable(value: object) -> bool:
    try:
        return not isinstance(value, str) or value.encode() is not None
    except UnicodeEncodeError:  # a lone surrogate
        return False
