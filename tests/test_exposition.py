"""The ledger for machines: what a strict reader of each format finds in it."""

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from exposition_parser import parse
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

import asynctrace
from asynctrace import (
    HistogramStats,
    LaneOptions,
    LaneStats,
    PipelineStats,
    RetryPolicy,
    Trace,
    to_otel,
    to_prometheus,
)
from asynctrace.testing import ManualClock, ScriptedSink, faults

pytestmark = pytest.mark.usefixtures("alone")

DELAYS = HistogramStats((0.001, 1.0), (5, 3, 2), 12.5)
SIZES = HistogramStats((1.0, 2.0), (1, 1, 1), 9.0)
LANE = LaneStats(
    "sqlite",
    "<SQLiteSink>",
    emitted=20,
    delivered=10,
    filtered=3,
    pending=1,
    spooled=2,
    dead=1,
    dropped={"lane full (drop_oldest)": 2, "intake full": 1},
    batches=3,
    failed=2,
    retries=1,
    lagging=True,
    breaker="half-open",
    pending_bytes=700,
    delays=DELAYS,
    batch_sizes=SIZES,
)
STATS = PipelineStats("00000000000000aa", emitted=21, queued=1, dropped=1, lanes=(LANE,))


def test_every_count_of_the_ledger_is_there() -> None:
    families = parse(to_prometheus(STATS))

    told = {
        name: value
        for name, family in families.items()
        if family.kind != "histogram" and "dropped" not in name and "breaker" not in name
        for value in family.samples.values()
    }
    assert told == {
        "asynctrace_emitted_records_total": 21,
        "asynctrace_intake_queued_records": 1,
        "asynctrace_lane_emitted_records_total": 20,
        "asynctrace_lane_delivered_records_total": 10,
        "asynctrace_lane_filtered_records_total": 3,
        "asynctrace_lane_dead_records_total": 1,
        "asynctrace_lane_adopted_records_total": 0,
        "asynctrace_lane_replayed_records_total": 0,
        "asynctrace_lane_written_batches_total": 3,
        "asynctrace_lane_failed_writes_total": 2,
        "asynctrace_lane_retried_writes_total": 1,
        "asynctrace_lane_pending_records": 1,
        "asynctrace_lane_spooled_records": 2,
        "asynctrace_lane_lagging": 1,
        "asynctrace_lane_memory_bytes": 700,
    }
    breaker = "asynctrace_lane_breaker"
    states = {
        state: families[breaker].value(breaker, state=state) for state in ("closed", "half-open", "open")
    }
    assert states == {"closed": 0, "half-open": 1, "open": 0}
    dropped = "asynctrace_lane_dropped_records_total"
    assert families[dropped].value(dropped, lane="sqlite", reason="intake full") == 1
    assert families[dropped].value(dropped, lane="sqlite", reason="lane full (drop_oldest)") == 2


def test_buckets_add_up() -> None:
    family = parse(to_prometheus(STATS))["asynctrace_lane_delivery_seconds"]

    assert family.kind == "histogram"
    assert [
        family.value("asynctrace_lane_delivery_seconds_bucket", le=le) for le in ("0.001", "1.0", "+Inf")
    ] == [*(5, 8, 10)]
    assert family.value("asynctrace_lane_delivery_seconds_sum", lane="sqlite") == 12.5
    assert family.value("asynctrace_lane_delivery_seconds_count", producer="00000000000000aa") == 10


@pytest.mark.parametrize("name", ['a"b', "a\\b", "a\nb", 'a\\"\n\\n', "é 世界", "", "a,b=c}", "a\ud800b"])
def test_any_text_comes_through_as_a_label(name: str) -> None:
    stats = PipelineStats(name, 0, 0, 0, (LaneStats("lane", "sink", dropped={name: 1}),))

    text = to_prometheus([stats])

    assert text.encode("utf-8")
    labels = {labels for _, labels in parse(text)["asynctrace_lane_dropped_records_total"].samples}
    whole = name.replace("\ud800", "?")
    assert labels == {frozenset({("producer", whole), ("lane", "lane"), ("reason", whole)})}


