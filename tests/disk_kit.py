"""Disks that are small, full, read-only, or in the way of a system call that fails."""

import os
import resource
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

STRACE = shutil.which("strace")

needs_mount = pytest.mark.skipif(
    not hasattr(os, "geteuid") or os.geteuid() != 0 or shutil.which("mount") is None,
    reason="only root can mount a file system",
)
needs_strace = pytest.mark.skipif(
    STRACE is None
    or subprocess.run([STRACE, "-qq", "-o", os.devnull, "true"], capture_output=True).returncode != 0,
    reason="missing server: strace is not installed, or may not trace",
)


class SmallDisk:
    """A file system in memory with so much room.

    Args:
        path: where it is mounted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    @property
    def free(self) -> int:
        """Bytes that are left."""
        status = os.statvfs(self.path)
        return status.f_bavail * status.f_frsize

    def fill(self) -> None:
        """Leave no room."""
        with self._ballast.open("ab", buffering=0) as file:
            try:
                while True:
                    file.write(bytes(4096))
            except OSError:
                pass
        assert self.free == 0

    def make_room(self) -> None:
        """Give back what :meth:`fill` took."""
        self._ballast.unlink()

    def remount(self, how: str) -> None:
        """``ro`` or ``rw``."""
        subprocess.run(["mount", "-o", f"remount,{how}", self.path], check=True, capture_output=True)


@contextmanager
def open_to_all() -> Iterator[Path]:
    """A folder that programs without rights can look into; pytest closes its own, whenever one of it starts."""
    with tempfile.TemporaryDirectory(prefix="asynctrace-test-") as folder:
        os.chmod(folder, 0o755)
        yield Path(folder)


@contextmanager
def small_disk(path: Path, size: int) -> Iterator[SmallDisk]:
    """A disk of that many bytes, mounted for as long as the block lasts."""
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path], capture_output=True, text=True
    )
    if mounted.returncode:
        pytest.skip(f"not even root can mount a file system here: {mounted.stderr.strip()}")
    try:
        yield SmallDisk(path)
    finally:
        subprocess.run(["umount", "--lazy", path], check=True, capture_output=True)


@contextmanager
def files_up_to(size: int) -> Iterator[None]:
    """No file grows beyond that many bytes: a write stops short and then fails, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)
