"""The methods that journal what they record: what they remember of earlier calls must not be told of later ones."""

import os
import subprocess
import sys
from pathlib import Path

from cli_kit import run

import asynctrace
from asynctrace import SpanNode, Trace

ROOT = Path(__file__).parents[1]
SITES = 20

MANY_SITES = f"""
for number in range({SITES}):  # the same instructions each time, so that only the code tells one place from another
    source = chr(10) * number + "trace.info('made', number=number)"
    exec(compile(source, f"made{{number}}.py", "exec"), {{"trace": trace, "number": number}})
"""

TURNS = """
with trace.span("one") as one:
    with trace.span("two") as two:
        for turn in range(3):
            one.info("one")
            two.info("two")
            trace.info("two")
    trace.info("one")
"""


def root_after(directory: Path, program: str) -> SpanNode:
    """The run of a program that ended without a word, as the next one finds it."""
    code = f"""
import os
from asynctrace import SpanNode, Trace
trace = Trace("r", sinks=["sqlite:./t.db"], durability="process").__enter__()
{program}
os._exit(0)
"""
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ASYNCTRACE_LINGER": "60"}
    subprocess.run([sys.executable, "-c", code], cwd=directory, env=environment, check=True, timeout=60)
    assert run("recover", cwd=directory, env={"ASYNCTRACE_SINKS": "sqlite:./t.db"}).code == 0
    (root,) = asynctrace.find_trace("r", f"sqlite:{directory}/t.db").attempts()
    return root


def test_call_sites_at_the_same_instruction_of_different_code_are_told_apart(tmp_path: Path) -> None:
    root = root_after(tmp_path, MANY_SITES)
    told = [(record.fields["number"], record.site.filename, record.site.lineno) for record in root.records]
    assert told == [(number, f"made{number}.py", number + 1) for number in range(SITES)]


def test_spans_that_take_turns_keep_their_records(tmp_path: Path) -> None:
    root = root_after(tmp_path, TURNS)
    (outer,) = root.children
    (inner,) = outer.children
    assert [record.message for record in outer.records] == ["one"] * 4
    assert [record.message for record in inner.records] == ["two"] * 6


def test_an_exception_goes_with_its_record_whatever_was_recorded_there_before(tmp_path: Path) -> None:
    store = f"sqlite:{tmp_path}/t.db"
    with Trace("r", sinks=[store], durability="process") as trace:
        for error in (None, ValueError("first"), None, ValueError("second")):
            trace.info("tried", exc_info=error, attempt=1)

    (root,) = asynctrace.find_trace("r", store).attempts()
    exceptions = [record.exception and record.exception.message for record in root.records]
    assert exceptions == [None, "first", None, "second"]
    assert [record.fields for record in root.records] == [{"attempt": 1}] * 4
