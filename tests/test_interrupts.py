"""Ctrl-C strikes between the steps of our tasks, never within one: no record is lost between two places."""

import asyncio
import json
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import FrameType

import loop_kit
import pytest
from loop_kit import NewLoop

import asynctrace
from asynctrace import Kind, Record, Trace
from asynctrace.pipeline.options import LOCAL
from asynctrace.sinks.memory import MemorySink

PROGRAM = Path(__file__).parent / "programs" / "interrupts.py"
ROOT = Path(__file__).parents[1]
NAMES = [f"m{i}" for i in range(1000)]

new_loop = loop_kit.new_loop


@pytest.fixture
def loop(new_loop: NewLoop) -> Iterator[asyncio.AbstractEventLoop]:
    loop = new_loop()
    yield loop
    loop.close()
    asynctrace.shutdown()


class Presser:
    """A lane's rule that presses Ctrl-C, so many times, in the middle of a step of the writer."""

    def __init__(self, times: int = 1) -> None:
        self.times = times
        self.struck = 0

    def __call__(self, record: Record) -> bool:
        while record.message == "m500" and self.times:
            self.times -= 1
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                self.struck += 1
        return True


async def emit(sink: MemorySink, presser: Presser) -> None:
    trace = Trace("r", sinks=[(sink, replace(LOCAL, admit=presser))])
    await trace.__aenter__()
    for name in NAMES:
        trace.info(name)
    await asyncio.Event().wait()  # only the interrupt ends it


def messages(sink: MemorySink) -> list[str]:
    return [record.message for record in sink.records if record.kind is Kind.LOG]


def test_an_interrupt_in_a_step_of_ours_waits_for_its_end(loop: asyncio.AbstractEventLoop) -> None:
    sink, presser = MemorySink(), Presser()
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(emit(sink, presser))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert presser.struck == 0
    loop.close()
    assert messages(sink) == NAMES


def test_a_second_interrupt_in_the_same_step_strikes_at_once(loop: asyncio.AbstractEventLoop) -> None:
    sink, presser = MemorySink(), Presser(times=2)
    with pytest.raises(KeyboardInterrupt):
        loop.run_until_complete(emit(sink, presser))
    assert presser.struck == 1
    loop.close()
    assert messages(sink) == NAMES


def test_an_interrupt_under_asyncio_run_cancels_the_main_task_after_the_step() -> None:
    sink, presser = MemorySink(), Presser()
    with pytest.raises(KeyboardInterrupt):
        asyncio.run(emit(sink, presser))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    asynctrace.flush()
    assert messages(sink) == NAMES
    asynctrace.shutdown()


def test_the_users_own_handler_is_left_alone(loop: asyncio.AbstractEventLoop) -> None:
    sink, presser = MemorySink(), Presser()
    pressed: list[int] = []

    def handler(number: int, frame: FrameType | None) -> None:
        pressed.append(number)
        loop.stop()

    before = signal.signal(signal.SIGINT, handler)
    try:
        with pytest.raises(RuntimeError, match="stopped before"):
            loop.run_until_complete(emit(sink, presser))
        assert signal.getsignal(signal.SIGINT) is handler
    finally:
        signal.signal(signal.SIGINT, before)
    assert pressed == [signal.SIGINT]
    loop.close()
    assert messages(sink) == NAMES


def test_an_interrupt_that_the_loop_did_not_come_round_to_strikes_when_it_is_closed(
    loop: asyncio.AbstractEventLoop,
) -> None:
    sink = MemorySink()

    class StopsToo(Presser):
        def __call__(self, record: Record) -> bool:
            if record.message == "m500":
                loop.stop()
            return super().__call__(record)

    with pytest.raises((KeyboardInterrupt, RuntimeError)) as ended:
        loop.run_until_complete(emit(sink, StopsToo()))
    if ended.type is RuntimeError:
        with pytest.raises(KeyboardInterrupt):
            loop.close()
    loop.close()
    assert messages(sink) == NAMES


@pytest.mark.parametrize("kind", ["asyncio", "uvloop"])
def test_ctrl_c_at_random_moments_loses_and_doubles_nothing(tmp_path: Path, kind: str) -> None:
    rounds = 25
    result = subprocess.run(
        [sys.executable, PROGRAM, tmp_path, str(rounds), kind],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=50,
        check=True,
    )
    outcome = json.loads(result.stdout)
    for number, emitted in enumerate(outcome["emitted"]):
        stored = stored_messages(tmp_path / f"{number}.db")
        # The interrupt may strike between the record and its count.
        assert stored in ([str(i) for i in range(emitted)], [str(i) for i in range(emitted + 1)])
    assert outcome["struck"] > rounds // 2


def stored_messages(path: Path) -> list[str]:
    if not path.exists():  # the interrupt came before the first record
        return []
    connection = sqlite3.connect(path)
    try:
        return [row[0] for row in connection.execute("SELECT message FROM traces ORDER BY producer, seq")]
    finally:
        connection.close()
