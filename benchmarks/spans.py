"""P4: a span's start and end with three fields, beside OpenTelemetry's; CPU time of the calling thread."""

from __future__ import annotations

from time import thread_time_ns

from asynctrace import Trace
from benchmarks.figures import Figure, Group
from benchmarks.harness import Case, Job, Values, alternate, check
from benchmarks.workload import RETAINED, CountingSink

_SPANS = RETAINED // 2  # each is a start and an end


def opentelemetry_case() -> Case:
    """The SDK with a BatchSpanProcessor that is not drained during a sample: its spans wait, as ours do."""
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor
    from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

    exporter = InMemorySpanExporter()
    hours = 3_600_000  # milliseconds: no timed export
    processor = BatchSpanProcessor(
        exporter, max_queue_size=2 * RETAINED, max_export_batch_size=2 * RETAINED, schedule_delay_millis=hours
    )
    provider = TracerProvider()
    provider.add_span_processor(processor)
    tracer = provider.get_tracer("bench")

    def run_once() -> float:
        start = thread_time_ns()
        for n in range(_SPANS):
            with tracer.start_as_current_span(
                "checkout", attributes={"order_id": n, "user": "u1", "ms": 1.5}
            ):
                pass
        return (thread_time_ns() - start) / _SPANS

    def clear() -> None:
        processor.force_flush()
        check("OpenTelemetry", len(exporter.get_finished_spans()), _SPANS)
        exporter.clear()

    return Case(run_once, clear)


def _span_case(trace: Trace) -> Case:
    def run_once() -> float:
        start = thread_time_ns()
        for n in range(_SPANS):
            with trace.span("checkout", order_id=n, user="u1", ms=1.5):
                pass
        return (thread_time_ns() - start) / _SPANS

    return Case(run_once, trace.aflush)


def _async_span_case(trace: Trace) -> Case:
    async def run_once() -> float:
        start = thread_time_ns()
        for n in range(_SPANS):
            async with trace.span("checkout", order_id=n, user="u1", ms=1.5):
                pass
        return (thread_time_ns() - start) / _SPANS

    return Case(run_once, trace.aflush)


async def spans(samples: int) -> Values:
    """Ours, in three ways, and theirs, in turn."""
    sink = CountingSink()
    async with Trace(sinks=[sink]) as trace, Trace(sinks=[sink], level="info") as quiet:
        cases = {
            "span": _span_case(trace),
            "span, async with": _async_span_case(trace),
            "span at level info": _span_case(quiet),
            "span of OpenTelemetry": opentelemetry_case(),
        }
        values = await alternate(cases, samples)
    check("spans", sink.count, 3 * 2 * (samples + 1) * _SPANS + 4)
    return values


GROUPS = (
    Group(
        figures=(
            Figure("P4", "OpenTelemetry span start+end ÷ ours", "span of OpenTelemetry", "span", 15.0),
            Figure("P4", "÷ ours with async with", "span of OpenTelemetry", "span, async with"),
            Figure("P4", "÷ ours at level info", "span of OpenTelemetry", "span at level info"),
        ),
        jobs=(Job("spans:spans", {"samples": 5}, {"samples": 3}),),
        unit="ns a span",
        needs=("opentelemetry.sdk",),
    ),
)
