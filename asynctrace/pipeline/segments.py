"""Segments: entries appended to a directory of bounded files, read in order, acknowledged, forgotten.

Whatever the files hold, reading goes on: what cannot be read is skipped and counted, and the file it stood in is kept
aside as ``*.bad``.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.pipeline.acknowledgement import Acknowledgement
from asynctrace.pipeline.entries import Entry, pack
from asynctrace.pipeline.private import make_private, sync_directory
from asynctrace.pipeline.segment_file import SUFFIX, SegmentFile, name_of, take_stock

SEGMENT_BYTES = 1 << 20
"""Bytes after which another file is begun: what a reader holds in memory, and the least that is deleted at once."""

FSYNC_INTERVAL = 1.0
"""Seconds between two fsyncs while entries arrive: what a power failure may cost; a killed process costs nothing."""

_KEPT_BAD = 4  # files kept aside for people to look at
_CLOEXEC = getattr(os, "O_CLOEXEC", 0)


class Segments:
    """The entries of one directory. One process at a time, one call at a time.

    ``held`` are the counted entries that are not acknowledged, ``damaged`` those that were lost to damage. A torn end,
    as a kill in the middle of a write leaves it, is no damage: that entry was never promised to anyone.

    Args:
        directory: made with the first entry; nobody else writes there.
        segment_bytes: size after which another file is begun.
        fsync_interval: seconds between two fsyncs; 0 for one with every append, None for none at all.
        clock: decides when an fsync is due.
    """

    def __init__(
        self,
        directory: Path,
        *,
        segment_bytes: int = SEGMENT_BYTES,
        fsync_interval: float | None = FSYNC_INTERVAL,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.directory = directory
        self.held = 0
        self.damaged = 0
        self._segment_bytes = segment_bytes
        self._fsync_interval = fsync_interval
        self._clock = clock
        self._segments: deque[SegmentFile] = deque()
        self._live: SegmentFile | None = None
        self._file = -1
        self._acknowledged = 0
        self._acknowledgement = Acknowledgement(directory / "acknowledged")
        self._next = 1
        self._ready: deque[Entry] = deque()  # loaded, not given out yet
        self._given: deque[Entry] = deque()  # given out, not acknowledged yet
        self._synced = clock.monotonic()
        self._unsynced = False
        self._noted = 0  # the acknowledged id that is on disk

    @property
    def size(self) -> int:
        """Bytes on disk."""
        return sum(segment.size for segment in self._segments)

    @property
    def last(self) -> int:
        """The id of the newest entry; 0 when there was none."""
        return self._next - 1

    @property
    def exhausted(self) -> bool:
        """Whether all that could be read was given out and acknowledged."""
        if self._ready or self._given:
            return False
        return all(segment.is_read for segment in self._segments)

    def open(self) -> None:
        """Take stock of what the directory holds; what was acknowledged is not given out again.

        Raises:
            OSError: the directory is there and cannot be listed.
        """
        for done in self.look():
            self._discard(done)

    def look(self) -> list[SegmentFile]:
        """As :meth:`open`, but change nothing on the disk; the files that are done with.

        Raises:
            OSError: the directory is there and cannot be listed.
        """
        done: list[SegmentFile] = []
        if not self.directory.is_dir():
            return done
        self._acknowledged = self._noted = self._acknowledgement.read()
        self._next = self._acknowledged + 1
        expected = 0  # the first file may begin anywhere: those before it are done
        for path in sorted(_files_in(self.directory, SUFFIX)):
            segment, first, lost = take_stock(path, self._acknowledged)
            if expected and first > expected:
                lost += first - expected
            if segment.last:
                expected = segment.last + 1
            self.damaged += lost
            if segment.last <= self._acknowledged:
                done.append(segment)
                continue
            self._segments.append(segment)
            self.held += segment.unread
            self._next = max(self._next, segment.last + 1)
        return done

    def append(self, payloads: Sequence[tuple[bool, bytes]]) -> int:
        """Write the payloads behind all others; the id of the last one.

        All or none: after an error none of them is there.

        Args:
            payloads: each with whether it counts as a record.

        Raises:
            OSError: the disk is full, the directory cannot be written …
        """
        number = self._next
        parts: list[bytes] = []
        counted = 0
        for counts, payload in payloads:
            parts += pack(number, counts, payload)
            number += 1
            counted += counts
        block = b"".join(parts)
        live = self._writable(len(block))
        try:
            _write_all(self._file, block)
            self._unsynced = True
            self._sync_if_due()
        except BaseException:
            self._take_back(live)
            raise
        live.size += len(block)
        live.last = number - 1
        live.unread += counted
        self.held += counted
        self._next = number
        return number - 1

    def _writable(self, size: int) -> SegmentFile:
        live = self._live
        if live is not None and os.fstat(self._file).st_nlink == 0:  # removed under us: what it held is gone
            self._seal()
            live = None
        if live is not None and live.size and live.size + size > self._segment_bytes:
            self._seal()
            live = None
        if live is None:
            make_private(self.directory)
            path = self.directory / name_of(self._next)
            path.unlink(missing_ok=True)  # a torn one whose only entry was never whole
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_APPEND | _CLOEXEC, 0o600)
            live = self._live = SegmentFile(path, last=self._next - 1)
            self._segments.append(live)
            try:
                self._acknowledgement.reserve()
            except BaseException:
                self._take_back(live)
                raise
            if self._fsync_interval is not None:
                sync_directory(self.directory)
        return live

    def _take_back(self, live: SegmentFile) -> None:
        """Leave no half of an entry behind; where that fails too, readers skip it as a torn end."""
        try:
            os.ftruncate(self._file, live.size)
        except OSError:
            self._seal()
        if not live.size:
            self._seal()
            self._remove(live)
        if not self._segments and not self._acknowledged:
            with suppress(OSError):
                self._acknowledgement.remove()

    def _seal(self) -> None:
        if self._file >= 0:
            if self._fsync_interval is not None:
                with suppress(OSError):  # the write went well; what fsync could say more, nobody can act on
                    os.fsync(self._file)
            os.close(self._file)
            self._file = -1
        self._live = None
        self._unsynced = False

    def _sync_if_due(self) -> None:
        if self._fsync_interval is not None:
            now = self._clock.monotonic()
            if now - self._synced >= self._fsync_interval:
                self._synced = now
                self.sync()

    def sync(self) -> None:
        """Have what was appended survive a power failure; does nothing when it does, or when none is asked for.

        Raises:
            OSError: it may not survive one.
        """
        if self._unsynced and self._file >= 0 and self._fsync_interval is not None:
            self._unsynced = False
            os.fsync(self._file)

    def read(self, limit: int, max_bytes: int | None = None) -> list[Entry]:
        """The next entries, oldest first; each is given out once, until :meth:`rewind`.

        Args:
            limit: most entries.
            max_bytes: most bytes of them; one is given out however large it is; None: any.

        Raises:
            OSError: a file cannot be read now; after some tries it is given up, and what is behind it comes.
        """
        found: list[Entry] = []
        size = 0
        while len(found) < limit:
            try:
                if not self._ready and not self._load():
                    break
            except OSError:
                if not found:
                    raise
                break
            size += len(self._ready[0].payload)
            if found and max_bytes is not None and size > max_bytes:
                break
            found.append(self._ready.popleft())
        self._given.extend(found)
        return found

    def _load(self) -> bool:
        for segment in tuple(self._segments):
            if segment.is_read:
                continue
            entries, lost = segment.read_on(self._acknowledged)
            self._ready.extend(entries)
            self.damaged += lost
            self.held -= lost
            if entries:
                return True
            if segment is not self._live:
                self._discard(segment)
        return False

    def rewind(self) -> None:
        """Give out again what was given out and is not acknowledged."""
        self._ready.extendleft(reversed(self._given))
        self._given.clear()

    def acknowledge(self, last: int) -> None:
        """Forget all entries up to that id; they were given out before.

        Raises:
            OSError: it could not be written down, for now: they would come again after a restart.
        """
        if last <= self._acknowledged:
            return
        while self._given and self._given[0].id <= last:
            self.held -= self._given.popleft().counted
        self._acknowledged = last
        try:
            self._acknowledgement.write(last)
            self._noted = last
        finally:  # on a full disk it is the deleting that makes room
            while self._segments and self._is_done(self._segments[0]):
                if self._segments[0] is self._live:
                    self._seal()
                self._discard(self._segments[0])

    def _is_done(self, segment: SegmentFile) -> bool:
        done = segment.last <= self._acknowledged and segment.is_read
        return done and (segment is not self._live or segment.size >= self._segment_bytes)

    def _discard(self, segment: SegmentFile) -> None:
        if not segment.damaged:
            self._remove(segment)
            return
        if segment in self._segments:
            self._segments.remove(segment)
        with suppress(OSError):
            segment.path.rename(segment.path.with_suffix(".bad"))
            for old in sorted(_files_in(self.directory, ".bad"))[:-_KEPT_BAD]:
                old.unlink(missing_ok=True)

    def _remove(self, segment: SegmentFile) -> None:
        if segment in self._segments:
            self._segments.remove(segment)
        with suppress(
            OSError
        ):  # it comes again at the next start and is removed then: all of it is acknowledged
            segment.path.unlink(missing_ok=True)

    def close(self) -> None:
        """Release the files; a second call does nothing."""
        self._seal()
        if self._noted < self._acknowledged:
            with suppress(OSError):
                self._acknowledgement.write(self._acknowledged)
        self._acknowledgement.close()

    def remove(self) -> None:
        """Close and delete every file but those kept aside; for entries that are all acknowledged."""
        self._noted = self._acknowledged
        self.close()
        self._segments.clear()
        with suppress(FileNotFoundError):
            for path in _files_in(self.directory, SUFFIX):
                path.unlink(missing_ok=True)
        self._acknowledgement.remove()


def _files_in(directory: Path, suffix: str) -> list[Path]:
    # Not Path.glob: from Python 3.13 on it passes over a directory that cannot be read now, as if it were empty.
    return [path for path in directory.iterdir() if path.suffix == suffix]


def _write_all(file: int, block: bytes) -> None:
    left = memoryview(block)
    while left:
        left = left[os.write(file, left) :]
