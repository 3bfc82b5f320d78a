"""What every sink promises, as tests: subclass :class:`SinkContract` in a test module. Needs pytest."""

from __future__ import annotations

from asynctrace.testing.contract_faults import FaultsContract
from asynctrace.testing.contract_life import LifeContract
from asynctrace.testing.contract_records import RecordsContract


class SinkContract(LifeContract, FaultsContract, RecordsContract):
    """Tests that any sink must pass; a subclass says how to make one and how to look at what it stored.

    What it can say is in :class:`asynctrace.testing.sink_under_test.SinkUnderTest`. Each test has an instance of its
    own, whose ``place`` is an empty folder. What does not apply to a sink is skipped with the reason that the class
    gives, and with nothing else.

    Example::

        class TestMySink(SinkContract):
            no_poison = "the store takes every record"

            def make_sink(self):
                return MySink(self.place / "store")

            async def read_back(self):
                return await my_records(self.place / "store")
    """
