"""A Span: a named stretch of work inside a run."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Token
from threading import get_ident
from time import perf_counter_ns, time_ns
from types import CodeType, FrameType, TracebackType
from typing import Any

from asynctrace.core import codec, ids
from asynctrace.core.codec import pack
from asynctrace.core.context import SpanContext, current_span
from asynctrace.core.exceptions import catch
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, RawRecord
from asynctrace.core.run import Run, RunContext
from asynctrace.core.status import Status
from asynctrace.emitter import Emitter, caller, recording
from asynctrace.errors import ClosedError
from asynctrace.outlet import Outlet
from asynctrace.pipeline.intake import Intake

_getframe = sys._getframe
_SPAN_START, _SPAN_END = Kind.SPAN_START.value, Kind.SPAN_END.value
_INFO, _ERROR = int(Level.INFO), int(Level.ERROR)
_OK = Status.OK
_ENDED = -1
_get_current, _set_current = current_span.get, current_span.set
_running_loop = asyncio._get_running_loop
# Until 3.12 ``current_task`` is a Python function around this dict, and costs three times as much.
_task_of = asyncio.current_task if sys.version_info >= (3, 12) else asyncio.tasks._current_tasks.get  # type: ignore[attr-defined]


@recording
class Span(SpanContext, Emitter):
    """A span: entering records its start, leaving its end with duration and status.

    Made by :meth:`Trace.span`; use it with ``with`` or ``async with``, once. Records made by its methods belong
    to it, as do those of the trace's methods in code that runs inside it, tasks and threads that carry the
    context included. Leaving never raises, also when it happens in another context.
    """

    __slots__ = ("_context", "_fields", "_intake", "_started", "_token", "definition")

    _inside = True

    definition: CodeType | None
    """For ``@traced``: the function that the span is about; its first line stands for the call site."""

    def __init__(self, intake: Intake, context: RunContext, name: str, fields: dict[str, Any]) -> None:
        # SpanContext's own are set here: a call of super().__init__ costs as much as all of them.
        self.run: Run = context.run
        self.name = name
        self.span_id = ids.new_span_id()
        self.parent: SpanContext | None = None
        self.definition = None
        self._intake = intake
        self._context = context
        self._fields = fields
        self._token: Token[SpanContext | None] | None = None
        self._started = 0  # perf_counter_ns; 0 before, _ENDED after

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
        inner = new_span(self, name, fields)
        inner.parent = self
        return inner

    # -- entering --------------------------------------------------------------------------------------------

    def __enter__(self) -> Span:
        self.start(_getframe(1))
        self._token = _set_current(self)
        return self

    async def __aenter__(self) -> Span:
        # The frame behind a coroutine's own is that of whoever awaits it.
        self.start(_getframe(1))
        self._token = _set_current(self)
        return self

    def start(self, frame: FrameType | None = None) -> None:
        """Record the start without becoming the current span; :meth:`end` goes with it.

        Args:
            frame: whose call site the record carries; by default the caller's.

        Raises:
            ClosedError: the span was started before; a further stretch of work is a further span.
        """
        if self._started:
            raise ClosedError(f"{self!r} was started before; make a new span")
        if self.parent is None:
            self.parent = _get_current()
        loop = _running_loop()
        self.task = None if loop is None else _task_of(loop)
        fields = self._fields
        interrupt = None
        try:
            payload = pack(fields) if fields else None
        except BaseException as error:
            payload, interrupt = codec.pack_any(fields)
            interrupt = interrupt or error
        self._record(_SPAN_START, _INFO, payload, frame or caller())
        self._started = perf_counter_ns()
        if interrupt is not None and not isinstance(interrupt, Exception):
            self.end(interrupt)  # the block will not be entered
            raise interrupt

    # -- leaving ---------------------------------------------------------------------------------------------

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error, caller())
        self._step_out()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.end(error, caller())
        self._step_out()

    def _step_out(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                current_span.reset(token)
            except (ValueError, RuntimeError):  # left in another context than entered, as a generator can be
                if current_span.get() is self:
                    current_span.set(self.parent)

    def end(self, error: BaseException | None = None, frame: FrameType | None = None) -> None:
        """Record the end with duration and status; nothing when the span does not run.

        Args:
            error: the exception that ended the span, if one did.
            frame: whose call site the record carries; by default the caller's.
        """
        if self._started <= 0:
            return
        self.duration_ns = perf_counter_ns() - self._started
        self._started = _ENDED
        level = _INFO
        if error is None:
            self.status, self.caught = _OK, None
        else:
            self.status = status_of(error)
            failed = self.status is Status.ERROR
            self.caught = catch(error) if failed else None
            level = _ERROR if failed else _INFO
        self._record(_SPAN_END, level, None, frame or caller())

    def _record(self, kind: int, level: int, payload: bytes | None, frame: FrameType | None) -> None:
        definition = self.definition
        code, lasti = definition, 0
        if definition is None and frame is not None:
            code, lasti = frame.f_code, frame.f_lasti
        intake = self._intake
        intake.append(
            RawRecord(
                time_ns(), level, self._context, self, self.name, payload, code, lasti, get_ident(), kind
            )
        )
        if not intake.pending:
            intake.wake()


class QuietSpan(Span):
    """A span below whose threshold recording does nothing; only it needs room for methods of its own."""

    _outlet: Outlet


def new_span(handle: Emitter, name: object, fields: dict[str, Any]) -> Span:
    """A span with the handle's run, fields and threshold."""
    text = name if type(name) is str else codec.text_of(name)
    if not handle._threshold:
        return Span(handle._intake, handle._context, text, fields)
    span = QuietSpan(handle._intake, handle._context, text, fields)
    span._outlet = handle._outlet  # type: ignore[attr-defined]  # only a handle of an outlet has a threshold
    span._outlet.join(span)
    return span


def status_of(error: BaseException | None) -> Status:
    """How a block ended that was left with this exception."""
    if error is None:
        return Status.OK
    if isinstance(error, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
        return Status.CANCELLED
    if isinstance(error, SystemExit) and error.code in (None, 0):
        return Status.OK
    return Status.ERROR
