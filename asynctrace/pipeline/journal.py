"""The Journal: what was recorded and is not safe yet, where a killed process leaves it.

The caller's thread writes each record before its call returns, without a lock. A segment is used again when every
number that was given out before the next one was begun is safe in all lanes.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from pathlib import Path
from types import CodeType

from asynctrace.core import codec
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.core.context import SpanContext
from asynctrace.core.redaction import Redactor
from asynctrace.core.run import RunContext
from asynctrace.core.site import SiteCache
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.journal_directory import JournalDirectory
from asynctrace.pipeline.journal_entries import (
    MARK,
    ContextEntry,
    NoteEntry,
    ProcessEntry,
    SiteEntry,
    SpanEntry,
    pack_entry,
    seal,
)
from asynctrace.pipeline.journal_segment import LostSegment, NoSegment, Segment
from asynctrace.pipeline.journal_sync import JournalSync
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.worker import Worker

MAX_BYTES = 64 << 20
"""Bytes of one journal: half a million records of the usual size that are not safe yet."""

SEGMENT_BYTES = 4 << 20
"""Bytes of one file: what is used again at once."""

_NOTE_INTERVAL = 1.0
"""Seconds between two notes of how far the lanes are: what may be delivered twice to a store that knows no doubles."""

_LEAST_SEGMENTS = 8
"""Files that the bytes are enough for: one is used again only when all that it holds is safe."""

_LEAST_INTERVAL = 0.05
"""Seconds between two looks at whether a segment can be used again."""

_REST = 1.0
"""Seconds before a disk that took nothing is tried again."""

_keys = count(1)
"""Of contexts. No two journals of a process give the same: a forked child has contexts with keys of its parent's."""


