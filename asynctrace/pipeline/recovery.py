"""The Recovery: what killed processes left in their journals goes to the spools of the lanes it was meant for.

From there it is adopted like everything else that waits on disk: before new records, in order, again and again until
the sink takes it. Numbers stay, so a store with keys knows what it has.
"""

from __future__ import annotations

import logging
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import groupby
from pathlib import Path
from time import time_ns

from asynctrace.core.batch import Mark
from asynctrace.core.decoding import mark_line
from asynctrace.core.encoding import json_lines
from asynctrace.core.record import NumberedRecord, Record
from asynctrace.core.slice import SLICE
from asynctrace.pipeline.claim import Claim, exclusively
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.journal_directory import DONE, Facts, read_facts, remove_journal
from asynctrace.pipeline.journal_entries import NoteEntry
from asynctrace.pipeline.journal_reading import JournalReading
from asynctrace.pipeline.journal_segment import SUFFIX, read_segment, segment_place
from asynctrace.pipeline.lane import Lane
from asynctrace.pipeline.private import make_private
from asynctrace.pipeline.segments import Segments
from asynctrace.pipeline.spool import MAX_AGE
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.pipeline.stream import FROM_LANE

_LOCK_TIMEOUT = 10.0
"""Seconds to wait for another process that looks for journals."""


class Recovery:
    """Recovers the journals of dead processes, once. Any thread; the second one waits for the first.

    Args:
        state: where journals and spools are.
        lanes: those that records may be meant for.
        new_finisher: makes one for records of that producer.
        to_all: whether the lanes take what was meant for any lane.

    Attributes:
        journals: how many were recovered.
        records: how many were found in them that were not known to be safe.
        damaged: entries that could not be read.
        failed: journals that could not be recovered; they stay where they are.
        elsewhere: journals that wait for other sinks than these.
    """

    def __init__(
        self,
        state: StateDirectory,
        lanes: Callable[[], Sequence[Lane]],
        new_finisher: Callable[[str], Finisher],
        *,
        to_all: bool = False,
    ) -> None:
        self.journals = 0
        self.records = 0
        self.damaged = 0
        self.failed = 0
        self.elsewhere = 0
        self._state = state
        self._lanes = lanes
        self._new_finisher = new_finisher
        self._to_all = to_all
        self._done = False
        self._lock = threading.Lock()

    @property
    def is_needed(self) -> bool:
        """Whether there is any journal, after one look at the disk."""
        return not self._done and bool(self._state.existing("journal"))

    def run(self) -> None:
        """Recover what there is, unless that has been done; blocks. A failure is said, not raised."""
        with self._lock:
            if self._done:
                return
            for directory in self._state.existing("journal"):
                try:
                    self._recover(directory)
                except Exception as error:
                    self.failed += 1
                    self._say("the journal %s cannot be recovered: %r", directory, error)
            self._done = True

    def after_fork(self) -> None:
        """In a forked child: the lock may be held by a thread that is not there."""
        self._lock = threading.Lock()

    def _recover(self, directory: Path) -> None:
        with exclusively(directory.parent, _LOCK_TIMEOUT) as gained:
            claim = Claim.take_if_free(directory) if gained else None
        if claim is None:
            return
        emptied = False
        try:
            emptied = self._take_over(directory)
            if emptied:
                remove_journal(directory)
        finally:
            claim.release()
        if emptied:
            with suppress(OSError):  # files of somebody else are in it
                directory.rmdir()

    def _take_over(self, directory: Path) -> bool:
        """Whether the journal is done with."""
        facts = read_facts(directory)
        if facts is None:
            parts = _in_order(directory)
            if parts:
                self._say("the journal %s does not say what it belongs to", directory)
            return not parts  # killed before its first record
        waiting = [key for key in facts.lanes if not (directory / f"{DONE}{key}").exists()]
        lanes = {lane.key: lane for lane in self._lanes() if lane.key is not None}
        streams = [
            _Stream(lane, directory, [key] if not self._to_all else waiting)
            for key, lane in lanes.items()
            if key in waiting or self._to_all
        ]
        if streams:
            self._fill(streams, _in_order(directory), facts.producer)
            self.journals += 1
            for stream in streams:
                self._hand_over(stream, facts)
            return self._to_all or not any(key not in lanes for key in waiting)
        if time_ns() - facts.begun > MAX_AGE * 1e9:
            self._say("the journal %s is too old: nobody has asked for it in %d s", directory, MAX_AGE)
            return True
        self.elsewhere += bool(waiting)
        return bool(facts.lanes) and not waiting

    def _fill(self, streams: list[_Stream], parts: list[Path], producer: str) -> None:
        noting = JournalReading()
        last = 0
        for part in parts:
            records = noting.records(_contents(part))
            last = max(last, records[-1].number if records else 0)
        for stream in streams:
            stream.begin([noting.notes[key] for key in stream.keys if key in noting.notes])
        needed = min(stream.start for stream in streams)
        damaged = noting.damaged + sum(number >= needed for number in noting.orphans)
        self.damaged += damaged
        if damaged:
            self._say("%d entries of a journal are damaged", damaged)
        finisher, reading = self._new_finisher(producer), JournalReading()
        seen: set[int] = set()  # numbers of the segment before: an entry may stand in both
        for part in parts:
            raws = [raw for raw in reading.records(_contents(part)) if raw.number not in seen]
            seen = {raw.number for raw in raws}
            unsafe = [raw for raw in raws if raw.number >= needed]
            self.records += len(unsafe)
            for run in _runs(unsafe):
                finisher.next_seq = run[0].number
                finished = finisher.finish(run)
                for stream in streams:
                    stream.take(finished, run)
        for stream in streams:
            stream.end(producer, last)

    def _hand_over(self, stream: _Stream, facts: Facts) -> None:
        """Put the stream where the lane adopts it; whoever is killed here does it again, to the same name."""
        key = stream.lane.key
        assert key is not None
        spools = self._state.spools(key)
        if not spools:
            raise OSError(f"nothing can be written for {key}")
        spool = spools[0]
        name = f"{facts.begun:020d}-{stream.journal.name.rpartition('-')[2]}-{FROM_LANE}"
        make_private(spool)
        if stream.path.is_dir() and not (spool / name).exists():
            shutil.move(stream.path, spool / name)
        shutil.rmtree(stream.path, ignore_errors=True)
        for done in stream.keys:
            (stream.journal / f"{DONE}{done}").touch()

    def _say(self, message: str, *args: object) -> None:
        diagnostics.say(logging.WARNING, ("recovery", message), message, *args)


