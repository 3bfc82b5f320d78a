"""Whoever waits for records learns, lane by lane, what is safe, what waits on disk, and what is still on its way."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Literal

import loop_kit
import pytest
from lane_kit import QUICK, SPILLING, GateSink, Remote, ScriptedSink, auntil

import asynctrace
from asynctrace import (
    DeliveryError,
    FlushReport,
    LaneOptions,
    Level,
    PermanentSinkError,
    Trace,
)
from asynctrace.sinks.memory import MemorySink

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("nothing_left")]
anyio_backend = loop_kit.either_loop


async def test_what_is_safe_is_named_with_what_it_survives(tmp_path: Path) -> None:
    async with Trace("r", sinks=["memory:", f"file:{tmp_path}/t.jsonl"]) as trace:
        trace.info("m")
        report = await trace.aflush()
        assert report.ok
        assert report
        assert report.failures == ()
        assert [(lane.safe, lane.spooled, lane.pending, lane.lost) for lane in report.lanes] == [
            (2, 0, 0, 0)
        ] * 2
        assert [lane.safety for lane in report.lanes] == ["memory", "process"]
        assert [lane.lane for lane in report.lanes] == ["memory", "jsonlines"]


@pytest.mark.parametrize("options", [None, LaneOptions(level=Level.ERROR)], ids=["none", "options"])
@pytest.mark.parametrize("durability", [None, "disk"])
@pytest.mark.parametrize(
    ("sink", "safety", "safety_on_disk"),
    [
        ("memory:", "memory", "memory"),
        ("console:", "memory", "memory"),
        ("sqlite:{}/t.db", "process", "disk"),
        ("sqlite:{}/t.db?synchronous=full", "disk", "disk"),
        ("sqlite:{}/t.db?synchronous=normal", "process", "process"),
        ("file:{}/logs", "process", "disk"),
        ("file:{}/t.jsonl?durability=disk", "disk", "disk"),
        (MemorySink, "memory", "memory"),
        (ScriptedSink, "process", "process"),
    ],
    ids=str,
)
async def test_safety_follows_the_sink_whether_options_were_given_or_not(
    sink: str | type[MemorySink],
    safety: str,
    safety_on_disk: str,
    durability: Literal["disk"] | None,
    options: LaneOptions | None,
    tmp_path: Path,
) -> None:
    made = sink.format(tmp_path) if isinstance(sink, str) else sink()
    async with Trace(
        "r", sinks=[made if options is None else (made, options)], durability=durability
    ) as trace:
        report = await trace.aflush()
        assert [lane.safety for lane in report.lanes] == [safety if durability is None else safety_on_disk]


async def test_safety_is_what_the_options_say_when_they_say_it() -> None:
    async with Trace("r", sinks=[(ScriptedSink(), replace(QUICK, safety="disk"))]) as trace:
        assert [lane.safety for lane in (await trace.aflush()).lanes] == ["disk"]


async def test_what_is_pending_makes_the_report_false_and_names_the_lane() -> None:
    hung, healthy = GateSink(), ScriptedSink()
    async with Trace("r", sinks=[(hung, QUICK), (healthy, QUICK)]) as trace:
        trace.info("m")
        await auntil(lambda: healthy.messages)
        report = await trace.aflush(0.1)
        assert not report
        assert [(failure.lane, failure.records) for failure in report.failures] == [("gate", 2)]
        assert [(lane.safe, lane.pending) for lane in report.lanes] == [(0, 2), (2, 0)]
        hung.gate.set()
        assert (await trace.aflush()).ok


async def test_what_is_on_disk_is_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ASYNCTRACE_STATE_DIR", str(tmp_path / "state"))
    sink = Remote(up=False)
    async with Trace("r", sinks=[(sink, SPILLING)]) as trace:
        for i in range(500):
            trace.info(f"m{i}")
        await auntil(lambda: trace.pipeline.stats().lanes[0].spooled > 300)
        report = await trace.aflush(0.1)
        (lane,) = report.lanes
        assert lane.safe == 0
        assert lane.spooled + lane.pending == 501
        assert lane.spooled > 300
        assert lane.reason == "TransientSinkError: nobody there"
        sink.up = True
        report = await trace.aflush()
        assert report.ok
        assert (report.lanes[0].safe, report.lanes[0].spooled) == (501, 0)


async def test_what_was_lost_is_counted_but_settled() -> None:
    sink = ScriptedSink([PermanentSinkError("no such table")])
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        trace.info("m")
        report = await trace.aflush()
        assert report.ok, "nobody waits for it any more"
        assert (report.lanes[0].safe, report.lanes[0].lost) == (0, 2)


async def test_records_emitted_while_it_waits_do_not_fail_it() -> None:
    sink = GateSink()
    async with Trace("r", sinks=[(sink, QUICK)]) as trace:
        trace.info("before")
        flushing = asyncio.create_task(trace.aflush())
        await auntil(sink.waiting.is_set)
        trace.info("meanwhile")
        sink.gate.set()
        assert (await flushing).ok


async def test_asked_to_speak_up_it_raises_for_each_lane() -> None:
    hung, rejecting = GateSink(), ScriptedSink([PermanentSinkError("no such table")])
    async with Trace("r", sinks=[(hung, QUICK), (rejecting, QUICK)], fail_silently=False) as trace:
        trace.info("m")
        await auntil(lambda: rejecting.sizes)
        with pytest.raises(DeliveryError) as caught:
            await trace.aflush(0.1)
        assert sorted((failure.lane, failure.records) for failure in caught.value.failures) == [
            ("gate", 2),
            ("scripted", 2),
        ]
        hung.gate.set()
        assert (await trace.aflush()).ok


async def test_the_process_wide_flush_reports_on_every_pipeline() -> None:
    async with Trace("a", sinks=[MemorySink()]) as a, Trace("b", sinks=[MemorySink()]) as b:
        a.info("m")
        b.info("m")
        report = await asynctrace.aflush()
        assert isinstance(report, FlushReport)
        assert [lane.safe for lane in report.lanes] == [2, 2]
        assert (await asyncio.to_thread(asynctrace.flush)).ok


async def test_on_the_home_loop_a_sync_flush_does_not_claim_what_it_cannot_know() -> None:
    async with Trace("r", sinks=[(ScriptedSink(), QUICK)]) as trace:
        trace.info("m")
        report = trace.flush()
        assert not report.done
        assert not report.ok
        assert (await trace.aflush()).ok


def test_a_trace_that_was_never_used_has_nothing_to_report() -> None:
    assert Trace("r", sinks=["memory:"]).flush() == FlushReport((), done=True)
