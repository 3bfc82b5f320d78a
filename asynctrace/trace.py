"""A Trace: one run, from its first record to its last."""

from __future__ import annotations

import asyncio
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from contextvars import Token
from dataclasses import replace
from time import perf_counter_ns
from types import FrameType, TracebackType
from typing import Any, Literal, TypeVar

from asynctrace import composition, settings, unclosed
from asynctrace._version import __version__
from asynctrace.bound import BoundTrace, DeepTrace, canonical, widened
from asynctrace.core import codec, ids
from asynctrace.core.arguments import seconds_to_wait
from asynctrace.core.context import current_span, current_trace, span_of
from asynctrace.core.exceptions import catch
from asynctrace.core.level import Level
from asynctrace.core.record import Detail, Kind, RawRecord
from asynctrace.core.run import Run, RunContext
from asynctrace.core.status import Status
from asynctrace.emitter import Emitter, caller, recording
from asynctrace.errors import ClosedError, ConfigurationError, DeliveryError, LaneFailure
from asynctrace.outlet import OFF, LongWay, Nowhere, Outlet
from asynctrace.pipeline.awaited import Place
from asynctrace.pipeline.durability import DURABILITIES, Durability
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.pipeline import Pipeline
from asynctrace.pipeline.process import this_process
from asynctrace.pipeline.report import NOT_IN_TIME, FlushReport
from asynctrace.ports import AnySink
from asynctrace.receipt import DEFAULT_TIMEOUT, Receipt
from asynctrace.settings import SinkLike
from asynctrace.settings_table import truth_of
from asynctrace.span import Span, new_span, status_of

_S = TypeVar("_S")


