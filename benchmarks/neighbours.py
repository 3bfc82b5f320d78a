"""P21: how long records take to a healthy store, alone and beside a slow, a dead and a hung destination.

One process, one loop. A task records at a steady pace, as a service does. The healthy sink is a JSONL file; its delay
is counted from the call that made a record until the write that holds it has returned. The others are remote sinks with
the defaults of such: what they do not take goes to disk meanwhile.
"""

from __future__ import annotations

import asyncio
import os
import time
from statistics import quantiles
from typing import Any

from asynctrace import Batch, Kind, LocalSink, Trace, TransientSinkError
from asynctrace.sinks.jsonl import JsonLinesSink
from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, Values, check

_RATE = 4_000  # records a second
_BURST = 20  # records at once
_WARM_UP = 1.0  # seconds
_SLOW = 0.2  # seconds a write


class Healthy(LocalSink):
    """A file, and how long each record took to it."""

    def __init__(self) -> None:
        self.delays: list[float] = []
        self._file = JsonLinesSink("healthy.jsonl")

    async def open(self) -> None:
        """Open the file."""
        await self._file.open()

    async def write(self, batch: Batch) -> None:
        """Write, and look at the clock."""
        await self._file.write(batch)
        self._note(batch)

    def write_now(self, batch: Batch) -> None:
        """The same without an event loop."""
        self._file.write_now(batch)
        self._note(batch)

    async def aclose(self) -> None:
        """Close the file."""
        await self._file.aclose()

    def _note(self, batch: Batch) -> None:
        now = time.time_ns()
        self.delays += [(now - made) / 1e6 for made in batch.times_ns]


class _Remote:
    async def open(self) -> None:
        """Nothing to open."""

    async def aclose(self) -> None:
        """Nothing to close."""

    def __repr__(self) -> str:
        return f"<{type(self).__name__}>"


class Slow(_Remote):
    """Takes 100 records in 0.2 seconds, which is an eighth of what comes."""

    async def write(self, batch: Batch) -> None:
        """Take them."""
        await asyncio.sleep(_SLOW)


class Dead(_Remote):
    """Refuses."""

    async def write(self, batch: Batch) -> None:
        """Refuse."""
        raise TransientSinkError("refused")


class Hung(_Remote):
    """Never answers."""

    async def write(self, batch: Batch) -> None:
        """Wait for ever."""
        await asyncio.Event().wait()


async def neighbours(beside: bool, seconds: float) -> Values:
    """Median and 99th percentile of the healthy sink's delay in milliseconds."""
    os.environ |= {"ASYNCTRACE_STATE_DIR": "state", "ASYNCTRACE_CLOSE_TIMEOUT": "1"}
    healthy = Healthy()
    sinks: list[Any] = [healthy, Slow(), Dead(), Hung()] if beside else [healthy]
    async with Trace(sinks=sinks) as trace:
        count = int((_WARM_UP + seconds) * _RATE)
        began = time.perf_counter()
        for number in range(0, count, _BURST):
            if (early := began + number / _RATE - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            for n in range(number, number + _BURST):
                trace.info("order placed", order_id=n, user="u1", ms=1.5)
        await trace.aflush(1.0)
    delays = healthy.delays[1:-1]  # without the run's start and end
    check("the healthy sink", len(delays), count)
    check("its order", _in_order("healthy.jsonl"), count)
    p99 = quantiles(delays[int(_WARM_UP * _RATE) :], n=100)
    name = "beside others" if beside else "alone"
    return {f"p50, {name}": p99[49], f"p99, {name}": p99[98]}


def _in_order(path: str) -> int:
    """How many log records stand in the file in the order in which they were made."""
    from asynctrace.core.decoding import RecordDecoder

    decoder, expected = RecordDecoder(), 0
    with open(path, "rb") as lines:
        for line in lines:
            if b'"kind":"log"' in line:
                record = decoder.from_json(line)
                expected += record.kind is Kind.LOG and record.fields["order_id"] == expected
    return expected


GROUPS = (
    Group(
        figures=(
            Figure(
                "P21",
                "delay p99 beside a slow, a dead and a hung sink ÷ alone",
                "p99, beside others",
                "p99, alone",
                1.2,
                "most",
            ),
            Figure("P21", "the same, median", "p50, beside others", "p50, alone", None, "most"),
        ),
        jobs=(
            Job("neighbours:neighbours", {"beside": False, "seconds": 8.0}, {"seconds": 3.0}),
            Job("neighbours:neighbours", {"beside": True, "seconds": 8.0}, {"seconds": 3.0}),
        ),
        rounds=(7, 2),
        unit="ms",
    ),
)
