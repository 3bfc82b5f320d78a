"""Batch: an immutable run of records on its way to one sink."""

from __future__ import annotations

from collections.abc import AsyncIterator, Generator, Iterator, Sequence
from types import coroutine
from typing import overload

from msgspec import Struct

from asynctrace.core.encoding import json_lines
from asynctrace.core.record import Record

SLICE = 250
"""Records encoded between two looks at the event loop: about 0.2 ms."""


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


class Batch(Sequence[Record]):
    """Records in the order of their numbers, with the marks that belong behind them.

    Args:
        records: the records; never empty together with ``marks``.
        marks: to be stored beside the records by stores that keep them.
    """

    __slots__ = ("marks", "records")

    def __init__(self, records: Sequence[Record], marks: Sequence[Mark] = ()) -> None:
        self.records = tuple(records)
        self.marks = tuple(marks)

    def __len__(self) -> int:
        return len(self.records)

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
        return f"<Batch of {len(self.records)} records, {len(self.marks)} marks>"

    async def json_lines(self) -> list[bytes]:
        """Each record as one JSON object without a line end; encoded once for all lanes.

        Gives way to the event loop after every :data:`SLICE` records.
        """
        lines: list[bytes] = []
        async for part in self.slices():
            lines += json_lines(part)
        return lines

    async def slices(self) -> AsyncIterator[tuple[Record, ...]]:
        """Parts of at most :data:`SLICE` records; between two of them the event loop runs."""
        for start in range(0, len(self.records), SLICE):
            if start:
                await _give_way()
            yield self.records[start : start + SLICE]


@coroutine
def _give_way() -> Generator[None, None, None]:
    # What asyncio.sleep(0) does; the core does not import asyncio.
    yield
