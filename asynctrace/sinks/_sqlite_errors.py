"""What SQLite and the file system say, as what the lane or the reader should do."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager

from asynctrace.errors import (
    BatchTooLargeError,
    PermanentSinkError,
    SinkError,
    StoreError,
    TransientSinkError,
)

# Result codes of https://sqlite.org/rescode.html; the low byte of an extended code is its primary code.
_PRIMARY = 0xFF
_SINK_ERRORS: dict[int, type[SinkError]] = {
    sqlite3.SQLITE_BUSY: TransientSinkError,
    sqlite3.SQLITE_LOCKED: TransientSinkError,
    sqlite3.SQLITE_PROTOCOL: TransientSinkError,
    sqlite3.SQLITE_INTERRUPT: TransientSinkError,
    sqlite3.SQLITE_IOERR: TransientSinkError,
    sqlite3.SQLITE_FULL: TransientSinkError,
    sqlite3.SQLITE_CANTOPEN: TransientSinkError,  # out of descriptors; what lasts is an OSError before
    sqlite3.SQLITE_NOMEM: BatchTooLargeError,
    sqlite3.SQLITE_TOOBIG: BatchTooLargeError,
}  # all others are permanent: read-only, not a database, corrupt, no such table, no such column
_TOO_MANY = ("too many SQL variables", "too many terms")  # of SQLITE_ERROR, which says nothing by its number

_LASTING = frozenset(
    {
        errno.EACCES,
        errno.EPERM,
        errno.ENOTDIR,
        errno.EISDIR,
        errno.EEXIST,  # a parent directory is a file
        errno.ELOOP,
        errno.ENAMETOOLONG,
    }
)
_BUSY = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_PROTOCOL})
_STALE = frozenset(
    {
        sqlite3.SQLITE_CANTOPEN,
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_READONLY,
    }
)


def is_on_read_only_disk(path: str) -> bool:
    """Whether the file system is mounted read-only; that is the machine's state, not the file's."""
    if not hasattr(os, "statvfs"):
        return False
    try:
        return bool(os.statvfs(os.path.dirname(path)).f_flag & os.ST_RDONLY)
    except OSError:
        return False


def is_busy(error: sqlite3.Error) -> bool:
    """Whether another connection is in the way."""
    return _code(error) in _BUSY


def asks_for_a_new_connection(error: sqlite3.Error) -> bool:
    """Whether the file under the connection may have been exchanged, cut or unmounted."""
    return _code(error) in _STALE


def blames_a_row(error: Exception) -> bool:
    """Whether the error comes from a value, so that the rows beside it can be stored."""
    if isinstance(error, sqlite3.ProgrammingError):
        return "binding" in str(error)
    return isinstance(
        error,
        OverflowError | UnicodeError | sqlite3.IntegrityError | sqlite3.DataError | sqlite3.InterfaceError,
    )


@contextmanager
def as_sink_errors(path: str) -> Iterator[None]:
    """Raise what happens inside as the error that tells the lane what to do."""
    try:
        yield
    except sqlite3.Error as error:
        kind = _SINK_ERRORS.get(_code(error), PermanentSinkError)
        if _code(error) == sqlite3.SQLITE_READONLY and is_on_read_only_disk(path):
            kind = TransientSinkError  # it was remounted, and will be again
        if any(text in str(error) for text in _TOO_MANY):
            kind = BatchTooLargeError
        raise kind(_told(path, error)) from error
    except MemoryError as error:
        raise BatchTooLargeError(f"{path}: out of memory") from error
    except OSError as error:
        lasting = error.errno in _LASTING
        raise (PermanentSinkError if lasting else TransientSinkError)(f"{path}: {error}") from error


@contextmanager
def as_store_errors(path: str) -> Iterator[None]:
    """Raise what happens inside as a :class:`StoreError` that names the file."""
    try:
        yield
    except sqlite3.Error as error:
        raise StoreError(_told(path, error)) from error
    except OSError as error:
        raise StoreError(f"{path}: {error}") from error


def _code(error: sqlite3.Error) -> int:
    # Errors of the Python module itself (closed connection, wrong binding) carry no code.
    return getattr(error, "sqlite_errorcode", sqlite3.SQLITE_MISUSE) & _PRIMARY


def _told(path: str, error: sqlite3.Error) -> str:
    name = getattr(error, "sqlite_errorname", None)
    return f"{path}: {error} ({name})" if name else f"{path}: {error}"
