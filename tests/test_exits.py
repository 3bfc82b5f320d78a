"""However a program ends, what it emitted is in the store. Every test runs a program to its end."""

import ast
import os
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from asynctrace import Status, Verdict, find_traces, verify
from asynctrace.pipeline.spool_page import look

PROGRAM = Path(__file__).parent / "programs" / "exits.py"
ROOT = Path(__file__).parents[1]
ENVIRONMENT = {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error"}
LOOPS = ["asyncio", "uvloop"]

PATIENCE = 100.0
"""Seconds that a program may take on a busy machine; one that hangs would hang for ever."""


class Ended:
    """A program that has ended, and what it left in its store."""

    def __init__(self, tmp_path: Path, scenario: str, *options: str, loop: str = "asyncio") -> None:
        path = tmp_path / "t.db"
        started = time.monotonic()
        self.result = subprocess.run(
            [sys.executable, *options, PROGRAM, scenario, f"sqlite:{path}", loop],
            capture_output=True,
            text=True,
            timeout=PATIENCE,
            cwd=tmp_path,
            env={**os.environ, **ENVIRONMENT},
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

    @property
    def store(self) -> str:
        return f"sqlite:{self.path}"

    @property
    def statuses(self) -> dict[str, Status]:
        return {summary.run_id: summary.status for summary in find_traces(self.store)}

    def ended_well(self) -> "Ended":
        assert self.result.returncode == 0, self.result.stderr
        assert "Traceback" not in self.result.stderr, self.result.stderr
        assert "never" not in self.result.stderr, self.result.stderr
        return self

    def was_terminated(self) -> "Ended":
        assert self.result.returncode == -signal.SIGTERM, self.result.stderr
        assert "Traceback" not in self.result.stderr, self.result.stderr
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
        ("late_thread", ["m", "after the main thread"]),
    ],
)
def test_everything_is_stored(tmp_path: Path, scenario: str, expected: list[str]) -> None:
    ended = Ended(tmp_path, scenario).ended_well()
    assert ended.messages == expected
    warned = "records after the end of their pipeline" in ended.result.stderr
    assert warned == (scenario == "after_close"), "at exit, nothing is wrong with them"


@pytest.mark.parametrize("scenario", ["no_loop", "atexit_before", "atexit_after", "atexit_only_configured"])
def test_a_program_that_ends_in_order_has_nothing_to_say(tmp_path: Path, scenario: str) -> None:
    ended = Ended(tmp_path, scenario).ended_well()
    assert ended.result.stderr == ""
    assert ended.statuses == {"r": Status.OK}
    assert verify(ended.store).verdict is Verdict.COMPLETE


@pytest.mark.parametrize(
    ("scenario", "status"),
    [
        ("unclosed_and_unhandled", Status.ERROR),
        ("interrupted_script", Status.CANCELLED),
        ("interrupted_bare", Status.CANCELLED),
        ("bare_loop_left_open", Status.CANCELLED),
        ("sigterm_script", Status.INTERRUPTED),
    ],
)
def test_a_run_that_nobody_closed_ends_as_the_program_did(
    tmp_path: Path, scenario: str, status: Status
) -> None:
    assert Ended(tmp_path, scenario).statuses == {"r": status}


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_runs_of_worker_processes_end_as_the_workers_do(tmp_path: Path, method: str) -> None:
    ended = Ended(tmp_path, f"workers_{method}")
    assert ended.statuses == {
        "returns": Status.OK,
        "leaves": Status.OK,
        "gives up": Status.ERROR,
        "raises": Status.ERROR,
        "r": Status.OK,
    }
    connection = sqlite3.connect(ended.path)
    ends = connection.execute("SELECT run_id FROM trace_events WHERE kind = 'run_end'").fetchall()
    connection.close()
    assert len(ends) == len(ended.statuses), "a child has ended the run of its parent"


def test_records_after_a_shutdown(tmp_path: Path) -> None:
    assert sorted(Ended(tmp_path, "after_shutdown").ended_well().messages) == ["anew", "late", "m"]


