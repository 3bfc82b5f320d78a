"""A Span: a named stretch of work inside a run."""

from __future__ import annotations

import asyncio
import sys
from contextvars import Token
from functools import cache
from time import perf_counter_ns
from types import CodeType, FrameType, TracebackType
from typing import Any

from asynctrace.core import codec, ids
from asynctrace.core.codec import pack
from asynctrace.core.context import SpanContext, current_span
from asynctrace.core.exceptions import catch
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, RawRecord
from asynctrace.core.run import RunContext
from asynctrace.core.status import Status
from asynctrace.core.text import is_interrupt
from asynctrace.emitter import Emitter, caller, recording
from asynctrace.errors import ClosedError
from asynctrace.handles import COLOURS, Awaited, variant
from asynctrace.outlet import Outlet
from asynctrace.pipeline.intake import Intake

_getframe = sys._getframe
_code_of = SystemExit.__dict__["code"].__get__
_SPAN_START, _SPAN_END = Kind.SPAN_START.value, Kind.SPAN_END.value
_INFO, _ERROR = int(Level.INFO), int(Level.ERROR)
_OK = Status.OK
_get_current, _set_current, _reset_current = current_span.get, current_span.set, current_span.reset
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

    _inside = True

    __slots__ = ("_context", "_fields", "_intake", "_started", "_token", "definition")

    definition: CodeType | None
    """For ``@traced``: the function that the span is about; its first line stands for the call site."""

    # Set in new_span.
    _intake: Intake
    _context: RunContext
    _fields: dict[str, Any] | None  # until it is started
    _started: int | None  # perf_counter_ns, while it runs
    _token: Token[SpanContext | None] | None

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

    def __enter__(self, frame: FrameType | None = None) -> Span:
        frame = frame or _getframe(1)
        fields = self._fields
        if fields is None:
            raise ClosedError(f"{self!r} was started before; make a new span")
        self._fields = None
        if self.parent is None:
            self.parent = _get_current()
        loop = _running_loop()
        self.task = None if loop is None else _task_of(loop)
        interrupt = None
        try:
            payload = pack(fields) if fields else None
        except BaseException as error:
            payload, interrupt = codec.pack_any(fields)
            interrupt = interrupt or error
        code, lasti = self.definition, 0
        if code is None:
            code, lasti = frame.f_code, frame.f_lasti
        intake = self._intake
        append = intake.append  # as in the emitter; there is no method for this, for the cost of calling it
        append(
            RawRecord(
                _INFO,
                self._context,
                self,
                self.name,
                payload,
                code,
                lasti,
                _SPAN_START,
            )
        )
        self._started = perf_counter_ns()
        if not intake.pending:
            intake.wake()
        if interrupt is not None and is_interrupt(interrupt):
            self.end(interrupt)  # the block will not be entered
            raise interrupt
        self._token = _set_current(self)
        return self

    async def __aenter__(self) -> Span:
        # The frame behind a coroutine's own is that of whoever awaits it.
        return self.__enter__(_getframe(1))

    def start(self, frame: FrameType | None = None) -> None:
        """Record the start without becoming the current span; :meth:`end` goes with it.

        Args:
            frame: whose call site the record carries; by default the caller's.

        Raises:
            ClosedError: the span was started before; a further stretch of work is a further span.
        """
        self.__enter__(frame or caller())
        token, self._token = self._token, None
        if token is not None:
            _reset_current(token)

    # -- leaving ---------------------------------------------------------------------------------------------

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
        frame: FrameType | None = None,
    ) -> None:
        try:
            self.end(error, frame or caller())
        finally:
            token, self._token = self._token, None
            if token is not None:
                try:
                    _reset_current(token)
                except (ValueError, RuntimeError):
                    # Left in another context than entered, as a generator can be.
                    if _get_current() is self:
                        _set_current(self.parent)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.__exit__(kind, error, traceback, caller())

    def end(self, error: BaseException | None = None, frame: FrameType | None = None) -> None:
        """Record the end with duration and status; nothing when the span does not run.

        Args:
            error: the exception that ended the span, if one did.
            frame: whose call site the record carries; by default the caller's.
        """
        started = self._started
        if started is None:
            return
        self._started = None
        interrupt = None
        self.duration_ns = perf_counter_ns() - started
        level = _INFO
        if error is None:
            self.status, self.caught = _OK, None
        else:
            self.status = status_of(error)
            failed = self.status is Status.ERROR
            self.caught, interrupt = catch(error) if failed else (None, None)
            level = _ERROR if failed else _INFO
        code, lasti = self.definition, 0
        if code is None:
            frame = frame or caller()
            if frame is not None:
                code, lasti = frame.f_code, frame.f_lasti
        intake = self._intake
        append = intake.append
        append(RawRecord(level, self._context, self, self.name, None, code, lasti, _SPAN_END))
        if not intake.pending:
            intake.wake()
        if interrupt is not None:  # it struck while the exception told what it is
            raise interrupt


class QuietSpan(Span):
    """A span whose methods below the threshold do nothing, until the outlet's is lowered.

    Spans are many and short-lived: the outlet does not know them, they look at it.
    """

    __slots__ = ("_outlet",)

    _outlet: Outlet

    def _enabled(self, level: int) -> bool:
        return level >= self._outlet.threshold


def new_span(handle: Emitter, name: object, fields: dict[str, Any]) -> Span:
    """A span with the handle's run, fields and threshold."""
    # No __init__: its frame would cost as much as all of this.
    if handle._threshold:
        outlet: Outlet = handle._outlet  # type: ignore[attr-defined]  # only a handle of an outlet has a threshold
        quiet = (outlet.span_class or quiet_span)(outlet.threshold)()
        quiet._outlet = outlet
        span: Span = quiet
    else:
        span = Span()
    span._context = context = handle._context
    span.run = context.run
    span.name = name if type(name) is str else codec.text_of(name)
    span.span_id = next(ids.span_ids)
    span.parent = span.definition = span._started = span._token = None
    span._intake = handle._intake
    span._fields = fields
    return span


@cache
def quiet_span(threshold: int) -> type[QuietSpan]:
    """The class of spans with that threshold."""
    own = {
        prefix + level.label: _silent(level, long_way, result)
        for level in Level
        if level < threshold
        for prefix, long_way, result in COLOURS
    }
    return variant(QuietSpan, Span, threshold, own)


def _silent(level: Level, long_way: str, result: Awaited | None) -> Any:
    def record(self: QuietSpan, message: object, /, *args: object, **fields: Any) -> Any:
        if level < self._outlet.threshold:
            return result
        return getattr(self, long_way)(int(level), message, args, fields, caller())

    return record


def status_of(error: BaseException | None) -> Status:
    """How a block ended that was left with this exception."""
    if error is None:
        return Status.OK
    kind = type(error)  # isinstance would ask the error's own __class__, and its code may be any object
    if issubclass(kind, (asyncio.CancelledError, KeyboardInterrupt, GeneratorExit)):
        return Status.CANCELLED
    if issubclass(kind, SystemExit):
        code = _code_of(error)
        return Status.OK if code is None or (type(code) in (int, bool) and code == 0) else Status.ERROR
    return Status.ERROR
