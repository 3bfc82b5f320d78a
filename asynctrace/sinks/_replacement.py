"""A finished copy in the place of a file: who opens it finds the one or the other, whole, after a power failure too."""

from __future__ import annotations

import os
from typing import IO


def put_in_place(copy: IO[bytes], path: str, status: os.stat_result | None = None) -> None:
    """Have the copy be the file of that path.

    Args:
        copy: written to the end, under another name in the same folder.
        path: of the file that it replaces, if there is one.
        status: of a file whose times the copy takes; None: its own.

    Raises:
        OSError: the disk does not hold the copy; the file of that path is as before.
    """
    copy.flush()
    os.fsync(copy.fileno())
    if status is not None:
        os.utime(copy.name, ns=(status.st_atime_ns, status.st_mtime_ns))
    os.replace(copy.name, path)
