"""What becomes of rotated files: compressed, and the oldest deleted.

By one process at a time: who is at a file has it locked, and what another one is at is left to it. Every step may be
the last one of a process, and the next process goes on from there.
"""

from __future__ import annotations

import errno
import gzip
import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from typing import Any

from asynctrace.core.batch import Mark
from asynctrace.sinks._lines import Lines
from asynctrace.sinks._marks import merged, pruned_marks
from asynctrace.sinks._replacement import replacing
from asynctrace.sinks._rotation import GZIPPED, Rotation, rotated

# Where the system has no such locks nothing is rotated, and nothing needs to be tidied.
fcntl: Any = import_module("fcntl") if os.name == "posix" else None

_LEVEL = 6  # of gzip: 9 takes twice the time for a hundredth of the bytes

Explain = Callable[[str, Sequence[Mark]], None]
"""Keeps the marks that tell of a file which is about to be deleted; the same file may come twice."""


def tidy(path: str, rotation: Rotation, explain: Explain) -> None:
    """Do with the rotated files of that path what the rotation says.

    Args:
        path: the file that is written to.
        rotation: how many files stay, and how.
        explain: keeps what must be told of deleted files.

    Raises:
        OSError: a file cannot be read, written or deleted.
    """
    files = rotated(path)
    surplus = max(0, len(files) - rotation.keep) if rotation.keep is not None else 0
    for file in files[:surplus]:
        with claimed(file) as gained:
            if not gained:  # another process deletes, from the oldest on
                break
            _delete(file, explain)
    if rotation.compress == "gzip":
        for file in files[surplus:]:
            with claimed(file) as gained:
                if gained and not file.endswith(GZIPPED):
                    compress(file)


@contextmanager
def claimed(path: str) -> Iterator[bool]:
    """Have a rotated file to oneself; whether that is so, and the file is still there."""
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        yield False
        return
    try:
        yield _claim(descriptor) and _is_at(path, descriptor)
    finally:
        os.close(descriptor)


def _claim(descriptor: int) -> bool:
    if fcntl is None:
        return True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def _is_at(path: str, descriptor: int) -> bool:
    try:
        return os.path.samestat(os.stat(path), os.fstat(descriptor))
    except FileNotFoundError:
        return False


def compress(path: str) -> None:
    """Put a compressed file in the place of the claimed one.

    Raises:
        OSError: there is no room for it; the file stays as it is.
    """
    with (
        open(path, "rb") as source,
        replacing(path + GZIPPED, like=os.stat(path)) as target,
        gzip.GzipFile("", "wb", _LEVEL, target, mtime=0) as packed,
    ):
        shutil.copyfileobj(source, packed, 1 << 20)
    os.unlink(path)


def _delete(path: str, explain: Explain) -> None:
    marks = list(left_behind(path))
    told = not marks
    try:
        if marks:
            explain(path, marks)
            told = True
    except OSError as error:
        # Deleting is what makes room for telling. A process that dies in between leaves a gap unexplained.
        if error.errno not in (errno.ENOSPC, errno.EDQUOT):
            raise
    for name in {path, path.removesuffix(GZIPPED) + GZIPPED}:  # who died while compressing left both
        with suppress(FileNotFoundError):
            os.unlink(name)
    if not told:
        explain(path, marks)


def left_behind(path: str) -> Iterator[Mark]:
    """What must still be told when that file of lines is gone: its marks, as few as will do, and what it held."""
    if ".jsonl" in os.path.basename(path):  # text is for people: the records stand elsewhere too
        file = Lines.of_one(path)
        yield from merged([*file.marks(), *pruned_marks(set(file.keys()))])
