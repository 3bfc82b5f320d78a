"""What a lane loses is said to the people who look after the program: in few lines, and to the record."""

import logging
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from disk_kit import SmallDisk, needs_mount, small_disk
from lane_kit import QUICK, GateSink, ScriptedSink, auntil

import asynctrace
from asynctrace import Batch, LaneStats, PermanentSinkError, Trace
from asynctrace.pipeline import diagnostics

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def nothing_said_yet() -> None:
    diagnostics.diagnostics._last.clear()  # what was said in another test may be said again


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[SmallDisk]:
    with small_disk(tmp_path / "disk", 8 << 20) as disk:
        yield disk


def said(caplog: pytest.LogCaptureFixture, text: str) -> list[str]:
    return [
        each.getMessage()
        for each in caplog.records
        if each.name == "asynctrace" and each.levelno >= logging.WARNING and text in each.getMessage()
    ]


def total(lines: list[str]) -> int:
    """What the last line says."""
    found = re.search(r"(\d+) record\(s\)", lines[-1])
    assert found is not None
    return int(found[1])


def page(pipeline: asynctrace.Pipeline) -> LaneStats:
    (lane,) = pipeline.stats().lanes
    assert lane.balanced, lane
    return lane


class Rejecting(ScriptedSink):
    """Takes no records at all, each write for another reason."""

    async def write(self, batch: Batch) -> None:
        self.sizes.append(len(batch))
        if len(batch):
            raise PermanentSinkError(f"wrong in write {len(self.sizes)}")


FEW = replace(QUICK, max_records=10, short=10)


@needs_mount
@pytest.mark.parametrize("store", ["sqlite:{}/t.db", "file:{}/t.jsonl", "file:{}/logs"])
async def test_store_and_state_on_one_full_disk_one_line_tells_every_record_that_is_lost(
    store: str, disk: SmallDisk, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(disk.path / "state"))
    async with Trace("r", sinks=[store.format(disk.path)]) as trace:
        pipeline = trace.pipeline
        await trace.aflush()
        disk.fill()
        for i in range(5_000):
            trace.info("m%d %s", i, "x" * 200)
        await auntil(lambda: page(pipeline).failed)
        await trace.aclose(timeout=0.5)
    lane = page(pipeline)
    assert lane.lost > 3_000
    lines = said(caplog, "dropped")
    assert len(lines) == len(lane.dropped)
    for reason, count in lane.dropped.items():
        (line,) = said(caplog, reason)
        assert line.startswith(f"lane {lane.lane}: {count} record(s) dropped: {reason}")


async def test_what_a_hung_sink_leaves_behind_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    async with Trace("r", sinks=[(GateSink(), FEW)]) as trace:
        pipeline = trace.pipeline
        for i in range(95):
            trace.info(f"m{i}")
        await trace.aclose(timeout=0.1)
    assert page(pipeline).lost == 97
    assert said(caplog, "dropped") == ["lane gate: 97 record(s) dropped: not delivered in time"]


async def test_what_the_limit_hid_is_said_at_the_end_with_the_total_and_the_last_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    sink = Rejecting()
    async with Trace("r", sinks=[(sink, FEW)]) as trace:
        pipeline = trace.pipeline
        for i in range(95):
            trace.info(f"m{i}")
        await trace.aflush()
        first = said(caplog, "rejected for good")
        assert len(first) == 1, "at once, and then no more for a minute"
    lane = page(pipeline)
    lines = said(caplog, "rejected for good")
    assert len(lines) == 2
    assert lines[1].startswith(f"lane rejecting: {lane.dead} record(s) rejected for good: wrong in write ")
    assert lines[1].endswith(f"(in all; {lane.dead - total(first)} since the last message)")


async def test_what_the_limit_hid_is_said_when_it_ends_though_nothing_more_happens(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(diagnostics, "INTERVAL", 0.2)
    async with Trace("r", sinks=[(Rejecting(), FEW)]) as trace:
        for i in range(95):
            trace.info(f"m{i}")
        await trace.aflush()
        await auntil(lambda: total(said(caplog, "rejected for good")) == 96)
        assert page(trace.pipeline).dead == 96


async def test_each_pipeline_tells_its_own_losses_though_another_one_has_spoken(
    caplog: pytest.LogCaptureFixture,
) -> None:
    for count in (20, 30):
        async with Trace("r", sinks=[(Rejecting(), FEW)]) as trace:
            pipeline = trace.pipeline
            for i in range(count):
                trace.info(f"m{i}")
        assert total(said(caplog, "rejected for good")) == page(pipeline).dead == count + 2


async def test_what_finds_no_room_is_said_too(caplog: pytest.LogCaptureFixture) -> None:
    sink = GateSink()
    async with Trace("r", sinks=[(sink, replace(QUICK, capacity=10, when_full="drop_newest"))]) as trace:
        pipeline = trace.pipeline
        await auntil(sink.waiting.is_set)
        for i in range(50):
            trace.info(f"m{i}")
        await auntil(lambda: page(pipeline).lost)
        assert len(said(caplog, "record(s) dropped: lane full (drop_newest)")) == 1
        sink.gate.set()
        await auntil(lambda: page(pipeline).pending == 0)  # the end of the run finds room
    assert total(said(caplog, "lane full")) == page(pipeline).lost == 41
