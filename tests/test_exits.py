"""However a program ends, what it emitted is in the store. Every test runs a program to its end."""

import ast
import os
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "exits.py"
ROOT = Path(__file__).parents[1]


class Ended:
    """A program that has ended, and what it left in its store."""

    def __init__(self, tmp_path: Path, scenario: str, *options: str, deadline: float = 20.0) -> None:
        path = tmp_path / "t.db"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
        started = time.monotonic()
        self.result = subprocess.run(
            [sys.executable, *options, PROGRAM, scenario, f"sqlite:{path}"],
            capture_output=True,
            text=True,
            timeout=deadline,
            cwd=tmp_path,
            env=environment,
            check=False,
        )
        self.seconds = time.monotonic() - started
        self.path = path

    @property
    def messages(self) -> list[str]:
        connection = sqlite3.connect(self.path)
        try:
            return [row[0] for row in connection.execute("SELECT message FROM traces ORDER BY producer, seq")]
        finally:
            connection.close()

    def ended_well(self) -> "Ended":
        assert self.result.returncode == 0, self.result.stderr
        assert "Traceback" not in self.result.stderr, self.result.stderr
        assert "never" not in self.result.stderr, self.result.stderr
        return self


@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("no_loop", [f"m{i}" for i in range(100)]),
        ("with_block", ["m"]),
        ("atexit_before", ["m", "from atexit, registered before"]),
        ("atexit_after", ["m", "from atexit, registered after"]),
        ("atexit_only", ["from atexit, never before"]),
        ("after_close", ["m", "after close"]),
        ("bare_loop_closed", [f"m{i}" for i in range(100)]),
        ("bare_loop_left_open", [f"m{i}" for i in range(100)]),
        ("other_loop_closes", ["m", "on another loop"]),
        ("async_generator", ["m", "generator's finally"]),
        ("cancel_all", ["before", "after"]),
        ("late_thread", ["m", "after the main thread"]),
    ],
)
def test_everything_is_stored(tmp_path: Path, scenario: str, expected: list[str]) -> None:
    assert Ended(tmp_path, scenario).ended_well().messages == expected


@pytest.mark.parametrize("scenario", ["two_runs", "two_runs_default", "two_runs_global"])
def test_two_loops_in_a_row(tmp_path: Path, scenario: str) -> None:
    assert sorted(Ended(tmp_path, scenario).ended_well().messages) == ["m1", "m2"]


def test_tasks_that_log_in_their_finally_while_the_loop_ends(tmp_path: Path) -> None:
    messages = Ended(tmp_path, "siblings_in_finally").ended_well().messages
    expected = {"main", *(f"{what} {i}" for what in ("finally", "later", "last") for i in range(20))}
    assert sorted(messages) == sorted(expected)


def test_sys_exit_in_the_main_task(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sys_exit")
    assert ended.result.returncode == 3
    assert ended.messages == ["m"]


def test_sys_exit_in_another_task_ends_soon_and_loses_nothing(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sys_exit_in_sibling")
    assert ended.result.returncode == 3
    assert ended.messages == [*(f"m{i}" for i in range(1000)), "finally"]
    assert ended.seconds < 4, "closing waited for its deadline"


def test_an_exception_that_nobody_handles(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "unhandled")
    assert ended.result.returncode == 1
    assert "nobody handles this" in ended.result.stderr
    assert ended.messages == ["m"]


@pytest.mark.parametrize("scenario", ["interrupted", "interrupted_bare", "interrupted_script"])
def test_ctrl_c_loses_nothing_that_was_emitted_before_it(tmp_path: Path, scenario: str) -> None:
    ended = Ended(tmp_path, scenario)
    assert "KeyboardInterrupt" in ended.result.stderr
    counts: dict[str, int] = ast.literal_eval(ended.result.stdout)
    messages = ended.messages
    assert len(messages) == len(set(messages)), "records were stored twice"
    for name, count in counts.items():
        assert count > 100
        of_name = [int(message.split()[1]) for message in messages if message.startswith(f"{name} ")]
        assert of_name == list(range(len(of_name))), "out of order, or a gap"
        assert len(of_name) in (count, count + 1)  # the interrupt may strike between the record and its count


def test_daemon_threads_that_log_until_the_very_end(tmp_path: Path) -> None:
    messages = Ended(tmp_path, "daemon_threads").ended_well().messages
    assert "main is done" in messages
    for name in ("a", "b"):
        numbers = [int(message.split()[1]) for message in messages if message.startswith(f"{name} ")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 10


@pytest.mark.parametrize("scenario", ["hung", "hung_in_loop"])
def test_a_back_end_that_hangs_delays_the_end_by_the_deadline_at_most(tmp_path: Path, scenario: str) -> None:
    ended = Ended(tmp_path, scenario)
    assert ended.result.returncode == 0, ended.result.stderr
    assert ended.messages == ["m"]
    assert ended.seconds < 4


def test_development_mode_has_nothing_to_say(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "no_loop", "-X", "dev").ended_well()
    assert ended.result.stderr == ""
