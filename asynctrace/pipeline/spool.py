"""The Spool: one lane's backlog on disk. What went in first comes out first, across restarts too."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, cast

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.decoding import RecordDecoder, mark_line, mark_of
from asynctrace.core.encoding import json_lines
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.pipeline.entries import HEADER_BYTES, Entry
from asynctrace.pipeline.segments import FSYNC_INTERVAL, SEGMENT_BYTES, Segments
from asynctrace.pipeline.stream import FROM_LANE, Stream
from asynctrace.pipeline.stream_queue import LOCK_TIMEOUT, Adopted, Position, StreamQueue

MAX_BYTES = 256 << 20
"""Bytes of one lane on disk: half a million records of the usual size."""

MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which a record is no longer worth delivering."""

_RESERVED = 10
"""One part in so many of the bytes is kept for level error and above."""

_LEAST_SEGMENTS = 8
"""Files that the bytes are enough for: the newest one is deleted only when it is full, whatever was delivered of it."""

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Reading:
    """What was read.

    Args:
        batch: records of one producer and their marks; may be empty.
        position: acknowledge it when the batch is safe; None when there was nothing.
        producer: of the records, the expired ones included.
        newest: number of the newest expired one.
        expired: records that were too old to be given out; given up with the position.
        foreign: records of a version that is not understood; given up with the position.
        damaged: records that were lost to damage; told once.
    """

    batch: Batch
    position: Position | None = None
    producer: str = ""
    newest: int = 0
    expired: int = 0
    foreign: int = 0
    damaged: int = 0


@dataclass(frozen=True, slots=True)
class Writing:
    """What was written.

    Args:
        kept: records on disk now.
        position: of the last entry; None when nothing was written.
        refused: records for which there was no room.
    """

    kept: int
    position: Position | None
    refused: tuple[Record, ...] = ()


def _locked(method: _F) -> _F:
    def call(self: Spool, *args: Any) -> Any:
        with self._alone():
            return method(self, *args)

    call.__doc__ = method.__doc__
    call.__name__ = method.__name__
    return cast(_F, call)


