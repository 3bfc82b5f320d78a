"""P16: a small asyncio service at 1,500 requests a second with 20 records each, with and without its records.

One process, one loop, standard library only: a driver starts requests at fixed moments, whether the earlier
ones are done or not, as the world does. A request parses a JSON body of 2 kB, waits for three back ends (2, 5
and 3 ms) and renders an answer. A probe that sleeps a millisecond at a time measures how late the loop is.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Awaitable, Callable
from statistics import quantiles

from asynctrace import Trace
from benchmarks.figures import Figure, Group
from benchmarks.harness import Job, Values, check
from benchmarks.stores import stored

_RATE = 1_500  # requests a second
_LOGGED = 18  # records a request, besides the start and the end of its span
_BACK_ENDS = (0.002, 0.005, 0.003)  # seconds
_PROBE = 0.001  # seconds
_WARM_UP = 1.0  # seconds
_ITEMS = [{"sku": f"sku-{number:06d}", "quantity": number, "price": number / 7} for number in range(30)]
_BODY = json.dumps({"user": "u1", "items": _ITEMS})

Handler = Callable[[int], Awaitable[str]]


async def silent(request: int) -> str:
    """A request without records."""
    order = json.loads(_BODY)
    for wait in _BACK_ENDS:
        await asyncio.sleep(wait)
    return json.dumps({"request": request, "sum": sum(item["price"] for item in order["items"])})


def logging_handler(trace: Trace) -> Handler:
    """The same request in a span, with 18 records spread over it."""

    async def handle(request: int) -> str:
        with trace.span("request", request=request) as span:
            order = json.loads(_BODY)
            for n in range(_LOGGED // 3):
                span.info("item read", order_id=n, user="u1", ms=1.5)
            for wait in _BACK_ENDS[:2]:
                await asyncio.sleep(wait)
                for n in range(_LOGGED // 6):
                    span.info("back end answered", order_id=n, user="u1", ms=1.5)
            await asyncio.sleep(_BACK_ENDS[2])
            for n in range(_LOGGED // 3):
                span.info("item reserved", order_id=n, user="u1", ms=1.5)
            return json.dumps({"request": request, "sum": sum(item["price"] for item in order["items"])})

    return handle


class Load:
    """Requests at fixed moments, and what became of them.

    Args:
        handler: serves one.
        seconds: how long it is measured, after the warm-up.
    """

    def __init__(self, handler: Handler, seconds: float) -> None:
        self._handler = handler
        self._requests = int((_WARM_UP + seconds) * _RATE)
        self._warm = int(_WARM_UP * _RATE)
        self._latencies: list[float] = []
        self._lags: list[float] = []

    async def run(self) -> dict[str, float]:
        """Milliseconds: 99th percentiles of the requests' latency and of the loop's lag, CPU of a request."""
        probe = asyncio.create_task(self._probe())
        tasks: set[asyncio.Task[None]] = set()
        began, cpu = time.perf_counter(), time.process_time()
        for number in range(self._requests):
            due = began + number / _RATE
            if (early := due - time.perf_counter()) > 0:
                await asyncio.sleep(early)
            task = asyncio.create_task(self._serve(number, due))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
        if tasks:
            await asyncio.wait(tasks)
        probe.cancel()
        await asyncio.gather(probe, return_exceptions=True)
        return {
            "latency": _p99(self._latencies),
            "lag": _p99(self._lags),
            "CPU": (time.process_time() - cpu) * 1e3 / self._requests,
        }

    async def _serve(self, number: int, due: float) -> None:
        await self._handler(number)
        if number >= self._warm:
            self._latencies.append((time.perf_counter() - due) * 1e3)

    async def _probe(self) -> None:
        await asyncio.sleep(_WARM_UP)
        while True:
            began = time.perf_counter()
            await asyncio.sleep(_PROBE)
            self._lags.append((time.perf_counter() - began - _PROBE) * 1e3)


def _p99(values: list[float]) -> float:
    return quantiles(values, n=100)[98]


async def service(sink: str | None, seconds: float, redact: str = "") -> Values:
    """The service's 99th percentiles with that sink and asynctrace's setting ``redact``, or without records."""
    if sink is None:
        found, name = await Load(silent, seconds).run(), "no records"
    else:
        scheme = sink.split(":")[0]
        name = f"{scheme} {redact}"
        os.environ["ASYNCTRACE_REDACT"] = redact
        async with Trace(sinks=[sink]) as trace:
            found = await Load(logging_handler(trace), seconds).run()
            await trace.aflush()
            emitted = trace.pipeline.stats().emitted
        requests = int((_WARM_UP + seconds) * _RATE)
        check("service", emitted, requests * (_LOGGED + 2) + 1)  # the run's start; its end comes later
        if scheme == "sqlite":
            check("service to SQLite", stored("service.db", "%"), requests * _LOGGED)
    return {f"{kind}, {name}": value for kind, value in found.items()}


def _figures(mode: str) -> tuple[Figure, ...]:
    goals = {"JSONL": 1.1, "SQLite": 3.3} if mode == _MODES[0] else {}

    def figure(what: str, kind: str, store: str, goal: float | None = None) -> Figure:
        over = f"{kind}, {_SCHEMES[store]} {mode}"
        what = f"service: {what} with {store} ÷ no records, redact={mode}"
        return Figure("P16", what, over, f"{kind}, no records", goal, "most")

    return (
        figure("request p99", "latency", "JSONL", goals.get("JSONL")),
        figure("loop lag p99", "lag", "SQLite", goals.get("SQLite")),
        figure("request p99", "latency", "SQLite"),
        figure("loop lag p99", "lag", "JSONL"),
        figure("CPU of a request", "CPU", "JSONL"),
        figure("CPU of a request", "CPU", "SQLite"),
    )


def _job(sink: str | None, redact: str = "") -> Job:
    return Job("service:service", {"sink": sink, "redact": redact, "seconds": 5.0}, {"seconds": 2.0})


_MODES = ("keys", "full")  # the goals are for the first one; the second one is the default
_SCHEMES = {"JSONL": "file", "SQLite": "sqlite"}
_SINKS = ("file:./service.jsonl", "sqlite:./service.db")
GROUPS = (
    Group(
        figures=tuple(figure for mode in _MODES for figure in _figures(mode)),
        jobs=(_job(None), *(_job(sink, mode) for mode in _MODES for sink in _SINKS)),
        rounds=(5, 2),
        unit="ms",
    ),
)
