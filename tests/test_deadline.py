"""Closing gives up on a store that makes no progress, and on no other."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

from asynctrace import Batch, LaneOptions, LocalSink, Pipeline, Trace
from asynctrace.pipeline.deadline import Deadline
from asynctrace.testing import ManualClock


def test_a_deadline_passes_unless_it_is_extended() -> None:
    clock = ManualClock()
    deadline = Deadline(5.0, now=clock.monotonic)
    clock.advance(4.0)
    assert deadline.left() == 1.0
    deadline.extend()
    clock.advance(4.5)
    assert deadline.left() == 0.5
    clock.advance(1.0)
    assert (deadline.left(), deadline.left(grace=1.0)) == (0.0, 0.5)


class SlowStore(LocalSink):
    """Takes a moment for each write; hangs from the given write on."""

    def __init__(self, hangs_at: int | None = None) -> None:
        self.stored: list[object] = []
        self._writes: Iterator[int] = iter(range(1_000_000))
        self._hangs_at = hangs_at

    async def open(self) -> None: ...

    async def write(self, batch: Batch) -> None:
        if next(self._writes) == self._hangs_at:
            await asyncio.Event().wait()
        await asyncio.sleep(0.1)
        self.stored += [record.fields["i"] for record in batch if "i" in record.fields]

    async def aclose(self) -> None: ...

    def write_now(self, batch: Batch) -> None:
        raise OSError("not now")


async def emit(store: SlowStore) -> Pipeline:
    """A hundred records, closed with a time limit of five writes; thirteen are needed."""
    async with Trace(sinks=[(store, LaneOptions(max_records=8, short=8))]) as trace:
        for i in range(100):
            trace.info("x", i=i)
        await trace.aclose(timeout=0.5)
        return trace.pipeline


def test_a_slow_store_gets_all_the_time_it_needs() -> None:
    store = SlowStore()
    pipeline = asyncio.run(emit(store))
    assert store.stored == list(range(100))
    assert pipeline.stats().lanes[0].pending == 0


def test_a_store_that_hangs_half_way_is_given_up_and_the_rest_is_counted() -> None:
    store = SlowStore(hangs_at=6)
    pipeline = asyncio.run(emit(store))
    (lane,) = pipeline.stats().lanes
    assert 0 < len(store.stored) < 100
    assert lane.delivered + sum(lane.dropped.values()) == lane.emitted
    assert lane.balanced
