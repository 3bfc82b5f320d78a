"""Writing into a store and reading back from it, without a pipeline between."""

import asyncio
from collections.abc import AsyncIterator
from typing import TypeVar

from asynctrace import Batch, LocalSink, Reader, Record, Sink

T = TypeVar("T")


async def write(sink: Sink | LocalSink, *batches: Batch) -> None:
    """Open the sink, write the batches, close it."""
    await sink.open()
    try:
        for batch in batches:
            await sink.write(batch)
    finally:
        await sink.aclose()


def written(sink: Sink | LocalSink, *batches: Batch) -> None:
    """The same on a loop of its own."""
    asyncio.run(write(sink, *batches))


async def listed(items: AsyncIterator[T]) -> list[T]:
    return [item async for item in items]


async def all_records(reader: Reader) -> list[Record]:
    """The records of all runs, the oldest run's first; the reader is closed afterwards."""
    try:
        runs = await listed(reader.runs())
        return [record for run in reversed(runs) for record in await listed(reader.records(run.run_id))]
    finally:
        await reader.aclose()
