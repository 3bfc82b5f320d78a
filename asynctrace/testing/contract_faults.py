"""The part of the contract of sinks that is about faults: each is told as what the lane should do about it."""

from __future__ import annotations

import contextlib
import logging

import pytest

from asynctrace.core.batch import Batch
from asynctrace.errors import PartialWriteError, PermanentSinkError, SinkError, TransientSinkError
from asynctrace.testing.records import make_batch, make_record
from asynctrace.testing.sink_under_test import SinkUnderTest, open_and_write


class FaultsContract(SinkUnderTest):
    """A fault is named by what should be done about it, and no secret is told with it."""

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
                    await self.within(open_and_write(sink, make_batch()))
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
                    await self.within(open_and_write(sink, make_batch()))
                except SinkError as error:
                    told.append(f"{error!r} {error} {error.__cause__!r}")
                finally:
                    await self.within(sink.aclose())
            return told

        with caplog.at_level(logging.DEBUG):
            told = self.run(main())
        assert all(self.secret not in text for text in (*told, caplog.text))