class Spool:
    """Keeps what a lane cannot deliver now. Blocking calls; any thread, one at a time.

    Args:
        directory: of the lane; made with the first record.
        elsewhere: more such directories, for when the first one cannot be written; what dead processes left in any of
            them is adopted.
        max_bytes: bytes that the lane may take in all of them; a tenth is reserved for level error and above.
        max_age: seconds; older records are counted and not given out.
        segment_bytes: see :data:`~asynctrace.pipeline.segments.SEGMENT_BYTES`.
        fsync_interval: see :class:`~asynctrace.pipeline.segments.Segments`.
        clock: tells the time and the age of records.
        origin: where the records of the own stream come from.
    """

    def __init__(
        self,
        directory: Path,
        *,
        elsewhere: Sequence[Path] = (),
        max_bytes: int = MAX_BYTES,
        max_age: float = MAX_AGE,
        segment_bytes: int = SEGMENT_BYTES,
        fsync_interval: float | None = FSYNC_INTERVAL,
        clock: Clock = SYSTEM_CLOCK,
        origin: str = FROM_LANE,
    ) -> None:
        self.directory = directory
        self._directories = (directory, *elsewhere)
        self.fsync_interval = fsync_interval
        self._max_bytes = max_bytes
        self._max_age = max_age
        self._clock = clock
        new_segments = partial(
            Segments,
            segment_bytes=min(segment_bytes, max_bytes // _LEAST_SEGMENTS),
            fsync_interval=fsync_interval,
            clock=clock,
        )
        self._queue = StreamQueue(self._directories, new_segments, clock, origin)
        self._decoder = RecordDecoder()
        # What was read, but is of another producer than what was before it.
        self._left: tuple[Stream, list[Entry]] | None = None
        self._lock = threading.RLock()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # At the interpreter's end a daemon thread stops in the middle of a call and never gives the lock back.
        if not self._lock.acquire(timeout=LOCK_TIMEOUT):
            raise TimeoutError(f"the spool {self.directory} is busy")
        try:
            yield
        finally:
            self._lock.release()

    @property
    def held(self) -> int:
        """Records on disk that are not acknowledged."""
        return self._queue.held

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to read, marks included."""
        return self._left is None and self._queue.exhausted

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return self._queue.size

    def is_there(self) -> bool:
        """Whether anything was ever spooled for the lane; a look at the disk."""
        return any(directory.is_dir() for directory in self._directories)

    @_locked
    def adopt(self) -> Adopted:
        """Take over what dead processes left, and what was put here out of dead letters.

        What cannot be taken over now stays where it is: an error is part of the answer.
        """
        return self._queue.adopt()

    @_locked
    def append(self, batch: Batch) -> Writing:
        """Put the batch behind everything else.

        Raises:
            OSError: no disk takes it: it is full, or cannot be written; nothing of the batch is there.
        """
        lines = _lines(batch)
        payloads: list[tuple[bool, bytes]] = []
        refused: list[Record] = []
        size, plain = self.size, self._max_bytes - self._max_bytes // _RESERVED
        if size + len(lines) * HEADER_BYTES + sum(map(len, lines)) <= plain:
            payloads = [(True, line) for line in lines]
        else:
            for record, line in zip(batch.records, lines, strict=True):
                most = self._max_bytes if record.level >= Level.ERROR else plain
                if size + HEADER_BYTES + len(line) > most:
                    refused.append(record)
                else:
                    payloads.append((True, line))
                    size += HEADER_BYTES + len(line)
        kept = len(payloads)
        payloads += [(False, mark_line(mark)) for mark in batch.marks]
        if not payloads:
            return Writing(0, None, tuple(refused))
        return Writing(kept, self._queue.put_behind(payloads), tuple(refused))

    @_locked
    def put_first(self, batches: Sequence[Batch]) -> None:
        """Put the batches, which are older, before everything else; they are given out next, after :meth:`rewind`.

        Raises:
            OSError: the disk is full or cannot be written; nothing of the batches is there.
        """
        payloads: list[tuple[bool, bytes]] = []
        for batch in batches:
            payloads += [(True, line) for line in _lines(batch)]
            payloads += [(False, mark_line(mark)) for mark in batch.marks]
        if not payloads:
            return
        self._queue.put_first(payloads)

    @_locked
    def read(self, limit: int, max_bytes: int = MAX_BYTES) -> Reading:
        """The next records, oldest first; each is given out once, until :meth:`rewind`.

        Args:
            limit: most entries, records and marks.
            max_bytes: most bytes of them; one is given out however large it is.

        Raises:
            OSError: the next ones cannot be read now.
        """
        found, self._left = self._left, None
        if found is None:
            found = self._queue.read(limit, max_bytes)
        elif len(found[1]) < limit:
            stream, entries = found
            found = stream, entries + stream.segments.read(limit - len(entries), max_bytes)
        damaged = self._queue.new_damage()
        if found is None:
            return Reading(Batch(()), damaged=damaged)
        stream, entries = found
        records: list[Record] = []
        marks: list[Mark] = []
        producer, newest, expired, foreign, last = "", 0, 0, 0, 0
        oldest = self._clock.time_ns() - int(self._max_age * 1e9)
        for index, entry in enumerate(entries):
            try:
                item = self._decoder.from_json(entry.payload) if entry.counted else mark_of(entry.payload)
            except ValueError:  # written by another version; the checksum is right, so it is no damage
                foreign += entry.counted
                last = entry.id
                continue
            if producer not in ("", item.producer):
                self._left = stream, entries[index:]
                break
            last, producer = entry.id, item.producer
            if isinstance(item, Mark):
                marks.append(item)
            elif item.time_ns < oldest:
                expired += 1
                newest = item.seq
            else:
                records.append(item)
        position = Position(stream.path.name, last)
        return Reading(Batch(records, marks), position, producer, newest, expired, foreign, damaged)

    @_locked
    def acknowledge(self, position: Position) -> None:
        """Forget everything up to there.

        Raises:
            OSError: it could not be written down; the records may come again after a restart.
        """
        self._queue.acknowledge(position)

    @_locked
    def sync(self) -> None:
        """Have what was appended survive a power failure, unless the interval is None.

        Raises:
            OSError: it may not survive one.
        """
        self._queue.sync()

    @_locked
    def rewind(self) -> None:
        """Give out again what was given out and is not acknowledged."""
        self._left = None
        self._queue.rewind()

    @_locked
    def close(self) -> None:
        """Let others have what is left; a second call does nothing. The next record begins a new stream."""
        self._left = None
        self._queue.close()


def _lines(batch: Batch) -> list[bytes]:
    """As another lane may have encoded them already; records are not made for it."""
    return [line for part in batch.parts for line in json_lines(part)]
