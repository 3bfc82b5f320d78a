"""A Trace: one run, from its first record to its last."""

from __future__ import annotations

import asyncio
import sys
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from contextvars import Token
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import Any, TypeVar

import asynctrace
from asynctrace import settings
from asynctrace.core import codec, ids
from asynctrace.core.codec import canonical
from asynctrace.core.context import SpanContext, current_span, current_trace
from asynctrace.core.exceptions import catch
from asynctrace.core.level import Level
from asynctrace.core.record import Detail, Kind, Status
from asynctrace.core.run import Run, RunContext
from asynctrace.emitter import Emitter
from asynctrace.errors import ConfigurationError, DeliveryError, LaneFailure
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.pipeline import AnySink, Pipeline
from asynctrace.pipeline.process import this_process
from asynctrace.span import Span, status_of

_S = TypeVar("_S")

_OFF = 1 << 30
"""A threshold that no level reaches."""


class _LongWay:
    """Stands before an Intake and looks full, so that every call takes the long way.

    Args:
        intake: the Intake behind it; None for a trace that is not open yet.
    """

    records: Sequence[Any] = ()
    limit = 0

    def __init__(self, intake: Intake | None) -> None:
        self._behind = intake

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


class BoundTrace(Emitter):
    """A handle on a run with fields of its own; made by ``bind``. It neither starts nor ends the run."""

    def __init__(self, trace: Trace, context: RunContext) -> None:
        self._trace = trace
        self._context = context
        self._intake = trace._intake
        self._span = None
        trace._handles.add(self)
        self._set_threshold(trace._threshold)

    def __repr__(self) -> str:
        return f"<BoundTrace of run {self.run_id!r} with {sorted(self._context.fields)}>"

    @property
    def run_id(self) -> str:
        """The run's id, as it was given or made."""
        return self._context.run.run_id

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits; child runs share it."""
        return self._context.run.trace_id

    def bind(self, **fields: Any) -> BoundTrace:
        """A further handle on the same run, with these fields on every record it makes; this one stays as it is."""
        return BoundTrace(self._trace, RunContext(self._context.run, {**self._context.fields, **_canonical(fields)}))

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span with this handle's fields on its records."""
        return Span(self._trace._intake, self._context, self._threshold, codec.text_of(name), fields)

    def opt(self, *, stacklevel: int = 1) -> DeepTrace:
        """A view for functions that wrap recording: ``stacklevel=2`` gives the call site of their caller."""
        return DeepTrace(self._trace, self._context, stacklevel)


class DeepTrace(BoundTrace):
    """A view whose records carry the call site further up the stack; made by ``opt``."""

    def __init__(self, trace: Trace, context: RunContext, stacklevel: int) -> None:
        if stacklevel < 1:
            raise ConfigurationError("stacklevel", stacklevel, "a whole number from 1: 1 is the caller")
        super().__init__(trace, context)
        self._stacklevel = stacklevel
        self._intake = _LongWay(trace._intake)  # type: ignore[assignment]

    def _emit(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        fields: dict[str, Any],
        frame: FrameType | None,
        *,
        patient: bool = False,
    ) -> None:
        for _ in range(self._stacklevel - 1):
            if frame is None or frame.f_back is None:
                break
            frame = frame.f_back
        super()._emit(level, message, args, fields, frame, patient=patient)


