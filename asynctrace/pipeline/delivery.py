"""A Delivery: one load, one try; what the sink's answer means for it."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from dataclasses import replace
from functools import partial
from time import monotonic

from asynctrace.core.batch import Batch
from asynctrace.errors import (
    BatchTooLargeError,
    PartialWriteError,
    PermanentSinkError,
    SinkClosedError,
    SinkError,
    TransientSinkError,
)
from asynctrace.pipeline.backlog import Load
from asynctrace.pipeline.breaker import CircuitBreaker
from asynctrace.pipeline.deadline import Deadline
from asynctrace.pipeline.diagnostics import logger, say_of_lane
from asynctrace.pipeline.escape import held_in
from asynctrace.pipeline.ledger import LaneCounts
from asynctrace.pipeline.options import LaneOptions
from asynctrace.pipeline.reasons import in_words, with_class, with_stack
from asynctrace.pipeline.settlement import Settlement
from asynctrace.ports import LocalSink, Sink


class _BrokenOffError(Exception):
    """The write was broken off by ourselves: nobody knows whether the sink has the batch, which may come again."""


class Delivery:
    """Opens the sink, writes, tries again, halves, gives up: as the sink answers and the options say.

    Args:
        lane: the lane's name.
        sink: where to.
        options: of the lane.
        counts: of the lane.
        settlement: of the lane; its hand is what is delivered.
    """

    def __init__(
        self,
        lane: str,
        sink: Sink | LocalSink,
        options: LaneOptions,
        counts: LaneCounts,
        settlement: Settlement,
    ) -> None:
        self.breaker = CircuitBreaker(options.breaker_failures, options.breaker_cooldown)
        self._lane = lane
        self._sink = sink
        self._options = options
        self._counts = counts
        self._settlement = settlement
        self._nudge = asyncio.Event()
        self._rouse = asyncio.Event()
        self._interrupted = False
        self._writing: asyncio.Timeout | None = None  # of the write that is going on
        self._deadline: Deadline | None = None  # of the closing that is going on
        self._opened = False
        self._homes = 0  # how many homes it has left
        self._say = partial(say_of_lane, lane)

    def hurry(self) -> None:
        """End the pause before a retry; not that of an open breaker, nor one that the destination asked for."""
        self._nudge.set()

    def interrupt(self) -> None:
        """Break off the write or the pause that is going on; :meth:`attempt` returns until :meth:`resume`."""
        self._nudge.set()
        self._interrupted = True
        self._rouse.set()
        if self._writing is not None and not self._writing.expired():
            self._writing.reschedule(asyncio.get_running_loop().time())

    def resume(self) -> None:
        """Go on after an interruption."""
        self._interrupted = False

    def close_by(self, deadline: Deadline) -> None:
        """This is the end: one probe goes through an open breaker, and no pause is begun that ends too late.

        The write that is going on goes on; a pause ends.
        """
        self._deadline = deadline
        self.breaker.half_open()
        self._nudge.set()
        self._rouse.set()

    def rehome(self) -> None:
        """Forget the event loop that is gone, and what was opened on it."""
        self._nudge, self._rouse = asyncio.Event(), asyncio.Event()
        self._interrupted = False
        self._writing = None
        self._deadline = None
        self._homes += 1
        self._opened = False
        self.breaker.broken_off()  # a probe that was on its way there

    async def aclose(self, deadline: Deadline) -> None:
        """Close the sink within the deadline."""
        try:
            async with asyncio.timeout(max(0.1, deadline.left())):
                with held_in():
                    await self._sink.aclose()
        except Exception as error:  # whatever the driver does, the program goes on
            self._say(error, "closing failed: %s", with_class(error))
        self._opened = False

    async def attempt(self, load: Load) -> None:
        """One write. Afterwards the load is settled, replaced by its rest, or, after a pause, still in hand.

        Raises:
            TimeoutError: the lane closes, and nothing could be tried before its deadline.
        """
        batch = load.batch
        if not batch and not batch.marks:
            self._settlement.settle(load)
            return
        if wait := self.breaker.wait():
            await self._sleep(wait)
            return
        if load.started is None:
            load.started = monotonic()
        try:
            await self._write(batch)
        except BatchTooLargeError as error:
            self._failed(error)
            self._halve(load, error)
        except PartialWriteError as error:
            self._failed(error)
            if (rest := self._keep_rest(load, error)) is not None:
                await self._pause(rest, error)
        except PermanentSinkError as error:
            self._failed(error)
            self._settlement.bury(load, in_words(error), error)
        except _BrokenOffError:
            pass
        except Exception as error:  # TransientSinkError and surprises
            self._failed(error)
            if not isinstance(error, (TransientSinkError, SinkClosedError)):
                load.surprises += 1
            if load.surprises >= self._options.surprises:
                logger.debug("lane %s: surprise\n%s", self._lane, with_stack(error).rstrip())
                self._settlement.bury(load, with_class(error), error)
            else:
                await self._pause(load, error)
        else:
            self._settlement.settle(load)

    def last_write_failed(self, load: Load, error: Exception) -> bool:
        """After a blocking write at the end, which has no second try: whether the load is settled all the same."""
        if isinstance(error, PartialWriteError):
            try:
                _check_indices(error, load.batch)
            except IndexError as surprise:
                error = surprise
        self._failed(error)
        if isinstance(error, PartialWriteError):
            self._settlement.reject(load, error, {rejection.index for rejection in error.rejections})
        elif isinstance(error, PermanentSinkError):
            self._settlement.bury(load, in_words(error), error)
        else:
            return False
        return True

    async def _write(self, batch: Batch) -> None:
        try:
            await self._open_and_write(batch)
        except (BatchTooLargeError, PartialWriteError, PermanentSinkError):
            self.breaker.answered()
            raise
        except (_BrokenOffError, asyncio.CancelledError):  # nobody knows
            self.breaker.broken_off()
            raise
        except Exception as error:
            self.breaker.failed(_retry_after(error))
            raise
        except BaseException:
            self.breaker.broken_off()
            raise
        self.breaker.answered()

    async def _open_and_write(self, batch: Batch) -> None:
        self._writing = limit = asyncio.timeout(self._options.write_timeout)
        try:
            async with limit:
                await self._call_sink(batch)
        except PartialWriteError as error:
            _check_indices(error, batch)
            raise
        except RuntimeError as error:
            # When the interpreter ends, Python 3.12 starts no thread any more, and executors refuse.
            if "shutdown" not in str(error) or not isinstance(self._sink, LocalSink):
                raise
            self._sink.write_now(batch)
        except OSError as error:  # a TimeoutError is one
            if limit.expired() and self._interrupted:
                raise _BrokenOffError from None
            late = f"no answer within {self._options.write_timeout} s"
            raise TransientSinkError(late if limit.expired() else with_class(error)) from error
        finally:
            if self._writing is limit:
                self._writing = None

    async def _call_sink(self, batch: Batch) -> None:
        homes = self._homes
        try:
            with held_in():
                if not self._opened:
                    await self._sink.open()
                    if homes == self._homes:
                        self._opened = True
                await self._sink.write(batch)
        except Exception:
            if homes != self._homes:
                raise asyncio.CancelledError from None
            raise
        # This loop stood still, or the write was given up: another home has taken over.
        if homes != self._homes:
            raise asyncio.CancelledError

    async def _pause(self, load: Load, error: Exception) -> None:
        """Wait before the next try of the load, or give it up."""
        assert load.started is not None
        load.attempts += 1
        retry_after = _retry_after(error)
        elapsed = monotonic() - load.started
        pause = self._options.retry.delay(load.attempts, elapsed=elapsed, retry_after=retry_after)
        if pause is None:
            self._settlement.bury(load, f"retries used up: {in_words(error)}", error)
            return
        self._counts.retries += 1
        if retry_after is not None:  # the destination asked to be left alone: nobody hurries that
            await self._sleep(pause)
            return
        self._check_time_for(pause)
        self._nudge.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._nudge.wait()

    async def _sleep(self, pause: float) -> None:
        """A pause that nobody hurries, but that an interruption or the end breaks off."""
        self._check_time_for(pause)
        if self._interrupted:
            return
        self._rouse.clear()
        with suppress(TimeoutError):
            async with asyncio.timeout(pause):
                await self._rouse.wait()

    def _check_time_for(self, pause: float) -> None:
        # A local store has its last write at the deadline: what is locked or full now may not be so then.
        deadline = self._deadline if not isinstance(self._sink, LocalSink) else None
        if deadline is not None and pause >= deadline.left():
            raise TimeoutError

    def _halve(self, load: Load, error: BatchTooLargeError) -> None:
        records = load.batch.records
        if len(records) <= 1:
            self._settlement.bury(load, in_words(error), error)
            return
        middle = len(records) // 2
        self._settlement.hand[0:1] = [
            Load(Batch(records[:middle]), started=load.started, on_disk=load.on_disk),
            replace(load, batch=Batch(records[middle:], load.batch.marks), attempts=0, surprises=0),
        ]

    def _keep_rest(self, load: Load, error: PartialWriteError) -> Load | None:
        """Settle what was stored or rejected for good; what is to be tried again stays first in hand."""
        batch = load.batch
        rejected = {rejection.index for rejection in error.rejections}
        again = {rejection.index for rejection in error.rejections if rejection.retryable}
        if not again:
            self._settlement.reject(load, error, rejected)
            return None
        rest = replace(load, batch=Batch([batch[index] for index in sorted(again)]), attempts=0, surprises=0)
        if len(again) == len(batch):
            rest.attempts = load.attempts  # no progress: the pauses go on growing
        load.waiters, load.position = [], None
        self._settlement.hand.insert(1, rest)
        self._settlement.reject(load, error, rejected, again)
        return rest

    def _failed(self, error: Exception) -> None:
        answered = isinstance(error, SinkError) and not isinstance(
            error, (PermanentSinkError, SinkClosedError)
        )
        self._opened = self._opened and answered
        self._counts.failed += 1
        self._counts.last_error = with_class(error)
        self._say(error, "write failed: %s", self._counts.last_error)


def _retry_after(error: Exception) -> float | None:
    return error.retry_after if isinstance(error, TransientSinkError) else None


def _check_indices(error: PartialWriteError, batch: Batch) -> None:
    """Which records were stored is not known, if any that were not are called by a place that the batch has not.

    Raises:
        IndexError: a surprise of the sink.
    """
    for rejection in error.rejections:
        index: object = rejection.index  # a sink may put anything there
        if not isinstance(index, int) or not 0 <= index < len(batch):
            allowed = f"0 to {len(batch) - 1}" if batch else "none, for the batch is empty"
            raise IndexError(
                f"PartialWriteError names the record at index {index!r} ({rejection.reason}); allowed: {allowed}"
            ) from error
