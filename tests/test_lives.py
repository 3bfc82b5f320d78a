"""Programs that live, die and start again, with real stores and real deaths: what was safe stays, nothing doubles."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from asynctrace import Verdict, find_trace, verify

PROGRAM = Path(__file__).parent / "programs" / "lives.py"
ROOT = Path(__file__).parents[1]
LONG = bool(os.environ.get("LONG_RUNS"))

pytestmark = [
    pytest.mark.skipif(os.name != "posix", reason="this system neither kills nor adopts"),
    pytest.mark.timeout(3600 if LONG else 180),
]


@dataclass(frozen=True)
class Life:
    """What one process does, and how it ends."""

    count: int
    step: int
    up: bool
    end: Literal["close", "run", "raise", "_exit", "kill"]
    patience: int  # lines that are read before the kill


lives = st.builds(
    Life,
    st.integers(1, 500),
    st.sampled_from([10, 30, 100]),
    st.booleans(),
    st.sampled_from(["close", "run", "raise", "_exit", "kill", "kill"]),
    st.integers(0, 40),
)


def live(folder: Path, run_id: str, life: Life) -> dict[str, int]:
    """Run the process; up to which number it knew its records to be safe, by lane."""
    weather = "UP" if life.up else "DOWN"
    process = subprocess.Popen(
        [sys.executable, PROGRAM, folder, run_id, str(life.count), str(life.step), weather, life.end],
        env={
            **os.environ,
            "PYTHONPATH": str(ROOT),
            "ASYNCTRACE_STATE_DIR": str(folder / "state"),
            "ASYNCTRACE_CLOSE_TIMEOUT": "5" if life.up else "0.3",
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    told: list[str] = []
    if life.end == "kill":
        while len(told) < life.patience and (line := process.stdout.readline()) not in ("waiting\n", ""):
            told.append(line)
        process.kill()
    rest, errors = process.communicate(timeout=60)
    told += rest.splitlines(keepends=True)
    assert process.returncode == {"raise": 1, "kill": -9}.get(life.end, 0), errors
    assert ("Traceback" in errors) == (life.end == "raise"), errors
    safe: dict[str, int] = {}
    for line in told:
        if line.endswith("\n") and line.count(" ") == 1:
            lane, number = line.split()
            safe[lane] = int(number)
    return safe


@settings(max_examples=200 if LONG else 6, deadline=None)
@given(story=st.lists(lives, min_size=1, max_size=3))
def test_what_was_safe_survives_every_death(story: list[Life]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        safe: dict[str, dict[str, int]] = {}
        for number, life in enumerate(story):
            safe[f"run-{number}"] = live(folder, f"run-{number}", life)
        live(folder, "last", Life(1, 1, True, "close", 0))
        check_sqlite(f"sqlite:{folder}/t.db", story, safe)
        check_remote(folder / "remote", story, safe)


def check_sqlite(store: str, story: list[Life], safe: dict[str, dict[str, int]]) -> None:
    verification = verify(store)
    assert verification.verdict is not Verdict.LOSS, verification
    assert verification.doubles == 0
    for run_id, life in zip(safe, story, strict=True):
        wanted = life.count if life.end not in ("_exit", "kill") else safe[run_id].get("sqlite", -1) + 1
        if wanted or life.end not in ("_exit", "kill"):
            check_numbers([int(record.message) for record in find_trace(run_id, store).records], wanted)


def check_remote(path: Path, story: list[Life], safe: dict[str, dict[str, int]]) -> None:
    messages: dict[str, list[int]] = defaultdict(list)
    newest: dict[str, int] = defaultdict(int)
    for line in path.read_text().splitlines():
        try:
            producer, seq, run_id, kind, message = json.loads(line)
        except ValueError:  # the kill tore the line; it was no answer, so the batch came again
            continue
        if seq > newest[producer]:  # a batch whose answer was lost may come twice: this store has no keys
            newest[producer] = seq
            if kind == 0:
                messages[run_id].append(int(message))
    for run_id, life in zip(safe, story, strict=True):
        wanted = life.count if life.end not in ("_exit", "kill") else safe[run_id].get("remote", -1) + 1
        check_numbers(messages[run_id], wanted)


def check_numbers(found: list[int], wanted: int) -> None:
    """In order, each once, and all that were safe; beyond them only what followed without a gap."""
    assert found == list(range(len(found)))
    assert len(found) >= wanted