def test_a_finaliser_that_records_when_the_interpreter_is_taken_apart(tmp_path: Path) -> None:
    messages = Ended(tmp_path, "finaliser_at_the_very_end").ended_well().messages
    assert messages[:2] == ["farewell", "m"]  # what the last one says may be too late, but harms nothing


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("scenario", "expected"),
    [
        ("bare_loop_closed", [f"m{i}" for i in range(100)]),
        ("bare_loop_left_open", [f"m{i}" for i in range(100)]),
        ("closed_under_us", [f"m{i}" for i in range(200)]),
        ("other_loop_closes", ["m", "on another loop"]),
        ("async_generator", ["m", "generator's finally"]),
        ("cancel_all", ["before", "after"]),
        ("aclose_cancelled", [*(f"m{i}" for i in range(1000)), "late"]),
    ],
)
def test_everything_is_stored_whatever_becomes_of_the_loop(
    tmp_path: Path, scenario: str, expected: list[str], loop: str
) -> None:
    assert Ended(tmp_path, scenario, loop=loop).ended_well().messages == expected


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("scenario", ["two_runs", "two_runs_default", "two_runs_global"])
def test_two_loops_in_a_row(tmp_path: Path, scenario: str, loop: str) -> None:
    assert sorted(Ended(tmp_path, scenario, loop=loop).ended_well().messages) == ["m1", "m2"]


@pytest.mark.parametrize("loop", LOOPS)
def test_tasks_that_log_in_their_finally_while_the_loop_ends(tmp_path: Path, loop: str) -> None:
    messages = Ended(tmp_path, "siblings_in_finally", loop=loop).ended_well().messages
    expected = {"main", *(f"{what} {i}" for what in ("finally", "later", "last") for i in range(20))}
    assert sorted(messages) == sorted(expected)


@pytest.mark.parametrize("loop", LOOPS)
def test_an_async_generator_that_another_task_closes(tmp_path: Path, loop: str) -> None:
    messages = Ended(tmp_path, "generator_closed_elsewhere", loop=loop).ended_well().messages
    assert sorted(messages) == ["afterwards", "begun", "finally"]


@pytest.mark.parametrize("loop", LOOPS)
def test_sys_exit_in_the_main_task(tmp_path: Path, loop: str) -> None:
    ended = Ended(tmp_path, "sys_exit", loop=loop)
    assert ended.result.returncode == 3
    assert ended.messages == ["m"]


@pytest.mark.parametrize("loop", LOOPS)
def test_sys_exit_in_another_task_ends_soon_and_loses_nothing(tmp_path: Path, loop: str) -> None:
    ended = Ended(tmp_path, "sys_exit_in_sibling", loop=loop)
    assert ended.result.returncode == 3
    assert ended.messages == [*(f"m{i}" for i in range(1000)), "finally"]
    assert ended.seconds < 50, "closing waited for its deadline"


@pytest.mark.parametrize("loop", LOOPS)
def test_an_exception_that_nobody_handles(tmp_path: Path, loop: str) -> None:
    ended = Ended(tmp_path, "unhandled", loop=loop)
    assert ended.result.returncode == 1
    assert "nobody handles this" in ended.result.stderr
    assert ended.messages == ["m"]


@pytest.mark.parametrize(
    ("scenario", "loop"),
    [
        ("interrupted", "asyncio"),
        ("interrupted", "uvloop"),
        ("interrupted_bare", "asyncio"),
        ("interrupted_bare", "uvloop"),
        ("interrupted_script", "asyncio"),
    ],
)
def test_ctrl_c_loses_nothing_that_was_emitted_before_it(tmp_path: Path, scenario: str, loop: str) -> None:
    ended = Ended(tmp_path, scenario, loop=loop)
    assert "KeyboardInterrupt" in ended.result.stderr
    counts: dict[str, int] = ast.literal_eval(ended.result.stdout)
    messages = ended.messages
    assert len(messages) == len(set(messages)), "records were stored twice"
    for name, count in counts.items():
        assert count > 10
        of_name = [int(message.split()[1]) for message in messages if message.startswith(f"{name} ")]
        assert of_name == list(range(len(of_name))), "out of order, or a gap"
        assert len(of_name) in (count, count + 1)  # the interrupt may strike between the record and its count


@pytest.mark.parametrize("loop", LOOPS)
def test_ctrl_c_twice_under_asyncio_run(tmp_path: Path, loop: str) -> None:
    ended = Ended(tmp_path, "interrupted_twice", loop=loop)
    assert "KeyboardInterrupt" in ended.result.stderr
    before, cleaning, *steps = ended.messages
    assert (before, cleaning) == ("before", "cleaning up")
    assert steps == [f"step {i}" for i in range(len(steps))]


