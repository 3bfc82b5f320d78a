"""Directories that only their owner may look into."""

from __future__ import annotations

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
