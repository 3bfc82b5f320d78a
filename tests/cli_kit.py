"""How the tests of the command run it: in this process, or as people do."""

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest
from measurement import measured

from asynctrace.cli import main

SECONDS = 30.0
"""The deadline of everything here that waits."""

STORES = {"sqlite": "sqlite:{}/t.db", "file": "file:{}/logs", "jsonl": "file:{}/t.jsonl"}


def clean_environment(**more: str) -> dict[str, str]:
    """This process's environment, without what changes the command's output."""
    changing = (
        "ASYNCTRACE_",
        "NO_COLOR",
        "FORCE_COLOR",
        "PAGER",
        "LESS",
        "COLUMNS",
        "LINES",
        "PYTHONUNBUFFERED",
    )
    kept = {name: value for name, value in os.environ.items() if not name.startswith(changing)}
    return {**kept, **more}


@dataclass(frozen=True)
class Done:
    """What a command left."""

    code: int
    out: str
    err: str


def run(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, program: str | None = None
) -> Done:
    """The command as people run it, or a program that does."""
    started = ["-m", "asynctrace"] if program is None else ["-c", program]
    done = subprocess.run(
        [sys.executable, "-W", "error", *started, *arguments],
        cwd=cwd,
        env=clean_environment(**measured(), **(env or {})),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        timeout=SECONDS,
        encoding="utf-8",
    )
    return Done(done.returncode, done.stdout, done.stderr)


class Here:
    """Runs the command in this process, which is faster."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *arguments: str) -> Done:
        self._capsys.readouterr()
        code = main(arguments)
        captured = self._capsys.readouterr()
        return Done(int(code), captured.out, captured.err)


class Running:
    """A command that goes on: its lines as they come."""

    def __init__(self, *arguments: str) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-W", "error", "-m", "asynctrace", *arguments],
            env=clean_environment(**measured()),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            encoding="utf-8",
        )
        self._lines: list[str] = []
        self._arrived = threading.Condition()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            with self._arrived:
                self._lines.append(line.rstrip("\n"))
                self._arrived.notify_all()

    def lines(self, number: int) -> list[str]:
        """All lines so far, as soon as there are so many."""
        deadline = time.monotonic() + SECONDS
        with self._arrived:
            while len(self._lines) < number:
                left = deadline - time.monotonic()
                assert left > 0, f"{len(self._lines)} of {number} lines came"
                self._arrived.wait(left)
            return list(self._lines)

    def interrupt(self) -> Done:
        """End it as Ctrl-C does."""
        self._process.send_signal(signal.SIGINT)
        code = self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        assert self._process.stderr is not None
        return Done(code, "\n".join(self._lines), self._process.stderr.read())

    def __enter__(self) -> "Running":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(SECONDS)
        self._reader.join(SECONDS)
        for stream in (self._process.stdout, self._process.stderr):
            assert stream is not None
            stream.close()
