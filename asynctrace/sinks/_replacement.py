"""A finished copy in the place of a file: who opens it finds the one or the other, whole, after a power failure too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, BinaryIO


@contextmanager
def replacing(path: str, *, like: os.stat_result | None = None, suffix: str = ".part") -> Iterator[BinaryIO]:
    """A copy that is the file of that path when the block has ended; after an error that is as before.

    Args:
        path: of the file that it replaces, if there is one.
        like: whose permissions and times the copy takes; None: those of any new file.
        suffix: of the copy's name meanwhile; nobody else may write to such a copy. One that a process left behind is
            overwritten.

    Raises:
        OSError: the disk does not hold the copy.
    """
    unfinished = path + suffix
    try:
        with open(unfinished, "wb") as copy:
            if like is not None:
                os.fchmod(copy.fileno(), like.st_mode & 0o777)
            yield copy
            put_in_place(copy, path, like)
    except BaseException:
        with suppress(OSError):
            os.unlink(unfinished)
        raise


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
