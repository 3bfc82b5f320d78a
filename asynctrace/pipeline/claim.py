"""A Claim: a directory belongs to one process as long as that lives; afterwards another may take it over."""

from __future__ import annotations

import os
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from typing import Any

import msgspec

# Where the system has no such locks, nothing is ever taken over.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

_OWNER = "owner"
_PAUSE = 0.002  # seconds between two tries; who holds the lock looks at a few small files
_GONE_STATES = ("Z", "X")  # a zombie has ended, only its parent has not noticed


class Owner(msgspec.Struct, frozen=True):
    """Who holds a directory.

    Args:
        pid: process id.
        identity: what tells the process from others that get its number, see :func:`identity`.
    """

    pid: int
    identity: str

    def is_gone(self) -> bool:
        """Whether the process certainly ended; one of another machine or container cannot be looked at."""
        boot, space, _ = self.identity.split("/")
        here = identity(os.getpid()).split("/")
        if not boot:
            return not _answers(self.pid)
        return (boot, space) == (here[0], here[1]) and identity(self.pid) != self.identity


def identity(pid: int) -> str:
    """Boot of the machine, space of process ids and start of the process; the last is empty when there is none."""
    started = ""
    with suppress(OSError, IndexError):
        stat = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        # The command's name stands in brackets and may itself hold brackets and blanks.
        fields = stat.rpartition(")")[2].split()
        started = "" if fields[0] in _GONE_STATES else fields[19]
    boot = space = ""
    with suppress(OSError):
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    with suppress(OSError):
        space = os.readlink("/proc/self/ns/pid")
    return f"{boot}/{space}/{started}"


class Claim:
    """This process's hold on a directory: a locked file in it that says who we are.

    The kernel gives the lock back when the process dies, however it dies. A forked child gives its copy away at once,
    so that it does not keep its parent's directories locked.
    """

    def __init__(self, path: Path, file: int) -> None:
        self._path = path
        self._file = file
        _claims.add(self)

    @classmethod
    def take(cls, directory: Path) -> Claim:
        """Make the directory ours; the caller holds the lock of the directory above and knows that it is free.

        Raises:
            OSError: the directory cannot be written.
        """
        path, new = directory / _OWNER, directory / f"{_OWNER}.new"
        file = os.open(new, os.O_RDWR | os.O_CREAT | os.O_TRUNC | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            _lock(file)
            os.write(file, msgspec.json.encode(Owner(os.getpid(), identity(os.getpid()))))
            os.replace(new, path)
        except BaseException:
            os.close(file)
            raise
        return cls(path, file)

    @classmethod
    def take_if_free(cls, directory: Path) -> Claim | None:
        """The same, unless somebody alive holds the directory, or was done with it meanwhile: then it is gone.

        Raises:
            OSError: the directory cannot be written.
        """
        if not is_free(directory):
            return None
        try:
            return cls.take(directory)
        except FileNotFoundError:
            if directory.is_dir():
                raise
            return None

    def release(self) -> None:
        """Let others have it; a second call does nothing."""
        if self._file >= 0:
            with suppress(OSError):
                self._path.unlink(missing_ok=True)
            self.forget()

    def forget(self) -> None:
        """Close our copy of the lock without giving the directory away."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def is_free(directory: Path) -> bool:
    """Whether nobody alive holds the directory."""
    if fcntl is None:
        return False
    try:
        file = os.open(directory / _OWNER, os.O_RDWR | getattr(os, "O_CLOEXEC", 0))
    except FileNotFoundError:
        return True
    except OSError:
        return False  # somebody else's
    try:
        if _lock(file):
            return True
        # Held: by the process itself, or by a child that inherited the descriptor behind our back.
        return msgspec.json.decode(os.read(file, 4096), type=Owner).is_gone()
    except (msgspec.DecodeError, ValueError):
        return False
    finally:
        os.close(file)


@contextmanager
def exclusively(directory: Path, timeout: float) -> Iterator[bool]:
    """Hold the directory's lock, against other processes and threads; whether it was gained.

    Args:
        directory: what is locked.
        timeout: seconds to try.

    Raises:
        OSError: the directory cannot be written.
    """
    if fcntl is None:
        yield True
        return
    file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
    try:
        deadline = time.monotonic() + timeout
        while not (gained := _lock(file)) and time.monotonic() < deadline:
            time.sleep(_PAUSE)
        yield gained
    finally:
        os.close(file)


def _lock(file: int) -> bool:
    """Lock it now or not at all; a file system without locks counts as locked by somebody."""
    if fcntl is None:
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _answers(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's process: alive
    return True


_claims: weakref.WeakSet[Claim] = weakref.WeakSet()


def _after_fork() -> None:
    for claim in tuple(_claims):
        claim.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