def test_ctrl_c_twice_in_a_script(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "interrupted_twice_script")
    assert ended.result.stderr.count("KeyboardInterrupt") == 2
    assert ended.messages == ["before", "cleaning up"]
    assert ended.seconds < 50


def test_daemon_threads_that_log_until_the_very_end(tmp_path: Path) -> None:
    messages = Ended(tmp_path, "daemon_threads").ended_well().messages
    assert "main is done" in messages
    for name in ("a", "b"):
        numbers = [int(message.split()[1]) for message in messages if message.startswith(f"{name} ")]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) >= 50


def test_ctrl_c_at_the_exit_puts_on_disk_what_a_hung_back_end_did_not_take(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "interrupted_at_exit")
    assert ended.seconds < 50, "the deadline is ten minutes"
    assert ended.messages == ["m"]
    assert [look(path).records for path in (tmp_path / ".asynctrace" / "spool").iterdir()] == [3]


@pytest.mark.parametrize("scenario", ["one_deadline", "one_deadline_bare_loop"])
def test_a_loop_that_ends_with_the_program_has_one_deadline_with_it(tmp_path: Path, scenario: str) -> None:
    ended = Ended(tmp_path, scenario)
    assert ended.result.returncode == 0, ended.result.stderr
    assert ended.messages == ["m", "m"]
    assert 5 <= float(ended.result.stdout) < 10, "two deadlines"


def test_what_closing_has_waited_for_in_vain_the_exit_does_not_wait_for_again(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "one_deadline_thread")
    assert ended.result.returncode == 0, ended.result.stderr
    assert 5 <= float(ended.result.stdout) < 12, "two deadlines, and what is granted beyond them"


@pytest.mark.parametrize("scenario", ["hung", "hung_in_loop", "down"])
@pytest.mark.parametrize("loop", LOOPS)
def test_a_back_end_that_hangs_delays_the_end_by_the_deadline_at_most(
    tmp_path: Path, scenario: str, loop: str
) -> None:
    ended = Ended(tmp_path, scenario, loop=loop)
    assert ended.result.returncode == 0, ended.result.stderr
    assert ended.messages == ["m"]
    assert ended.seconds < 50, "the deadline is half a second; the back end would take an hour"


# -- SIGTERM -------------------------------------------------------------------------------------------------

BOUND = 2.0
"""Seconds before a default SIGTERM in which what was emitted may be lost; the documentation says one, on a machine that
has time for it."""


@pytest.mark.parametrize(
    ("scenario", "loop"),
    [("terminated", "asyncio"), ("terminated_in_loop", "asyncio"), ("terminated_in_loop", "uvloop")],
)
def test_the_default_sigterm_loses_at_most_what_was_emitted_just_before_it(
    tmp_path: Path, scenario: str, loop: str
) -> None:
    path = tmp_path / "t.db"
    with subprocess.Popen(
        [sys.executable, PROGRAM, scenario, f"sqlite:{path}", loop],
        stdout=subprocess.PIPE,
        cwd=tmp_path,
        env={**os.environ, **ENVIRONMENT},
        text=True,
    ) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().split()]
        while float(told[-1][1]) < float(told[0][1]) + BOUND + 0.5:
            told.append(process.stdout.readline().split())
        killed = time.monotonic()
        process.terminate()
        told += [line.split() for line in process.stdout]
    assert process.returncode == -signal.SIGTERM
    connection = sqlite3.connect(path)
    stored = [row[0] for row in connection.execute("SELECT message FROM traces ORDER BY producer, seq")]
    connection.close()
    assert stored == [f"m{i}" for i in range(len(stored))]
    owed = sum(float(when) < killed - BOUND for _, when in told)
    assert 0 < owed <= len(stored)


MANY = [f"m{i}" for i in range(2_000)]


