"""``asynctrace spool`` and ``asynctrace dead``, on a state directory that a sink which was away has left."""

import json
from pathlib import Path

import pytest
from cli_kit import Done, run

from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.spool import Spool
from asynctrace.pipeline.state_directory import lane_key
from asynctrace.sinks.sqlite import SQLiteSink
from asynctrace.testing import make_run


@pytest.fixture
def lane(tmp_path: Path) -> str:
    return lane_key("sqlite", repr(SQLiteSink(tmp_path / "t.db")))


def command(tmp_path: Path, *arguments: str) -> Done:
    return run(
        *arguments,
        cwd=tmp_path,
        env={
            "ASYNCTRACE_SINKS": f"sqlite:///{tmp_path}/t.db",
            "ASYNCTRACE_STATE_DIR": str(tmp_path / "state"),
            "ASYNCTRACE_SPOOL_MAX_AGE": "1e12",
        },
    )


def leave(tmp_path: Path, lane: str) -> None:
    spool = Spool(tmp_path / "state" / "spool" / lane, max_age=1e12)
    spool.append(make_run("run-1", logs=3))
    spool.close()


def bury(tmp_path: Path, lane: str) -> None:
    DeadLetters(tmp_path / "state" / "dead" / lane).add(
        make_run("run-1", logs=3).records, lane="sqlite", sink="<Sink>", reason="no such table"
    )


def test_nothing_there(tmp_path: Path) -> None:
    assert command(tmp_path, "spool").out == "nothing waits on disk\n"
    assert command(tmp_path, "dead").out == "no dead letters\n"
    assert command(tmp_path, "spool", "ls", "--json").out == "[]\n"
    assert list(tmp_path.iterdir()) == []


def test_what_waits_is_listed_delivered_and_gone(tmp_path: Path, lane: str) -> None:
    leave(tmp_path, lane)
    (page,) = json.loads(command(tmp_path, "spool", "ls", "--json").out)
    assert (page["lane"], page["records"], page["in_use"], page["damaged"]) == (lane, 5, 0, 0)
    listed = command(tmp_path, "spool")
    assert lane in listed.out
    assert "5" in listed.out

    done = command(tmp_path, "spool", "replay", "--json")
    assert (done.code, done.err) == (0, "")
    assert json.loads(done.out) == {"taken": 5, "delivered": 5, "dead": 0, "waiting": 0}

    assert command(tmp_path, "spool").out == "nothing waits on disk\n"
    shown = command(tmp_path, "show", "run-1", "--store", f"sqlite:///{tmp_path}/t.db")
    assert (shown.code, shown.out.count("message")) == (0, 3)


def test_what_waits_can_be_deleted(tmp_path: Path, lane: str) -> None:
    leave(tmp_path, lane)
    wrong = command(tmp_path, "spool", "purge", "other")
    assert (wrong.code, lane in wrong.err) == (2, True)
    assert command(tmp_path, "spool", "purge", lane).out == "5 records purged\n"
    assert command(tmp_path, "spool").out == "nothing waits on disk\n"


def test_dead_letters_are_listed_shown_and_delivered_again(tmp_path: Path, lane: str) -> None:
    bury(tmp_path, lane)
    (counted,) = json.loads(command(tmp_path, "dead", "--json").out)
    assert counted == {"lane": lane, "sink": "<Sink>", "reason": "no such table", "records": 5}
    assert "no such table" in command(tmp_path, "dead", "ls").out
    assert command(tmp_path, "dead", "show").out.count("run-1") == 5
    shown = json.loads(command(tmp_path, "dead", "show", lane, "--json", "--limit", "2").out)
    assert [letter["record"]["seq"] for letter in shown] == [0, 1]

    assert command(tmp_path, "dead", "replay").out == "5 moved to the spool\n"
    assert command(tmp_path, "dead").out == "no dead letters\n"
    assert json.loads(command(tmp_path, "spool", "replay", "--json").out)["delivered"] == 5


def test_dead_letters_can_be_deleted(tmp_path: Path, lane: str) -> None:
    bury(tmp_path, lane)
    assert command(tmp_path, "dead", "purge").out == "5 purged\n"
    assert command(tmp_path, "dead").out == "no dead letters\n"


@pytest.mark.parametrize("name", ["spool", "dead"])
def test_another_word_is_an_error_that_names_the_right_ones(tmp_path: Path, name: str) -> None:
    done = command(tmp_path, name, "burn")
    assert done.code == 2
    assert "'burn' cannot be used; allowed: ls, " in done.err
