"""The part of the contract of sinks that is about records: every value comes back, in order, once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from asynctrace.core.batch import Batch
from asynctrace.core.codec import canonical, pack_any
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, Record, Status, Usage
from asynctrace.core.site import Site
from asynctrace.testing.records import START_NS, STEP_NS, make_batch, make_context, make_record
from asynctrace.testing.sink_under_test import SinkUnderTest

_HOSTILE_FIELDS: dict[str, Any] = {
    "unicode": "Grüße, 世界 👋",
    "none": None,
    "infinity": float("inf"),
    "minus_infinity": float("-inf"),
    "nan": float("nan"),
    "two_to_63": 2**63,
    "two_to_100": 2**100,
    "negative": -(2**63),
    "float": 0.1,
    "bool": True,
    "nested": {"list": [1, [2, {"deep": None}]], "": ""},
    "nul": "a\x00b",
    "surrogate": "a\ud800b",
    "bytes": b"\x00\xff",
    "": "an empty name",
    "message": "the name of a column",
    "quote'\"`;--": "not SQL",
}
_TEXTS = [
    "",
    " ",
    "a\x00b",
    "one\ntwo\r\nthree",
    "Grüße, 世界 👋",
    "'; DROP TABLE traces; --",
    "\u2028",
    "{}%s",
]


class RecordsContract(SinkUnderTest):
    """What is written is what is read."""

    def test_every_column_comes_back(self) -> None:
        context = make_context(
            parent_run_id="run-0",
            name="checkout",
            fields={"user_id": "u1", "tenant_id": "acme", "region": "eu"},
        )
        full = make_record(
            1,
            "all of it",
            context=context,
            level=Level.ERROR,
            time_ns=START_NS + STEP_NS + 456_000,
            fields={"workflow_name": "w", "stage_name": "s", "job_name": "j", "environment": "test",
                    "error_code": "E1", "tags": ["a", "b"], "rows": 120},
            span_id=2**64 - 1,
            parent_span_id=1,
            site=Site("päth/to/file.py", 77),
            thread=2**63 - 1,
            usage=Usage(12.5, 99.9),
            exception=ExceptionInfo("KeyError", "'x'", "Traceback\n  line\nKeyError: 'x'\n"),
            task="Task-1",
        )  # fmt: skip
        start = make_record(0, "load", context=context, kind=Kind.SPAN_START, span_id=7, task="Task-1")
        end = make_record(
            2, "load", context=context, kind=Kind.SPAN_END, span_id=7, status=Status.ERROR, duration_ms=1.25
        )
        batch = Batch([start, full, end])
        self.expect(self.run(self.store(batch)), batch)

    @pytest.mark.parametrize("name", _HOSTILE_FIELDS)
    def test_a_hostile_value_comes_back(self, name: str) -> None:
        fields = canonical(pack_any({name: _HOSTILE_FIELDS[name]})[0])
        batch = Batch([make_record(0, fields=fields)])
        self.expect(self.run(self.store(batch)), batch)

    @pytest.mark.parametrize("text", _TEXTS)
    def test_a_hostile_message_comes_back(self, text: str) -> None:
        batch = Batch([make_record(0, text), make_record(1, "the neighbour")])
        self.expect(self.run(self.store(batch)), batch)

    @pytest.mark.parametrize(
        "run_id", ["", "..", "/", "a/../../b", "a\x00b", "x" * 10_000, "世界", "%2F", "CON"]
    )
    def test_a_hostile_run_id_comes_back(self, run_id: str) -> None:
        batch = make_batch(2, run_id=run_id)
        self.expect(self.run(self.store(batch)), batch)

    def test_a_mebibyte_comes_back(self) -> None:
        batch = Batch([make_record(0, "m" * 2**20), make_record(1, fields={"value": "ä" * 2**19})])
        self.expect(self.run(self.store(batch)), batch)

    def test_order_holds_within_and_across_batches(self) -> None:
        batches = [make_batch(7, first=first) for first in range(0, 70, 7)]
        self.expect(self.run(self.store(*batches)), *batches)

    def test_records_of_one_moment_keep_their_order(self) -> None:
        context = make_context()
        batch = Batch([make_record(n, f"message {n}", context=context, time_ns=10**18) for n in range(20)])
        self.expect(self.run(self.store(batch)), batch)

    def test_an_empty_batch_is_no_error(self) -> None:
        batch = make_batch(1)
        self.expect(self.run(self.store(Batch(()), batch, Batch(()))), batch)

    def test_five_thousand_records_in_one_write(self) -> None:
        batch = make_batch(5_000)
        self.expect(self.run(self.store(batch)), batch)

    def test_the_same_batch_twice_is_stored_once(self) -> None:
        if self.keeps_doubles:
            pytest.skip(self.keeps_doubles)
        first, second = make_batch(10), make_batch(10, first=10)
        self.expect(self.run(self.store(first, first, second, first)), first, second)

    def test_a_batch_that_overlaps_another_adds_the_rest(self) -> None:
        if self.keeps_doubles:
            pytest.skip(self.keeps_doubles)
        everything = make_batch(15)
        self.expect(self.run(self.store(everything[:10], everything[5:])), everything)

    def test_two_sinks_share_the_destination(self) -> None:
        async def main() -> Sequence[Record]:
            sinks = [self.make_sink(), self.make_sink()]
            for sink in sinks:
                await self.within(sink.open())
            await asyncio.gather(
                *(self.within(sink.write(b)) for sink, b in zip(sinks, batches, strict=True))
            )
            for sink in sinks:
                await self.within(sink.aclose())
            return await self.read_back()

        batches = [make_batch(50, first=first, producer=f"{first:016x}") for first in (0, 50)]
        assert {(r.producer, r.seq) for r in self.run(main())} == {
            (r.producer, r.seq) for b in batches for r in b
        }
