"""Sinks that behave as a test tells them, and waiting without sleeping for luck."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from itertools import pairwise

import asynctrace
from asynctrace import Batch, LaneOptions, Mark, Record, RetryPolicy, Trace, TransientSinkError
from asynctrace.pipeline.ledger import LaneStats

DEADLINE = 30.0
"""Seconds after which a condition that should hold counts as broken."""

QUICK = LaneOptions(retry=RetryPolicy(base=0.001, ceiling=0.002))
"""A lane that retries at once and otherwise has the defaults of a local store."""

SPILLING = replace(QUICK, max_records=100, short=100, high_water=200, when_full="spill")
"""The same with a spool, which it soon needs."""

BLOCKED = replace(QUICK, high_water=1, patience=3_600.0)
"""The writer waits for this lane, however long it takes: what is emitted stays in the Intake."""

Outcome = Exception | Callable[[Batch], Exception | None] | None


class ScriptedSink:
    """A remote destination: each write does what the script says next, and when it is used up, succeeds.

    Args:
        script: an exception to raise, a function of the batch that gives one or None, or None to succeed.
    """

    def __init__(self, script: Iterable[Outcome] = ()) -> None:
        self.script = list(script)
        self.records: list[Record] = []
        self.marks: list[Mark] = []
        self.sizes: list[int] = []
        self.opened = 0
        self.closed = 0

    async def open(self) -> None:
        self.opened += 1

    async def write(self, batch: Batch) -> None:
        self.sizes.append(len(batch))
        outcome = self.script.pop(0) if self.script else None
        error = outcome(batch) if callable(outcome) else outcome
        rejected: set[int] = set(range(len(batch))) if error is not None else set()
        if isinstance(error, asynctrace.PartialWriteError):
            rejected = {rejection.index for rejection in error.rejections}
        self.records += [record for index, record in enumerate(batch) if index not in rejected]
        if error is None or isinstance(error, asynctrace.PartialWriteError):
            self.marks += batch.marks
        if error is not None:
            raise error

    async def aclose(self) -> None:
        self.closed += 1

    @property
    def messages(self) -> list[str]:
        return [record.message for record in self.records if record.kind is asynctrace.Kind.LOG]


class GateSink(ScriptedSink):
    """A destination that does not answer while its gate is shut; any thread may open it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.waiting = threading.Event()

    async def write(self, batch: Batch) -> None:
        self.waiting.set()
        while not self.gate.is_set():  # noqa: ASYNC110  # opened from other threads
            await asyncio.sleep(0.001)
        await super().write(batch)


class Remote(ScriptedSink):
    """A destination that may be down, and says where it is, so that the next start knows it again."""

    def __init__(self, script: Iterable[Outcome] = (), *, up: bool = True) -> None:
        super().__init__(script)
        self.up = up

    def __repr__(self) -> str:
        return "<Remote test://host>"

    async def write(self, batch: Batch) -> None:
        if not self.up:
            self.sizes.append(len(batch))
            raise TransientSinkError("nobody there")
        await super().write(batch)

    @property
    def keys(self) -> list[tuple[str, int]]:
        return [(record.producer, record.seq) for record in self.records]


class GatedRemote(GateSink, Remote):
    """The same, not answering while its gate is shut."""


def until(condition: Callable[[], object]) -> None:
    """Wait in this thread until the condition holds.

    Raises:
        AssertionError: it does not.
    """
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition does not come true"
        time.sleep(0.001)


async def auntil(condition: Callable[[], object]) -> None:
    """The same on an event loop."""
    end = time.monotonic() + DEADLINE
    while not condition():
        assert time.monotonic() < end, "the condition does not come true"
        await asyncio.sleep(0.001)


def blocked(trace: Trace, sink: GateSink) -> None:
    """Come to where the writer of a trace that is at home elsewhere waits for a blocked lane, with an empty Intake."""
    until(sink.waiting.is_set)  # the first batch is in the sink's hands
    trace.info("first in the lane")
    until(lambda: trace.pipeline.stats().queued == 0)


async def ablocked(trace: Trace, sink: GateSink) -> None:
    """The same for a trace that is at home on the running loop."""
    await auntil(sink.waiting.is_set)
    trace.info("first in the lane")
    await auntil(lambda: trace.pipeline.stats().queued == 0)


def check_marks(marks: Iterable[Mark], stats: LaneStats, stored: int) -> None:
    """Each mark adds up, together they leave no number out, and they say what is in the store."""
    marks = list(marks)
    for mark in marks:
        assert mark.last - mark.first + 1 == mark.admitted + mark.filtered + mark.dropped, mark
    ranges = sorted((mark.first, mark.last) for mark in marks if mark.last >= mark.first)
    assert ranges[0][0] == 1
    for before, after in pairwise(ranges):
        assert after[0] == before[1] + 1, "a number in no range, or in two"
    assert ranges[-1][1] == stats.emitted
    assert sum(mark.admitted for mark in marks) == stored == stats.delivered
    assert sum(mark.filtered for mark in marks) == stats.filtered
    assert sum(mark.dropped for mark in marks) == stats.lost