class Trace(Emitter):
    """One run: everything recorded through it, in its spans, tasks and threads, until it is closed.

    ``async with`` runs the pipeline on the running loop; ``with`` and plain use run it in the one loop thread of the
    process. Opened inside another run it becomes its child.

    Args:
        run_id: any text; by default a UUIDv7. The same id again is a further attempt of the same run.
        parent_run_id: the run that started this one; by default the enclosing run.
        name: what people call the run.
        sinks: URLs or sinks; by default the process default.
        fields: key-values that every record carries.
        level: the lowest level recorded; by default the setting ``level``.
        durability: None; the journal that other values ask for is not there yet.
        fail_silently: False makes ``flush``, ``close`` and leaving a block raise :class:`DeliveryError` for records
            that are not safe; it never masks the block's own exception.

    Raises:
        ConfigurationError: an argument cannot be used.

    Example:
        >>> with Trace("run-42", sinks=["memory:"], fields={"user_id": "u1"}) as trace:
        ...     trace.info("extracted", rows=120)
        >>> trace.status.label
        'ok'
    """

    def __init__(
        self,
        run_id: str | None = None,
        *,
        parent_run_id: str | None = None,
        name: str | None = None,
        sinks: Iterable[settings.SinkLike] | str | None = None,
        fields: Mapping[str, Any] | None = None,
        level: Level | str | int | None = None,
        durability: str | None = None,
        fail_silently: bool = True,
    ) -> None:
        if durability is not None:
            raise ConfigurationError("durability", durability, "None")
        self._run_id = ids.new_run_id() if run_id is None else codec.text_of(run_id)
        self._parent_run_id = None if parent_run_id is None else codec.text_of(parent_run_id)
        self._name = None if name is None else codec.text_of(name)
        self._sinks = sinks if sinks is None or isinstance(sinks, str) else tuple(sinks)
        self._fields = _canonical({str(key): value for key, value in (fields or {}).items()})
        self._level = None if level is None else Level.parse(level)
        self._fail_silently = fail_silently
        self._intake: Intake = _LongWay(None)  # type: ignore[assignment]
        self._span: SpanContext | None = None
        self._lease: settings.Lease | None = None
        self._lost: dict[str, int] = {}
        self._handles: weakref.WeakSet[BoundTrace] = weakref.WeakSet()
        self._lock = threading.RLock()
        self._token: Token[Any] | None = None
        self._started = 0
        self.status = Status.RUNNING
        settings.check_sinks(self._sinks)

    def __repr__(self) -> str:
        return f"<Trace {self._run_id!r} {self.status.label}>"

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id, as it was given or made."""
        return self._run_id

    @property
    def parent_run_id(self) -> str | None:
        """The run that started this one."""
        self._begin()
        return self._context.run.parent_run_id

    @property
    def name(self) -> str | None:
        """What people call the run."""
        return self._name

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits; child runs share it."""
        self._begin()
        return self._context.run.trace_id

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that every record carries, in canonical form."""
        return dict(self._fields)

    @property
    def pipeline(self) -> Pipeline:
        """Where the records go."""
        self._begin()
        assert self._lease is not None
        return self._lease.pipeline

    # -- opening ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._lease is None:
            self._open(None, _outer_frame())

    def _open(self, home: asyncio.AbstractEventLoop | None, frame: FrameType | None) -> None:
        with self._lock:
            if self._lease is not None:
                return
            values = settings.current_settings()
            lease = settings.lease(self._sinks, home)
            self._context = RunContext(self._make_run(), self._fields)
            self._intake = lease.pipeline.intake
            self._lost = {lane.lane: lane.lost for lane in lease.pipeline.stats().lanes}
            self._lease = lease
            self._started = perf_counter_ns()
            threshold = (self._level or values.level) if values.enabled else _OFF
            self._set_threshold(0 if threshold == Level.DEBUG else threshold)
            if values.enabled:
                process = self._context.run.process
                facts = codec.pack({"process_started": process.started, "boot_id": process.boot})
                self._tell(Kind.RUN_START, Detail(facts), frame)

    def _make_run(self) -> Run:
        outer: Trace | None = current_trace.get()
        parent_run_id, trace_id, parent_span_id = self._parent_run_id, ids.new_trace_id(), 0
        if outer is not None and outer._lease is not None:
            around = outer._context.run
            trace_id = int(around.trace_id, 16)
            span = current_span.get()
            parent_span_id = span.span_id if span is not None else around.span_id
            if parent_run_id is None and around.run_id != self._run_id:
                parent_run_id = around.run_id
        return Run(
            self._run_id,
            trace_id=trace_id,
            span_id=ids.new_span_id(),
            process=this_process(asynctrace.__version__),
            parent_run_id=parent_run_id,
            parent_span_id=parent_span_id,
            name=self._name,
            attempt=ids.new_producer(),
        )

    def _tell(self, kind: Kind, detail: Detail, frame: FrameType | None, level: int = Level.INFO) -> None:
        token = current_span.set(None)  # the run's own records stand outside any span
        try:
            self._put(level, self._name or self._run_id, detail, frame, kind=kind, patient=True)
        finally:
            current_span.reset(token)

    # -- handles ---------------------------------------------------------------------------------------------

    def bind(self, **fields: Any) -> BoundTrace:
        """A handle on the same run with these fields on every record it makes; the trace itself stays as it is."""
        self._begin()
        return BoundTrace(self, RunContext(self._context.run, {**self._fields, **_canonical(fields)}))

    def opt(self, *, stacklevel: int = 1) -> DeepTrace:
        """A view for functions that wrap recording: ``stacklevel=2`` gives the call site of their caller."""
        self._begin()
        return DeepTrace(self, self._context, stacklevel)

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span of this run; use it with ``with`` or ``async with``.

        Args:
            name: what people call it.
            fields: key-values on its start record.
        """
        if self._lease is None:
            self._begin()
        return Span(self._intake, self._context, self._threshold, codec.text_of(name), fields)

    # -- sinks -----------------------------------------------------------------------------------------------

    def sinks(self, kind: type[_S] | None = None) -> list[Any]:
        """The sinks, or those of one type, in the order they were added."""
        return self.pipeline.sinks(kind)

    def add_sink(self, sink: str | AnySink) -> AnySink:
        """Send the records from now on to this sink too; gives it back, for :meth:`remove_sink`.

        Raises:
            ConfigurationError: the URL cannot be used.
        """
        made = settings.make_sink(sink)
        self.pipeline.add_sink(made, settings.lane_options(made, settings.current_settings()))
        return made

    def remove_sink(self, sink: AnySink) -> None:
        """Deliver what is on its way to the sink, close it, take it out."""
        self.pipeline.remove_sink(sink)

    async def aremove_sink(self, sink: AnySink) -> None:
        """As :meth:`remove_sink`, from a coroutine."""
        await self.pipeline.aremove_sink(sink)

    # -- flushing and closing --------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> None:
        """Wait until every record emitted so far is safe in every lane.

        Args:
            timeout: seconds; None waits as long as it takes.

        Raises:
            DeliveryError: only with ``fail_silently=False``; names the lanes that hold or lost records.
        """
        if self._lease is not None:
            self._judge(self._lease.pipeline.flush(timeout))

    async def aflush(self, timeout: float | None = None) -> None:
        """As :meth:`flush`, without blocking the event loop."""
        if self._lease is not None:
            self._judge(await self._lease.pipeline.aflush(timeout))

    def close(self, timeout: float | None = None) -> None:
        """End the run and wait for its records; a second call does nothing.

        Args:
            timeout: seconds; by default the setting ``close_timeout``.

        Raises:
            DeliveryError: only with ``fail_silently=False``; names the lanes that hold or lost records.
        """
        self._close(None, timeout, _getframe(1))

    async def aclose(self, timeout: float | None = None) -> None:
        """As :meth:`close`, without blocking the event loop."""
        await self._aclose(None, timeout, _getframe(1))

    def __enter__(self) -> Trace:
        self._open(None, _getframe(1))
        self._token = current_trace.set(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(error, None, _getframe(1))

    async def __aenter__(self) -> Trace:
        self._open(asyncio.get_running_loop(), _getframe(1))
        self._token = current_trace.set(self)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._aclose(error, None, _getframe(1))

    def _close(self, error: BaseException | None, timeout: float | None, frame: FrameType | None) -> None:
        pipeline, last = self._end(error, frame)
        if pipeline is None:
            return
        seconds = pipeline.close_timeout if timeout is None else timeout
        unsafe: list[LaneFailure] = []
        if last:
            pipeline.close(seconds)
        else:
            unsafe = pipeline.flush(seconds)
        if error is None:
            self._judge(unsafe)

    async def _aclose(self, error: BaseException | None, timeout: float | None, frame: FrameType | None) -> None:
        pipeline, last = self._end(error, frame)
        if pipeline is None:
            return
        seconds = pipeline.close_timeout if timeout is None else timeout
        unsafe: list[LaneFailure] = []
        if last:
            await pipeline.aclose(seconds)
        else:
            unsafe = await pipeline.aflush(seconds)
        if error is None:
            self._judge(unsafe)

    def _end(self, error: BaseException | None, frame: FrameType | None) -> tuple[Pipeline | None, bool]:
        """Record the end of the run, once; the pipeline, and whether this was its last holder."""
        with self._lock:
            token, self._token = self._token, None
            if token is not None:
                try:
                    current_trace.reset(token)
                except ValueError:  # left in another context than entered
                    if current_trace.get() is self:
                        current_trace.set(None)
            if self.status is not Status.RUNNING or self._lease is None:
                return None, False
            self.status = status_of(error)
            if self._threshold != _OFF:
                failed = self.status is Status.ERROR and error is not None
                detail = Detail(
                    None,
                    catch(error) if failed and error is not None else None,
                    perf_counter_ns() - self._started,
                    self.status,
                )
                self._tell(Kind.RUN_END, detail, frame, Level.ERROR if failed else Level.INFO)
            return self._lease.pipeline, self._lease.is_last()

    def _judge(self, unsafe: list[LaneFailure]) -> None:
        if self._fail_silently or self._lease is None:
            return
        failures = {failure.lane: failure for failure in unsafe}
        for lane in self._lease.pipeline.stats().lanes:
            lost = lane.lost - self._lost.get(lane.lane, 0)
            self._lost[lane.lane] = lane.lost
            if lost:
                waiting = failures[lane.lane].records if lane.lane in failures else 0
                failures[lane.lane] = LaneFailure(lane.lane, lane.last_error or "dropped by policy", lost + waiting)
        if failures:
            raise DeliveryError(list(failures.values()))


_getframe = sys._getframe


def _outer_frame() -> FrameType | None:
    """The nearest frame outside this package: where the user is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("asynctrace."):
        frame = frame.f_back
    return frame


def _canonical(fields: Mapping[str, Any]) -> dict[str, Any]:
    try:
        return canonical(codec.pack(dict(fields)))
    except Exception:
        payload, interrupt = codec.pack_any(fields)
        if interrupt is not None:
            raise interrupt from None
        return canonical(payload)

