"""Dead letters: what a destination rejects for good, kept with the reason for people to look at."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from asynctrace.core.batch import Batch
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.decoding import RecordDecoder
from asynctrace.core.encoding import json_line
from asynctrace.core.record import Record
from asynctrace.pipeline.claim import exclusively
from asynctrace.pipeline.private import make_private
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.stream import FROM_DEAD_LETTERS

MAX_BYTES = 64 << 20
"""Bytes of one lane; when they are used up, the older half is given up."""

_LOCK_TIMEOUT = 1.0
_NEWER, _OLDER = "letters.jsonl", "letters.1.jsonl"
_AT_ONCE = 500  # records in one write to the spool


class DeadLetter(msgspec.Struct, frozen=True):
    """One record that its destination will never take.

    Args:
        time_ns: wall clock of the rejection.
        lane: the lane's name.
        sink: the destination as it shows itself, without secrets.
        reason: what it said.
        traceback: of an error that no sink should raise; else empty.
        record: the record as JSON, as in every store of lines.
    """

    time_ns: int
    lane: str
    sink: str
    reason: str
    traceback: str
    record: msgspec.Raw

    def to_record(self) -> Record:
        """The record again.

        Raises:
            ValueError: it was written by a version that is not understood.
        """
        return RecordDecoder().from_json(bytes(self.record))


class DeadLetters:
    """The dead letters of one lane, written by all its processes. Blocking calls, any thread.

    A line of JSON each, in two files that take turns: people read them with their own tools too.

    Args:
        directory: of the lane; made with the first letter.
        max_bytes: of both files together.
        clock: for the time of a rejection.
    """

    def __init__(self, directory: Path, *, max_bytes: int = MAX_BYTES, clock: Clock = SYSTEM_CLOCK) -> None:
        self.directory = directory
        self._max_bytes = max_bytes
        self._clock = clock

    def add(
        self,
        records: Sequence[Record],
        *,
        lane: str,
        sink: str,
        reason: str,
        traceback: str = "",
        time_ns: int | None = None,
    ) -> int:
        """Keep the records; how many older letters were given up for them.

        Args:
            records: what was rejected.
            lane: the lane's name.
            sink: the destination as it shows itself, without secrets.
            reason: what it said.
            traceback: of an error that no sink should raise.
            time_ns: wall clock of the rejection; now, when it is not given.

        Raises:
            OSError: they could not be written; none of them is there.
        """
        now = self._clock.time_ns() if time_ns is None else time_ns
        block = b"".join(
            msgspec.json.encode(
                DeadLetter(now, lane, sink, reason, traceback, msgspec.Raw(json_line(record)))
            )
            + b"\n"
            for record in records
        )
        make_private(self.directory)
        with self._exclusively():
            newer = self.directory / _NEWER
            given_up = 0
            if newer.exists() and newer.stat().st_size + len(block) > self._max_bytes // 2:
                older = self.directory / _OLDER
                given_up = sum(1 for _ in _lines(older))
                os.replace(newer, older)
            file = os.open(newer, os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_CLOEXEC", 0), 0o600)
            try:
                _append(file, block)
            finally:
                os.close(file)
        return given_up

    def __iter__(self) -> Iterator[DeadLetter]:
        """All letters, oldest first; lines that cannot be read are passed over."""
        for name in (_OLDER, _NEWER):
            yield from _letters(self.directory / name)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.directory.glob("*.jsonl"))

    def purge(self) -> int:
        """Delete all letters; how many went.

        Raises:
            OSError: the directory cannot be written.
        """
        if not self.directory.is_dir():
            return 0
        with self._exclusively():
            purged = sum(1 for _ in self)
            for name in (_OLDER, _NEWER):
                (self.directory / name).unlink(missing_ok=True)
        return purged

    def replay(self, spool: Path) -> int:
        """Move all letters to the lane's spool, from where they are delivered again; how many.

        A crash in the middle may deliver some of them twice: stores with a key keep one.

        Args:
            spool: the spool's directory of the same lane.

        Raises:
            OSError: a directory cannot be written; the letters are still there.
        """
        if not self.directory.is_dir():
            return 0
        moved = 0
        queue = Spool(spool, max_age=float("inf"), max_bytes=1 << 62, origin=FROM_DEAD_LETTERS)
        try:
            with self._exclusively():
                for name in (_OLDER, _NEWER):
                    moved += self._move(self.directory / name, queue)
        finally:
            queue.close()
        return moved

    def _move(self, path: Path, queue: Spool) -> int:
        waiting: list[Record] = []
        moved = 0
        decoder = RecordDecoder()
        unread: list[bytes] = []
        for letter in _letters(path):
            try:
                waiting.append(decoder.from_json(bytes(letter.record)))
            except ValueError:  # of another version: it stays where it is
                unread.append(msgspec.json.encode(letter) + b"\n")
                continue
            if len(waiting) == _AT_ONCE:
                moved += queue.append(Batch(waiting)).kept
                waiting = []
        if waiting:
            moved += queue.append(Batch(waiting)).kept
        if unread:
            new = path.with_suffix(".new")
            new.write_bytes(b"".join(unread))
            os.replace(new, path)
        else:
            path.unlink(missing_ok=True)
        return moved

    def _exclusively(self) -> _Exclusively:
        return _Exclusively(self.directory)


class _Exclusively:
    """The lane's lock, or an error: two writers in one file would tear each other's lines."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._lock = exclusively(directory, _LOCK_TIMEOUT)

    def __enter__(self) -> None:
        if not self._lock.__enter__():
            self._lock.__exit__(None, None, None)
            raise TimeoutError(f"{self._directory} is locked by another process")

    def __exit__(self, *_: object) -> None:
        self._lock.__exit__(None, None, None)


def _append(file: int, block: bytes) -> None:
    size = os.fstat(file).st_size
    if size:
        # A kill in the middle of a write left half a line: the next letter must not be glued to it.
        os.lseek(file, size - 1, os.SEEK_SET)
        if os.read(file, 1) != b"\n":
            block = b"\n" + block
    left = memoryview(block)
    try:
        while left:
            left = left[os.write(file, left) :]
    except BaseException:
        with suppress(OSError):
            os.ftruncate(file, size)
        raise


def _lines(path: Path) -> Iterator[bytes]:
    try:
        with open(path, "rb") as file:
            yield from file
    except FileNotFoundError:
        return


def _letters(path: Path) -> Iterator[DeadLetter]:
    for line in _lines(path):
        try:
            yield _decoder.decode(line)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue


_decoder = msgspec.json.Decoder(DeadLetter)
