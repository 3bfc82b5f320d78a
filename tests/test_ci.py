"""``.ci/run``: suites run beside each other, each is told whole, and a failure of any is a failure of all.

The script is the real one; its Pythons are programs of these tests, which answer instead of pytest and nox.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13")
SECONDS = 50.0

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="it needs bash 5.1 and the commands of Linux")

PYTHONS = "".join(f"echo '{version} python{version}'\n" for version in VERSIONS)
VENV = f"""
set -eu
mkdir -p "$1/bin"
printf '#!/bin/sh\\nexec "{sys.executable}" -u answer.py %s "$@"\\n' "$PYTHON" >"$1/bin/python"
chmod +x "$1/bin/python"
"""
PASSES = "print('== 7 passed in 0.01s ==')"


class Checkout:
    """A project that has nothing but ``.ci/run``.

    Args:
        path: where it is.
        suites: Python's version: what the tests on it do; all others pass.
        limit: seconds for one suite.
    """

    def __init__(self, path: Path, suites: dict[str, str], limit: int | None = None) -> None:
        self.path = path
        ci = path / ".ci"
        ci.mkdir()
        script = (ROOT / ".ci" / "run").read_text("utf-8")
        if limit is not None:
            assert "suite_limit=1500" in script
            script = script.replace("suite_limit=1500", f"suite_limit={limit}")
        (ci / "run").write_text(script, "utf-8")
        (ci / "pythons").write_text(PYTHONS)
        (ci / "venv").write_text(VENV)
        lines = ["import os, pathlib, sys, time", "version, _, module, *_ = sys.argv[1:]"]
        for version in VERSIONS:
            lines += [f"if (version, module) == ('python{version}', 'pytest'):"]
            lines += [f"    {line}" for line in suites.get(version, PASSES).splitlines()]
        (path / "answer.py").write_text("\n".join(lines))
        tools = path / "tools"  # or else it would install what this machine lacks
        tools.mkdir()
        for tool in ("git", "strace"):
            (tools / tool).write_text("")
            (tools / tool).chmod(0o755)

    def start(self, **environment: str) -> "subprocess.Popen[str]":
        bash = shutil.which("bash")
        assert bash is not None
        return subprocess.Popen(
            [bash, ".ci/run"],
            cwd=self.path,
            env={name: value for name, value in os.environ.items() if name != "CI"}
            | {"PATH": f"{os.environ['PATH']}{os.pathsep}{self.path / 'tools'}"}
            | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, **environment: str) -> tuple[int, str]:
        """The exit status, and what was said."""
        with self.start(**environment) as process:
            told, _ = process.communicate(timeout=SECONDS)
        return process.returncode, told


def told_of(version: str, told: str) -> str:
    """What stands under the heading of that suite."""
    _, _, after = told.partition(f"=== tests on Python {version}\n")
    return after.partition("\n=== ")[0]


def until(path: Path) -> str:
    """Source: wait until somebody has made that file."""
    return f"while not pathlib.Path({str(path)!r}).exists(): time.sleep(0.001)"


def test_suites_run_beside_each_other_and_are_told_whole(tmp_path: Path) -> None:
    def meet(own: str, other: str) -> str:
        begin = [f"print('{own} begins')", f"pathlib.Path('{own}').touch()"]
        return "\n".join([*begin, until(Path(other)), f"print('{own} ends')", PASSES])

    status, told = Checkout(tmp_path, {"3.11": meet("a", "b"), "3.12": meet("b", "a")}).run()
    assert status == 0, told
    for version, own in (("3.11", "a"), ("3.12", "b")):
        said = told_of(version, told).splitlines()
        assert said[:3] == [f"{own} begins", f"{own} ends", "== 7 passed in 0.01s =="]
        assert told.index(f"started: tests on Python {version}") < told.index(f"{own} begins")
    assert told.endswith("all checks passed\n")


def test_any_failure_fails_the_whole_and_all_run_to_their_end(tmp_path: Path) -> None:
    broken = "print('== 1 failed, 6 passed in 0.01s ==')\nsys.exit(1)"
    status, told = Checkout(tmp_path, {"3.11": broken}).run()
    assert status == 1
    assert told.endswith("\nFAILED: tests on Python 3.11\n")
    assert "Python 3.11: == 1 failed, 6 passed in 0.01s ==\nPython 3.12: == 7 passed" in told
    assert told_of("3.13", told).startswith("== 7 passed")


def test_a_hung_suite_is_ended_and_what_it_said_is_told(tmp_path: Path) -> None:
    hung = "print('so far')\ntime.sleep(3600)"
    status, told = Checkout(tmp_path, {"3.12": hung}, limit=3).run()
    assert status == 1
    assert told_of("3.12", told).startswith("so far\n")
    assert "FAILED: tests on Python 3.12: stopped at its time limit\n" in told
    assert "Python 3.12: the tests did not end\n" in told
    assert "KeyboardInterrupt" in told, "it may tell what it was doing, as pytest does"


@pytest.mark.parametrize(("ci", "fails"), [("true", True), ("", False)])
def test_in_ci_nothing_is_skipped_for_want_of_a_server(tmp_path: Path, ci: str, fails: bool) -> None:
    skips = f"print('SKIPPED [1] tests/test_x.py:1: missing server: install it')\n{PASSES}"
    status, told = Checkout(tmp_path, {"3.13": skips}).run(CI=ci)
    assert status == fails
    assert ("FAILED: tests on Python 3.13: skipped tests" in told) == fails


def test_an_end_from_outside_leaves_nothing_running(tmp_path: Path) -> None:
    lasts = "pathlib.Path('began').write_text(str(os.getpid()))\ntime.sleep(3600)"
    with Checkout(tmp_path, {"3.11": lasts}).start() as process:
        end = time.monotonic() + SECONDS
        while not (began := tmp_path / "began").exists() or not began.read_text():
            assert time.monotonic() < end
            time.sleep(0.001)
        process.send_signal(signal.SIGTERM)
        process.communicate(timeout=SECONDS)
    assert process.returncode == 143
    with pytest.raises(ProcessLookupError):
        os.kill(int(began.read_text()), 0)
