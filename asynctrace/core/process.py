"""What is the same for every record of one process."""

from __future__ import annotations

from msgspec import Struct


class ProcessInfo(Struct, frozen=True):
    """The process that makes records, gathered once and again after a fork.

    Args:
        pid: process id.
        hostname: the machine's own name, without any look-up.
        ip_address: the address of the machine's outward interface, or ``127.0.0.1``.
        python_version: for example ``3.11.7``.
        package_version: the version of asynctrace.
        started: when the process started, in clock ticks since boot; with ``boot`` and ``pid`` it tells
            a living process from another that got the same pid.
        boot: the id of this boot of the machine, or ``""``.
    """

    pid: int
    hostname: str
    ip_address: str
    python_version: str
    package_version: str
    started: int = 0
    boot: str = ""
