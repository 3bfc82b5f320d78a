"""What every sink promises, as tests: subclass :class:`SinkContract` in a test module. Needs pytest."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Coroutine, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest

from asynctrace.core.batch import Batch
from asynctrace.core.codec import canonical, pack_any
from asynctrace.core.exceptions import ExceptionInfo
from asynctrace.core.level import Level
from asynctrace.core.record import Kind, Record, Status, Usage
from asynctrace.core.site import Site
from asynctrace.errors import (
    PartialWriteError,
    PermanentSinkError,
    SinkClosedError,
    SinkError,
    TransientSinkError,
)
from asynctrace.ports import LocalSink, Sink
from asynctrace.testing.records import START_NS, STEP_NS, make_batch, make_context, make_record

T = TypeVar("T")

_LONGEST_BLOCK = 0.05  # seconds that the event loop may stand still
_TRIES = 5  # a busy machine stops any program now and then: one quiet try out of these is enough

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


class SinkContract(ABC):
    """Tests that any sink must pass; a subclass says how to make one and how to look at what it stored.

    Each test has an instance of its own, whose ``place`` is an empty folder. What does not apply to a sink is
    skipped with the reason that the class gives, and with nothing else.

    Example::

        class TestMySink(SinkContract):
            no_poison = "the store takes every record"

            def make_sink(self):
                return MySink(self.place / "store")

            async def read_back(self):
                return await my_records(self.place / "store")
    """

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

    # ---- round trip

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

    # ---- order and number

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

    # ---- faults

    def test_an_outage_is_transient_and_passes(self) -> None:
        if self.no_outage:
            pytest.skip(self.no_outage)

        async def main() -> None:
            sink = self.make_sink()
            await self.within(sink.open())
            await self.within(sink.write(before))
            with self.outage():
                for _ in range(2):
                    with pytest.raises(TransientSinkError):
                        await self.within(sink.write(during))
            await self.within(sink.write(during))
            await self.within(sink.write(after))
            await self.within(sink.aclose())
            self.expect(await self.read_back(), before, during, after)

        before, during, after = (make_batch(30, first=first) for first in (0, 30, 60))
        self.run(main())

    def test_opening_in_an_outage_is_transient_at_most(self) -> None:
        if self.no_outage:
            pytest.skip(self.no_outage)

        async def main() -> None:
            sink = self.make_sink()
            with self.outage(), contextlib.suppress(TransientSinkError):
                await self.within(sink.open())
            await self.within(sink.open())
            await self.within(sink.write(batch))
            await self.within(sink.aclose())
            self.expect(await self.read_back(), batch)

        batch = make_batch()
        self.run(main())

    def test_a_poisoned_record_is_named_and_its_neighbours_are_stored(self) -> None:
        if self.no_poison:
            pytest.skip(self.no_poison)

        async def main() -> None:
            sink = self.make_sink()
            await self.within(sink.open())
            with pytest.raises(PartialWriteError) as caught:
                await self.within(sink.write(Batch([first, self.poison(), last])))
            await self.within(sink.aclose())
            assert [rejection.index for rejection in caught.value.rejections] == [1]
            self.expect(await self.read_back(), Batch([first, last]))

        first, last = make_record(0), make_record(2)
        self.run(main())

    def test_a_refusal_for_good_is_permanent(self) -> None:
        if self.no_refusal:
            pytest.skip(self.no_refusal)

        async def main() -> None:
            sink = self.make_refused_sink()
            try:
                with pytest.raises(PermanentSinkError):
                    await self.within(_open_and_write(sink, make_batch()))
            finally:
                await self.within(sink.aclose())

        self.run(main())

    def test_no_secret_is_told(self, caplog: pytest.LogCaptureFixture) -> None:
        if not self.secret:
            pytest.skip("the sink has no secret")

        async def main() -> list[str]:
            told = [repr(self.make_sink())]
            sinks = [] if self.no_refusal else [self.make_refused_sink()]
            for sink in sinks:
                told.append(repr(sink))
                try:
                    await self.within(_open_and_write(sink, make_batch()))
                except SinkError as error:
                    told.append(f"{error!r} {error} {error.__cause__!r}")
                finally:
                    await self.within(sink.aclose())
            return told

        with caplog.at_level(logging.DEBUG):
            told = self.run(main())
        assert all(self.secret not in text for text in (*told, caplog.text))

    # ---- cancelling and closing

    @pytest.mark.parametrize("turns", [0, 1, 2, 5, 20])
    def test_a_cancelled_write_leaves_the_sink_usable(self, turns: int) -> None:
        async def main() -> list[Record]:
            sink = self.make_sink()
            await self.within(sink.open())
            writing = asyncio.ensure_future(sink.write(first))
            for _ in range(turns):
                await asyncio.sleep(0)
            writing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await writing
            await self.within(sink.write(first))  # as a lane does after a timeout
            await self.within(sink.write(second))
            await self.within(sink.aclose())
            return list(await self.read_back())

        first, second = make_batch(2_000), make_batch(10, first=2_000)
        found = self.run(main())
        if self.keeps_doubles:
            assert {r.seq for r in found} == set(range(2_010))
        else:
            self.expect(found, first, second)

    def test_closing_twice_is_closing_once(self) -> None:
        async def main() -> None:
            never_opened = self.make_sink()
            await self.within(never_opened.aclose())
            sink = self.make_sink()
            await self.within(_open_and_write(sink, batch))
            await self.within(sink.aclose())
            await self.within(sink.aclose())
            self.expect(await self.read_back(), batch)

        batch = make_batch()
        self.run(main())

    def test_closing_may_be_cancelled(self) -> None:
        async def main() -> None:
            sink = self.make_sink()
            await self.within(_open_and_write(sink, batch))
            closing = asyncio.ensure_future(sink.aclose())
            await asyncio.sleep(0)
            closing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await closing
            await self.within(sink.aclose())
            self.expect(await self.read_back(), batch)

        batch = make_batch()
        self.run(main())

    def test_writing_to_a_closed_sink_raises(self) -> None:
        async def main() -> None:
            sink = self.make_sink()
            with pytest.raises(SinkClosedError):
                await self.within(sink.write(make_batch()))
            await self.within(sink.open())
            await self.within(sink.aclose())
            with pytest.raises(SinkClosedError):
                await self.within(sink.write(make_batch()))

        self.run(main())

    def test_a_closed_sink_opens_again(self) -> None:
        async def main() -> None:
            sink = self.make_sink()
            for batch in batches:
                await self.within(_open_and_write(sink, batch))
                await self.within(sink.aclose())
            self.expect(await self.read_back(), *batches)

        batches = [make_batch(), make_batch(first=3)]
        self.run(main())

    def test_another_loop_may_take_over_without_a_close(self) -> None:
        sink = self.make_sink()
        batches = [make_batch(), make_batch(first=3)]
        for batch in batches:
            self.run(_open_and_write(sink, batch))

        async def main() -> None:
            # The lane on the new loop closes what it opened; what the first loop left is not its business.
            await self.within(sink.open())
            await self.within(sink.aclose())
            self.expect(await self.read_back(), *batches)

        self.run(main())

    def test_the_last_resort_works_before_between_and_after(self) -> None:
        async def main() -> None:
            sink = self.make_sink()
            if not isinstance(sink, LocalSink):
                pytest.skip("the destination is not on this machine")
            sink.write_now(batches[0])
            await self.within(sink.open())
            sink.write_now(batches[1])
            await self.within(sink.write(batches[2]))
            sink.write_now(batches[3])
            await self.within(sink.aclose())
            sink.write_now(batches[4])
            self.expect(await self.read_back(), *batches)

        batches = [make_batch(5, first=first) for first in range(0, 25, 5)]
        self.run(main())

    # ---- the loop

    def test_the_loop_is_never_blocked(self) -> None:
        async def main() -> float:
            sink = self.make_sink()
            await self.within(sink.open())
            longest = []
            for turn in range(_TRIES):
                # Records of its own for each try: lines that are encoded already would prove nothing.
                batch = make_batch(5_000, first=turn * 5_000)
                watching = asyncio.ensure_future(_longest_block())
                await asyncio.sleep(0)
                await self.within(sink.write(batch))
                watching.cancel()
                longest.append(await watching)
                if longest[-1] <= _LONGEST_BLOCK:
                    break
            await self.within(sink.aclose())
            return min(longest)

        assert self.run(main()) <= _LONGEST_BLOCK


async def _open_and_write(sink: Sink | LocalSink, batch: Batch) -> None:
    await sink.open()
    await sink.write(batch)


async def _longest_block() -> float:
    """Until it is cancelled; seconds of the longest time in which the event loop served nobody."""
    longest, last = 0.0, time.perf_counter()
    try:
        while True:
            await asyncio.sleep(0)
            now = time.perf_counter()
            longest, last = max(longest, now - last), now
    except asyncio.CancelledError:
        return max(longest, time.perf_counter() - last)
