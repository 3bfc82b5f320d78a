"""Presses Ctrl-C at random moments of the life of a loop that nothing guards, round after round.

Usage: python interrupts.py DIRECTORY ROUNDS asyncio|uvloop

Prints for each round what had been emitted when the interrupt struck.
"""

import asyncio
import importlib
import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import uvloop

import asynctrace

# What is imported at the first use is imported now: Python may not survive an interrupt while msgspec is imported.
for name in asynctrace.__all__:
    getattr(asynctrace, name)
importlib.import_module("asynctrace.sinks.sqlite")

directory, rounds = Path(sys.argv[1]), int(sys.argv[2])
new_loop = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}[sys.argv[3]]


class Round:
    """One loop, one store, one interrupt."""

    def __init__(self, number: int) -> None:
        self.store = f"sqlite:{directory / f'{number}.db'}"
        self.emitted = 0

    async def main(self) -> None:
        trace = asynctrace.Trace("r", sinks=[self.store])
        await trace.__aenter__()
        # Not for ever: the interpreter may swallow an interrupt, in a weak reference's callback.
        end = time.monotonic() + 0.1
        while time.monotonic() < end:
            for _ in range(50):
                trace.info(f"{self.emitted}")
                self.emitted += 1
            await asyncio.sleep(0.001)

    def play(self) -> None:
        pause = random.uniform(0.002, 0.06)
        loop = new_loop()
        presser = threading.Thread(target=lambda: (time.sleep(pause), os.kill(os.getpid(), signal.SIGINT)))
        presser.start()
        try:
            loop.run_until_complete(self.main())
        finally:
            try:
                loop.close()
            finally:
                presser.join()


def interrupted(round_: Round) -> bool:
    try:
        round_.play()
    except KeyboardInterrupt:
        return True
    return False


random.seed(20)
struck = 0
outcomes = []
for number in range(rounds):
    this = Round(number)
    struck += interrupted(this)
    asynctrace.flush()
    outcomes.append(this.emitted)
print(json.dumps({"emitted": outcomes, "struck": struck}))
