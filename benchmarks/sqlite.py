"""P10, P11: the SQLite sink beside ``executemany`` of the same rows, alone and beside a busy loop.

Records are made by asynctrace itself: 200 traces in turn, with a call site, a usage sample and three fields.
The sink is given them as the lane would, in batches; the anchor gets the same rows as finished tuples.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Iterable, Sequence

from asynctrace import Batch, LocalSink, Record, Trace
from asynctrace.sinks.sqlite import SQLiteSink
from benchmarks import stores
from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, Values, check

_RUNS = 200
_ANCHOR_ROWS = 1_000  # a transaction
_LONG, _SHORT = 1_024, 256  # records in a write: what LaneOptions gives a long and a short backlog
_OURS, _THEIRS = "ours.db", "theirs.db"
_END: stores.Row = ()


class _Keeper(LocalSink):
    """Keeps what the writer finished, to be used as the input of a sink."""

    def __init__(self) -> None:
        self.parts: list[Sequence[Record]] = []

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Batch) -> None:
        """Keep the records."""
        self.write_now(batch)

    def write_now(self, batch: Batch) -> None:
        """Keep the records."""
        self.parts += batch.parts

    async def aclose(self) -> None:
        """Nothing to close."""


async def _open_traces(sink: str | LocalSink) -> list[Trace]:
    traces = [Trace(f"run-{run:08d}", sinks=[sink]) for run in range(_RUNS)]
    for trace in traces:
        await asyncio.create_task(trace.__aenter__())  # in a context of its own: no child of the one before
    return traces


async def _finished(count: int) -> list[Sequence[Record]]:
    """So many log records of all runs in turn, and starts and ends of runs, in slices as lanes are given them."""
    keeper = _Keeper()
    traces = await _open_traces(keeper)
    for n in range(count):
        traces[n % _RUNS].info("order placed", order_id=n, user="u1", ms=1.5)
    for trace in traces:
        await trace.aclose(60.0)
    check("made", sum(map(len, keeper.parts)), count + 2 * _RUNS)
    return keeper.parts


async def _rows(count: int) -> list[stores.Row]:
    return [stores.row_of(record) for part in await _finished(count) for record in part if record.kind == 0]


# -- P10: nothing else runs ----------------------------------------------------------------------------------


async def sink(records: int, batch: int, name: str) -> Values:
    """Microseconds a record through the sink, rows made of records included."""
    batches = _cut(await _finished(records), batch)
    ours = SQLiteSink(_OURS)
    await ours.open()
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    for part in batches:
        await ours.write(part)
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    await ours.aclose()
    check("SQLite sink", stores.stored(_OURS), records)
    return {name: spent / records / 1000, f"{name}, wall": took / records / 1000}


async def executemany(records: int) -> Values:
    """Microseconds a row that is ready as a tuple."""
    rows = await _rows(records)
    connection = stores.open_table(_THEIRS)
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    for start in range(0, records, _ANCHOR_ROWS):
        stores.insert(connection, rows[start : start + _ANCHOR_ROWS])
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    connection.close()
    check("executemany", stores.stored(_THEIRS), records)
    return {"executemany": spent / records / 1000, "executemany, wall": took / records / 1000}


async def end_to_end(records: int) -> Values:
    """Microseconds a record from ``trace.info`` to the closed file, at the defaults."""
    traces = await _open_traces(f"sqlite:./{_OURS}")
    began, cpu = time.perf_counter_ns(), time.process_time_ns()
    for n in range(records):
        traces[n % _RUNS].info("order placed", order_id=n, user="u1", ms=1.5)
    for trace in traces:
        await trace.aclose(60.0)
    spent, took = time.process_time_ns() - cpu, time.perf_counter_ns() - began
    check("SQLite end to end", stores.stored(_OURS), records)
    return {"end to end": spent / records / 1000, "end to end, wall": took / records / 1000}


def _cut(parts: Iterable[Sequence[Record]], size: int) -> list[Batch]:
    """Batches of at most so many records, which none of the parts exceeds."""
    batches: list[Batch] = []
    waiting: list[Sequence[Record]] = []
    for part in parts:
        if sum(map(len, waiting)) + len(part) > size:
            batches.append(Batch.of_parts(waiting))
            waiting = []
        waiting.append(part)
    return [*batches, Batch.of_parts(waiting)]


# -- P11: beside a loop that has other things to do ----------------------------------------------------------


class BusyLoop:
    """A task that works in steps of some milliseconds of CPU; in between it leaves the loop idle, or not.

    Args:
        step: seconds of the loop's CPU in one step.
        idle: seconds that the loop then has nothing to do; 0 for a loop that is 100 % busy.
    """

    def __init__(self, step: float, idle: float) -> None:
        self.worked = 0.0  # seconds of CPU
        self._step_ns = int(step * 1e9)
        self._idle = idle

    async def __aenter__(self) -> BusyLoop:
        self._task = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *exception: object) -> None:
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        while True:
            end = time.thread_time_ns() + self._step_ns
            while time.thread_time_ns() < end:
                for _ in range(100):
                    pass
            self.worked += self._step_ns / 1e9
            await asyncio.sleep(self._idle)


_LOOPS = {"100 % busy": BusyLoop(0.002, 0.0), "80 % busy": BusyLoop(0.004, 0.001)}


async def sink_beside(load: str, records: int) -> Values:
    """Rows a second by the wall clock through the sink, whose encoding shares the busy loop."""
    batches = _cut(await _finished(records), _LONG)
    ours = SQLiteSink(_OURS)
    await ours.open()
    async with _LOOPS[load] as loop:
        began = time.perf_counter()
        for part in batches:
            await ours.write(part)
        took = time.perf_counter() - began
    await ours.aclose()
    check("SQLite sink", stores.stored(_OURS), records)
    return _beside("sink", load, records, took, loop)


def _beside(who: str, load: str, rows: int, took: float, loop: BusyLoop) -> Values:
    """Rows a second, and the same times the share of the wall clock in which the loop did its own work."""
    rate = rows / took
    return {f"{who}, {load}": rate, f"{who} × loop, {load}": rate * loop.worked / took}


async def executemany_beside_busy(load: str, seconds: float) -> Values:
    """Rows a second by the wall clock through one ``executemany`` in a thread, ended after some seconds.

    It may be down to ten rows a second there, so it cannot be given a number of rows; nor does it come to its end in
    time, so the loop has nothing to do from then on.
    """
    rows = deque(await _rows(_ANCHOR_ROWS * 20))
    rows.append(_END)
    made = len(rows)
    connection = stores.open_table(_THEIRS)
    async with _LOOPS[load] as loop:
        began = time.perf_counter()
        # Both the iterator and the deque are C: between two rows no Python code runs, as with a list.
        inserting = asyncio.create_task(
            asyncio.to_thread(stores.insert, connection, iter(rows.popleft, _END))
        )
        await asyncio.wait({inserting}, timeout=seconds)
        took = time.perf_counter() - began
        count = max(1, made - max(1, len(rows)))  # none at all, as it may be, is told as one
        rows.appendleft(_END)
    await inserting
    connection.close()
    check("executemany", stores.stored(_THEIRS), made - len(rows))
    return _beside("executemany", load, count, took, loop)


async def executemany_idle(records: int) -> Values:
    """Rows a second by the wall clock through ``executemany`` in a thread, the loop idle."""
    rows = await _rows(records)
    connection = stores.open_table(_THEIRS)
    began = time.perf_counter()
    for start in range(0, records, _ANCHOR_ROWS):
        await asyncio.to_thread(stores.insert, connection, rows[start : start + _ANCHOR_ROWS])
    rate = records / (time.perf_counter() - began)
    connection.close()
    check("executemany", stores.stored(_THEIRS), records)
    return {"executemany, idle": rate}


QUIET = Group(
    figures=(
        Figure("P10", "SQLite sink ÷ executemany/1000, by CPU", "executemany", "sink", 1.4),
        Figure("P10", "SQLite sink ÷ executemany/1000, by the wall clock", "executemany, wall", "sink, wall"),
        Figure("P10", "with 256 records a write ÷ executemany, by CPU", "executemany", "sink of 256"),
        Figure(
            "P10", "from trace.info to the closed file ÷ executemany, by CPU", "executemany", "end to end"
        ),
    ),
    jobs=(
        Job("sqlite:executemany", {"records": 100_000}, {"records": 30_000}),
        Job("sqlite:sink", {"records": 100_000, "batch": _LONG, "name": "sink"}, {"records": 30_000}),
        Job("sqlite:sink", {"records": 100_000, "batch": _SHORT, "name": "sink of 256"}, {"records": 30_000}),
        Job("sqlite:end_to_end", {"records": 100_000}, {"records": 30_000}),
    ),
    rounds=(5, 2),
    unit="µs a record",
)
BUSY = Group(
    figures=(
        Figure(
            "P11",
            "SQLite beside a loop 100 % busy ÷ executemany there",
            "sink, 100 % busy",
            "executemany, 100 % busy",
            150.0,
        ),
        Figure(
            "P11",
            "the same, times the share of its own work that the loop still does",
            "sink × loop, 100 % busy",
            "executemany × loop, 100 % busy",
        ),
        Figure(
            "P11",
            "SQLite beside a loop 80 % busy ÷ executemany, loop idle",
            "sink, 80 % busy",
            "executemany, idle",
            0.8,
        ),
    ),
    jobs=(
        Job("sqlite:sink_beside", {"load": "100 % busy", "records": 10 * _LONG}, {"records": 5 * _LONG}),
        Job("sqlite:executemany_beside_busy", {"load": "100 % busy", "seconds": 3.0}, {"seconds": 2.0}),
        Job("sqlite:sink_beside", {"load": "80 % busy", "records": 20 * _LONG}),
        Job("sqlite:executemany_idle", {"records": 20_000}),
    ),
    rounds=(5, 2),
    unit="rows a second",
)
GROUPS = (QUIET, BUSY)
