"""The lock between those who write to the files of a directory and those who remove them."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

# Windows has no such locks: prune there while nobody writes.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

_PAUSE = 0.002  # seconds between two tries for the exclusive lock; writers hold theirs for microseconds


class DirectoryLock:
    """Writers share it, who removes files has it alone. Where the system has no such lock it does nothing.

    Args:
        directory: what is locked; the lock adds no file to it.
    """

    def __init__(self, directory: str) -> None:
        self._directory = directory
        self._descriptor: int | None = None

    @contextmanager
    def shared(self) -> Iterator[None]:
        """Hold it together with other writers; waits while files are being removed."""
        descriptor = self._locked(fcntl.LOCK_SH) if fcntl is not None else None
        try:
            yield
        finally:
            _unlock(descriptor)

    @contextmanager
    def exclusive(self, timeout: float) -> Iterator[None]:
        """Hold it alone.

        Args:
            timeout: seconds to try.

        Raises:
            TimeoutError: a writer, stopped perhaps, did not give it up in time.
        """
        descriptor = None
        if fcntl is not None:
            deadline = time.monotonic() + timeout
            while True:
                try:
                    descriptor = self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise TimeoutError(f"{self._directory} is locked by a writer") from None
                    time.sleep(_PAUSE)
        try:
            yield
        finally:
            _unlock(descriptor)

    def upgrade(self) -> bool:
        """From the shared to the exclusive lock, if that is free now; afterwards always :meth:`downgrade`."""
        try:
            return fcntl is not None and self._locked(fcntl.LOCK_EX | fcntl.LOCK_NB) is not None
        except BlockingIOError:
            return False

    def downgrade(self) -> None:
        """Back to the shared lock, which a try to upgrade may have lost."""
        if fcntl is not None:
            self._locked(fcntl.LOCK_SH)

    def close(self) -> None:
        """Close the descriptor; later calls open it again."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    def _locked(self, operation: int) -> int | None:
        try:
            if self._descriptor is not None and not os.fstat(self._descriptor).st_nlink:
                self.close()
            if self._descriptor is None:
                self._descriptor = os.open(self._directory, os.O_RDONLY)
            fcntl.flock(self._descriptor, operation)
        except BlockingIOError:
            raise
        except OSError:
            return None  # not there yet, not readable, or a network file system without locks
        return self._descriptor


def _unlock(descriptor: int | None) -> None:
    if descriptor is not None:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
