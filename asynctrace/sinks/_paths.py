"""Paths that sinks and readers are given."""

from __future__ import annotations

import os

from asynctrace.errors import ConfigurationError


def checked_path(path: object, allowed: str = "the path of a file or directory") -> str:
    """The absolute path.

    Raises:
        ConfigurationError: it is no path, is empty or holds a NUL.
    """
    name: object = os.fspath(path) if isinstance(path, (str, os.PathLike)) else path
    if not isinstance(name, str) or not name or "\0" in name:
        raise ConfigurationError("path", name, allowed)
    return os.path.abspath(name)
