"""A Receipt: tells when every record of a block is safe, or what became of the others."""

from __future__ import annotations

import asyncio
import concurrent.futures
import logging
from collections.abc import Sequence
from contextvars import Token
from time import monotonic
from types import TracebackType
from typing import get_args

from asynctrace.core.arguments import seconds_to_wait
from asynctrace.errors import ClosedError, ConfigurationError, DeliveryError, LaneFailure
from asynctrace.pipeline import awaited, home
from asynctrace.pipeline.awaited import Awaited, Part, Place
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.pipeline import Pipeline
from asynctrace.pipeline.report import NOT_IN_TIME, LaneReport
from asynctrace.pipeline.watch import Watch

DEFAULT_TIMEOUT = 30.0
"""Seconds that leaving the block may take: a back end that is away must not hold its caller for ever."""


class Receipt:
    """Leaving the block waits until every record made inside it is safe in every lane that admits it.

    Made by ``trace.receipt()``; use it with ``async with`` or, where no event loop runs, ``with``, once. It covers
    what this task and the tasks and threads that carry its context record inside the block: through any trace, span,
    bound handle or child run, structural records included. What a lane's rule or a processor holds back is not
    waited for. An exception of the block is never masked: the receipt then waits all the same, but what it finds is
    told on the logger ``asynctrace`` and by :attr:`failures`; a cancelled block is left at once.

    Args:
        intake: of the trace, whose home loop must not be blocked; None for none.
        to: ``"sink"``: the sinks took the records; ``"disk"``: they did, or the records are in the lane's spool.
        timeout: seconds that leaving may take; None waits as long as it takes.

    Raises:
        ConfigurationError: ``to`` or ``timeout`` cannot be used.
    """

    def __init__(self, intake: object, to: Place, timeout: float | None) -> None:
        if to not in get_args(Place):
            raise ConfigurationError("to", to, "sink or disk")
        self._timeout = seconds_to_wait(timeout)
        if self._timeout == 0:
            raise ConfigurationError("timeout", timeout, "a number of seconds above 0, or None")
        self._intake = intake
        self._to: Place = to
        self._awaited: Awaited | None = None
        self._token: Token[Awaited | None] | None = None

    def __repr__(self) -> str:
        return f"<Receipt to {self._to}: {self.records} records>"

    # -- what it says ----------------------------------------------------------------------------------------

    @property
    def records(self) -> int:
        """Records made inside the block so far, those that no lane admitted included."""
        return self._awaited.records if self._awaited is not None else 0

    @property
    def lanes(self) -> tuple[LaneReport, ...]:
        """What became of them, in each lane that admitted any."""
        if self._awaited is None:
            return ()
        return tuple(
            LaneReport(
                lane=watch.lane,
                sink=repr(watch.sink),
                safe=part.safe,
                spooled=part.spooled,
                pending=part.waiting,
                lost=sum(part.lost.values()),
                safety=watch.safety,
                reason=watch.reason,
            )
            for watch, part in list(self._awaited.parts.items())
        )

    @property
    def failures(self) -> tuple[LaneFailure, ...]:
        """What is not safe, by lane and reason; after leaving, what :class:`DeliveryError` told."""
        if self._awaited is None:
            return ()
        queued = {intake: count for intake, count in list(self._awaited.queued.items()) if count}
        failures = [
            LaneFailure(lane, reason, count)
            for (intake, reason), count in list(self._awaited.dropped.items())
            for lane in _lanes_of(intake)
        ]
        failures += [
            LaneFailure(lane, NOT_IN_TIME, count)
            for intake, count in queued.items()
            for lane in _lanes_of(intake)
        ]
        for watch, part in list(self._awaited.parts.items()):
            failures += _failures_of(watch, part, self._to)
        return tuple(failures)

    # -- the block -------------------------------------------------------------------------------------------

    def __enter__(self) -> Receipt:
        loop = asyncio._get_running_loop()
        if loop is not None and any(p.intake is self._intake and p.loop is loop for p in home.pipelines()):
            # Waiting would keep the loop from doing what we wait for.
            raise ConfigurationError(
                "receipt()", "with", "`async with`: this event loop is the home of the pipeline"
            )
        return self._enter()

    async def __aenter__(self) -> Receipt:
        return self._enter()

    def _enter(self) -> Receipt:
        if self._awaited is not None:
            raise ClosedError(f"{self!r} was used before; ask for a new one")
        self._awaited = Awaited(self._to)
        self._awaited.enter()
        self._token = awaited.current.set(self._awaited)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        done = self._leave()
        if error is None or issubclass(type(error), Exception):
            self._wait(done)
            self._judge(error)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        done = self._leave()
        if error is None or issubclass(type(error), Exception):
            if asyncio._get_running_loop() is None:  # a forked child inside the parent's coroutine
                self._wait(done)
            elif not done.done():
                await asyncio.wait({asyncio.wrap_future(done)}, timeout=self._timeout)
            self._judge(error)

    def _leave(self) -> concurrent.futures.Future[None]:
        waited_for, token = self._awaited, self._token
        assert waited_for is not None
        assert token is not None
        self._token = None
        try:
            awaited.current.reset(token)
        except ValueError:  # left in another context than entered, as a generator can be
            if awaited.current.get() is waited_for:
                awaited.current.set(waited_for.outer)
        waited_for.leave()
        if not waited_for.done.done():
            for pipeline in self._pipelines():
                # Nobody waits for it: it ends the pauses between batches.
                pipeline.begin_flush(to_disk=self._to == "disk")
        return waited_for.done

    def _wait(self, done: concurrent.futures.Future[None]) -> None:
        running = asyncio._get_running_loop()
        if running is not None and any(pipeline.loop is running for pipeline in self._pipelines()):
            return  # a run that was opened inside the block lives on the loop that we would block
        end = None if self._timeout is None else monotonic() + self._timeout
        try:
            done.result(None if end is None else end - monotonic())
        except (TimeoutError, concurrent.futures.TimeoutError):
            pass  # told by who judges

    def _pipelines(self) -> list[Pipeline]:
        """Those that the records went to and that are not closed."""
        assert self._awaited is not None
        intakes = set(self._awaited.queued)
        return [pipeline for pipeline in home.pipelines() if pipeline.intake in intakes]

    def _judge(self, error: BaseException | None) -> None:
        failures = self.failures
        if not failures:
            return
        if error is None:
            raise DeliveryError(failures)
        diagnostics.say(
            logging.ERROR, ("receipt", failures[0].lane), "a block failed, and: %s", DeliveryError(failures)
        )


def _lanes_of(intake: Intake) -> Sequence[str]:
    """The names of the lanes behind the Intake; the Intake stands for them when its pipeline is closed."""
    for pipeline in home.pipelines():
        if pipeline.intake is intake:
            return pipeline.lanes
    return ["intake"]


def _failures_of(watch: Watch, part: Part, to: Place) -> list[LaneFailure]:
    failures = [LaneFailure(watch.lane, reason, count) for reason, count in part.lost.items() if count]
    if part.waiting:
        failures.append(LaneFailure(watch.lane, watch.reason or NOT_IN_TIME, part.waiting))
    if part.spooled and to == "sink":
        reason = f"waits on disk: {watch.reason or NOT_IN_TIME}"
        failures.append(LaneFailure(watch.lane, reason, part.spooled))
    return failures
