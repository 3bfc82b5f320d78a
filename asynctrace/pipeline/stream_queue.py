"""The StreamQueue: what one lane has on disk, stream behind stream, as one queue of payloads.

Each process writes a stream of its own below the lane's directory; those of dead processes are adopted, and whatever is
older comes first.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from asynctrace.core.clock import Clock
from asynctrace.pipeline.claim import Claim, exclusively
from asynctrace.pipeline.entries import Entry
from asynctrace.pipeline.private import make_private
from asynctrace.pipeline.segments import Segments
from asynctrace.pipeline.stream import FROM_DEAD_LETTERS, FROM_LANE, Stream, new_name, streams

LOCK_TIMEOUT = 1.0
"""Seconds to wait for another process that adopts, or for a thread of ours that was stopped in the middle."""

Payloads = Sequence[tuple[bool, bytes]]
"""Each with whether it counts as a record."""


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


class StreamQueue:
    """Blocking calls, one at a time.

    Args:
        directories: of the lane; what is new goes to the first of them that can be written.
        new_segments: makes the files of a stream in that directory.
        clock: tells when a stream begins.
        origin: where the payloads of the own stream come from.
    """

    def __init__(
        self,
        directories: Sequence[Path],
        new_segments: Callable[[Path], Segments],
        clock: Clock,
        origin: str,
    ) -> None:
        self._directories = directories
        self._new_segments = new_segments
        self._clock = clock
        self._origin = origin
        self._streams: list[Stream] = []  # oldest first
        self._own: Stream | None = None
        self._damaged = 0  # records of streams that are gone, not told yet

    @property
    def held(self) -> int:
        """Records on disk that are not acknowledged."""
        return sum(stream.segments.held for stream in self._streams)

    @property
    def exhausted(self) -> bool:
        """Whether there is nothing to read."""
        return all(stream.segments.exhausted for stream in self._streams)

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(stream.segments.size for stream in self._streams)

    def new_damage(self) -> int:
        """Records lost to damage since this was last asked."""
        damaged, self._damaged = self._damaged, 0
        return damaged + sum(stream.new_damage() for stream in self._streams)

    # -- from others -----------------------------------------------------------------------------------------

    def adopt(self) -> Adopted:
        """Take over what nobody alive holds.

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
        with exclusively(directory, LOCK_TIMEOUT) as gained:
            if not gained:
                return 0
            for path in streams(directory):
                if any(path == stream.path for stream in self._streams):
                    continue
                claim = Claim.take_if_free(path)
                if claim is None:
                    continue
                stream = Stream(path, self._new_segments(path), claim)
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

    # -- to the disk -----------------------------------------------------------------------------------------

    def put_behind(self, payloads: Payloads) -> Position:
        """Put them behind everything else; where the last one is.

        Raises:
            OSError: no directory can be written; none of them is there.
        """
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

    def put_first(self, payloads: Payloads) -> None:
        """Put them before everything else; they are given out next, after :meth:`rewind`.

        Raises:
            OSError: no directory can be written; none of them is there.
        """
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

    def _begin(self, directory: Path, begun: int, payloads: Payloads) -> Stream:
        """A new stream that holds the payloads, or nothing."""
        make_private(directory)
        path = directory / new_name(begun, self._origin)
        with exclusively(directory, LOCK_TIMEOUT) as gained:  # nobody may adopt it before it is claimed
            if not gained:
                raise TimeoutError(f"{directory} is locked by another process")
            path.mkdir(mode=0o700)
            try:
                stream = Stream(path, self._new_segments(path), Claim.take(path))
            except BaseException:
                shutil.rmtree(path, ignore_errors=True)
                raise
        try:
            stream.segments.append(payloads)
        except BaseException:
            stream.remove()
            raise
        return stream

    def sync(self) -> None:
        """Have what was put behind survive a power failure, unless the segments are not to.

        Raises:
            OSError: it may not survive one.
        """
        if self._own is not None:
            self._own.segments.sync()

    # -- from the disk ---------------------------------------------------------------------------------------

    def read(self, limit: int, max_bytes: int) -> tuple[Stream, list[Entry]] | None:
        """The next entries, of one stream; each is given out once, until :meth:`rewind`; None when there are none.

        Args:
            limit: most entries.
            max_bytes: most bytes of them; one is given out however large it is.

        Raises:
            OSError: the next ones cannot be read now.
        """
        for stream in tuple(self._streams):
            entries = stream.segments.read(limit, max_bytes)
            if entries:
                return stream, entries
            self._damaged += stream.new_damage()
            self._end_if_done(stream)
        return None

    def acknowledge(self, position: Position) -> None:
        """Forget everything up to there.

        Raises:
            OSError: it could not be written down; it may come again after a restart.
        """
        stream = next((each for each in self._streams if each.path.name == position.stream), None)
        if stream is not None:
            stream.segments.acknowledge(position.id)
            self._end_if_done(stream)

    def _end_if_done(self, stream: Stream) -> None:
        if stream is not self._own and stream.segments.exhausted:
            self._streams.remove(stream)
            _remove(stream)

    def rewind(self) -> None:
        """Give out again what was given out and is not acknowledged."""
        for stream in self._streams:
            stream.segments.rewind()

    def close(self) -> None:
        """Let others have what is left; a second call does nothing. The next payload begins a new stream."""
        for stream in self._streams:
            if stream.segments.exhausted:
                _remove(stream)
            else:
                stream.close()
        self._streams, self._own = [], None


def _remove(stream: Stream) -> None:
    """Delete it while nobody else looks; otherwise who adopts it next finds it empty, and deletes it."""
    with exclusively(stream.path.parent, LOCK_TIMEOUT) as gained:
        if gained:
            stream.remove()
        else:
            stream.close()
