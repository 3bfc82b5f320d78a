"""One file of JSON lines: a record a line, marks between them.

Format: JSON Lines (jsonlines.org): UTF-8, one object a line; ``kind`` tells records from marks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from os import PathLike

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.decoding import mark_line
from asynctrace.core.encoding import json_block
from asynctrace.core.numbers import Numbers, in_ranges
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import StoreError
from asynctrace.sinks import _pruned
from asynctrace.sinks._append_sink import AppendSink, Durability, Parts
from asynctrace.sinks._directory_lock import DirectoryLock
from asynctrace.sinks._line_reader import LineReader, size_of
from asynctrace.sinks._lines import Lines
from asynctrace.sinks._paths import checked_path
from asynctrace.sinks._rewriting import Rewriting, remove
from asynctrace.sinks._rotation import Compression, Rotation, number_of, rotated
from asynctrace.sinks._select import RunScan, Seen, in_order, newest_first
from asynctrace.sinks._tidying import claimed

_TRIES = 5  # to find the runs that are to be pruned as they were before
_LOCK_TIMEOUT = 10.0  # seconds that prune tries to get the file for itself


class JsonLinesSink(AppendSink):
    """Adds records to one file; several processes may do so at once.

    Stored at least once; :class:`JsonLinesReader` drops doubles by ``(producer, seq)``.

    Args:
        path: the file; it and its folder are made when they are missing.
        durability: ``"process"``: lines survive the death of the process; ``"disk"``: a loss of power too.
        rotate_bytes: size that the file may have before it makes way for a new one (``t.jsonl`` becomes
            ``t.000001.jsonl``); None: any. A batch is never split, so it may grow larger by one batch.
        rotate_every: seconds; a file last written in an earlier such interval makes way. They are counted from 1970,
            UTC: 86400 rotates at midnight. None: never.
        keep: rotated files that stay; older ones are deleted, and marks tell what they held. None: all.
        compress: what becomes of rotated files: ``"none"`` or ``"gzip"``.

    Raises:
        ConfigurationError: an argument is out of range.

    Example:
        >>> JsonLinesSink("/var/log/app/traces.jsonl", rotate_bytes=100_000_000, keep=10, compress="gzip")
        JsonLinesSink('/var/log/app/traces.jsonl')
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        durability: Durability = "process",
        rotate_bytes: int | None = None,
        rotate_every: float | None = None,
        keep: int | None = None,
        compress: Compression = "none",
    ) -> None:
        self._path = checked_path(path)
        super().__init__(
            os.path.dirname(self._path),
            max_open_files=1,
            durability=durability,
            rotation=Rotation(rotate_bytes, rotate_every, keep, compress),
        )

    def __repr__(self) -> str:
        return f"JsonLinesSink({self._path!r})"

    def _collect(self, records: Sequence[Record], parts: Parts) -> None:
        parts[self._path].append(json_block(records))

    def _collect_marks(self, batch: Batch, parts: Parts) -> None:
        if batch.marks:
            parts[self._path].extend(mark_line(mark) + b"\n" for mark in batch.marks)

    def _explain(self, path: str, marks: Sequence[Mark]) -> None:
        _pruned.add(_pruned.path_of(self._path), number_of(path, self._path), marks)

    def _tidied_when_opened(self) -> Sequence[str]:
        return (self._path,)


class JsonLinesReader(LineReader):
    """Reads what :class:`JsonLinesSink` wrote, rotated files too; torn lines are skipped and told as problems.

    Args:
        path: the file that is written to.
    """

    def all_records(self) -> AsyncIterator[Record]:
        """The records of all runs, each once, in the order they were written; in one go, not run by run.

        Raises:
            StoreError: the file is not there or cannot be read.
        """
        return self._pull(self._all_records)

    def _all_records(self) -> Iterator[Record]:
        seen = Seen()
        return (record for record in self._lines().records() if not seen.before(record))

    def _runs(self, query: Query) -> Iterator[RunSummary]:
        lines = self._lines()
        scans: dict[str, RunScan] = {}
        for record in lines.records():
            scan = scans.get(record.run_id)
            if scan is None:
                scan = scans[record.run_id] = RunScan(query)
            scan.add(record)
        problems = lines.problems()  # a torn line may have been of any run: each tells it
        found = newest_first((scan.summary(problems) for scan in scans.values() if scan.admitted), query)
        if not found:
            self._note(problems)
        yield from found

    def _records(self, run_id: str, query: Query) -> Iterator[Record]:
        yield from in_order(self._lines().records_of(run_id), query)

    def _find(self, run_id: str) -> RunSummary | None:
        lines, scan = self._lines(), RunScan(EVERYTHING)
        for record in lines.records():
            if record.run_id == run_id:
                scan.add(record)
        if scan.admitted:
            return scan.summary(lines.problems())
        self._note(lines.problems())
        return None

    def _marks(self) -> Iterator[Mark]:
        for lines in (Lines.of_one(_pruned.path_of(self._path)), self._lines()):
            yield from lines.marks()
            self._note(lines.problems())

    def _numbers(self) -> Iterator[Numbers]:
        yield from in_ranges(self._lines().keys())

    def _lines(self) -> Lines:
        if not os.path.isfile(self._path) and not rotated(self._path):
            raise StoreError(f"{self._path}: there is no such file of JSON lines")
        return Lines(self._path)

    def _used_bytes(self) -> int:
        self._lines()
        return sum(map(size_of, (*rotated(self._path), self._path)))

    def _prune(self, older_than_ns: int) -> int:
        self._lines()
        newest, lock = _Newest(), DirectoryLock(os.path.dirname(self._path))
        gone: set[tuple[str, int]] = set()
        doomed: set[str] = set()
        try:
            for _ in range(_TRIES):
                newest.look(self._path)
                doomed = newest.before(older_than_ns)
                if not doomed:
                    return 0
                if not os.path.isfile(self._path):
                    break
                copy = Rewriting(self._path, doomed)
                try:
                    if not copy.gone:
                        break
                    # Writers look at the file again after each wait for the lock: the new one takes what comes next.
                    with lock.exclusive(_LOCK_TIMEOUT):
                        finished = copy.finish()
                finally:
                    copy.close()
                if finished:
                    gone = copy.gone
                    break
            else:
                return 0  # old runs go on getting records: they are not old
        finally:
            lock.close()
        for path in rotated(self._path):  # nobody writes to these any more
            with claimed(path) as gained:
                if gained:
                    gone |= remove(path, doomed)
        return len(gone)


class _Newest:
    """The newest record of each run, over all files; a file that has not changed is not read again."""

    def __init__(self) -> None:
        self._of: dict[str, int] = {}
        self._looked_at: set[tuple[int, int, int, int]] = set()

    def look(self, path: str) -> None:
        for part in (*rotated(path), path):
            try:
                status = os.stat(part)
            except FileNotFoundError:
                continue
            state = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            if state not in self._looked_at:
                self._looked_at.add(state)
                for record in Lines.of_one(part).records():
                    self._of[record.run_id] = max(record.time_ns, self._of.get(record.run_id, record.time_ns))

    def before(self, time_ns: int) -> set[str]:
        """Runs without a record from then on."""
        return {run_id for run_id, newest in self._of.items() if newest < time_ns}
