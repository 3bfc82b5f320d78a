"""Directories that only their owner may look into, made and had on disk."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path


def make_private(directory: Path) -> None:
    """Make the directory and those above it that are missing, 0700 each; one that is there keeps its rights.

    Raises:
        OSError: it cannot be made.
    """
    try:
        directory.mkdir(mode=0o700, exist_ok=True)
    except FileNotFoundError:
        make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def sync_directory(directory: Path) -> None:
    """Have what the directory lists survive a power failure, where the system can do that."""
    if os.name != "posix":
        return
    with suppress(OSError):  # some file systems cannot; the files are written all the same
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
