"""Appending whole lines to files that other threads and processes append to at the same time.

A file is opened with ``O_APPEND`` and takes all its lines of a batch in one ``write``, which local file
systems keep in one piece. A line that is torn all the same (a full disk, the death of a process) gets a line
end of its own, so that it never swallows its neighbour, and is written again.
"""

from __future__ import annotations

import errno
import logging
import os
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import NamedTuple

from asynctrace.errors import PermanentSinkError, SinkError, TransientSinkError
from asynctrace.sinks._directory_lock import DirectoryLock
from asynctrace.sinks._rotation import NEVER, Rotation, next_name

_PERMANENT = {
    errno.EACCES,
    errno.EPERM,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.ELOOP,
    errno.ENAMETOOLONG,
    errno.EEXIST,  # a folder is needed where a file is
    errno.ENXIO,
    errno.EINVAL,
}
"""What waiting does not cure. All else may pass: a full disk, a quota, a read-only mount, too many open files."""

_OUT_OF_DESCRIPTORS = (errno.EMFILE, errno.ENFILE)
_FLAGS = (
    os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_BINARY", 0)
)  # readable: the last byte is looked at
_FEW_FILES, _MANY_FILES = 128, 1024  # descriptors; opening a file again costs more than writing a batch to it
_LOOK_AGAIN = 0.002  # seconds between two looks at a half line; a write takes microseconds
_SETTLE = 1.0  # seconds to find out whether a half line is being written or was left behind
_PATIENCE = (
    0.05  # seconds that a write waits to have the files for itself, to rotate one; else a later write does
)
_REST = 0.1  # seconds until then
_FAILED_REST = 60.0  # seconds after the system refused to rename a file

_logger = logging.getLogger("asynctrace")


def translate(error: OSError, path: str) -> SinkError:
    """The error of this package for an error of the system."""
    message = f"{error.filename or path}: {error.strerror or error}"
    return PermanentSinkError(message) if error.errno in _PERMANENT else TransientSinkError(message)


