"""The ledger for machines that watch: Prometheus's text format, and OpenTelemetry's JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from asynctrace import api
from asynctrace._version import __version__
from asynctrace.core.clock import SYSTEM_CLOCK, Clock
from asynctrace.pipeline.breaker import BreakerState
from asynctrace.pipeline.histogram import HistogramStats
from asynctrace.pipeline.ledger import LaneStats, PipelineStats

PROMETHEUS_CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
"""The ``Content-Type`` under which Prometheus takes what :func:`to_prometheus` gives."""

_CUMULATIVE = 2  # AggregationTemporality, in OpenTelemetry's protocol

_Labels = dict[str, str]
_Point = tuple[_Labels, int | float | HistogramStats]
_Starts = Mapping[str, int]  # by producer, when its counting began


@dataclass(frozen=True, slots=True)
class _Metric:
    """One metric and its points.

    Args:
        name: as OpenTelemetry writes names.
        unit: likewise, after UCUM.
        kind: a ``sum`` only grows, a ``gauge`` goes up and down.
        help: one sentence.
        points: its values by labels.
    """

    name: str
    unit: Literal["{record}", "{batch}", "{write}", "By", "s", "1"]
    kind: Literal["sum", "gauge", "histogram"]
    help: str
    points: list[_Point]


def to_prometheus(stats: PipelineStats | Iterable[PipelineStats] | None = None) -> str:
    """The ledger in Prometheus's text exposition format, version 0.0.4.

    Serve it as :data:`PROMETHEUS_CONTENT_TYPE`. Each series names its pipeline by ``producer``, which is new in
    each process; ``sum without (producer)`` adds them up.

    Args:
        stats: of one or several pipelines; by default those of this process, as :func:`asynctrace.stats` gives them.

    Example:
        >>> from asynctrace import Pipeline
        >>> print(to_prometheus(Pipeline().stats()))
        # HELP asynctrace_emitted_records_total Records given to the pipeline, dropped ones included.
        # TYPE asynctrace_emitted_records_total counter
        asynctrace_emitted_records_total{producer="..."} 0
        ...
    """
    return "".join(line for metric in _metrics(_listed(stats)) for line in _prometheus_lines(metric))


def to_otel(
    stats: PipelineStats | Iterable[PipelineStats] | None = None, *, clock: Clock = SYSTEM_CLOCK
) -> dict[str, Any]:
    """The ledger as the JSON object that an OpenTelemetry collector takes at ``/v1/metrics``.

    Args:
        stats: of one or several pipelines; by default those of this process.
        clock: tells when that was.

    Example:
        >>> list(to_otel(()))
        ['resourceMetrics']
    """
    moment, listed = str(clock.time_ns()), _listed(stats)
    starts = {each.producer: each.started_ns for each in listed if each.started_ns}
    metrics = [_otel_metric(metric, moment, starts) for metric in _metrics(listed)]
    scope = {"scope": {"name": "asynctrace", "version": __version__}, "metrics": metrics}
    return {"resourceMetrics": [{"resource": {"attributes": []}, "scopeMetrics": [scope]}]}


def _listed(stats: PipelineStats | Iterable[PipelineStats] | None) -> tuple[PipelineStats, ...]:
    if stats is None:
        return api.stats()
    return (stats,) if isinstance(stats, PipelineStats) else tuple(stats)


# -- which metrics there are ---------------------------------------------------------------------------------

_LANE_COUNTS: tuple[tuple[str, Literal["{record}", "{batch}", "{write}"], str], ...] = (
    ("emitted", "{record}", "Records given to the pipeline since the lane exists."),
    ("delivered", "{record}", "Records that are safe in the sink."),
    ("filtered", "{record}", "Records held back by the lane's rule or by a processor."),
    ("dead", "{record}", "Records that the sink rejected for good."),
    ("adopted", "{record}", "Records taken over from a dead process."),
    ("replayed", "{record}", "Records taken from dead letters."),
    ("batches", "{batch}", "Successful writes."),
    ("failed", "{write}", "Failed writes, retries included."),
    ("retries", "{write}", "Writes tried again."),
)
_LANE_LEVELS = (
    ("pending", "Records in memory, on their way."),
    ("spooled", "Records on disk, waiting."),
)
_STATES = get_args(BreakerState)
_NAMES = {"batches": "written", "retries": "retried"}  # asynctrace_lane_written_batches_total


def _metrics(stats: tuple[PipelineStats, ...]) -> Iterator[_Metric]:
    """Every metric that has a point."""
    for metric in (*_pipeline_metrics(stats), *_lane_metrics(stats)):
        if metric.points:
            yield metric


def _pipeline_metrics(stats: tuple[PipelineStats, ...]) -> Iterator[_Metric]:
    def points(value: Callable[[PipelineStats], int]) -> list[_Point]:
        return [({"producer": each.producer}, value(each)) for each in stats]

    yield _Metric(
        "asynctrace.emitted",
        "{record}",
        "sum",
        "Records given to the pipeline, dropped ones included.",
        points(lambda each: each.emitted),
    )
    yield _Metric(
        "asynctrace.intake.dropped",
        "{record}",
        "sum",
        "Records that found the Intake full.",
        points(lambda each: each.dropped),
    )
    yield _Metric(
        "asynctrace.intake.queued",
        "{record}",
        "gauge",
        "Records in the Intake.",
        points(lambda each: each.queued),
    )


def _lane_metrics(stats: tuple[PipelineStats, ...]) -> Iterator[_Metric]:
    lanes = [({"producer": each.producer, "lane": lane.lane}, lane) for each in stats for lane in each.lanes]
    for name, unit, told in _LANE_COUNTS:
        counted: list[_Point] = [(labels, getattr(lane, name)) for labels, lane in lanes]
        yield _Metric(f"asynctrace.lane.{_NAMES.get(name, name)}", unit, "sum", told, counted)
    yield _Metric(
        "asynctrace.lane.dropped",
        "{record}",
        "sum",
        "Records given up by policy, by reason.",
        [({**labels, "reason": why}, count) for labels, lane in lanes for why, count in lane.dropped.items()],
    )
    for name, told in _LANE_LEVELS:
        waiting: list[_Point] = [(labels, getattr(lane, name)) for labels, lane in lanes]
        yield _Metric(f"asynctrace.lane.{name}", "{record}", "gauge", told, waiting)
    yield _Metric(
        "asynctrace.lane.memory",
        "By",
        "gauge",
        "Bytes of the records in memory.",
        [(labels, lane.pending_bytes) for labels, lane in lanes],
    )
    yield _Metric(
        "asynctrace.lane.lagging",
        "1",
        "gauge",
        "1 when the writer has stopped waiting for the lane, else 0.",
        [(labels, int(lane.lagging)) for labels, lane in lanes],
    )
    yield _Metric(
        "asynctrace.lane.breaker",
        "1",
        "gauge",
        "1 for the state that the lane's circuit breaker is in, 0 for the others.",
        [
            ({**labels, "state": state}, int(lane.breaker == state))
            for labels, lane in lanes
            for state in _STATES
        ],
    )
    yield from _lane_histograms(lanes)


def _lane_histograms(lanes: list[tuple[_Labels, LaneStats]]) -> Iterator[_Metric]:
    yield _Metric(
        "asynctrace.lane.delivery",
        "s",
        "histogram",
        "Seconds from the call that made a record until it was safe in the sink.",
        [(labels, lane.delays) for labels, lane in lanes if lane.delays is not None],
    )
    yield _Metric(
        "asynctrace.lane.batch",
        "{record}",
        "histogram",
        "Records in one successful write.",
        [(labels, lane.batch_sizes) for labels, lane in lanes if lane.batch_sizes is not None],
    )


# -- Prometheus: https://prometheus.io/docs/instrumenting/exposition_formats/ ---------------------------------

_SUFFIXES = {
    "{record}": "_records",
    "{batch}": "_batches",
    "{write}": "_writes",
    "By": "_bytes",
    "s": "_seconds",
    "1": "",
}
_TYPES = {"sum": "counter", "gauge": "gauge", "histogram": "histogram"}


def _prometheus_lines(metric: _Metric) -> Iterator[str]:
    name = metric.name.replace(".", "_") + _SUFFIXES[metric.unit] + ("_total" if metric.kind == "sum" else "")
    yield f"# HELP {name} {_escaped(metric.help)}\n"
    yield f"# TYPE {name} {_TYPES[metric.kind]}\n"
    for labels, value in metric.points:
        if not isinstance(value, HistogramStats):
            yield f"{name}{_label_text(labels)} {value}\n"
            continue
        reached = 0
        for bound, count in zip((*map(repr, value.bounds), "+Inf"), value.counts, strict=True):
            reached += count
            yield f"{name}_bucket{_label_text({**labels, 'le': bound})} {reached}\n"
        yield f"{name}_sum{_label_text(labels)} {value.total!r}\n"
        yield f"{name}_count{_label_text(labels)} {reached}\n"


def _label_text(labels: Mapping[str, str]) -> str:
    pairs = [
        f'{name}="{_escaped(value).replace(chr(34), chr(92) + chr(34))}"' for name, value in labels.items()
    ]
    return "{" + ",".join(pairs) + "}"


def _escaped(text: str) -> str:
    # A lone surrogate, from the name of somebody's sink, is nothing that UTF-8 can hold.
    storable = text.encode("utf-8", "replace").decode("utf-8")
    return storable.replace("\\", "\\\\").replace("\n", "\\n")


# -- OpenTelemetry: opentelemetry-proto, metrics/v1/metrics.proto, in its JSON form ---------------------------


def _otel_metric(metric: _Metric, moment: str, starts: _Starts) -> dict[str, Any]:
    points = [_otel_point(point, moment) for point in metric.points]
    data: dict[str, Any] = {"dataPoints": points}
    if metric.kind != "gauge":
        # What only grows grows from somewhere: without the moment, a restart looks like a fall.
        for point, (labels, _) in zip(points, metric.points, strict=True):
            if start := starts.get(labels["producer"]):
                point["startTimeUnixNano"] = str(start)
        data["aggregationTemporality"] = _CUMULATIVE
    if metric.kind == "sum":
        data["isMonotonic"] = True
    return {"name": metric.name, "description": metric.help, "unit": metric.unit, metric.kind: data}


def _otel_point(point: _Point, moment: str) -> dict[str, Any]:
    labels, value = point
    attributes = [{"key": name, "value": {"stringValue": text}} for name, text in labels.items()]
    told: dict[str, Any] = {"attributes": attributes, "timeUnixNano": moment}
    if isinstance(value, HistogramStats):
        # 64-bit numbers are text in this JSON: a double has only 53 bits.
        told["count"] = str(value.count)
        told["sum"] = value.total
        told["bucketCounts"] = [str(count) for count in value.counts]
        told["explicitBounds"] = list(value.bounds)
    else:
        told["asInt"] = str(value)
    return told