class Journal:
    """Written by the threads that record, tended on the home loop. Makes no file before the first record.

    Args:
        state: where it is kept.
        producer: who gives the numbers.
        redactor: what is written went through it before.
        durability: see :data:`Durability`.
        max_bytes: of all segments; what is recorded beyond is counted, said, and in memory only.
        segment_bytes: of one segment.
        clock: decides when a note is due.

    Attributes:
        numbers: gives each record its number.
        segment: where entries go now.
        interrupted: calls that an interrupt left after they had taken a number.
        unprotected: records that no segment took.
    """

    def __init__(
        self,
        state: StateDirectory,
        producer: str,
        redactor: Redactor,
        *,
        durability: Durability = "process",
        max_bytes: int = MAX_BYTES,
        segment_bytes: int = SEGMENT_BYTES,
        clock: Clock = SYSTEM_CLOCK,
    ) -> None:
        self.numbers = count(1)
        self.segment: Segment | NoSegment = NoSegment()
        self.interrupted = 0
        self.durability: Durability = durability
        self._redactor = redactor
        self._segment_bytes = min(segment_bytes, max_bytes // _LEAST_SEGMENTS)
        self._max_bytes = max_bytes
        self._clock = clock
        self._place = JournalDirectory(state, producer, durability)
        self._lock = threading.RLock()  # re-entrant: a signal handler or a finaliser may record inside
        self._full: deque[Segment] = deque()  # oldest first
        self._spare: deque[Segment] = deque()  # zeroed
        self._places = count(1)
        self._sites = SiteCache()
        self._worker = Worker("asynctrace journal")
        self._sync = JournalSync(self._written)
        self._sync_soon = self._sync.soon
        self._preparing = False
        self._size = 0
        self._lost = 0
        self._rests_until = 0.0
        self._noted: dict[str, NoteEntry] = {}
        self._tended = 0.0
        self._closed = False

    @property
    def unprotected(self) -> int:
        """Records and what they refer to that no segment took; they are in memory only."""
        segment = self.segment
        return self._lost + (segment.lost if isinstance(segment, LostSegment) else 0)

    @property
    def directory(self) -> Path | None:
        """Where it is; None before the first record, or when nothing can be written."""
        return self._place.path

    # -- any thread ------------------------------------------------------------------------------------------

    def append(self, data: bytes) -> None:
        """Write an entry; afterwards it survives the process."""
        if self.durability == "disk":
            self.append_elsewhere(seal(data))
            self._sync_soon()
            return
        try:
            write = self.segment.write
            write(data)
            write(MARK)
        except ValueError:
            self.append_elsewhere(data)

    def append_elsewhere(self, data: bytes) -> None:
        """Write an entry that the segment may have no room for, perhaps for its mark only: it may stand there twice."""
        with self._lock:
            while True:
                try:
                    write = self.segment.write
                    write(data)
                    write(MARK)
                    return
                except ValueError:
                    self._switch(len(data))

    def refer(self, context: RunContext, span: SpanContext | None, code: CodeType | None, lasti: int) -> int:
        """Have the segment say what a record is about to refer to; the key of its call site.

        The record has its number already: the segment is not used again before that is safe.
        """
        segment = self.segment
        if context.journaled_in is not segment:
            self._tell_context(context)
            if self.segment is segment:  # else it may be in either
                context.journaled_in = segment
        if span is not None and span.span_id not in segment.spans:
            self._tell_span(span, segment)
        if code is None:
            return 0
        known = segment.sites.get(id(code))
        if known is None:
            segment.codes.append(code)  # first: nothing else gets its address while it is kept
            known = segment.sites.setdefault(id(code), {})
        key = known.get(lasti)
        if key is None:
            key = next(_keys)
            site = self._sites.resolve(code, lasti)
            self.append(pack_entry(SiteEntry(key, site.filename, site.lineno)))
            if self.segment is segment:  # else it may be in either
                known[lasti] = key
        return key

    def _tell_context(self, context: RunContext) -> None:
        self._redactor.redact_context(context)
        run = context.run
        with self._lock:  # two threads would give it two, and a record may have that which is not told yet
            context.key = context.key or next(_keys)
        self.append(
            pack_entry(
                ContextEntry(
                    context.key,
                    run.run_id,
                    run.trace_id,
                    run.span_id,
                    run.parent_run_id,
                    run.parent_span_id,
                    run.name,
                    run.attempt,
                    run.level,
                    codec.pack_any(context.fields)[0],
                    ProcessEntry.of(run.process),
                )
            )
        )

    def _tell_span(self, span: SpanContext, segment: Segment | NoSegment) -> None:
        around: SpanContext | None = span
        while around is not None and around.span_id not in segment.spans:
            run, outside = around.run, around.parent
            self.append(
                pack_entry(
                    SpanEntry(around.span_id, run.trace_id, run.span_id, outside.span_id if outside else 0)
                )
            )
            if self.segment is segment:
                segment.spans.add(around.span_id)
            around = outside
        if self.segment is segment:
            segment.newest_span = span

    # -- segments --------------------------------------------------------------------------------------------

    def _switch(self, least: int) -> None:
        """Take entries elsewhere; there is room for so many bytes."""
        try:
            following = self._next_segment(least)
        except OSError as error:
            following = None
            self._say("the journal cannot be written: %r; records are in memory only", error)
        if following is None:
            if isinstance(self.segment, LostSegment):
                return
            lost: LostSegment | Segment = LostSegment()
            self._rests_until = self._clock.monotonic() + _REST
        else:
            following.begin(next(self._places))
            lost = following
        before, self.segment = self.segment, lost
        # Whoever takes a number from now on finds the new segment; so no reference in the old one is to a later number.
        if isinstance(before, Segment):
            before.last_number = self._peek()
            self._full.append(before)
        elif isinstance(before, LostSegment):
            self._lost += before.lost
        if not self._spare:
            self._prepare()

    def _peek(self) -> int:
        """The last number given out."""
        return int(repr(self.numbers)[len("count(") : -1]) - 1  # nothing else tells without taking one

    def _next_segment(self, least: int) -> Segment | None:
        """A segment without entries; None when there may be no more of them."""
        needed = least + len(MARK) + 64  # the header
        if needed <= self._segment_bytes and self._spare:
            return self._spare.popleft()
        if self._closed or not self._place.open():
            return None
        size = max(self._segment_bytes, needed)
        if self._size + size > self._max_bytes:
            self._say(
                "the journal is full (%d bytes): records that come now do not survive a killed process",
                self._max_bytes,
            )
            return None
        return self._new_segment(size)

    def _new_segment(self, size: int) -> Segment:
        segment = self._place.new_segment(size)
        self._size += size
        return segment

    def _prepare(self) -> None:
        """Have a spare segment made by another thread: that costs milliseconds."""
        if self._preparing or self._place.path is None or self._size + self._segment_bytes > self._max_bytes:
            return
        self._preparing = True
        try:
            self._worker.submit(self._add_spare)
        except RuntimeError:  # no thread starts any more: it will be made when it is needed
            self._preparing = False

    def _add_spare(self) -> None:
        try:
            segment = self._new_segment(self._segment_bytes)
        except OSError:  # who needs it will say so
            return
        finally:
            self._preparing = False
        self._keep_spare(segment)

    def _keep_spare(self, segment: Segment) -> None:
        with self._lock:
            if not self._closed:
                self._spare.append(segment)
                return
        segment.remove()
        with suppress(OSError):  # who closed the journal could not, with this in it
            segment.path.parent.rmdir()

    def _say(self, message: str, *args: object) -> None:
        diagnostics.say(logging.WARNING, ("journal", message), message, *args)

    # -- the home loop ---------------------------------------------------------------------------------------

    def serve(self, lanes: Sequence[str]) -> None:
        """Tell for which lanes the journal is kept."""
        with self._lock, suppress(OSError):
            self._place.serve(lanes)

    @property
    def wants_notes(self) -> bool:
        """Whether it is time to :meth:`tend`: a segment waits to be used again, or a note is due."""
        if self._place.path is None:
            return False
        urgent = self._full or isinstance(self.segment, LostSegment)
        return self._clock.monotonic() >= self._tended + (_LEAST_INTERVAL if urgent else _NOTE_INTERVAL)

    def tend(self, safe: int, notes: Sequence[NoteEntry]) -> None:
        """Write down how far the lanes are, and use again what they are done with.

        Args:
            safe: every number below is safe in all lanes.
            notes: of the lanes that the journal is kept for.
        """
        self._tended = now = self._clock.monotonic()
        for note in notes:
            if self._noted.get(note.lane) != note:
                self._noted[note.lane] = note
                self.append(pack_entry(note))
        done = min([safe - 1, *(note.through for note in notes)])
        with self._lock:
            while self._full and self._full[0].last_number <= done:
                self._use_again(self._full.popleft())
            if isinstance(self.segment, LostSegment) and now >= self._rests_until:
                self._switch(0)

    def _use_again(self, segment: Segment) -> None:
        # One is enough beside the one in use: what a burst has added goes.
        if not self._spare and segment.size == self._segment_bytes:
            with suppress(RuntimeError):
                self._worker.submit(self._clean, segment)
                return
        self._size -= segment.size
        segment.remove()

    def _clean(self, segment: Segment) -> None:
        self._keep_spare(segment.again())

    # -- reading it again ------------------------------------------------------------------------------------

    def contents(self) -> list[bytes]:
        """What the segments hold, oldest first; for records that an interrupt kept from going on."""
        return [segment.contents() for segment in self._written()]

    def _written(self) -> list[Segment]:
        with self._lock:
            segments = [*self._full, self.segment]
        return [segment for segment in segments if isinstance(segment, Segment)]

    # -- the end ---------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Everything is safe: leave nothing behind. What is recorded afterwards is not journaled."""
        with self._lock:
            self._closed = True
            segments = [*self._written(), *self._spare]
            self.segment = LostSegment()
            self._rests_until = float("inf")
            self._full.clear()
            self._spare.clear()
            for segment in segments:
                segment.remove()
            self._place.remove()
        self._worker.shutdown()
        self._sync.end()
