"""The part of the contract of sinks that is about their life: cancelled, closed, opened again, on which loop."""

from __future__ import annotations

import asyncio
import contextlib
import time

import pytest

from asynctrace.core.record import Record
from asynctrace.errors import SinkClosedError
from asynctrace.ports import LocalSink
from asynctrace.testing.records import make_batch
from asynctrace.testing.sink_under_test import SinkUnderTest, open_and_write

_LONGEST_BLOCK = 0.05  # seconds that the event loop may stand still
_TRIES = 5  # a busy machine stops any program now and then: one quiet try out of these is enough


class LifeContract(SinkUnderTest):
    """It can be cancelled, closed and opened again at any moment, and never blocks the loop."""

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
            await self.within(open_and_write(sink, batch))
            await self.within(sink.aclose())
            await self.within(sink.aclose())
            self.expect(await self.read_back(), batch)

        batch = make_batch()
        self.run(main())

    def test_closing_may_be_cancelled(self) -> None:
        async def main() -> None:
            sink = self.make_sink()
            await self.within(open_and_write(sink, batch))
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
                await self.within(open_and_write(sink, batch))
                await self.within(sink.aclose())
            self.expect(await self.read_back(), *batches)

        batches = [make_batch(), make_batch(first=3)]
        self.run(main())

    def test_another_loop_may_take_over_without_a_close(self) -> None:
        sink = self.make_sink()
        batches = [make_batch(), make_batch(first=3)]
        for batch in batches:
            self.run(open_and_write(sink, batch))

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
