"""Fixtures for pytest: ``pytest_plugins = ["asynctrace.testing.pytest_plugin"]`` in the outermost conftest.py.

It is no plug-in that installs itself: that would load asynctrace into every test session of an environment, before
coverage has begun to look.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from asynctrace.testing.capture import Traces, captured
from asynctrace.testing.clock import ManualClock
from asynctrace.testing.fixed import fixed_ids, fixed_time
from asynctrace.testing.losses import assert_no_loss as _assert_no_loss


@pytest.fixture
def traces() -> Iterator[Traces]:
    """What the test's code traces by default, caught in memory."""
    with captured() as caught:
        yield caught


@pytest.fixture
def assert_no_loss() -> Callable[..., None]:
    """:func:`asynctrace.testing.assert_no_loss`: of all pipelines, or of the stores it is given."""
    return _assert_no_loss


@pytest.fixture
def fixed_trace_ids() -> Iterator[None]:
    """The same ids of runs and spans in every run of the test."""
    with fixed_ids():
        yield


@pytest.fixture
def trace_clock() -> Iterator[ManualClock]:
    """The clock that stamps records; it stands until the test moves it."""
    with fixed_time() as clock:
        yield clock
