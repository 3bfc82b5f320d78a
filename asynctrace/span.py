"""A Span: a named stretch of work inside a run."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Token
from threading import get_ident
from time import perf_counter_ns, time_ns
from types import CodeType, FrameType, TracebackType
from typing import Any

from asynctrace.core import codec
from asynctrace.core.codec import pack
from asynctrace.core.context import SpanContext, current_span
from asynctrace.core.exceptions import catch
from asynctrace.core.ids import new_span_id
from asynctrace.core.level import Level
from asynctrace.core.record import Detail, Kind, RawRecord, Status
from asynctrace.core.run import Run, RunContext
from asynctrace.emitter import Emitter
from asynctrace.pipeline.intake import Intake

_getframe = sys._getframe
_SPAN_START, _SPAN_END = Kind.SPAN_START.value, Kind.SPAN_END.value
_INFO, _ERROR = int(Level.INFO), int(Level.ERROR)


class Span(SpanContext, Emitter):
    """A span: entering records its start, leaving its end with duration and status.

    Made by :meth:`Trace.span`; use it with ``with`` or ``async with``. Records made by its methods belong to it, as do
    those of the trace's methods in code that runs inside it, tasks and threads that carry the context included.
    Leaving never raises, also when it happens in another context.
    """

    definition: CodeType | None = None
    """For ``@traced``: the function that the span is about; its first line stands for the call site."""

    def __init__(
        self, intake: Intake, context: RunContext, threshold: int, name: str, fields: dict[str, Any]
    ) -> None:
        # SpanContext's four, set here: a call of super().__init__ costs as much as all of them.
        self.run: Run = context.run
        self.name = name
        self.span_id = new_span_id()
        self.parent: SpanContext | None = None
        self._intake = intake
        self._context = context
        self._span = self
        self._fields = fields
        self._token: Token[SpanContext | None] | None = None
        self._started = 0
        if threshold:
            self._set_threshold(threshold)

    def __repr__(self) -> str:
        return f"<Span {self.name!r} {self.span_id:016x} of run {self.run.run_id!r}>"

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits."""
        return self.run.trace_id

    @property
    def traceparent(self) -> str:
        """The W3C ``traceparent`` header for a request made inside this span."""
        return f"00-{self.run.trace_id}-{self.span_id:016x}-01"

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span inside this one, wherever it is entered."""
        inner = Span(self._intake, self._context, self._threshold, codec.text_of(name), fields)
        inner.parent = self
        return inner

    # -- entering --------------------------------------------------------------------------------------------

    def __enter__(self) -> Span:
        self.start(_getframe(1))
        self._token = current_span.set(self)
        return self

    async def __aenter__(self) -> Span:
        # The frame behind a coroutine's own is that of whoever awaits it.
        self.start(_getframe(1))
        self._token = current_span.set(self)
        return self

    def start(self, frame: FrameType | None = None) -> None:
        """Record the start without becoming the current span; :meth:`end` goes with it.

        Args:
            frame: whose call site the record carries; by default the caller's.
        """
        if self.parent is None:
            self.parent = current_span.get()
        self._record(_SPAN_START, _INFO, Detail(self._payload(), task=_task_name()), frame or _getframe(1))
        self._started = perf_counter_ns()

    def _payload(self) -> bytes | None:
        if not self._fields:
            return None
        try:
            return pack(self._fields)
        except Exception:
            payload, interrupt = codec.pack_any(self._fields)
            if interrupt is not None:
                raise interrupt from None
            return payload

    # -- leaving ---------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._step_out()
        self.end(error, _getframe(1))

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._step_out()
        self.end(error, _getframe(1))

    def _step_out(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                current_span.reset(token)
            except (ValueError, RuntimeError):  # left in another context than entered, as a generator can be
                if current_span.get() is self:
                    current_span.set(self.parent)

    def end(self, error: BaseException | None = None, frame: FrameType | None = None) -> None:
        """Record the end with duration and status.

        Args:
            error: the exception that ended the span, if one did.
            frame: whose call site the record carries; by default the caller's.
        """
        duration = perf_counter_ns() - self._started
        if error is None:
            detail, level = Detail(None, None, duration, Status.OK), _INFO
        else:
            status = status_of(error)
            failed = status is Status.ERROR
            detail = Detail(None, catch(error) if failed else None, duration, status)
            level = _ERROR if failed else _INFO
        self._record(_SPAN_END, level, detail, frame or _getframe(1))

    def _record(self, kind: int, level: int, detail: Detail, frame: FrameType | None) -> None:
        intake = self._intake
        if self.definition is not None:
            code, lasti = self.definition, 0
        else:
            code, lasti = (frame.f_code, frame.f_lasti) if frame is not None else (None, 0)
        intake.append(
            RawRecord(
                time_ns(), level, self._context, self, self.name, detail, code, lasti, get_ident(), kind
            )
        )
        if not intake.pending:
            intake.wake()


def status_of(error: BaseException | None) -> Status:
    """How a block ended that was left with this exception."""
    if error is None:
        return Status.OK
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
        return Status.CANCELLED
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Status.OK
    return Status.ERROR


def _task_name() -> str | None:
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no event loop runs in this thread
        return None
    return task.get_name() if task is not None else None
