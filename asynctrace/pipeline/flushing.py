"""A Flushing: the wait for everything that was emitted before it."""

from __future__ import annotations

import asyncio
import concurrent.futures
from contextlib import suppress

from asynctrace.pipeline.intake import Barrier
from asynctrace.pipeline.report import FlushReport
from asynctrace.pipeline.residence import Residence


class Flushing:
    """Puts barriers into the Intake, and says what they found.

    Args:
        residence: where the records are on their way.
    """

    def __init__(self, residence: Residence) -> None:
        self._residence = residence

    def begin(self, *, to_disk: bool = False) -> concurrent.futures.Future[None]:
        """Put a barrier behind everything emitted so far; done when all of that is settled.

        Args:
            to_disk: whether what the sinks do not take soon is to go to the disk.
        """
        residence = self._residence
        done: concurrent.futures.Future[None] = concurrent.futures.Future()
        with residence.lock:
            residence.leave_standstill()
            if residence.loop is None and residence.idle:
                done.set_result(None)
                return done

        def settled() -> None:
            with suppress(concurrent.futures.InvalidStateError):  # who waited has given up
                done.set_result(None)

        def reached() -> None:
            if to_disk:
                residence.roster.shelve_soon()
            residence.roster.settled(settled)

        residence.intake.put_barrier(Barrier(reached))
        residence.call(self._look)
        return done

    def _look(self) -> None:
        self._residence.writer.hurry()
        self._residence.intake.woken()

    async def see_through(self, timeout: float | None) -> FlushReport:
        """Begin, and wait on any event loop."""
        try:
            async with asyncio.timeout(timeout):
                await asyncio.wrap_future(self.begin())
        except TimeoutError:
            return self.report(done=False)
        return self.report(done=True)

    def wait(self, timeout: float | None) -> FlushReport:
        """Begin, and wait in this thread, unless that would keep the home loop from doing it."""
        done = self.begin()
        self._residence.wait(done, timeout)
        return self.report(done=done.done())

    def report(self, *, done: bool) -> FlushReport:
        """What there is in each lane.

        Args:
            done: whether what was waited for is settled.
        """
        queued = max(0, self._residence.intake.queued)
        return FlushReport(self._residence.roster.reports(queued), done)