def test_several_pipelines_stand_below_one_head() -> None:
    other = PipelineStats("00000000000000bb", 5, 0, 0, (LaneStats("memory", "<MemorySink>"),))

    families = parse(to_prometheus([STATS, other]))

    emitted = "asynctrace_emitted_records_total"
    assert families[emitted].value(emitted, producer="00000000000000bb") == 5
    assert len(families["asynctrace_lane_lagging"].samples) == 2


def test_nothing_traced_is_nothing_told() -> None:
    assert to_prometheus() == ""
    assert to_prometheus(()) == ""


def points(document: dict[str, Any]) -> Iterator[tuple[str, dict[str, str], dict[str, Any]]]:
    (resource,) = document["resourceMetrics"]
    (scope,) = resource["scopeMetrics"]
    for metric in scope["metrics"]:
        (kind,) = metric.keys() & {"sum", "gauge", "histogram"}
        assert metric["description"].endswith(".")
        assert (metric[kind].get("aggregationTemporality") == 2) == (kind != "gauge")
        for point in metric[kind]["dataPoints"]:
            labels = {each["key"]: each["value"]["stringValue"] for each in point["attributes"]}
            yield metric["name"], labels, point


def test_otel_has_the_same_counts() -> None:
    document = json.loads(json.dumps(to_otel(STATS, clock=ManualClock(1_700_000_000_000_000_000))))

    found = list(points(document))

    assert {point["timeUnixNano"] for _, _, point in found} == {"1700000000000000000"}
    (delivered,) = [point for name, _, point in found if name == "asynctrace.lane.delivered"]
    assert delivered["asInt"] == "10"
    (delays,) = [point for name, _, point in found if name == "asynctrace.lane.delivery"]
    assert (delays["count"], delays["sum"]) == ("10", 12.5)
    assert (delays["bucketCounts"], delays["explicitBounds"]) == (["5", "3", "2"], [0.001, 1.0])
    reasons = {labels["reason"]: point["asInt"] for name, labels, point in found if "reason" in labels}
    assert reasons == {"lane full (drop_oldest)": "2", "intake full": "1"}


def test_the_ledger_of_a_real_pipeline() -> None:
    options = LaneOptions(retry=RetryPolicy(base=0.001), max_records=64, short=64)

    async def main() -> tuple[PipelineStats, str, ScriptedSink]:
        sink = ScriptedSink(faults.Away(), faults.Partial(0, 1, retryable=True), faults.Partial(0))
        async with Trace("run-1", sinks=[(sink, options)]) as trace:
            for number in range(200):
                trace.info("record %d", number)
            await trace.aflush()
            (stats,) = asynctrace.stats()
            return stats, to_prometheus(), sink

    stats, text, sink = asyncio.run(main())

    (lane,) = stats.lanes
    assert lane.balanced
    assert lane.delays is not None
    assert lane.batch_sizes is not None
    assert lane.delivered == lane.delays.count == lane.batch_sizes.total == 200
    assert lane.dead == 1
    assert 0 < lane.delays.total < 200 * 60
    assert lane.batch_sizes.quantile(1.0) == 64.0
    families = parse(text)
    counted = "asynctrace_lane_delivery_seconds"
    assert families[counted].value(f"{counted}_count", lane="scripted") == 200
    assert len(sink.records) >= 200


# -- both formats, whatever the ledger holds -----------------------------------------------------------------

counts = st.integers(0, 1 << 60)
names = st.text(max_size=20)


