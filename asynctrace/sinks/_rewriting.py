"""A file of lines without some runs, put in the place of the file while others go on writing to it.

Most of it is copied beside the writing; the writers wait only for what they added meanwhile.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterable, Iterator, Set
from contextlib import ExitStack, nullcontext, suppress

from asynctrace.core.batch import Mark
from asynctrace.core.decoding import mark_line
from asynctrace.core.record import Record
from asynctrace.sinks._lines import Lines, mark_in
from asynctrace.sinks._marks import merged, pruned_marks
from asynctrace.sinks._replacement import put_in_place, replacing
from asynctrace.sinks._rotation import GZIPPED

_CHUNK = 1 << 20

Keys = set[tuple[str, int]]


class Rewriting:
    """The copy of a file that is written to.

    Args:
        path: the file.
        doomed: runs that are left out.

    Raises:
        OSError: it cannot be read, or there is no room for the copy.
    """

    def __init__(self, path: str, doomed: Set[str]) -> None:
        self.gone: Keys = set()
        self._path = path
        self._doomed = doomed
        self._marks: list[Mark] = []
        self._lines = Lines.of_one(path)
        self._temporary = path + _unfinished()
        self._files = ExitStack()
        with ExitStack() as files:
            files.callback(self._delete)
            self._source = files.enter_context(open(path, "rb", buffering=0))
            self._target = files.enter_context(open(self._temporary, "xb"))
            os.fchmod(self._target.fileno(), os.fstat(self._source.fileno()).st_mode & 0o777)
            for line, record in self._read():
                if record is not None and record.run_id in doomed:
                    self.gone.add((record.producer, record.seq))
                else:
                    self._keep(line)
            self._target.flush()
            os.fsync(self._target.fileno())
            self._files = files.pop_all()

    def finish(self) -> bool:
        """Take its place; whether that was possible. The caller keeps all writers out.

        It is not when the file made way for another one, or when a run that is left out got a new record.

        Raises:
            OSError: there is no room for the copy.
        """
        if not os.path.samestat(os.stat(self._path), os.fstat(self._source.fileno())):
            return False
        for line, record in self._read():
            if record is not None and record.run_id in self._doomed:
                return False
            self._keep(line)
        self._target.write(_told(self._marks, self.gone))
        put_in_place(self._target, self._path, os.fstat(self._source.fileno()))
        return True

    def _keep(self, line: bytes) -> None:
        mark = mark_in(line)
        if mark is None:
            self._target.write(line + b"\n")
        else:
            self._marks.append(mark)

    def close(self) -> None:
        """Release the files; what is not finished is deleted."""
        self._files.close()

    def _delete(self) -> None:
        with suppress(FileNotFoundError):
            os.unlink(self._temporary)

    def _read(self) -> Iterator[tuple[bytes, Record | None]]:
        """Whole lines from where the last reading ended."""
        rest = b""
        while chunk := self._source.read(_CHUNK):
            *lines, rest = (rest + chunk).split(b"\n")
            for line in lines:
                yield line, self._lines.record_in(line)
        self._source.seek(-len(rest), os.SEEK_CUR)  # somebody is in the middle of it


def remove(path: str, doomed: Set[str]) -> Keys:
    """Take runs out of a file that nobody writes to, compressed or not; the keys that went.

    Raises:
        OSError: it cannot be read, or there is no room for the copy.
    """
    gone = {(r.producer, r.seq) for r in Lines.of_one(path).records() if r.run_id in doomed}
    if not gone:
        return gone
    with replacing(path, like=os.stat(path), suffix=_unfinished()) as file:
        packed = gzip.GzipFile("", "wb", fileobj=file, mtime=0) if path.endswith(GZIPPED) else None
        with packed or nullcontext(file) as output:
            marks = []
            for line, record in Lines.of_one(path).raw():
                if (mark := mark_in(line)) is not None:
                    marks.append(mark)
                elif record is None or record.run_id not in doomed:
                    output.write(line + b"\n")
            output.write(_told(marks, gone))
    return gone


def _unfinished() -> str:
    """The suffix of a copy; another process may be at one of the same file."""
    return f".pruned-{os.getpid()}"


def _told(marks: Iterable[Mark], gone: Keys) -> bytes:
    """The marks at the end of the copy: a file that is pruned every night must not fill up with them."""
    return b"".join(mark_line(mark) + b"\n" for mark in merged([*marks, *pruned_marks(gone)]))
