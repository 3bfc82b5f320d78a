"""P18: memory added at the peak (VmHWM against VmRSS before), in fresh interpreters; Linux only."""

from __future__ import annotations

import logging
import logging.handlers
import queue
from pathlib import Path

from asynctrace import Batch, LaneOptions, Pipeline, Trace, TransientSinkError
from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, JobError, Values, check
from benchmarks.jsonl import JsonFormatter, constants
from benchmarks.stores import stored

_BACKLOG = 20_000  # records that the lane of the dead sink holds
_STEP = 100_000  # records between two looks at the memory, five times the backlog


def _status(name: str) -> float:
    """A line of ``/proc/self/status``, in MB."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) / 1024
    raise JobError(f"/proc/self/status has no {name}")


def sqlite(records: int) -> Values:
    """MB that a burst adds on its way into a SQLite file."""
    import asynctrace.sinks.sqlite  # noqa: F401  # its driver is loaded before the first look

    with Trace(sinks=["sqlite:./peak.db"]) as trace:
        trace.info("warm")
        trace.flush()
        before = _status("VmRSS")
        for n in range(records):
            trace.info("order placed", order_id=n, user="u1", ms=1.5)
        trace.flush()
    check("SQLite", stored("peak.db"), records)
    return {"SQLite": _status("VmHWM") - before}


def queue_listener(records: int) -> Values:
    """MB that the same burst adds through QueueHandler and QueueListener into a file of the same columns."""
    handler = logging.FileHandler("peak.log")
    handler.setFormatter(JsonFormatter(constants(1)))
    waiting: queue.Queue[object] = queue.Queue(-1)
    listener = logging.handlers.QueueListener(waiting, handler)
    logger = logging.getLogger("bench")
    logger.setLevel(logging.INFO)
    logger.propagate = False
    logger.addHandler(logging.handlers.QueueHandler(waiting))
    listener.start()
    before = _status("VmRSS")
    for n in range(records):
        logger.info("order placed", extra={"order_id": n, "user": "u1", "ms": 1.5})
    listener.stop()
    logging.shutdown()
    check("QueueListener", Path("peak.log").read_bytes().count(b"\n"), records)
    return {"QueueListener": _status("VmHWM") - before}


class DeadSink:
    """A destination that never answers."""

    async def open(self) -> None:
        """Nothing to open."""

    async def write(self, batch: Batch) -> None:
        """Fail, as a server that is away."""
        raise TransientSinkError("the server is away")

    async def aclose(self) -> None:
        """Nothing to close."""


def dead(steps: int) -> Values:
    """Resident MB while a dead sink's bounded backlog overflows: after the first steps, and at the end."""
    options = LaneOptions(capacity=_BACKLOG, when_full="drop_oldest")
    looks = []
    sink = DeadSink()
    with Trace(sinks=[(sink, options)]) as trace:
        for _ in range(steps):
            for n in range(_STEP):
                trace.info("order placed", order_id=n, user="u1", ms=1.5)
                if not n % 10_000:
                    _wait_for_room(trace.pipeline)
            _wait_for_room(trace.pipeline)
            looks.append(_status("VmRSS"))
        (lane,) = trace.pipeline.stats().lanes
        check("pending or dropped", lane.pending + sum(lane.dropped.values()), steps * _STEP + 1)
        trace.close(0.2)
    return {"dead sink, late": looks[-1], "dead sink, early": looks[1]}


def _wait_for_room(pipeline: Pipeline) -> None:
    """Until the writer has offered everything: what then grows is the lane, not the Intake."""
    while pipeline.stats().queued:
        pass


GROUPS = (
    Group(
        figures=(
            Figure(
                "P18",
                "memory at the peak: SQLite ÷ QueueListener to a file",
                "SQLite",
                "QueueListener",
                0.5,
                "most",
            ),
        ),
        jobs=(
            Job("memory:sqlite", {"records": 200_000}),
            Job("memory:queue_listener", {"records": 200_000}),
        ),
        rounds=(3, 2),
        unit="MB",
    ),
    Group(
        figures=(
            Figure(
                "P18",
                "dead sink, bounded backlog: memory late ÷ early",
                "dead sink, late",
                "dead sink, early",
                1.05,
                "most",
            ),
        ),
        jobs=(Job("memory:dead", {"steps": 8}, {"steps": 3}),),
        rounds=(2, 1),
        unit="MB",
    ),
)