@st.composite
def histograms(draw: st.DrawFn) -> HistogramStats:
    bounds = sorted(draw(st.sets(st.floats(1e-6, 1e12), min_size=1, max_size=5)))
    values = draw(st.lists(st.integers(0, 1 << 40), min_size=len(bounds) + 1, max_size=len(bounds) + 1))
    return HistogramStats(tuple(bounds), tuple(values), draw(st.floats(0, 1e15)))


lanes = st.builds(
    LaneStats,
    names,
    names,
    *[counts] * 6,
    st.dictionaries(names, counts, max_size=3),
    *[counts] * 5,
    lagging=st.booleans(),
    delays=st.none() | histograms(),
    batch_sizes=st.none() | histograms(),
)
pages = st.builds(
    PipelineStats,
    st.text("0123456789abcdef", min_size=16, max_size=16),
    counts,
    counts,
    counts,
    st.lists(lanes, max_size=3, unique_by=lambda lane: lane.lane).map(tuple),
    started_ns=st.sampled_from([0, 1_600_000_000_000_000_000]),
)


@settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(stats=st.lists(pages, max_size=3, unique_by=lambda page: page.producer))
def test_both_formats_are_valid_and_agree(stats: list[PipelineStats]) -> None:
    if stats:
        # A label's value that only differs in what no text can hold would name a series twice; nobody has such lanes.
        for page in stats:
            storable = [lane.lane.encode("utf-8", "replace") for lane in page.lanes]
            reasons = [[r.encode("utf-8", "replace") for r in lane.dropped] for lane in page.lanes]
            assume(all(len(set(each)) == len(each) for each in (storable, *reasons)))
    text = to_prometheus(stats)
    assert text == "" or text.endswith("\n")
    families = parse(text)
    document = json.loads(json.dumps(to_otel(stats, clock=ManualClock(1_700_000_000_000_000_000))))
    by_name: dict[str, list[dict[str, Any]]] = {}
    for name, _, point in points(document):
        by_name.setdefault(name, []).append(point)
        assert int(point["timeUnixNano"]) > int(point.get("startTimeUnixNano", 0))
        assert set(point) <= {
            *("attributes", "timeUnixNano", "startTimeUnixNano", "asInt"),
            *("count", "sum", "bucketCounts", "explicitBounds"),
        }
        if "asInt" in point:
            assert point["asInt"] == str(int(point["asInt"])), "a 64-bit number is text in this JSON"
            assert -(2**63) <= int(point["asInt"]) < 2**63
        else:
            assert len(point["bucketCounts"]) == len(point["explicitBounds"]) + 1
            assert sum(map(int, point["bucketCounts"])) == int(point["count"])
            assert point["explicitBounds"] == sorted(set(point["explicitBounds"]))
    assert len(by_name) == len(families)
    for name, told in by_name.items():
        (family,) = [
            families[each]
            for each in families
            if each.startswith(name.replace(".", "_") + "_") or each == name.replace(".", "_")
        ]
        if family.kind == "histogram":
            numbers = [value for (sample, _), value in family.samples.items() if sample.endswith("_count")]
            assert sorted(numbers) == sorted(float(point["count"]) for point in told)
        else:
            assert sorted(family.samples.values()) == sorted(float(point["asInt"]) for point in told)


def test_what_only_grows_says_since_when() -> None:
    clock = ManualClock(1_700_000_000_000_000_000)
    stats = replace(STATS, started_ns=1_600_000_000_000_000_000)
    for document, start in ((to_otel(stats, clock=clock), "1600000000000000000"), (to_otel(STATS), None)):
        (resource,) = document["resourceMetrics"]
        for metric in resource["scopeMetrics"][0]["metrics"]:
            (kind,) = metric.keys() & {"sum", "gauge", "histogram"}
            for point in metric[kind]["dataPoints"]:
                assert point.get("startTimeUnixNano") == (None if kind == "gauge" else start)
    with Trace("run-1", sinks=["memory:"]) as trace:
        assert 0 < trace.pipeline.stats().started_ns <= time.time_ns()
