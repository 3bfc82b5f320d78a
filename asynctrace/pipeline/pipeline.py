"""A Pipeline: one Intake, one Writer, a lane for each sink, at home on one event loop."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Literal, TypeVar

from asynctrace.core.ids import new_producer
from asynctrace.core.redaction import Redactor
from asynctrace.core.run import RunContext
from asynctrace.errors import ClosedError
from asynctrace.pipeline import home
from asynctrace.pipeline.chore import Chore
from asynctrace.pipeline.closing import Closing
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.flushing import Flushing
from asynctrace.pipeline.journal import MAX_BYTES
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.protection import Protection
from asynctrace.pipeline.report import FlushReport
from asynctrace.pipeline.residence import Residence
from asynctrace.pipeline.roster import Roster
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.pipeline.writer import DEFAULT_LINGER, Writer
from asynctrace.ports import AnySink, Processor

DEFAULT_CLOSE_TIMEOUT = 5.0
"""Seconds that closing may take; a back end that is down must not hang the exit."""

DEFAULT_CAPACITY = 1_000_000
"""Records in the Intake: about 250 bytes each while they wait there."""

DEFAULT_CAPACITY_BYTES = 512 << 20
"""Bytes in the Intake: usual records reach the other bound first."""

Recovers = Literal["own", "all"]
"""What a pipeline recovers of the journals of killed processes: what was meant for its sinks, or all, for each sink."""

_S = TypeVar("_S")


class Pipeline:
    """Takes records from every thread and delivers them to its sinks.

    Starts nothing before the first record. ``async with`` puts its home on the running loop; without, its
    home is the one loop thread of the process.

    Args:
        sinks: where the records go; a lane for each.
        processors: called by the writer on each finished record; None filters it.
        linger: seconds that the writer waits for more records after the first of a burst.
        capacity: records that the Intake holds.
        capacity_bytes: bytes that it holds.
        block_timeout: seconds that a sync recording method may wait for room before it drops a record; never in a
            thread that runs an event loop.
        close_timeout: seconds that closing may take while no local store makes progress.
        state: where what cannot be delivered is kept until the next start; None: nowhere.
        options: how the lanes behave; by default :data:`LOCAL` for local sinks and :data:`REMOTE` for others.
        chore: blocking work to do now and then while records flow, such as retention; None: nothing.
        redactor: takes the secrets out of each record, after the processors; by default ``Redactor()``.
        durability: what a record survives once its call has returned, see :data:`Durability`; None: nothing. It
            needs a state directory.
        journal_max_bytes: bytes on disk for records that are not safe yet.
        recovers: see :data:`Recovers`.

    Example:
        >>> from asynctrace.sinks.memory import MemorySink
        >>> Pipeline(MemorySink()).stats().emitted
        0
    """

    def __init__(
        self,
        *sinks: AnySink,
        processors: Sequence[Processor] = (),
        linger: float = DEFAULT_LINGER,
        capacity: int = DEFAULT_CAPACITY,
        capacity_bytes: int = DEFAULT_CAPACITY_BYTES,
        block_timeout: float = 0.0,
        close_timeout: float = DEFAULT_CLOSE_TIMEOUT,
        options: LaneOptions | None = None,
        redactor: Redactor | None = None,
        state: StateDirectory | None = None,
        chore: Chore | None = None,
        durability: Durability | None = None,
        journal_max_bytes: int = MAX_BYTES,
        recovers: Recovers = "own",
    ) -> None:
        self.redactor = redactor or Redactor()
        self._processors = tuple(processors)
        self._linger = linger
        self._finisher = Finisher(new_producer(), self._processors, self.redactor)
        self._protection = Protection(state, durability, journal_max_bytes, self.redactor)
        self.intake = self._protection.new_intake(
            capacity,
            capacity_bytes,
            self._wake,
            lambda: self.producer,
            block_timeout=block_timeout,
            is_at_home=self._is_at_home,
        )
        self.recovery = self._protection.new_recovery(
            lambda: self._roster, self._processors, to_all=recovers == "all"
        )
        self._roster = Roster(self._finisher, options, state, self._tell_drops, self.recovery, durability)
        self._residence = Residence(
            self.intake,
            self._roster,
            self._new_writer(),
            self.producer,
            partial(home.unregister, self),
            chore,
        )
        self._flushing = Flushing(self._residence)
        self.closing = Closing(self._residence, self._flushing, close_timeout)
        for sink in sinks:
            self._roster.add(sink)
        self._serve()
        home.register(self)

    def _new_writer(self) -> Writer:
        return self._protection.new_writer(self.intake, self._finisher, self._roster, self._linger)

    def _serve(self) -> None:
        self._protection.serve(self.intake, self._roster)

    def _wake(self) -> None:
        self._residence.wake()

    def _is_at_home(self) -> bool:
        loop = self._residence.loop
        return loop is not None and loop.is_running()

    def _tell_drops(self, lane: str, reason: str, count: int, run: RunContext) -> None:
        self._residence.tell_drops(lane, reason, count, run)

    def __repr__(self) -> str:
        sinks = ", ".join(map(repr, self.sinks()))
        return f"<Pipeline {self.producer} {self._residence.phase.value}: {sinks}>"

    @property
    def producer(self) -> str:
        """The id under which this pipeline numbers its records in this process."""
        return self._finisher.producer

    @property
    def loop(self) -> asyncio.AbstractEventLoop | None:
        """The home loop, once there is one."""
        return self._residence.loop or self._residence.chosen

    @property
    def closed(self) -> bool:
        """Whether closing has begun."""
        return self._residence.is_closed

    @property
    def keeps(self) -> bool:
        """Whether each lane keeps on disk what its sink does not take."""
        return all(lane.key is not None for lane in self._roster.lanes)

    @property
    def close_timeout(self) -> float:
        """Seconds that closing may take while no local store makes progress; may be set."""
        return self.closing.timeout

    @close_timeout.setter
    def close_timeout(self, seconds: float) -> None:
        self.closing.timeout = seconds

    # -- sinks -----------------------------------------------------------------------------------------------

    def sinks(self, kind: type[_S] | None = None) -> list[Any]:
        """The sinks, or those of one type, in the order they were added."""
        return self._roster.sinks(kind)

    @property
    def lanes(self) -> tuple[str, ...]:
        """The names of the lanes, in the order of the sinks."""
        return tuple(lane.name for lane in self._roster.lanes)

    def options_of(self, sink: AnySink) -> LaneOptions:
        """How the lane to that sink behaves.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        return self._roster.lane_of(sink).options

    def add_sink(self, sink: AnySink, options: LaneOptions | None = None) -> None:
        """Open a lane to the sink; it sees the records that the writer takes from now on.

        Args:
            sink: the destination.
            options: how its lane behaves; the pipeline's own by default.
        """

        def add() -> None:
            lane = self._roster.add(sink, options)
            self._serve()
            if self._residence.tasks:
                self._residence.run(lane)

        self._residence.on_home(add)

    async def aremove_sink(self, sink: AnySink) -> None:
        """Deliver what is on its way to the sink, close it, take it out.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        lane = self._roster.lane_of(sink)
        await self.aflush(self.close_timeout)
        done = self.closing.take_out(lane)
        if done is not None:
            await asyncio.wrap_future(done)

    def remove_sink(self, sink: AnySink) -> None:
        """As :meth:`aremove_sink`; waits at most ``close_timeout`` seconds.

        Raises:
            ConfigurationError: the pipeline has no such sink.
        """
        lane = self._roster.lane_of(sink)
        self.flush(self.close_timeout)
        done = self.closing.take_out(lane)
        if done is not None:
            self.wait(done, self.close_timeout + home.GRACE)

    def follow_level(self, follower: Callable[[int], None]) -> None:
        """Tell the bound method, weakly held, now and later: the lowest level that a lane asks for by itself.

        A lane without a level takes what each run asks for, and does not count.
        """
        self._roster.follow_level(follower)

    # -- flushing --------------------------------------------------------------------------------------------

    async def aflush(self, timeout: float | None = None) -> FlushReport:
        """Wait until every record emitted so far is safe in every lane, or settled otherwise.

        May be awaited on any event loop. When the home loop ends meanwhile, the next home goes on with it.

        Args:
            timeout: seconds; None waits as long as it takes.

        Returns:
            What is safe, on disk or pending in each lane; false when a lane was not done in time.
        """
        if asyncio._get_running_loop() is None:  # a forked child inside the parent's coroutine
            return self.flush(timeout)
        return await self._flushing.see_through(timeout)

    def flush(self, timeout: float | None = None) -> FlushReport:
        """As :meth:`aflush`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it only hurries the writer, and says so once.
        """
        return self._flushing.wait(timeout)

    def begin_flush(self, *, to_disk: bool = False) -> concurrent.futures.Future[None]:
        """Put a barrier behind everything emitted so far; done when all of that is settled.

        Args:
            to_disk: whether what the sinks do not take soon is to go to the disk.
        """
        return self._flushing.begin(to_disk=to_disk)

    # -- closing ---------------------------------------------------------------------------------------------

    async def __aenter__(self) -> Pipeline:
        self.settle_on(asyncio.get_running_loop())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.aclose()

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def start(self) -> None:
        """Begin without a record: what earlier processes left is delivered."""
        self._residence.start()

    def settle_on(self, loop: asyncio.AbstractEventLoop) -> None:
        """Make that loop the home, if the pipeline has none yet.

        Raises:
            ClosedError: the pipeline has been closed.
        """
        if self.closed:
            raise ClosedError(f"{self!r} has been closed; make a new one")
        if self.loop is None:
            self._residence.chosen = loop

    async def aclose(self, timeout: float | None = None) -> None:
        """Deliver what was emitted, close the sinks; what is not safe at the deadline is counted and told.

        A cancellation is obeyed after the deadline at the latest: the records come first. A second call waits
        for the first.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        if asyncio._get_running_loop() is None:  # a forked child inside the parent's coroutine
            self.close(timeout)
            return
        await self.closing.see_through(self.closing.begin(self.close_timeout if timeout is None else timeout))

    def close(self, timeout: float | None = None) -> None:
        """As :meth:`aclose`, for code without an event loop.

        On the pipeline's own home loop it cannot wait: it schedules the closing and names ``aclose``.

        Args:
            timeout: seconds; by default the pipeline's ``close_timeout``.
        """
        self.closing.wait(self.closing.begin(self.close_timeout if timeout is None else timeout))

    def leave_loop(self, loop: asyncio.AbstractEventLoop) -> bool:
        """That loop is about to be closed: what is left is delivered at another home; whether it was this one's."""
        return self._residence.leave_loop(loop)

    def after_fork(self) -> None:
        """In a forked child: everything inherited is the parent's; keep it, use none of it, start afresh."""
        self._finisher = Finisher(new_producer(), self._processors, self.redactor)
        self.intake.clear()
        if self.recovery is not None:
            self.recovery.after_fork()
        inherited = self._roster.after_fork(self._finisher)
        self._serve()
        self._residence.after_fork(self._new_writer(), self.producer, inherited)

    # -- asking from anywhere --------------------------------------------------------------------------------

    def stats(self) -> PipelineStats:
        """The ledger now; taken on the home loop, so that it balances to the record."""
        try:
            return self._residence.on_home(self._stats, timeout=1.0)
        except (TimeoutError, concurrent.futures.TimeoutError):
            return self._stats(approximate=True)

    def _stats(self, approximate: bool = False) -> PipelineStats:
        queued = self.intake.queued
        return PipelineStats(
            producer=self.producer,
            emitted=self._finisher.next_seq - 1 + queued,
            queued=queued,
            dropped=self.intake.dropped,
            lanes=tuple(lane.stats(queued) for lane in self._roster.lanes),
            approximate=approximate,
            started_ns=self._finisher.started_ns,
            unprotected=self.intake.unprotected,
        )

    def wait(self, done: concurrent.futures.Future[None], timeout: float | None) -> bool:
        """Wait in this thread for what the home loop does; whether it is done."""
        return self._residence.wait(done, timeout)
