"""Jobs in fresh interpreters: one process a job, one directory of its own, one JSON object of values back.

Run as a module this is the other side: ``python -m benchmarks.harness MODULE:FUNCTION '{"argument": …}'``.
"""

from __future__ import annotations

import asyncio
import gc
import inspect
import json
import os
import random
import subprocess
import sys
import tempfile
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from statistics import median
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
JOB_TIMEOUT = 300.0
"""Seconds; no job takes a tenth of it on a machine that is not overloaded."""

Values = dict[str, float]


class JobError(Exception):
    """A job failed: its anchor lost records, or its interpreter ended with an error."""


@dataclass(frozen=True)
class Job:
    """A function to be called in a fresh interpreter.

    Args:
        function: ``module:function`` inside this package; it returns numbers by name and may be a coroutine.
        arguments: its keyword arguments.
        quick: arguments that differ in a quick run.
    """

    function: str
    arguments: Mapping[str, Any] = field(default_factory=dict)
    quick: Mapping[str, Any] = field(default_factory=dict)

    def run(self, *, quick: bool) -> Values:
        """The values that the function returned.

        Raises:
            JobError: it failed.
        """
        arguments = {**self.arguments, **(self.quick if quick else {})}
        command = [sys.executable, "-m", "benchmarks.harness", self.function, json.dumps(arguments)]
        with tempfile.TemporaryDirectory(prefix="asynctrace-bench-") as scratch:
            try:
                done = subprocess.run(
                    command,
                    cwd=scratch,
                    env=_environment(),
                    capture_output=True,
                    text=True,
                    timeout=JOB_TIMEOUT,
                    check=False,
                )
            except subprocess.TimeoutExpired:
                raise JobError(f"{self.function} {arguments}: not done after {JOB_TIMEOUT:g} s") from None
        if done.returncode:
            raise JobError(f"{self.function} {arguments}:\n{done.stderr[-4000:]}")
        values: Values = json.loads(done.stdout.splitlines()[-1])
        return values


def _environment() -> dict[str, str]:
    """The environment as it is, without what would configure asynctrace."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("ASYNCTRACE_")}
    return {**kept, "PYTHONPATH": str(ROOT)}


@dataclass(frozen=True)
class Case:
    """One thing to be timed beside others in the same interpreter.

    Args:
        run: does the work once; returns nanoseconds for one record.
        clear: removes what the work left, outside the measurement.
    """

    run: Callable[[], float] | Callable[[], Awaitable[float]]
    clear: Callable[[], object] | Callable[[], Awaitable[object]] = lambda: None


async def alternate(cases: Mapping[str, Case], samples: int) -> Values:
    """The median of each case over so many samples; each sample takes the cases in an order drawn anew.

    Memory and caches are as the case before left them: nobody shall always come after the same one.
    The collector is on, and each sample begins with a full collection outside the measurement: nobody pays
    for what another left.
    """
    taken: dict[str, list[float]] = {name: [] for name in cases}
    names = list(cases)
    for sample in range(samples + 1):
        for name in random.sample(names, len(names)):
            gc.collect()
            nanoseconds = await _result(cases[name].run())
            await _result(cases[name].clear())
            if sample:  # the first one warms up
                taken[name].append(nanoseconds)
    return {name: median(found) for name, found in taken.items()}


async def _result(value: Any) -> Any:
    return await value if inspect.isawaitable(value) else value


def check(what: str, found: int, wanted: int) -> None:
    """Refuse a measurement whose records are not all there.

    Raises:
        JobError: they are not.
    """
    if found != wanted:
        raise JobError(f"{what}: {found} records at the end, {wanted} were made")


def _main() -> None:
    name, arguments = sys.argv[1:]
    module, function = name.split(":")
    result = getattr(import_module(f"benchmarks.{module}"), function)(**json.loads(arguments))
    if inspect.iscoroutine(result):
        result = asyncio.run(result)
    print(json.dumps(result))


if __name__ == "__main__":
    _main()
