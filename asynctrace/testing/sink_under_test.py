"""What a test class says about the sink that it tests, and what its tests do with it."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from asynctrace.core.batch import Batch
from asynctrace.core.record import Record
from asynctrace.ports import LocalSink, Sink

T = TypeVar("T")


class SinkUnderTest(ABC):
    """How to make a sink, how to look at what it stored, and what does not apply to it."""

    place: Path
    """A folder of this test's own."""

    timeout: ClassVar[float] = 10.0
    """Seconds within which any single call must return or raise."""

    secret: ClassVar[str] = ""
    """What must show up nowhere: the password with which ``make_sink`` connects."""

    keeps_doubles: ClassVar[str] = ""
    """Why the same batch twice is not stored once; ``""`` when it is."""

    no_outage: ClassVar[str] = ""
    """Why the destination cannot be away; ``""`` when :meth:`outage` makes it so."""

    no_poison: ClassVar[str] = ""
    """Why no single record can be refused; ``""`` when :meth:`poison` gives one."""

    no_refusal: ClassVar[str] = ""
    """Why the destination never refuses for good; ``""`` when :meth:`make_refused_sink` gives such a sink."""

    @abstractmethod
    def make_sink(self) -> Sink | LocalSink:
        """A new sink object; all of one test have the same destination."""

    @abstractmethod
    async def read_back(self) -> Sequence[Record]:
        """All records at the destination, in the order that it gives them in."""

    def outage(self) -> AbstractContextManager[object]:
        """While it is entered the destination does not answer, or answers that it cannot."""
        raise NotImplementedError("give `outage`, or say in `no_outage` why there is none")

    def poison(self) -> Record:
        """A record, numbered 1, that the destination refuses, whatever its neighbours."""
        raise NotImplementedError("give `poison`, or say in `no_poison` why there is none")

    def make_refused_sink(self) -> Sink | LocalSink:
        """A sink that will never get through: wrong password, missing table, no permission."""
        raise NotImplementedError("give `make_refused_sink`, or say in `no_refusal` why there is none")

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> None:
        self.place = tmp_path

    def run(self, main: Coroutine[Any, Any, T]) -> T:
        """Run a test's coroutine on a new event loop."""
        return asyncio.run(main)

    async def within(self, call: Coroutine[Any, Any, T]) -> T:
        """Await the call, for at most ``timeout``."""
        return await asyncio.wait_for(call, self.timeout)

    async def store(self, *batches: Batch) -> list[Record]:
        """Write the batches through one sink, close it, and read all back."""
        sink = self.make_sink()
        await self.within(sink.open())
        try:
            for batch in batches:
                await self.within(sink.write(batch))
        finally:
            await self.within(sink.aclose())
        return list(await self.read_back())

    def expect(self, found: Sequence[Record], *batches: Batch) -> None:
        """Fail unless exactly these records were found, in this order."""
        wanted = [record for batch in batches for record in batch]
        assert [(r.producer, r.seq) for r in found] == [(r.producer, r.seq) for r in wanted]
        for record, want in zip(found, wanted, strict=True):
            assert record.to_dict() == want.to_dict()


async def open_and_write(sink: Sink | LocalSink, batch: Batch) -> None:
    """The first two steps of every sink."""
    await sink.open()
    await sink.write(batch)
