"""A destination that fails as it is told to."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Sequence

from asynctrace.core.batch import Batch, Mark
from asynctrace.core.record import Record
from asynctrace.errors import ConfigurationError, PartialWriteError, SinkClosedError
from asynctrace.testing.faults import Fault, Fine


class ScriptedSink:
    """Takes records, each once, and goes through a script: one step a write, then the last word for ever.

    A step is one of :mod:`asynctrace.testing.faults`, or any callable like them. What was stored stays readable, from
    any thread, whatever happened to the write.

    Args:
        script: one step for each of the first writes.
        then: for all writes behind them.
        name: of the destination. What a sink with a name does not take waits on disk, and the next start finds it
            again under that name; without one it is nobody's, and dropped at the end.

    Raises:
        ConfigurationError: a step cannot be called.

    Example:
        >>> from asynctrace.testing import faults
        >>> ScriptedSink(faults.Away(), faults.RateLimited(0.1), faults.Slow(0.05))
        <asynctrace.testing.scripted.ScriptedSink object at 0x...>
        >>> ScriptedSink(name="back-end")
        <ScriptedSink back-end>
    """

    def __init__(self, *script: Fault, then: Fault | None = None, name: str | None = None) -> None:
        self._name = name
        self._script: deque[Fault] = deque()
        self._then = then or Fine()
        self._records: dict[tuple[str, int], Record] = {}
        self._waiting: list[tuple[int, asyncio.AbstractEventLoop, asyncio.Future[None]]] = []
        self._open = False
        self.opened = 0
        """How often it was opened."""
        self.writes: list[int] = []
        """How many records each write brought, those that failed included."""
        self.doubles = 0
        """Records that came again after they had been stored."""
        self.marks: list[Mark] = []
        """Those of the writes that succeeded, if only in part."""
        self.add(*script)

    def __repr__(self) -> str:
        return object.__repr__(self) if self._name is None else f"<ScriptedSink {self._name}>"

    @property
    def records(self) -> tuple[Record, ...]:
        """What is stored, in the order it came first."""
        return tuple(self._records.values())

    @property
    def left(self) -> int:
        """Steps of the script that are still to come."""
        return len(self._script)

    def add(self, *steps: Fault) -> None:
        """Put steps behind those that are left of the script."""
        for step in steps:
            if not callable(step):
                raise ConfigurationError(
                    "script", step, "what asynctrace.testing.faults has, or a callable like it"
                )
        self._script.extend(steps)

    def after_script(self, then: Fault) -> None:
        """From now on, writes behind the script go like this."""
        self._then = then

    async def open(self) -> None:
        """Get ready; what is stored stays."""
        self.opened += 1
        self._open = True

    async def write(self, batch: Batch) -> None:
        """Go through the next step of the script.

        Raises:
            SinkClosedError: before ``open`` or after ``aclose``.
            Exception: as the step says.
        """
        if not self._open:
            raise SinkClosedError(f"{self!r} is not open")
        step = self._script.popleft() if self._script else self._then
        self.writes.append(len(batch))
        self._tell_waiting()
        try:
            await step(batch, self._keep)
        except PartialWriteError:
            self.marks += batch.marks
            raise
        self.marks += batch.marks

    async def aclose(self) -> None:
        """Take no more."""
        self._open = False

    async def reached(self, writes: int, timeout: float = 10.0) -> None:
        """Wait until so many writes have begun.

        Args:
            writes: since the sink was made.
            timeout: seconds.

        Raises:
            TimeoutError: they have not.
        """
        loop = asyncio.get_running_loop()
        future: asyncio.Future[None] = loop.create_future()
        self._waiting.append((writes, loop, future))
        self._tell_waiting()  # they may have begun already
        async with asyncio.timeout(timeout):
            await future

    def _keep(self, records: Sequence[Record]) -> None:
        for record in records:
            key = record.producer, record.seq
            if key in self._records:
                self.doubles += 1
            else:
                self._records[key] = record

    def _tell_waiting(self) -> None:
        ready = [item for item in self._waiting if len(self.writes) >= item[0]]
        for item in ready:
            self._waiting.remove(item)
            _, loop, future = item
            if not loop.is_closed():
                loop.call_soon_threadsafe(_finish, future)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)
