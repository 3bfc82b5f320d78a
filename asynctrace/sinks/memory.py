"""Records kept in memory, for tests and as the last refuge."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import AsyncIterator

from asynctrace.core.allowed import is_whole
from asynctrace.core.batch import Batch, Mark
from asynctrace.core.numbers import Numbers, in_ranges
from asynctrace.core.query import EVERYTHING, Query
from asynctrace.core.record import Record
from asynctrace.core.summary import RunSummary
from asynctrace.errors import ConfigurationError, SinkClosedError
from asynctrace.ports import LocalSink
from asynctrace.sinks._marks import pruned_marks
from asynctrace.sinks._select import RunScan, in_order, newest_first

_KEPT_MARKS = 10_000  # a program that runs for months must not grow by its marks


class MemorySink(LocalSink):
    """Keeps records in the order they came, each once.

    ``records`` may be read from any thread while others write.

    Args:
        max_records: how many records stay, the newest ones; None for all.

    Raises:
        ConfigurationError: ``max_records`` is below 1.

    >>> MemorySink().records
    ()
    """

    safety = "memory"

    def __init__(self, *, max_records: int | None = None) -> None:
        if max_records is not None and not is_whole(max_records, 1):
            raise ConfigurationError(
                "max_records", max_records, "a whole number from 1; leave it out for all"
            )
        self._max_records = max_records
        self._records: deque[Record] = deque()
        self._keys: set[tuple[str, int]] = set()
        self._marks: deque[Mark] = deque(maxlen=_KEPT_MARKS)
        self._evicted: dict[str, Mark] = {}
        self._lock = threading.Lock()
        self._open = False

    def __repr__(self) -> str:
        return f"<MemorySink of {len(self._records)} records>"

    @property
    def records(self) -> tuple[Record, ...]:
        """What is kept now, in the order it came."""
        with self._lock:
            return tuple(self._records)

    @property
    def marks(self) -> tuple[Mark, ...]:
        """The newest marks, oldest first; behind them, one a producer tells what ``max_records`` has removed."""
        with self._lock:
            return (*self._marks, *self._evicted.values())

    def clear(self) -> None:
        """Forget all records and marks; a batch that comes again counts as new."""
        with self._lock:
            self._records.clear()
            self._keys.clear()
            self._marks.clear()
            self._evicted.clear()

    async def open(self) -> None:
        """Get ready; what is kept stays."""
        self._lock = threading.Lock()  # in a forked child nobody would release the parent's
        self._open = True

    async def write(self, batch: Batch) -> None:
        """Keep the batch.

        Raises:
            SinkClosedError: before ``open`` or after ``aclose``.
        """
        if not self._open:
            raise SinkClosedError(f"{self!r} is not open")
        self.write_now(batch)

    async def aclose(self) -> None:
        """Take no more; what is kept stays readable."""
        self._open = False

    def write_now(self, batch: Batch) -> None:
        """Keep the batch, from any thread."""
        with self._lock:
            for record in batch:
                key = record.producer, record.seq
                if key not in self._keys:
                    self._keys.add(key)
                    self._records.append(record)
            if self._max_records is not None:
                while len(self._records) > self._max_records:
                    self._evict(self._records.popleft())
            if batch.marks:
                known = set(self._marks)
                self._marks.extend(mark for mark in batch.marks if mark not in known)

    def _evict(self, record: Record) -> None:
        producer, seq = record.producer, record.seq
        self._keys.discard((producer, seq))
        before = self._evicted.get(producer) or Mark(producer, seq, seq, admitted=0)
        first, last = min(before.first, seq), max(before.last, seq)
        self._evicted[producer] = Mark(producer, first, last, admitted=0, pruned=before.pruned + 1)

    def remove_before(self, older_than_ns: int) -> int:
        """Remove runs whose newest record is older than the wall-clock stamp; how many records went."""
        with self._lock:
            newest: dict[str, int] = {}
            for record in self._records:
                newest[record.run_id] = max(record.time_ns, newest.get(record.run_id, record.time_ns))
            kept = [record for record in self._records if newest[record.run_id] >= older_than_ns]
            gone = self._keys - {(record.producer, record.seq) for record in kept}
            self._records = deque(kept)
            self._keys -= gone
            self._marks.extend(pruned_marks(gone))
        return len(gone)


class MemoryReader:
    """Answers questions about what a :class:`MemorySink` keeps.

    Args:
        sink: the sink; it may go on taking records.
    """

    def __init__(self, sink: MemorySink) -> None:
        self._sink = sink

    def __repr__(self) -> str:
        return f"MemoryReader({self._sink!r})"

    def __str__(self) -> str:
        return "memory"

    async def runs(self, query: Query = EVERYTHING) -> AsyncIterator[RunSummary]:
        """Runs with at least one record that the query admits, newest first."""
        scans: dict[str, RunScan] = {}
        async for part in Batch(self._sink.records).slices():
            for record in part:
                scan = scans.get(record.run_id)
                if scan is None:
                    scan = scans[record.run_id] = RunScan(query)
                scan.add(record)
        for summary in newest_first((scan.summary(()) for scan in scans.values() if scan.admitted), query):
            yield summary

    async def records(self, run_id: str, query: Query = EVERYTHING) -> AsyncIterator[Record]:
        """Records of one run that the query admits, oldest first."""
        for record in in_order((record for record in self._sink.records if record.run_id == run_id), query):
            yield record

    async def find(self, run_id: str) -> RunSummary | None:
        """The one run, or None when it is not there."""
        scan = RunScan(EVERYTHING)
        for record in self._sink.records:
            if record.run_id == run_id:
                scan.add(record)
        return scan.summary(()) if scan.admitted else None

    async def marks(self) -> AsyncIterator[Mark]:
        """The newest marks, oldest first."""
        for mark in self._sink.marks:
            yield mark

    async def numbers(self) -> AsyncIterator[Numbers]:
        """The keys of all records, as ranges."""
        async for part in Batch(self._sink.records).slices():
            for numbers in in_ranges((record.producer, record.seq) for record in part):
                yield numbers

    async def prune(self, older_than_ns: int) -> int:
        """Remove runs whose newest record is older than the wall-clock stamp; how many records went."""
        return self._sink.remove_before(older_than_ns)

    async def aclose(self) -> None:
        """Nothing is held; the sink stays as it is."""
