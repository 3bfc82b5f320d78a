"""Whether the process behind a run without an end still lives."""

from __future__ import annotations

import os
import platform
import sys

from asynctrace.core.record import Status

_BOOT_ID = "/proc/sys/kernel/random/boot_id"
_GONE_STATES = ("Z", "X")  # a zombie has ended, only its parent has not noticed
_STATE, _STARTED = 0, 19  # fields 3 and 22 of /proc/<pid>/stat, counted from behind the command's name


def derive_status(status: Status, *, hostname: str, pid: int, started: int, boot: str) -> Status:
    """INTERRUPTED when the store says RUNNING but the process is gone; otherwise the status as stored.

    Only a process of this machine can be looked at: a run of another host stays RUNNING.

    Args:
        status: what the store knows about the newest attempt.
        hostname: the machine the attempt ran on.
        pid: its process id; 0 when unknown.
        started: when that process started, in clock ticks since boot; 0 when unknown.
        boot: the boot it started in; ``""`` when unknown.
    """
    if status is not Status.RUNNING or pid <= 0 or hostname != platform.node():
        return status
    return Status.RUNNING if _is_alive(pid, started, boot) else Status.INTERRUPTED


def _is_alive(pid: int, started: int, boot: str) -> bool:
    if boot and boot != (current_boot() or boot):
        return False
    if not os.path.exists("/proc/self/stat"):
        return _answers(pid)
    try:
        with open(f"/proc/{pid}/stat", encoding="utf-8", errors="replace") as stat:
            # The command's name stands in brackets and may itself hold brackets and blanks.
            fields = stat.read().rpartition(")")[2].split()
    except OSError:
        return False
    return fields[_STATE] not in _GONE_STATES and (not started or int(fields[_STARTED]) == started)


def _answers(pid: int) -> bool:
    if sys.platform == "win32":
        return True  # there, os.kill ends the process that it is meant to ask
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # somebody else's process: alive
    return True


def current_boot() -> str:
    """The id of this boot of the machine; ``""`` where the system has none."""
    try:
        with open(_BOOT_ID, encoding="ascii") as boot:
            return boot.read().strip()
    except OSError:
        return ""
