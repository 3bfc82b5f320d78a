"""A thread beside a loop that never rests gets the interpreter; one beside an idle loop takes no time from it."""

import asyncio
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from asynctrace import Trace
from asynctrace.lending import Lender

STEP = 0.002  # seconds that the loop works without giving way


class Timer:
    def __init__(self, due: float, function: Callable[[], None]) -> None:
        self.due = due
        self.function = function
        self.cancelled = False

    def cancel(self) -> None:
        self.cancelled = True


class Loop:
    """A loop whose time is moved by hand, and whose only timer runs as late as is said."""

    def __init__(self) -> None:
        self.now = 100.0
        self.paused: list[float] = []
        self.timer: Timer | None = None

    def call_later(self, seconds: float, function: Callable[[], None]) -> Timer:
        self.timer = Timer(self.now + seconds, function)
        return self.timer

    def come_round(self, late: float) -> float:
        """Run the timer; how long after the last look it was due."""
        timer = self.timer
        assert timer is not None
        assert not timer.cancelled
        waited = timer.due - self.now
        self.now = timer.due + late
        timer.function()
        return waited

    def lender(self) -> Lender:
        loop: Any = self
        return Lender(loop, clock=lambda: self.now, pause=self.paused.append)


def test_a_thread_that_answers_soon_costs_one_timer() -> None:
    loop = Loop()
    with loop.lender():
        pass
    assert loop.timer is not None
    assert loop.timer.cancelled
    assert loop.paused == []


def test_a_loop_with_time_to_spare_lends_nothing() -> None:
    loop = Loop()
    with loop.lender():
        for _ in range(5):
            assert loop.come_round(late=0.0004) >= 0.004
    assert loop.paused == []


def test_a_busy_loop_lends_the_interpreter_for_a_moment_again_and_again() -> None:
    loop = Loop()
    with loop.lender():
        assert loop.come_round(late=STEP) >= 0.004  # not at once: most calls are over by then
        for count in range(2, 6):
            assert loop.come_round(late=STEP) < STEP  # in each step then
            assert len(loop.paused) == count
    assert max(loop.paused) < 0.001
    assert loop.timer is not None
    assert loop.timer.cancelled


def test_a_loop_that_finds_time_again_stops_lending() -> None:
    loop = Loop()
    with loop.lender():
        loop.come_round(late=STEP)
        loop.come_round(late=0.0)
        loop.come_round(late=0.0)
    assert len(loop.paused) == 1


@pytest.mark.anyio
async def test_local_stores_get_on_beside_a_loop_that_never_rests(tmp_path: Path) -> None:
    steps = 0

    async def work() -> None:
        nonlocal steps
        while True:
            end = time.thread_time() + STEP
            while time.thread_time() < end:
                pass
            steps += 1
            await asyncio.sleep(0)

    busy = asyncio.create_task(work())
    async with Trace("r", sinks=[f"sqlite:{tmp_path / 't.db'}", f"file:{tmp_path / 't.jsonl'}"]) as trace:
        for number in range(5_000):
            trace.info(f"m{number}")
    busy.cancel()
    with sqlite3.connect(tmp_path / "t.db") as connection:
        assert connection.execute("SELECT count(*) FROM traces").fetchone() == (5_000,)
    connection.close()
    assert (tmp_path / "t.jsonl").read_bytes().count(b'"kind":"log"') == 5_000
    # Without a loan a thread may need hundreds of them for each of its blocking calls.
    assert steps < 1_500
