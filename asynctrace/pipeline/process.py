"""What this process is and uses, looked up without any name server."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from pathlib import Path
from typing import Protocol

from asynctrace.core.process import ProcessInfo
from asynctrace.core.record import Usage

_MEBIBYTE = 1_048_576


_this: ProcessInfo | None = None


def this_process(package_version: str) -> ProcessInfo:
    """The running process, looked up once; takes well under a millisecond and asks no other machine."""
    global _this
    if _this is None:
        _this = ProcessInfo(
            pid=os.getpid(),
            hostname=platform.node(),
            ip_address=_outward_address(),
            python_version=platform.python_version(),
            package_version=package_version,
            started=_started(),
            boot=_boot_id(),
        )
    return _this


def _after_fork() -> None:
    if _this is not None:
        _this.pid, _this.started, _this.json = os.getpid(), _started(), None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _outward_address() -> str:
    # Connecting a datagram socket sends nothing: the kernel only picks the interface it would use.
    # 192.0.2.1 is reserved for documentation (RFC 5737), so nobody is there.
    try:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.connect(("192.0.2.1", 9))
            return str(probe.getsockname()[0])
    except OSError:
        return "127.0.0.1"


def _started() -> int:
    try:
        stat = Path("/proc/self/stat").read_text(encoding="ascii", errors="replace")
        return int(stat.rsplit(")", 1)[1].split()[19])  # field 22, counted behind the name
    except (OSError, ValueError, IndexError):
        return 0


def _boot_id() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return ""


class Sampler(Protocol):
    """Tells what the process uses."""

    def sample(self) -> Usage | None:
        """The newest sample; None when there is none."""


class UnknownUsage:
    """For records of another process, which nobody can ask any more."""

    def sample(self) -> Usage | None:
        """None."""
        return None


class UsageSampler:
    """Samples memory and processor time, at most once an interval; records share the sample.

    Args:
        interval: seconds between two samples.
    """

    def __init__(self, interval: float = 1.0) -> None:
        self._interval = interval
        self._due = 0.0
        self._wall = time.monotonic()
        self._cpu = time.process_time()
        self._sample: Usage | None = None

    def sample(self) -> Usage | None:
        """The newest sample; None where the machine does not tell."""
        now = time.monotonic()
        if now >= self._due:
            self._due = now + self._interval
            self._sample = self._take(now)
        return self._sample

    def _take(self, now: float) -> Usage | None:
        memory = _resident_bytes()
        if memory is None:
            return None
        cpu = time.process_time()
        elapsed = now - self._wall
        percent = 100.0 * (cpu - self._cpu) / elapsed if elapsed > 0 else 0.0
        self._wall, self._cpu = now, cpu
        return Usage(memory_mb=round(memory / _MEBIBYTE, 2), cpu_percent=round(percent, 1))


def _resident_bytes() -> int | None:
    try:
        with open("/proc/self/statm", "rb") as statm:
            return int(statm.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except (OSError, ValueError, IndexError):
        pass
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
