"""One file of JSON lines: a record a line, marks between them.

Format: JSON Lines (jsonlines.org): UTF-8, one object a line; ``kind`` tells records from marks.
"""

from __future__ import annotations

import os
from collections.abc import AsyncIterator, Iterator, Sequence
from os import PathLike

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.decoding import mark_line
from asynctrace.core.encoding import json_lines
from asynctrace.core.numbers import Numbers, in_ranges
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import StoreError
from asynctrace.sinks._append_sink import AppendSink, Durability, Parts, checked_path
from asynctrace.sinks._directory_lock import DirectoryLock
from asynctrace.sinks._line_reader import LineReader, Lines, pruned_marks
from asynctrace.sinks._select import RunScan, in_order, newest_first

_LOCK_TIMEOUT = 10.0  # seconds that prune tries to get the file for itself


class JsonLinesSink(AppendSink):
    """Adds records to one file; several processes may do so at once.

    Stored at least once; :class:`JsonLinesReader` drops doubles by ``(producer, seq)``.

    Args:
        path: the file; it and its folder are made when they are missing.
        durability: ``"process"``: lines survive the death of the process; ``"disk"``: a loss of power too.

    Raises:
        ConfigurationError: an argument is out of range.
    """

    def __init__(self, path: str | PathLike[str], *, durability: Durability = "process") -> None:
        self._path = checked_path(path)
        super().__init__(os.path.dirname(self._path), max_open_files=1, durability=durability)

    def __repr__(self) -> str:
        return f"JsonLinesSink({self._path!r})"

    def _collect(self, records: Sequence[Record], parts: Parts) -> None:
        parts.setdefault(self._path, []).append(b"\n".join([*json_lines(records), b""]))

    def _collect_marks(self, batch: Batch, parts: Parts) -> None:
        if batch.marks:
            parts.setdefault(self._path, []).extend(mark_line(mark) + b"\n" for mark in batch.marks)


class JsonLinesReader(LineReader):
    """Reads what :class:`JsonLinesSink` wrote; torn lines are skipped and told as problems.

    Args:
        path: the file.
    """

    def __init__(self, path: str | PathLike[str]) -> None:
        self._path = os.path.abspath(path)
        super().__init__(repr(self))

    def __repr__(self) -> str:
        return f"JsonLinesReader({self._path!r})"

    def runs(self, query: Query = EVERYTHING) -> AsyncIterator[RunSummary]:
        """Runs with at least one record that the query admits, newest first by their last record.

        A torn line may have been of any run: every run of the file tells it.

        Raises:
            StoreError: the file is not there or cannot be read.
        """
        return self._pull(self._runs, query)

    def records(self, run_id: str, query: Query = EVERYTHING) -> AsyncIterator[Record]:
        """Records of one run that the query admits, oldest first.

        Raises:
            StoreError: the file is not there or cannot be read.
        """
        return self._pull(self._records, run_id, query)

    def marks(self) -> AsyncIterator[Mark]:
        """All marks, in the order of the file.

        Raises:
            StoreError: the file is not there or cannot be read.
        """
        return self._pull(self._marks)

    def _runs(self, query: Query) -> Iterator[RunSummary]:
        lines = self._lines()
        scans: dict[str, RunScan] = {}
        for record in lines.records():
            scan = scans.get(record.run_id)
            if scan is None:
                scan = scans[record.run_id] = RunScan(query)
            scan.add(record)
        problems = lines.problems()
        yield from newest_first((scan.summary(problems) for scan in scans.values() if scan.admitted), query)

    def _records(self, run_id: str, query: Query) -> Iterator[Record]:
        yield from in_order(self._lines().records_of(run_id), query)

    def _find(self, run_id: str) -> RunSummary | None:
        lines, scan = self._lines(), RunScan(EVERYTHING)
        for record in lines.records():
            if record.run_id == run_id:
                scan.add(record)
        return scan.summary(lines.problems()) if scan.admitted else None

    def _marks(self) -> Iterator[Mark]:
        yield from self._lines().marks()

    def _numbers(self) -> Iterator[Numbers]:
        yield from in_ranges(self._lines().keys())

    def _lines(self) -> Lines:
        if not os.path.isfile(self._path):
            raise StoreError(f"{self._path}: there is no such file of JSON lines")
        return Lines(self._path)

    def _prune(self, older_than_ns: int) -> int:
        newest: dict[str, int] = {}
        for record in self._lines().records():
            newest[record.run_id] = max(record.time_ns, newest.get(record.run_id, record.time_ns))
        doomed = {run_id for run_id, time_ns in newest.items() if time_ns < older_than_ns}
        if not doomed:
            return 0
        lock = DirectoryLock(os.path.dirname(self._path))
        temporary = f"{self._path}.pruned-{os.getpid()}"
        try:
            # Writers look at the file again after each wait for the lock, so the new file takes what comes
            # next.
            with lock.exclusive(_LOCK_TIMEOUT):
                gone = self._copy_without(doomed, older_than_ns, temporary)
                os.replace(temporary, self._path)
        finally:
            lock.close()
            if os.path.exists(temporary):
                os.unlink(temporary)
        return len(gone)

    def _copy_without(self, doomed: set[str], older_than_ns: int, target: str) -> set[tuple[str, int]]:
        # A doomed run may have got a new record since it was doomed: then all of it stays.
        lines = self._lines()
        doomed -= {r.run_id for r in lines.records() if r.run_id in doomed and r.time_ns >= older_than_ns}
        gone: set[tuple[str, int]] = set()
        with open(target, "xb") as output:
            os.fchmod(output.fileno(), os.stat(self._path).st_mode & 0o777)
            for line, record in self._lines().raw():
                if record is not None and record.run_id in doomed:
                    gone.add((record.producer, record.seq))
                else:
                    output.write(line + b"\n")
            for mark in pruned_marks(gone):
                output.write(mark_line(mark) + b"\n")
            output.flush()
            os.fsync(output.fileno())
        return gone
