"""Bound traces: further handles on a run, with fields or a call site of their own."""

from __future__ import annotations

from collections.abc import Mapping
from types import FrameType
from typing import Any

from asynctrace.core import codec
from asynctrace.core.arguments import whole_number
from asynctrace.core.run import RunContext
from asynctrace.emitter import Emitter, recording
from asynctrace.outlet import LongWay, Outlet
from asynctrace.pipeline.awaited import Place
from asynctrace.receipt import DEFAULT_TIMEOUT, Receipt
from asynctrace.span import Span, new_span


@recording
class BoundTrace(Emitter):
    """A handle on a run with fields of its own; made by ``bind``. It neither starts nor ends the run."""

    __slots__ = ("__weakref__", "_context", "_intake", "_outlet")

    def __init__(self, outlet: Outlet, context: RunContext) -> None:
        self._outlet = outlet
        self._context = context
        self._intake = outlet.intake  # type: ignore[assignment]  # or what stands for it
        outlet.join(self)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of run {self.run_id!r} with {sorted(self._context.fields)}>"

    @property
    def run_id(self) -> str:
        """The run's id, as it was given or made."""
        return self._context.run.run_id

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits; child runs share it."""
        return self._context.run.trace_id

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that every record of this handle carries, in canonical form."""
        return dict(self._context.fields)

    def bind(self, /, **fields: Any) -> BoundTrace:
        """A further handle with these fields on every record it makes; this one stays as it is."""
        return BoundTrace(self._outlet, widened(self._context, fields))

    def opt(self, *, stacklevel: int = 1) -> BoundTrace:
        """A view for functions that wrap recording: ``stacklevel=2`` gives the call site of their caller.

        Raises:
            ConfigurationError: ``stacklevel`` is below 1.
        """
        return DeepTrace(self._outlet, self._context, stacklevel)

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span with this handle's fields on its records."""
        return new_span(self, name, fields)

    def receipt(self, *, to: Place = "sink", timeout: float | None = DEFAULT_TIMEOUT) -> Receipt:
        """As :meth:`Trace.receipt`."""
        return Receipt(self._outlet.intake, to, timeout)


class DeepTrace(BoundTrace):
    """A view whose records carry the call site further up the stack; made by ``opt``."""

    __slots__ = ("_stacklevel",)

    def __init__(self, outlet: Outlet, context: RunContext, stacklevel: int) -> None:
        super().__init__(outlet, context)
        self._stacklevel = whole_number("stacklevel", stacklevel, 1)
        self._intake = LongWay(outlet.intake)  # type: ignore[assignment]

    def bind(self, /, **fields: Any) -> BoundTrace:
        """As :meth:`BoundTrace.bind`, with the same call site."""
        return DeepTrace(self._outlet, widened(self._context, fields), self._stacklevel)

    def span(self, name: object, /, **fields: Any) -> Span:
        """As :meth:`BoundTrace.span`; a span's call site is where it is entered."""
        return BoundTrace(self._outlet, self._context).span(name, **fields)

    def _emit(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        fields: dict[str, Any],
        frame: FrameType | None,
        *,
        patient: bool = False,
        interrupt: BaseException | None = None,
    ) -> None:
        for _ in range(self._stacklevel - 1):
            if frame is None or frame.f_back is None:
                break
            frame = frame.f_back
        super()._emit(level, message, args, fields, frame, patient=patient, interrupt=interrupt)


def widened(context: RunContext, fields: Mapping[str, Any]) -> RunContext:
    """The same run with more fields bound; the new ones win."""
    return RunContext(context.run, {**context.fields, **canonical(fields)})


def canonical(fields: Mapping[str, Any]) -> dict[str, Any]:
    """The fields as they are now, in canonical form.

    Raises:
        BaseException: an interrupt (never an Exception) that came out of a value.
    """
    payload, interrupt = codec.pack_any(fields)
    if interrupt is not None:
        raise interrupt
    return codec.canonical(payload)
