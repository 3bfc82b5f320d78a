"""The test kit: for asynctrace's own tests, for those of third-party sinks, and for programs that trace.

Needs nothing but the package; :class:`asynctrace.testing.contract.SinkContract` and the fixtures of
:mod:`asynctrace.testing.pytest_plugin` need pytest. Names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynctrace.testing.clock import ManualClock
from asynctrace.testing.records import make_batch, make_context, make_record, make_run

if TYPE_CHECKING:
    from asynctrace.testing.capture import Traces, captured
    from asynctrace.testing.contract import SinkContract
    from asynctrace.testing.fault_proxy import FaultProxy
    from asynctrace.testing.fixed import fixed_ids, fixed_time
    from asynctrace.testing.losses import aassert_no_loss, assert_no_loss
    from asynctrace.testing.scripted import ScriptedSink

__all__ = [
    "FaultProxy",
    "ManualClock",
    "ScriptedSink",
    "SinkContract",
    "Traces",
    "aassert_no_loss",
    "assert_no_loss",
    "captured",
    "fixed_ids",
    "fixed_time",
    "make_batch",
    "make_context",
    "make_record",
    "make_run",
]

_WHERE = {
    "FaultProxy": "fault_proxy",
    "ScriptedSink": "scripted",
    "SinkContract": "contract",
    "Traces": "capture",
    "aassert_no_loss": "losses",
    "assert_no_loss": "losses",
    "captured": "capture",
    "fixed_ids": "fixed",
    "fixed_time": "fixed",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"asynctrace.testing.{_WHERE[name]}"), name)