@pytest.mark.parametrize(
    ("scenario", "loop"),
    [
        ("sigterm_script", "asyncio"),
        ("sigterm_at_rest", "asyncio"),
        ("sigterm_by_environment", "asyncio"),
        ("sigterm_in_loop", "asyncio"),
        ("sigterm_in_loop", "uvloop"),
        ("sigterm_stuck_loop", "asyncio"),
        ("sigterm_stuck_loop", "uvloop"),
    ],
)
def test_a_handled_sigterm_delivers_and_ends_the_program_as_it_would_have_ended(
    tmp_path: Path, scenario: str, loop: str
) -> None:
    ended = Ended(tmp_path, scenario, loop=loop).was_terminated()
    assert ended.messages == MANY
    assert ended.seconds < 50


@pytest.mark.parametrize("number", range(3))
def test_a_handled_sigterm_strikes_anywhere_in_our_code(tmp_path: Path, number: int) -> None:
    ended = Ended(tmp_path, "sigterm_storm").was_terminated()
    emitted = int(ended.result.stdout)
    stored = ended.messages
    assert len(stored) == len(set(stored))
    assert {f"m{i}" for i in range(emitted)} <= set(stored)
    assert ended.seconds < 50


def test_a_users_handler_is_called_when_everything_is_delivered(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sigterm_users_handler")
    assert ended.result.returncode == 7, ended.result.stderr
    assert ended.result.stdout.split() == [str(int(signal.SIGTERM)), "2000"]
    assert ended.messages == [*MANY, "in the handler"]


@pytest.mark.parametrize("loop", LOOPS)
def test_a_users_handler_ends_a_program_with_an_event_loop(tmp_path: Path, loop: str) -> None:
    ended = Ended(tmp_path, "sigterm_users_handler_in_loop", loop=loop)
    assert ended.result.returncode == 7, ended.result.stderr
    assert ended.messages == MANY


def test_a_users_handler_may_let_the_program_go_on(tmp_path: Path) -> None:
    assert Ended(tmp_path, "sigterm_goes_on").ended_well().messages == [*MANY, "after 1", "after 2"]


def test_a_users_handler_without_ours(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sigterm_unhandled_by_us")
    assert ended.result.returncode == 7, ended.result.stderr
    assert ended.messages == MANY


@pytest.mark.parametrize("loop", LOOPS)
def test_an_event_loops_own_handler_is_left_alone(tmp_path: Path, loop: str) -> None:
    messages = Ended(tmp_path, "sigterm_loops_handler", loop=loop).ended_well().messages
    assert sorted(messages) == ["after, False", "after, True", "before, False", "before, True"]


def test_a_sigterm_that_is_ignored_stays_so(tmp_path: Path) -> None:
    assert Ended(tmp_path, "sigterm_ignored").ended_well().messages == ["still here"]


def test_the_handler_is_given_back(tmp_path: Path) -> None:
    assert Ended(tmp_path, "sigterm_taken_back").ended_well().messages == ["m"]


def test_only_the_main_thread_takes_over_a_signal(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sigterm_other_thread").ended_well()
    assert "only the main thread can take over a signal; call configure() there" in ended.result.stderr
    assert ended.messages == ["m"]


def test_a_hung_back_end_delays_the_death_by_the_deadline_at_most(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sigterm_hung").was_terminated()
    assert ended.messages == ["m"]
    assert ended.seconds < 50


def test_a_second_sigterm_does_not_wait(tmp_path: Path) -> None:
    assert Ended(tmp_path, "sigterm_twice").was_terminated().seconds < 50


def test_a_sigterm_while_the_program_is_ending_loses_nothing(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "sigterm_while_ending")
    assert ended.result.returncode in (0, -signal.SIGTERM), ended.result.stderr
    assert ended.messages == MANY


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.parametrize("scenario", ["prefork", "prefork_own_handler"])
def test_prefork_workers_that_are_terminated(tmp_path: Path, scenario: str) -> None:
    ended = Ended(tmp_path, scenario).ended_well()
    messages = ended.messages
    owed = dict(line.split() for line in ended.result.stdout.splitlines())
    assert len(owed) == 4
    for name, last in owed.items():
        numbers = [int(message.split()[1]) for message in messages if message.startswith(f"{name} ")]
        assert numbers == list(range(len(numbers)))
        assert numbers[-1] >= int(last) >= 20


def test_development_mode_has_nothing_to_say(tmp_path: Path) -> None:
    ended = Ended(tmp_path, "no_loop", "-X", "dev").ended_well()
    assert ended.result.stderr == ""
