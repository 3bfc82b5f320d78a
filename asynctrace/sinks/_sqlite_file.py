"""One open SQLite file: how it is opened by many processes at once, and how it survives a fork."""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Literal, TypeVar
from weakref import WeakSet

from asynctrace.sinks import _sqlite_schema as schema
from asynctrace.sinks._sqlite_errors import asks_for_a_new_connection, is_busy, is_on_read_only_disk

if sys.platform != "win32":
    import fcntl

T = TypeVar("T")
Synchronous = Literal["normal", "full"]

_PAUSE = 0.005  # seconds between two attempts to open; a schema is made in 2 ms
_LOOK_AFTER = 1.0  # seconds between two looks whether the file is still the one that was opened
_PREPARED = 128  # statements kept prepared: sizes of a chunk × tables × sets of columns
_FORK_PATIENCE = 5.0  # seconds that a fork waits for a running statement
_WAL_LIMIT = 64 * 1024 * 1024  # bytes that the WAL file is cut back to after a burst


class StoreFile:
    """A SQLite file open for writing; opened when first used, from any thread, one function at a time.

    SQLite keeps its knowledge of locks and of the WAL in the memory of the process, and a fork copies it: the
    child then believes that it holds locks which only its parent holds, and the parent, closing last by its
    own count, deletes the WAL under the child (tried: the child's records are lost). So every file is closed
    before a fork, between two statements, and opened again by whoever uses it next.

    Args:
        path: absolute path of the file; missing directories are made.
        synchronous: ``"normal"`` survives the death of the process, ``"full"`` also power loss.
        busy_timeout: seconds to wait for other writers.
        cache_size: bytes of page cache.
    """

    def __init__(self, path: str, *, synchronous: Synchronous, busy_timeout: float, cache_size: int) -> None:
        self.path = path
        self._synchronous = synchronous
        self._busy_timeout = busy_timeout
        self._cache_size = cache_size
        self._lock = threading.Lock()
        self._connection: sqlite3.Connection | None = None
        self._identity: tuple[int, int] | None = None
        self._look_at = 0.0
        with _registry:
            _files.add(self)

    def use(self, function: Callable[[sqlite3.Connection], T]) -> T:
        """Call the function with the open connection, which is in autocommit mode.

        Raises:
            sqlite3.Error: as SQLite says it.
            OSError: the directory cannot be made or entered.
        """
        with self._lock:
            connection = self._connection
            if connection is None or self._was_replaced():
                connection = self._open()
            try:
                return function(connection)
            except sqlite3.Error as error:
                if asks_for_a_new_connection(error):
                    self._close()
                raise

    def close(self) -> None:
        """Close the file; the next use opens it again."""
        with self._lock:
            self._close()

    def _close(self) -> None:
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _was_replaced(self) -> bool:
        # Somebody removed or rotated the file: SQLite would go on writing into the one without a name.
        now = time.monotonic()
        if now < self._look_at:
            return False
        self._look_at = now + _LOOK_AFTER
        return _identity(self.path) != self._identity

    def _open(self) -> sqlite3.Connection:
        self._close()
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        deadline = time.monotonic() + self._busy_timeout
        while True:
            try:
                connection = self._connect(deadline)
            except sqlite3.OperationalError as error:
                # A fresh file that others are setting up refuses at once, whatever the busy timeout.
                if not is_busy(error) or time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
            else:
                break
        self._connection, self._identity = connection, _identity(self.path)
        self._look_at = time.monotonic() + _LOOK_AFTER
        return connection

    def _connect(self, deadline: float) -> sqlite3.Connection:
        _raise_what_lasts(self.path)
        connection = sqlite3.connect(
            self.path,
            timeout=self._busy_timeout,
            isolation_level=None,
            check_same_thread=False,  # the lock keeps threads apart
            cached_statements=_PREPARED,
        )
        try:
            if not schema.is_complete(connection):
                with _locked(os.path.dirname(self.path), deadline):
                    schema.create(connection)
            connection.execute(f"PRAGMA synchronous={self._synchronous}")
            connection.execute(f"PRAGMA cache_size=-{self._cache_size // 1024}")
            connection.execute(f"PRAGMA journal_size_limit={_WAL_LIMIT}").fetchone()
        except BaseException:
            connection.close()
            raise
        return connection


def _identity(path: str) -> tuple[int, int] | None:
    try:
        status = os.stat(path)
    except FileNotFoundError:
        return None
    return status.st_dev, status.st_ino


def _raise_what_lasts(path: str) -> None:
    """SQLite says "unable to open database file" for every reason there is; the system says which."""
    directory = os.path.dirname(path)
    if os.path.isdir(path):
        raise IsADirectoryError(21, "is a directory, not a database", path)
    if not os.access(path if os.path.exists(path) else directory, os.W_OK):
        if is_on_read_only_disk(path):
            raise OSError(errno.EROFS, "is on a read-only file system", path)
        raise PermissionError(errno.EACCES, "may not be written", path)


@contextmanager
def _locked(directory: str, deadline: float) -> Iterator[None]:
    """Keep other processes from setting up a file in the same directory meanwhile.

    The lock is on the directory: it leaves nothing behind, and a descriptor of the database itself must not
    be opened, because closing it would drop SQLite's own locks (POSIX drops all those of a process at any
    close).
    """
    if sys.platform == "win32":  # opening rests on trying again alone
        yield
        return
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise
                time.sleep(_PAUSE)
            except OSError:
                break  # a file system without such locks: opening rests on trying again alone
        yield
    finally:
        os.close(descriptor)


_registry = threading.RLock()  # a signal handler may fork while its own thread is in here
_files: WeakSet[StoreFile] = WeakSet()
_held: list[StoreFile] = []


def _before_fork() -> None:
    _registry.acquire()
    for file in list(_files):
        if file._lock.acquire(timeout=_FORK_PATIENCE):
            _held.append(file)
            file._close()


def _after_fork() -> None:
    # In the parent and in the child: both have the forking thread, which took the locks.
    while _held:
        _held.pop()._lock.release()
    _registry.release()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork)
