"""Batch: an immutable run of records on its way to one sink."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from itertools import chain
from types import coroutine
from typing import overload

from msgspec import Struct

from asynctrace.core.encoding import json_lines
from asynctrace.core.record import Record
from asynctrace.core.slice import SLICE, Slice, size_of, times_of

Key = tuple[str, int]
"""Producer and number of a record: its idempotence key in every store."""


class Mark(Struct, frozen=True):
    """What became of a range of one producer's records in one lane; what was not admitted leaves a gap.

    ``last - first + 1 = admitted + filtered + dropped``, unless it says ``pruned``.

    Args:
        producer: who numbered the records.
        first: first number of the range.
        last: last number of the range.
        admitted: records handed to the sink.
        filtered: records that the lane's rule or a processor held back.
        dropped: records given up by policy.
        pruned: records removed by retention.
    """

    producer: str
    first: int
    last: int
    admitted: int
    filtered: int = 0
    dropped: int = 0
    pruned: int = 0

    @property
    def is_correction(self) -> bool:
        """Whether its range is empty: it takes from one count what it adds to another."""
        return self.first == self.last + 1

    def joined(self, other: Mark) -> Mark | None:
        """One mark for both, if the other one's range follows this one's, or the other one corrects it."""
        follows = self.first <= self.last and other.first == self.last + 1 <= other.last
        corrects = other.is_correction and self.first <= other.last <= self.last
        return self.plus(other) if self.producer == other.producer and (follows or corrects) else None

    def plus(self, other: Mark) -> Mark:
        """The range from its first number on, up to the higher end of both, with the counts of both."""
        return Mark(
            self.producer,
            self.first,
            max(self.last, other.last),
            self.admitted + other.admitted,
            self.filtered + other.filtered,
            self.dropped + other.dropped,
            self.pruned + other.pruned,
        )


class Batch(Sequence[Record]):
    """Records in the order of their numbers, with the marks that belong behind them.

    Args:
        records: the records; never empty together with ``marks``.
        marks: to be stored beside the records by stores that keep them.
    """

    __slots__ = ("_count", "_records", "marks", "parts")

    def __init__(self, records: Sequence[Record], marks: Sequence[Mark] = ()) -> None:
        self._records: tuple[Record, ...] | None = tuple(records)
        self._count = len(self._records)
        self.parts: tuple[Sequence[Record], ...] = (self._records,) if self._count else ()
        """The records as the writer finished them: reading through ``slices`` may spare making them."""
        self.marks = tuple(marks)

    @classmethod
    def of_parts(cls, parts: Sequence[Sequence[Record]], marks: Sequence[Mark] = ()) -> Batch:
        """A batch of the records of all parts, none of which is empty."""
        batch = cls((), marks)
        batch.parts = tuple(parts)
        batch._count = sum(map(len, parts))
        batch._records = None if parts else ()
        return batch

    @property
    def records(self) -> tuple[Record, ...]:
        """The records."""
        if self._records is None:
            self._records = tuple(chain.from_iterable(self.parts))
        return self._records

    @property
    def ends(self) -> tuple[Key, Key] | None:
        """The keys of the first and of the last record; None without any."""
        if not self.parts:
            return None
        return _key(self.parts[0], 0), _key(self.parts[-1], -1)

    @property
    def identity(self) -> object:
        """Equal for a batch and for the same one sent again; the records themselves are not held."""
        return len(self), self.ends, self.marks

    @property
    def times_ns(self) -> list[int]:
        """When each record was made, by the wall clock."""
        return times_of(self.parts)

    @property
    def size(self) -> int:
        """Bytes that the records count, see :mod:`asynctrace.core.size`."""
        return sum(map(size_of, self.parts))

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    @overload
    def __getitem__(self, index: int) -> Record: ...
    @overload
    def __getitem__(self, index: slice) -> Batch: ...
    def __getitem__(self, index: int | slice) -> Record | Batch:
        if isinstance(index, slice):
            return Batch(self.records[index])
        return self.records[index]

    def __repr__(self) -> str:
        return f"<Batch of {self._count} records, {len(self.marks)} marks>"

    async def json_lines(self) -> list[bytes]:
        """Each record as one JSON object without a line end; encoded once for all lanes.

        Gives way to the event loop after every :data:`SLICE` records.
        """
        lines: list[bytes] = []
        async for part in self.slices():
            lines += json_lines(part)
        return lines

    async def slices(self) -> AsyncIterator[Sequence[Record]]:
        """Parts of at most :data:`SLICE` records; between two of them the event loop runs."""
        is_first = True
        for part in self.parts:
            for start in range(0, len(part), SLICE):
                if not is_first:
                    await _give_way()
                is_first = False
                yield part if len(part) <= SLICE else part[start : start + SLICE]


def _key(part: Sequence[Record], place: int) -> Key:
    if isinstance(part, Slice):
        return part.producer, part.first + place % len(part)
    return part[place].producer, part[place].seq


@coroutine
def _give_way() -> Generator[None, None, None]:
    # What asyncio.sleep(0) does; the core does not import asyncio.
    yield
