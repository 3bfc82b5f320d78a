"""The Spool: one lane's backlog on disk. What went in first comes out first, across restarts too.

Each process writes a stream of its own below the lane's directory; streams of dead processes are adopted and given out
before anything that came later.
"""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, cast

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.decoding import RecordDecoder, mark_line, mark_of
from asynctrace.core.encoding import json_lines
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.pipeline.claim import Claim, exclusively, is_free
from asynctrace.pipeline.entries import HEADER_BYTES, Entry
from asynctrace.pipeline.private import make_private
from asynctrace.pipeline.segments import FSYNC_INTERVAL, SEGMENT_BYTES, Segments
from asynctrace.pipeline.stream import FROM_DEAD_LETTERS, FROM_LANE, Stream, new_name, streams

MAX_BYTES = 256 << 20
"""Bytes of one lane on disk: half a million records of the usual size."""

MAX_AGE = 7 * 24 * 3600.0
"""Seconds after which a record is no longer worth delivering."""

_RESERVED = 10
"""One part in so many of the bytes is kept for level error and above."""

_LEAST_SEGMENTS = 8
"""Files that the bytes are enough for: the newest one is deleted only when it is full, whatever was delivered of it."""

_LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process that adopts, or for a thread of ours that was stopped in the middle."""

_F = TypeVar("_F", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Position:
    """Up to where records are meant.

    Args:
        stream: name of the stream.
        id: of the last entry in it.
    """

    stream: str
    id: int


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


@dataclass(frozen=True, slots=True)
class Adopted:
    """What was taken over.

    Args:
        adopted: records of dead processes.
        replayed: records that were put here out of dead letters.
        damaged: records that were lost to damage before.
        error: why something was left where it is, if so.
    """

    adopted: int = 0
    replayed: int = 0
    damaged: int = 0
    error: OSError | None = None


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
        self._segment_bytes = min(segment_bytes, max_bytes // _LEAST_SEGMENTS)
        self._clock = clock
        self._origin = origin
        self._streams: list[Stream] = []  # oldest first
        self._own: Stream | None = None
        self._decoder = RecordDecoder()
        self._left: list[tuple[Stream, Entry]] = []  # read, but of another producer than those before
        self._lock = threading.RLock()

    @contextmanager
    def _alone(self) -> Iterator[None]:
        # At the interpreter's end a daemon thread stops in the middle of a call and never gives the lock back.
        if not self._lock.acquire(timeout=_LOCK_TIMEOUT):
            raise TimeoutError(f"the spool {self.directory} is busy")
        try:
            yield
        finally:
            self._lock.release()

    @property
    def held(self) -> int:
        """Records on disk that are not acknowledged."""
        return sum(stream.segments.held for stream in self._streams)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to read, marks included."""
        return not self._left and all(stream.segments.exhausted for stream in self._streams)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(stream.segments.size for stream in self._streams)

    def is_there(self) -> bool:
        """Whether anything was ever spooled for the lane; a look at the disk."""
        return any(directory.is_dir() for directory in self._directories)

    @_locked
    def adopt(self) -> Adopted:
        """Take over what dead processes left, and what was put here out of dead letters.

        What cannot be taken over now stays where it is: an error is part of the answer.
        """
        counts = {FROM_LANE: 0, FROM_DEAD_LETTERS: 0}
        damaged, failure = 0, None
        for directory in self._directories:
            try:
                damaged += self._adopt_from(directory, counts)
            except OSError as error:
                failure = failure or error
        self._streams.sort(key=lambda stream: stream.path.name)
        return Adopted(counts[FROM_LANE], counts[FROM_DEAD_LETTERS], damaged, failure)

    def _adopt_from(self, directory: Path, counts: dict[str, int]) -> int:
        damaged, failure = 0, None
        if not directory.is_dir():
            return 0
        with exclusively(directory, _LOCK_TIMEOUT) as gained:
            if not gained:
                return 0
            for path in streams(directory):
                if any(path == stream.path for stream in self._streams) or not is_free(path):
                    continue
                stream = Stream(path, self._segments(path), Claim.take(path))
                try:
                    stream.segments.open()
                except OSError as error:
                    stream.close()
                    failure = failure or error
                    continue
                damaged += stream.new_damage()
                if stream.segments.exhausted:
                    stream.remove()
                else:
                    self._streams.append(stream)
                    counts[stream.origin] += stream.segments.held
        if failure is not None:
            raise failure
        return damaged

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
        return Writing(kept, self._put_behind(payloads), tuple(refused))

    def _put_behind(self, payloads: Sequence[tuple[bool, bytes]]) -> Position:
        own = self._own
        failure: OSError | None = None
        if own is not None and own.path.is_dir():
            try:
                return Position(own.path.name, own.segments.append(payloads))
            except OSError as error:
                failure = error
        # The wall clock may have been set back; the new stream is behind those we hold all the same.
        begun = max(self._clock.time_ns(), self._streams[-1].begun + 1 if self._streams else 0)
        for directory in self._directories:
            if failure is not None and own is not None and directory == own.path.parent:
                continue  # that disk has just refused
            try:
                stream = self._begin(directory, begun, payloads)
            except OSError as error:
                failure = failure or error
            else:
                self._own = stream
                self._streams.append(stream)
                return Position(stream.path.name, stream.segments.last)
        assert failure is not None
        raise failure

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
        begun = self._streams[0].begun - 1 if self._streams else self._clock.time_ns()
        failure: OSError | None = None
        for directory in self._directories:
            try:
                self._streams.insert(0, self._begin(directory, begun, payloads))
                return
            except OSError as error:
                failure = failure or error
        assert failure is not None
        raise failure

    def _begin(self, directory: Path, begun: int, payloads: Sequence[tuple[bool, bytes]]) -> Stream:
        """A new stream that holds the payloads, or nothing."""
        make_private(directory)
        path = directory / new_name(begun, self._origin)
        with exclusively(directory, _LOCK_TIMEOUT) as gained:  # nobody may adopt it before it is claimed
            if not gained:
                raise TimeoutError(f"{directory} is locked by another process")
            path.mkdir(mode=0o700)
            try:
                stream = Stream(path, self._segments(path), Claim.take(path))
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        try:
            stream.segments.append(payloads)
        except BaseException:
            stream.remove()
            raise
        return stream

    def _segments(self, path: Path) -> Segments:
        return Segments(
            path, segment_bytes=self._segment_bytes, fsync_interval=self.fsync_interval, clock=self._clock
        )

    @_locked
    def read(self, limit: int, max_bytes: int = MAX_BYTES) -> Reading:
        """The next records, oldest first; each is given out once, until :meth:`rewind`.

        Args:
            limit: most entries, records and marks.
            max_bytes: most bytes of them; one is given out however large it is.

        Raises:
            OSError: the next ones cannot be read now.
        """
        entries, self._left = self._left, []
        stream = entries[0][0] if entries else None
        damaged = 0
        if stream is None:
            for stream in tuple(self._streams):
                entries = [(stream, entry) for entry in stream.segments.read(limit, max_bytes)]
                if entries:
                    break
                damaged += stream.new_damage()
                self._end_if_done(stream)
        elif len(entries) < limit:
            entries += [(stream, entry) for entry in stream.segments.read(limit - len(entries), max_bytes)]
        damaged += sum(each.new_damage() for each in self._streams)
        if not entries or stream is None:
            return Reading(Batch(()), damaged=damaged)
        records: list[Record] = []
        marks: list[Mark] = []
        producer, newest, expired, foreign, last = "", 0, 0, 0, 0
        oldest = self._clock.time_ns() - int(self._max_age * 1e9)
        for index, (_, entry) in enumerate(entries):
            try:
                found = self._decoder.from_json(entry.payload) if entry.counted else mark_of(entry.payload)
            except ValueError:  # written by another version; the checksum is right, so it is no damage
                foreign += entry.counted
                last = entry.id
                continue
            if producer not in ("", found.producer):
                self._left = entries[index:]
                break
            last, producer = entry.id, found.producer
            if isinstance(found, Mark):
                marks.append(found)
            elif found.time_ns < oldest:
                expired += 1
                newest = found.seq
            else:
                records.append(found)
        position = Position(stream.path.name, last)
        return Reading(Batch(records, marks), position, producer, newest, expired, foreign, damaged)

    @_locked
    def acknowledge(self, position: Position) -> None:
        """Forget everything up to there.

        Raises:
            OSError: it could not be written down; the records may come again after a restart.
        """
        stream = next((each for each in self._streams if each.path.name == position.stream), None)
        if stream is not None:
            stream.segments.acknowledge(position.id)
            self._end_if_done(stream)

    def _end_if_done(self, stream: Stream) -> None:
        if stream is not self._own and stream.segments.exhausted:
            self._streams.remove(stream)
            self._remove(stream)

    def _remove(self, stream: Stream) -> None:
        """Delete it while nobody else looks; otherwise who adopts it next finds it empty, and deletes it."""
        with exclusively(stream.path.parent, _LOCK_TIMEOUT) as gained:
            if gained:
                stream.remove()
            else:
                stream.close()

    @_locked
    def sync(self) -> None:
        """Have what was appended survive a power failure, unless the interval is None.

        Raises:
            OSError: it may not survive one.
        """
        if self._own is not None:
            self._own.segments.sync()

    @_locked
    def rewind(self) -> None:
        """Give out again what was given out and is not acknowledged."""
        self._left = []
        for stream in self._streams:
            stream.segments.rewind()

    @_locked
    def close(self) -> None:
        """Let others have what is left; a second call does nothing. The next record begins a new stream."""
        self._left = []
        for stream in self._streams:
            if stream.segments.exhausted:
                self._remove(stream)
            else:
                stream.close()
        self._streams, self._own = [], None


def _lines(batch: Batch) -> list[bytes]:
    """As another lane may have encoded them already; records are not made for it."""
    return [line for part in batch.parts for line in json_lines(part)]