@dataclass
class _Stream:
    """What of a journal one lane gets.

    Args:
        lane: the lane.
        journal: the journal's directory.
        keys: of the lanes that it was meant for.
    """

    lane: Lane
    journal: Path
    keys: list[str]
    start: int = 1  # the first number that may not be safe
    first: int = 1
    through: int = 0  # what the marks in the store tell of
    admitted: int = 0
    filtered: int = 0
    _segments: Segments = field(init=False)

    @property
    def path(self) -> Path:
        return self.journal / f"lane-{self.lane.key}"

    def begin(self, notes: Sequence[NoteEntry]) -> None:
        shutil.rmtree(self.path, ignore_errors=True)  # of a recovery that was killed
        self._segments = Segments(self.path)
        if len(notes) == len(self.keys) and notes:
            self.start = min(min(note.safe, note.through + 1) for note in notes)
            if len(notes) == 1 and notes[0].lane == self.lane.key:
                note = notes[0]
                self.first, self.through = note.first, note.through
                self.admitted, self.filtered = note.admitted, note.filtered
            else:  # a store that has nothing of it yet
                self.first, self.through = self.start, self.start - 1

    def take(self, records: Sequence[Record], raws: Sequence[NumberedRecord]) -> None:
        """The records are finished; of the raw ones, those that are missing were held back by a processor."""
        admitted = [record for record in records if record.seq >= self.start and self.lane.admits(record)]
        counted = sum(raw.number > self.through for raw in raws)
        stored = sum(record.seq > self.through for record in admitted)
        self.admitted += stored
        self.filtered += counted - stored
        if admitted:
            self._segments.append([(True, line) for line in json_lines(admitted)])

    def end(self, producer: str, last: int) -> None:
        if last > self.through:
            dropped = last - self.first + 1 - self.admitted - self.filtered
            mark = Mark(producer, self.first, last, self.admitted, self.filtered, dropped)
            self._segments.append([(False, mark_line(mark))])
        self._segments.close()


def _in_order(directory: Path) -> list[Path]:
    places = []
    for path in directory.glob(f"*{SUFFIX}"):
        place = segment_place(path)
        if place is not None:
            places.append((place, path))
    return [path for _, path in sorted(places)]


def _contents(path: Path) -> bytes:
    return read_segment(path)


def _runs(raws: Sequence[NumberedRecord]) -> Iterator[list[NumberedRecord]]:
    """Parts of neighbours, of at most a slice each: they are numbered again as they were."""
    for _, neighbours in groupby(enumerate(raws), lambda pair: pair[1].number - pair[0]):
        run = [raw for _, raw in neighbours]
        for start in range(0, len(run), SLICE):
            yield run[start : start + SLICE]