@recording
class Trace(Emitter):
    """One run: everything recorded through it, in its spans, tasks and threads, until it is closed.

    ``async with`` runs the pipeline on the running loop; ``with`` and plain use run it in the one loop thread
    of the process. Opened inside another run it becomes its child. Without a block it opens itself when it is
    first used, and :meth:`close` ends it, or the end of the program.

    Args:
        run_id: any text; by default a UUIDv7. The same id again is a further attempt of the same run.
        parent_run_id: the run that started this one; by default the enclosing run.
        name: what people call the run.
        sinks: URLs (separated by whitespace in one text), sinks, or pairs of one and :class:`LaneOptions`; by
            default the process default or, where nothing is configured, those of the enclosing run.
        fields: key-values that every record carries.
        level: the lowest level recorded; by default the setting ``level``.
        durability: ``"process"``: what was recorded survives the death of the process, ``"disk"``: a power failure
            too, once it is flushed; ``"none"``: neither; by default the setting ``durability``.
        fail_silently: False makes ``flush``, ``close`` and leaving a block raise :class:`DeliveryError` for
            records that are not safe; it never masks the block's own exception. What waits on disk when the last
            holder closes is named too: before the next start nobody delivers it.

    Raises:
        ConfigurationError: an argument, or a setting that the trace needs, cannot be used.

    Example:
        >>> with Trace("run-42", sinks=["memory:"], fields={"user_id": "u1"}) as trace:
        ...     trace.info("extracted", rows=120)
        >>> trace.status.label
        'ok'
    """

    # The hot path finds a slot faster than an entry of a dict, above all in an object that has changed its class.
    __slots__ = (
        "__weakref__",
        "_context",
        "_durability",
        "_fail_silently",
        "_fields",
        "_inherits",
        "_intake",
        "_lease",
        "_level",
        "_lock",
        "_lost",
        "_name",
        "_outlet",
        "_parent_run_id",
        "_run_id",
        "_sinks",
        "_started",
        "_token",
        "status",
    )

    status: Status
    """How the run ended, or RUNNING."""

    _lease: composition.Lease
    _lost: dict[str, int]
    _started: int

    def __init__(
        self,
        run_id: str | None = None,
        *,
        parent_run_id: str | None = None,
        name: str | None = None,
        sinks: Iterable[SinkLike] | str | None = None,
        fields: Mapping[str, Any] | None = None,
        level: Level | str | int | None = None,
        durability: Durability | Literal["none"] | None = None,
        fail_silently: bool = True,
    ) -> None:
        if durability not in (None, "none", *DURABILITIES):
            raise ConfigurationError("durability", durability, f"none, {', '.join(DURABILITIES)}")
        if fields is not None and not isinstance(fields, Mapping):
            raise ConfigurationError("fields", type(fields).__name__, "a mapping of names to values")
        self._durability = durability
        self._run_id = ids.new_run_id() if run_id is None else codec.text_of(run_id)
        self._parent_run_id = None if parent_run_id is None else codec.text_of(parent_run_id)
        self._name = None if name is None else codec.text_of(name)
        self._sinks = composition.checked(sinks)
        self._fields = canonical(fields or {})
        self._level = None if level is None else Level.parse(level)
        self._fail_silently = truth_of("fail_silently", fail_silently)
        self._intake: Intake = LongWay(None)  # type: ignore[assignment]
        self._outlet: Outlet | None = None
        self._inherits = False  # the pipeline, from the outer run
        self._token: Token[Any] | None = None
        self._lock = threading.RLock()  # re-entrant: a finaliser may record while the trace is being opened
        self.status = Status.RUNNING

    def __repr__(self) -> str:
        return f"<Trace {self._run_id!r} {self.status.label}>"

    # -- what it is ------------------------------------------------------------------------------------------

    @property
    def run_id(self) -> str:
        """The run's id, as it was given or made."""
        return self._run_id

    @property
    def parent_run_id(self) -> str | None:
        """The run that started this one; asking opens the trace."""
        self._begin()
        return self._context.run.parent_run_id

    @property
    def name(self) -> str | None:
        """What people call the run."""
        return self._name

    @property
    def trace_id(self) -> str:
        """W3C trace id, 32 hex digits; child runs share it. Asking opens the trace."""
        self._begin()
        return self._context.run.trace_id

    @property
    def fields(self) -> dict[str, Any]:
        """The fields that every record carries, in canonical form."""
        return dict(self._fields)

    @property
    def pipeline(self) -> Pipeline:
        """Where the records go; asking opens the trace."""
        self._begin()
        return self._lease.pipeline

    # -- opening ---------------------------------------------------------------------------------------------

    def _begin(self) -> None:
        if self._outlet is None:
            self._open(None, _outer_frame())

    def _open(self, home: asyncio.AbstractEventLoop | None, frame: FrameType | None) -> Outlet:
        with self._lock:
            if self._outlet is not None:
                return self._outlet
            values = settings.current()
            level = (self._level or values.level) if values.enabled else OFF
            threshold = 0 if level == Level.DEBUG else int(level)
            self._lease = self._take_part(home)
            pipeline = self._lease.pipeline
            self._lost = {} if self._fail_silently else _lost(pipeline)
            self._context = RunContext(self._make_run(threshold), self._fields)
            self._started = perf_counter_ns()
            outlet = Outlet(pipeline.intake if values.enabled else Nowhere(), threshold)
            process = self._context.run.process
            facts = codec.pack({"process_started": process.started, "boot_id": process.boot})
            self._tell(outlet, Kind.RUN_START, Detail(facts), frame)
            outlet.join(self)
            pipeline.follow_level(outlet.lower)
            # From here on other threads record, behind the start of the run.
            self._intake = outlet.intake  # type: ignore[assignment]
            self._outlet = outlet
            unclosed.remember(self)
            return outlet

    def _outer(self) -> Trace | None:
        """The run that this one is opened in."""
        outer: Trace | None = current_trace.get()
        return outer if outer is not self and outer is not None and outer._outlet is not None else None

    def _take_part(self, home: asyncio.AbstractEventLoop | None) -> composition.Lease:
        """A part in the pipeline of the named sinks; else, where nothing is configured, in that of the outer run."""
        if self._sinks is None and (outer := self._outer()) is not None and not settings.is_configured():
            self._sinks = outer._sinks
            if self._durability in (None, outer._durability):
                self._durability = outer._durability
                with suppress(ClosedError):  # the outer run is over: its sinks are opened again
                    lease = outer._lease.share()
                    if not lease.pipeline.closed:
                        self._inherits = True
                        return lease
                    lease.release()
        return composition.lease(self._sinks, home, self._durability)

    def _make_run(self, level: int) -> Run:
        parent_run_id, trace_id, parent_span_id = self._parent_run_id, ids.new_trace_id(), 0
        if (outer := self._outer()) is not None:
            around = outer._context.run
            span = span_of(around, current_span.get())
            trace_id, parent_span_id = int(around.trace_id, 16), (span or around).span_id
            if parent_run_id is None and around.run_id != self._run_id:
                parent_run_id = around.run_id
        return Run(
            self._run_id,
            trace_id=trace_id,
            span_id=ids.new_span_id(),
            process=this_process(__version__),
            parent_run_id=parent_run_id,
            parent_span_id=parent_span_id,
            name=self._name,
            attempt=ids.new_producer(),
            level=level,
        )

    def _tell(
        self, outlet: Outlet, kind: Kind, detail: Detail, frame: FrameType | None, level: int = Level.INFO
    ) -> None:
        """Record the start or the end of the run, which stand outside any span."""
        code, lasti = (frame.f_code, frame.f_lasti) if frame is not None else (None, 0)
        message = self._name or self._run_id
        record = RawRecord(level, self._context, None, message, detail, code, lasti, kind.value)
        outlet.intake.put_record(record, patient=True)

    # -- handles ---------------------------------------------------------------------------------------------

    def bind(self, /, **fields: Any) -> BoundTrace:
        """A handle on the same run with these fields on every record it makes; the trace stays as it is."""
        outlet = self._outlet or self._open(None, caller())
        return BoundTrace(outlet, widened(self._context, fields))

    def opt(self, *, stacklevel: int = 1) -> BoundTrace:
        """A view for functions that wrap recording: ``stacklevel=2`` gives the call site of their caller.

        Raises:
            ConfigurationError: ``stacklevel`` is below 1.
        """
        outlet = self._outlet or self._open(None, caller())
        return DeepTrace(outlet, self._context, stacklevel)

    def span(self, name: object, /, **fields: Any) -> Span:
        """A span of this run; use it with ``with`` or ``async with``, once.

        Args:
            name: what people call it.
            fields: key-values on its start record.
        """
        if self._outlet is None:
            self._open(None, caller())
        return new_span(self, name, fields)

    def receipt(self, *, to: Place = "sink", timeout: float | None = DEFAULT_TIMEOUT) -> Receipt:
        """A block, for ``async with``, that ends when every record made inside it is safe.

        Args:
            to: ``"sink"``: every sink that admits them took them; ``"disk"``: it did, or they are in its spool.
            timeout: seconds that leaving the block may take; None waits as long as it takes.

        Raises:
            ConfigurationError: an argument cannot be used.

        Example:
            >>> with Trace("run-42", sinks=["memory:"]) as trace:
            ...     with trace.receipt() as receipt:
            ...         trace.info("paid", amount=120)
            ...     receipt.records
            1
        """
        outlet = self._outlet or self._open(None, caller())
        return Receipt(outlet.intake, to, timeout)

    # -- sinks -----------------------------------------------------------------------------------------------

    def sinks(self, kind: type[_S] | None = None) -> list[Any]:
        """The sinks of the trace's pipeline, or those of one type, in the order they were added."""
        return self.pipeline.sinks(kind)

    def add_sink(self, sink: SinkLike, *, level: Level | str | int | None = None) -> AnySink:
        """Send the records to come to this sink too; gives it back, for :meth:`remove_sink`.

        So are those that are still queued: recorded before, and not yet handed to the other sinks. A ``flush`` before
        it leaves none of them.

        It is added to the pipeline, so that it also receives what other traces on the same pipeline record.
        Sharing ends there: who names the old sinks from now on gets a pipeline of its own.

        Args:
            sink: a URL, a sink, or a pair of one and :class:`LaneOptions`.
            level: the lowest level that it takes, also below that of the traces; their other sinks keep theirs.

        Raises:
            ConfigurationError: the URL or the level cannot be used.
        """
        values = settings.current()
        made, options = composition.make_lane(sink, values)
        if level is not None:
            options = replace(options, level=Level.parse(level))
        pipeline = self.pipeline
        self._lease.part()
        pipeline.add_sink(made, options)
        return made

    def remove_sink(self, sink: AnySink) -> None:
        """Deliver what is on its way to the sink, close it, take it out of the pipeline.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        pipeline = self.pipeline
        self._lease.part()
        pipeline.remove_sink(sink)

    async def aremove_sink(self, sink: AnySink) -> None:
        """As :meth:`remove_sink`, without blocking the event loop."""
        pipeline = self.pipeline
        self._lease.part()
        await pipeline.aremove_sink(sink)

    # -- flushing and closing --------------------------------------------------------------------------------

    def flush(self, timeout: float | None = None) -> FlushReport:
        """Wait until every record emitted so far is safe in every lane, or settled otherwise.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            What is safe, on disk or pending in each lane; false when a lane was not done in time.

        Raises:
            DeliveryError: only with ``fail_silently=False``; names the lanes that hold or lost records.
        """
        seconds = seconds_to_wait(timeout)
        if self._outlet is None:
            return FlushReport((), done=True)
        report = self._lease.pipeline.flush(seconds)
        self._judge(report.failures)
        return report

    async def aflush(self, timeout: float | None = None) -> FlushReport:
        """As :meth:`flush`, without blocking the event loop."""
        seconds = seconds_to_wait(timeout)
        if self._outlet is None:
            return FlushReport((), done=True)
        report = await self._lease.pipeline.aflush(seconds)
        self._judge(report.failures)
        return report

    def close(self, timeout: float | None = None) -> None:
        """End the run and wait for its records; a second call does nothing.

        Args:
            timeout: seconds; by default the setting ``close_timeout``.

        Raises:
            DeliveryError: only with ``fail_silently=False``; names the lanes that hold or lost records.
        """
        self._close(None, seconds_to_wait(timeout), caller())

    async def aclose(self, timeout: float | None = None) -> None:
        """As :meth:`close`, without blocking the event loop."""
        await self._aclose(None, seconds_to_wait(timeout), caller())

    def __enter__(self) -> Trace:
        self._enter(None, caller())
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._close(error, None, caller())

    async def __aenter__(self) -> Trace:
        self._enter(asyncio.get_running_loop(), caller())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self._aclose(error, None, caller())

    def _enter(self, home: asyncio.AbstractEventLoop | None, frame: FrameType | None) -> None:
        if self._token is not None or self.status is not Status.RUNNING:
            raise ClosedError(f"{self!r} is entered once; open a new Trace, with the same run id for a retry")
        self._open(home, frame)
        self._token = current_trace.set(self)

    def _close(self, error: BaseException | None, timeout: float | None, frame: FrameType | None) -> None:
        pipeline, last = self._end(error, frame)
        if pipeline is None:
            return
        seconds = pipeline.close_timeout if timeout is None else timeout
        unsafe: Sequence[LaneFailure] = ()
        if last:
            pipeline.close(seconds)
            unsafe = _held(pipeline)
        elif self._inherits and pipeline.loop is asyncio._get_running_loop():
            pipeline.begin_flush()  # nobody can wait for it here; the outer run does at its end
        else:
            unsafe = pipeline.flush(seconds).failures
        if error is None:
            self._judge(unsafe)

    async def _aclose(
        self, error: BaseException | None, timeout: float | None, frame: FrameType | None
    ) -> None:
        pipeline, last = self._end(error, frame)
        if pipeline is None:
            return
        seconds = pipeline.close_timeout if timeout is None else timeout
        if last:
            await pipeline.aclose(seconds)
            unsafe = _held(pipeline)
        else:
            unsafe = (await pipeline.aflush(seconds)).failures
        if error is None:
            self._judge(unsafe)

    def _end(self, error: BaseException | None, frame: FrameType | None) -> tuple[Pipeline | None, bool]:
        """Record the end of the run, once; the pipeline, and whether the caller is to close it."""
        with self._lock:
            if not self._tell_end(error, frame):
                return None, False
            return self._lease.pipeline, self._lease.release()

    def _tell_end(self, error: BaseException | None, frame: FrameType | None) -> bool:
        """Record the end of the run; whether it had not ended before."""
        with self._lock:
            self._step_out()
            if self.status is not Status.RUNNING or self._outlet is None:
                return False
            self.status = status_of(error)
            unclosed.forget(self)
            failed = error is not None and self.status is Status.ERROR
            # An interrupt in there has become part of the record: closing has to go on.
            caught = catch(error)[0] if error is not None and failed else None
            detail = Detail(None, caught, perf_counter_ns() - self._started, self.status)
            self._tell(self._outlet, Kind.RUN_END, detail, frame, Level.ERROR if failed else Level.INFO)
            return True

    def _end_with_program(self, error: BaseException | None) -> None:
        """Nobody has closed the run. Its part in the pipeline is kept: all pipelines are closed next.

        Args:
            error: the exception that ends the program; None: it ends in order, which cuts a block off all the same.
        """
        cut_off = error is None and self._token is not None
        self._tell_end(asyncio.CancelledError() if cut_off else error, None)

    def _step_out(self) -> None:
        token, self._token = self._token, None
        if token is not None:
            try:
                current_trace.reset(token)
            except ValueError:  # left in another context than entered
                if current_trace.get() is self:
                    current_trace.set(None)

    def _judge(self, unsafe: Sequence[LaneFailure]) -> None:
        if self._fail_silently:
            return
        failures = {failure.lane: failure for failure in unsafe}
        before, self._lost = self._lost, _lost(self._lease.pipeline)
        for lane in self._lease.pipeline.stats().lanes:
            if lost := lane.lost - before.get(lane.lane, 0):
                waiting = failures[lane.lane].records if lane.lane in failures else 0
                reason = lane.last_error or "dropped by policy"
                failures[lane.lane] = LaneFailure(lane.lane, reason, lost + waiting)
        if failures:
            raise DeliveryError(list(failures.values()))


def _lost(pipeline: Pipeline) -> dict[str, int]:
    """How many records each lane has lost so far."""
    return {lane.lane: lane.lost for lane in pipeline.stats().lanes}


def _held(pipeline: Pipeline) -> Sequence[LaneFailure]:
    """What the lanes of a pipeline that has been closed hold, on disk or because closing itself hangs."""
    loop = pipeline.loop
    if loop is not None and loop is asyncio._get_running_loop():
        return ()  # closing has just begun there: nobody can say what it will leave
    return [
        LaneFailure(lane.lane, lane.last_error or NOT_IN_TIME, held)
        for lane in pipeline.stats().lanes
        if (held := lane.pending + lane.spooled)
    ]


def _outer_frame() -> FrameType | None:
    """The nearest frame outside this package: where the user is."""
    frame: FrameType | None = sys._getframe(1)
    while frame is not None and frame.f_globals.get("__name__", "").startswith("asynctrace."):
        frame = frame.f_back
    return frame
