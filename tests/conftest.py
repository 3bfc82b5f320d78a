"""What tests of the process-wide state need."""

import itertools
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import hypothesis
import measurement
import pytest

import asynctrace
from asynctrace import Trace
from asynctrace.core.context import current_span
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.sinks.memory import MemorySink

# Where nobody can look at a failing example, the same examples every time: red means that the change is at fault.
hypothesis.settings.register_profile("ci", derandomize=True, deadline=None)
if os.environ.get("CI"):
    hypothesis.settings.load_profile("ci")


# The suite starts more than a thousand interpreters. Where none may write bytecode, each would compile the whole
# package anew, which is half of its time; they share what they compile in a directory of this run instead.
_bytecode = (
    tempfile.mkdtemp(prefix="asynctrace-bytecode-") if os.environ.get("PYTHONDONTWRITEBYTECODE") else None
)


def pytest_sessionstart() -> None:
    measurement.withhold()
    if _bytecode is not None:
        del os.environ["PYTHONDONTWRITEBYTECODE"]
        os.environ["PYTHONPYCACHEPREFIX"] = _bytecode
        os.chmod(_bytecode, 0o755)  # programs without rights read it


def pytest_sessionfinish() -> None:
    if _bytecode is not None:
        shutil.rmtree(_bytecode, ignore_errors=True)


@pytest.fixture(autouse=True)
def _no_state_of_others(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    """What a test leaves undelivered is not there for the next one, nor for the user."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path_factory.getbasetemp() / f"state-{next(_numbers)}"))


_numbers = itertools.count()


@pytest.fixture
def anyio_backend() -> str:
    """Where coroutine tests run, unless their module says otherwise."""
    return "asyncio"


@pytest.fixture
def nothing_left() -> Iterator[None]:
    """Every cause is said anew in each test, and no pipeline outlives its test."""
    diagnostics._last.clear()
    yield
    asynctrace.shutdown()


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """An empty current directory, no setting in the environment, nothing configured; given back so."""
    for name in [name for name in os.environ if name.startswith("ASYNCTRACE_") or name == "NO_COLOR"]:
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)
    asynctrace.shutdown()
    diagnostics._last.clear()  # what was said in another test may be said again
    yield tmp_path
    asynctrace.shutdown()


@pytest.fixture
def sink() -> MemorySink:
    return MemorySink()


@pytest.fixture
def trace(sink: MemorySink) -> Iterator[Trace]:
    """A run into the sink, entered and closed in plain code."""
    with Trace("run-42", sinks=[sink]) as trace:
        yield trace
    assert current_span.get() is None
