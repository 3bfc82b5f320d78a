"""P7: four producer threads and one draining loop, beside ``call_soon_threadsafe`` for each record."""

from __future__ import annotations

import asyncio
import sys
from threading import Thread, get_ident
from time import thread_time_ns, time_ns

from asynctrace import Trace
from benchmarks.figures import Figure, Group
from benchmarks.harness import Case, Job, Values, alternate, check
from benchmarks.workload import CountingSink

_THREADS = 4
_EACH = 12_500


async def _in_threads(produce: object) -> float:
    """Nanoseconds of producer CPU a record; the loop runs, and drains, meanwhile."""
    spent: list[int] = []

    def work() -> None:
        start = thread_time_ns()
        produce()  # type: ignore[operator]
        spent.append(thread_time_ns() - start)

    threads = [Thread(target=work) for _ in range(_THREADS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        await asyncio.to_thread(thread.join)
    return sum(spent) / (_THREADS * _EACH)


def threadsafe_case() -> Case:
    """The documented bridge: a ``call_soon_threadsafe`` a record hands the same 12 values to the loop."""
    loop = asyncio.get_running_loop()
    received: list[tuple[object, ...]] = []
    take, hand_over = received.append, loop.call_soon_threadsafe
    run, span, code = object(), object(), sys._getframe().f_code

    def produce() -> None:
        for n in range(_EACH):
            fields = {"order_id": n, "user": "u1", "ms": 1.5}
            hand_over(
                take, (time_ns(), 20, run, span, "order placed", fields, code, 4, get_ident(), 0, "a", "b")
            )

    async def clear() -> None:
        await asyncio.sleep(0)  # what was scheduled last
        check("call_soon_threadsafe", len(received), _THREADS * _EACH)
        received.clear()

    return Case(lambda: _in_threads(produce), clear)


async def threads(samples: int) -> Values:
    """Both, in turn."""
    sink = CountingSink()
    async with Trace(sinks=[sink]) as trace:

        def produce() -> None:
            for n in range(_EACH):
                trace.info("order placed", order_id=n, user="u1", ms=1.5)

        cases = {
            "info in threads": Case(lambda: _in_threads(produce), trace.aflush),
            "call_soon_threadsafe": threadsafe_case(),
        }
        values = await alternate(cases, samples)
    check("info in threads", sink.count, (samples + 1) * _THREADS * _EACH + 2)
    return values


GROUPS = (
    Group(
        figures=(
            Figure(
                "P7",
                "4 threads: call_soon_threadsafe a record ÷ ours",
                "call_soon_threadsafe",
                "info in threads",
                12.0,
            ),
        ),
        jobs=(Job("threads:threads", {"samples": 5}, {"samples": 2}),),
    ),
)
