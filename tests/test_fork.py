"""A fork takes nothing from the parent, and the child's records arrive under its own name."""

import os
import sqlite3
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

PROGRAM = Path(__file__).parent / "programs" / "forks.py"
ROOT = Path(__file__).parents[1]

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def run(tmp_path: Path, scenario: str, *options: str) -> dict[tuple[str, int], list[str]]:
    """The messages of each (producer, process) in the store, in order."""
    path = tmp_path / "t.db"
    result = subprocess.run(
        [sys.executable, *options, PROGRAM, scenario, f"sqlite:{path}"],
        capture_output=True,
        text=True,
        timeout=100,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=False,
    )
    assert result.returncode == 0, result.stderr
    assert "Traceback" not in result.stderr, result.stderr
    connection = sqlite3.connect(path)
    messages: dict[tuple[str, int], list[str]] = defaultdict(list)
    try:
        for producer, process, message in connection.execute(
            "SELECT producer, process, message FROM traces ORDER BY producer, seq"
        ):
            messages[producer, process].append(message)
    finally:
        connection.close()
    producers = [producer for producer, _ in messages]
    processes = [process for _, process in messages]
    assert len(set(producers)) == len(producers), "two processes numbered under one name"
    assert len(set(processes)) == len(processes)
    return messages


def numbered(name: str, count: int) -> list[str]:
    return [f"{name} {i}" for i in range(count)]


def test_prefork_servers_neither_warn_nor_lose(tmp_path: Path) -> None:
    messages = run(tmp_path, "before_use", "-W", "error::DeprecationWarning")
    assert sorted(messages.values()) == sorted([*[numbered("child", 50)] * 4, ["parent"]])


def test_both_sides_go_on_with_a_trace_in_use(tmp_path: Path) -> None:
    messages = run(tmp_path, "after_use")
    assert sorted(messages.values()) == sorted([numbered("child", 50), ["before", *numbered("parent", 50)]])


def test_a_full_queue_stays_with_the_parent(tmp_path: Path) -> None:
    messages = run(tmp_path, "full_queue")
    assert sorted(messages.values()) == sorted([["child"], [*numbered("before", 5_000), "parent"]])


@pytest.mark.parametrize("scenario", ["inside_a_loop", "loop_in_child"])
def test_a_fork_beside_an_event_loop(tmp_path: Path, scenario: str) -> None:
    assert sorted(run(tmp_path, scenario).values()) == [["before", "parent"], ["child"]]


def test_a_child_of_a_child(tmp_path: Path) -> None:
    assert sorted(run(tmp_path, "grandchild").values()) == [["before", "parent"], ["child"], ["grandchild"]]


@pytest.mark.parametrize(
    "scenario", ["multiprocessing_fork", "multiprocessing_spawn", "multiprocessing_forkserver"]
)
def test_processes_of_multiprocessing(tmp_path: Path, scenario: str) -> None:
    assert sorted(run(tmp_path, scenario).values()) == [["child 0"], ["child 1"], ["child 2"], ["parent"]]


def test_processes_of_multiprocessing_that_inherit_a_trace(tmp_path: Path) -> None:
    messages = run(tmp_path, "multiprocessing_inherited")
    assert sorted(messages.values()) == [["before", "parent"], ["child 0"], ["child 1"], ["child 2"]]


@pytest.mark.parametrize("scenario", ["pool_fork", "pool_spawn", "futures_fork", "futures_spawn"])
def test_pools_of_processes_lose_nothing_when_they_end(tmp_path: Path, scenario: str) -> None:
    stored = [message for messages in run(tmp_path, scenario).values() for message in messages]
    assert sorted(stored) == sorted([*numbered("child", 30), "parent"])


def test_a_receipt_is_each_sides_own(tmp_path: Path) -> None:
    messages = run(tmp_path, "receipts")
    assert sorted(messages.values()) == sorted([numbered("parent", 50), numbered("child", 2)])