def most_open_files() -> int:
    """Descriptors that a sink may hold when nobody says how many."""
    try:
        from resource import RLIM_INFINITY, RLIMIT_NOFILE, getrlimit
    except ImportError:  # Windows
        return _FEW_FILES
    soft = getrlimit(RLIMIT_NOFILE)[0]
    return _MANY_FILES if soft == RLIM_INFINITY else max(1, min(soft // 4, _MANY_FILES))


class _Open(NamedTuple):
    descriptor: int
    status: os.stat_result  # when it was opened: which file it is

    def is_at(self, path: str) -> bool:
        """Whether it still is the file of that path."""
        try:
            return os.path.samestat(os.stat(path), self.status)
        except FileNotFoundError:
            return False


class AppendFiles:
    """Files that take lines at their end. For one thread at a time.

    Args:
        directory: the folder that holds them all, at any depth; it carries the lock against pruning.
        max_open: descriptors that stay open; the least recently used one goes.
        sync: whether lines must also survive a loss of power.
        rotation: when a file makes way for a new one.
        told: called with the path of a file that has made way.
    """

    def __init__(
        self,
        directory: str,
        *,
        max_open: int,
        sync: bool,
        rotation: Rotation = NEVER,
        told: Callable[[str], None] | None = None,
    ) -> None:
        self._lock = DirectoryLock(directory)
        self._max_open = max_open
        self._sync = sync
        self._rotation = rotation
        self._rotates = rotation.ever
        self._told = told
        self._rest_until = 0.0
        self._open: OrderedDict[str, _Open] = OrderedDict()
        self._torn: set[str] = set()

    def append(self, parts: Mapping[str, bytes], done: dict[str, int]) -> None:
        """Append to each file its part, which is whole lines.

        Args:
            parts: path → lines.
            done: path → bytes of its part that are there already; kept up to date, also when this raises.

        Raises:
            OSError: some lines are not there; again with the same parts and ``done`` adds only those.
        """
        with self._lock.shared():
            for path, lines in parts.items():
                start = done.get(path, 0)
                if start < len(lines):
                    try:
                        self._append(path, lines, start, done)
                    except OSError as error:
                        self._forget(path)  # opening it again looks at how it ends
                        if error.filename is None:
                            error.filename = path
                        raise

    def close(self) -> None:
        """Close all descriptors; later calls open them again."""
        while self._open:
            os.close(self._open.popitem()[1].descriptor)
        self._torn.clear()
        self._lock.close()

    def _append(self, path: str, lines: bytes, start: int, done: dict[str, int]) -> None:
        descriptor = self._descriptor(path, len(lines) - start)
        while start < len(lines):
            head = b"\n" if path in self._torn else b""
            piece = head + lines[start:] if head or start else lines
            written = os.write(descriptor, piece)
            if written == len(piece):
                start = len(lines)
                self._torn.discard(path)
            elif written > len(head):
                # Another process may have written behind the torn line by now, so it cannot be continued.
                torn_at = start + written - len(head)
                start = max(start, lines.rfind(b"\n", 0, torn_at) + 1)
                if start != torn_at:
                    self._torn.add(path)
            elif not written:
                raise OSError(errno.EIO, "nothing was written", path)
            done[path] = start
        if self._sync:
            os.fsync(descriptor)

    def _descriptor(self, path: str, more: int) -> int:
        """The file of that path, with room for so many bytes more."""
        while True:
            descriptor = self._current(path)
            if not self._rotates or not self._is_due(path, descriptor, more) or not self._rotate(path, more):
                return descriptor

    def _current(self, path: str) -> int:
        known = self._open.get(path)
        if known is not None:
            if known.is_at(path):
                self._open.move_to_end(path)
                return known.descriptor
            self._forget(path)  # rotated, pruned or removed by hand: what is written there now would be lost
        while len(self._open) >= self._max_open:
            self._forget(next(iter(self._open)))
        try:
            descriptor = self._create(path)
        except OSError as error:
            if error.errno not in _OUT_OF_DESCRIPTORS or not self._open:
                raise
            while self._open:  # the program needs them more than we do
                self._forget(next(iter(self._open)))
            descriptor = self._create(path)
        self._open[path] = _Open(descriptor, os.fstat(descriptor))
        if not _ends_with_line(descriptor):
            if self._is_torn(descriptor):
                self._torn.add(path)
            return self._current(path)  # it may have been rotated or pruned while nobody held the lock
        return descriptor

    def _is_due(self, path: str, descriptor: int, more: int) -> bool:
        return self._rotation.is_due(path, os.fstat(descriptor), more, time.time())

    def _rotate(self, path: str, more: int) -> bool:
        """Whether to look at the file again: it has made way, by us or by another process."""
        if time.monotonic() < self._rest_until:
            return False
        before = self._open[path]
        deadline = time.monotonic() + _PATIENCE
        try:
            while not (alone := self._lock.upgrade()) and time.monotonic() < deadline:
                time.sleep(_LOOK_AGAIN)
            if alone and before.is_at(path) and self._is_due(path, before.descriptor, more):
                self._make_way(path, before.descriptor)
        except OSError as error:
            self._rest_until = time.monotonic() + _FAILED_REST
            _logger.warning("%s cannot be rotated and goes on growing: %s", path, error)
        finally:
            self._lock.downgrade()
        if before.is_at(path):
            self._rest_until = max(self._rest_until, time.monotonic() + _REST)
            return False
        return True

    def _make_way(self, path: str, descriptor: int) -> None:
        if not _ends_with_line(descriptor):  # nobody is in the middle of a write while we are alone
            os.write(descriptor, b"\n")
        mode = os.fstat(descriptor).st_mode & 0o777
        os.rename(path, next_name(path))
        new = os.open(path, _FLAGS, mode)
        try:
            os.fchmod(new, mode)
        finally:
            os.close(new)
        if self._sync:
            _sync_directory(os.path.dirname(path))
        if self._told is not None:
            self._told(path)

    def _is_torn(self, descriptor: int) -> bool:
        # Either somebody is in the middle of a write, or died there. Only who has the lock alone can tell.
        deadline = time.monotonic() + _SETTLE
        while time.monotonic() < deadline and not _ends_with_line(descriptor):
            if self._lock.upgrade():
                if not _ends_with_line(descriptor):
                    os.write(descriptor, b"\n")
                break
            time.sleep(_LOOK_AGAIN)
        self._lock.downgrade()
        return not _ends_with_line(descriptor)

    def _create(self, path: str) -> int:
        try:
            return os.open(path, _FLAGS, 0o666)
        except FileNotFoundError:
            folder = os.path.dirname(path)
            os.makedirs(folder, exist_ok=True)
            descriptor = os.open(path, _FLAGS, 0o666)
            if self._sync:
                _sync_directory(folder)
                _sync_directory(os.path.dirname(folder))
            return descriptor

    def _forget(self, path: str) -> None:
        known = self._open.pop(path, None)
        self._torn.discard(path)
        if known is not None:
            os.close(known.descriptor)


def _ends_with_line(descriptor: int) -> bool:
    size = os.fstat(descriptor).st_size
    if not size or not hasattr(os, "pread"):
        return True
    return os.pread(descriptor, 1, size - 1) in (b"\n", b"")


def _sync_directory(path: str) -> None:
    if os.name == "nt":
        return  # a folder cannot be opened there
    descriptor = os.open(path or ".", os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
