"""The contract of sinks, on the one in memory."""

from collections.abc import Sequence

import pytest

from asynctrace.core.record import Record
from asynctrace.sinks.memory import MemorySink
from asynctrace.testing import SinkContract


class TestMemory(SinkContract):
    no_outage = "memory is always there"
    no_poison = "memory takes every record"
    no_refusal = "memory refuses nobody"

    @pytest.fixture(autouse=True)
    def _sink(self) -> None:
        self.sink = MemorySink()

    def make_sink(self) -> MemorySink:
        return self.sink

    async def read_back(self) -> Sequence[Record]:
        return self.sink.records
