"""``asynctrace tail``: the newest records of a store, and those that other processes write meanwhile."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from cli_kit import SECONDS, STORES, Here, Running, clean_environment

from asynctrace import Trace


@pytest.fixture
def here(capsys: pytest.CaptureFixture[str]) -> Here:
    return Here(capsys)


@pytest.fixture(params=sorted(STORES))
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    return STORES[request.param].format(tmp_path)


def record(url: str, run_id: str, messages: list[str]) -> None:
    with Trace(run_id, sinks=[url]) as trace:
        for message in messages:
            trace.info(message, run=run_id)


def messages(told: str) -> list[str]:
    return [json.loads(line)["message"] for line in told.splitlines()]


def test_the_newest_records_of_all_runs_in_the_order_of_time(url: str, here: Here) -> None:
    record(url, "first", [f"a{number}" for number in range(20)])
    record(url, "second", [f"b{number}" for number in range(3)])

    told = here("tail", "-n", "5", "--store", url)

    assert (told.code, told.err) == (0, "")
    assert [line.split()[4] for line in told.out.splitlines()] == ["a18", "a19", "b0", "b1", "b2"]
    line = told.out.splitlines()[-1]
    assert re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\.\d{3} INFO +second b2  run=second", line)


def test_a_run_alone_a_level_and_the_structure(url: str, here: Here) -> None:
    record(url, "first", ["a"])
    with Trace("second", sinks=[url]) as trace, trace.span("work"):
        trace.info("b")
        trace.error("c")

    def tail(*options: str) -> list[str]:
        return messages(here("tail", "--store", url, "--json", *options).out)

    assert tail("first") == ["a"]
    assert tail("--level", "error") == ["c"]
    assert tail("second", "--all") == ["second", "work", "b", "c", "work", "second"]
    assert tail("-n", "0") == []
    assert here("tail", "third", "--store", url).code == 1


def test_more_than_there_is_and_records_far_apart(url: str, here: Here) -> None:
    record(url, "run", ["only"])

    assert messages(here("tail", "-n", "1000", "--store", url, "--json").out) == ["only"]


def test_stack_traces_follow_when_asked_for(url: str, here: Here) -> None:
    with Trace("run", sinks=[url]) as trace:
        try:
            raise ValueError("broken\nin two")
        except ValueError:
            trace.exception("failed")

    plain, full = here("tail", "--store", url).out, here("tail", "--store", url, "--stacks").out

    assert plain.count("\n") == 1
    assert "ValueError: broken\\nin two" in plain
    assert "Traceback (most recent call last):" in full


WRITER = """
import sys
from asynctrace import Trace
url, name, runs, records = sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4])
for run in range(runs):
    with Trace(f"{name}-{run}", sinks=[url]) as trace:
        for number in range(records):
            trace.info("%s-%d-%d", name, run, number)
            if number % 50 == 0:
                trace.flush()
"""


def test_following_while_other_processes_write_tells_each_record_once(url: str) -> None:
    record(url, "before", ["old 1", "old 2"])
    expected = {f"{name}-{run}-{number}" for name in "xy" for run in range(2) for number in range(200)}

    with Running("tail", "-f", "-n", "1", "--json", "--store", url) as following:
        following.lines(1)  # it has looked: what comes now is new
        writers = [
            subprocess.Popen(
                [sys.executable, "-W", "error", "-c", WRITER, url, name, "2", "200"], env=clean_environment()
            )
            for name in "xy"
        ]
        assert [writer.wait(SECONDS) for writer in writers] == [0, 0]
        following.lines(1 + len(expected))
        record(url, "last", ["end"])  # a double of what came before would come before this
        following.lines(2 + len(expected))
        ended = following.interrupt()

    told = messages(ended.out)
    assert (ended.code, ended.err) == (130, "")
    assert (told[0], told[-1]) == ("old 2", "end")
    assert len(told) == len(set(told))
    assert set(told[1:-1]) == expected
    for name in "xy":  # each writer's own order is kept
        own = [message for message in told if message.startswith(name)]
        assert own == [f"{name}-{run}-{number}" for run in range(2) for number in range(200)]


def test_following_one_run_passes_the_others_over(url: str) -> None:
    record(url, "mine", ["one"])

    with Running("tail", "mine", "-f", "--json", "--store", url) as following:
        following.lines(1)
        record(url, "other", ["no"])
        record(url, "mine", ["two"])
        following.lines(2)
        ended = following.interrupt()

    assert messages(ended.out) == ["one", "two"]
