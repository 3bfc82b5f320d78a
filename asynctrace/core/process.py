"""What is the same for every record of one process."""

from __future__ import annotations


class ProcessInfo:
    """The process that makes records.

    One object serves all runs of a process. It is changed in place after a fork, so that runs which live on in the
    child tell the child's id.

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

    __slots__ = (
        "boot",
        "hostname",
        "ip_address",
        "json",
        "package_version",
        "pid",
        "python_version",
        "started",
    )

    def __init__(
        self,
        pid: int,
        hostname: str,
        ip_address: str,
        python_version: str,
        package_version: str,
        started: int = 0,
        boot: str = "",
    ) -> None:
        self.pid = pid
        self.hostname = hostname
        self.ip_address = ip_address
        self.python_version = python_version
        self.package_version = package_version
        self.started = started
        self.boot = boot
        self.json: str | None = None  # filled by the encoder, once per process
