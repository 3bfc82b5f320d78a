"""The test kit: for asynctrace's own tests and for those of third-party sinks.

Needs nothing but the package; :class:`asynctrace.testing.contract.SinkContract` needs pytest and is loaded
when it is asked for.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from asynctrace.testing.clock import ManualClock
from asynctrace.testing.records import make_batch, make_context, make_record, make_run

if TYPE_CHECKING:
    from asynctrace.testing.contract import SinkContract

__all__ = ["ManualClock", "SinkContract", "make_batch", "make_context", "make_record", "make_run"]


def __getattr__(name: str) -> Any:
    if name == "SinkContract":
        from asynctrace.testing.contract import SinkContract

        return SinkContract
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
