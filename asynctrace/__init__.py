"""asynctrace: asyncio-native tracing. Every record of a run through one queue and one writer, into async sinks.

Importing it starts nothing, reads no environment and loads no driver; names are loaded when they are first used.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from asynctrace._version import __version__ as __version__

if TYPE_CHECKING:
    from asynctrace.api import aflush as aflush
    from asynctrace.api import ashutdown as ashutdown
    from asynctrace.api import explain_redaction as explain_redaction
    from asynctrace.api import flush as flush
    from asynctrace.api import get_trace as get_trace
    from asynctrace.api import shutdown as shutdown
    from asynctrace.api import stats as stats
    from asynctrace.bound import BoundTrace as BoundTrace
    from asynctrace.composition import configure as configure
    from asynctrace.core.account import Loss as Loss
    from asynctrace.core.account import ProducerAccount as ProducerAccount
    from asynctrace.core.account import Unproven as Unproven
    from asynctrace.core.batch import Batch as Batch
    from asynctrace.core.batch import Mark as Mark
    from asynctrace.core.level import Level as Level
    from asynctrace.core.numbers import Numbers as Numbers
    from asynctrace.core.query import Query as Query
    from asynctrace.core.record import Kind as Kind
    from asynctrace.core.record import Record as Record
    from asynctrace.core.record import Status as Status
    from asynctrace.core.redaction import Redactor as Redactor
    from asynctrace.core.redaction_match import Redaction as Redaction
    from asynctrace.core.summary import RunSummary as RunSummary
    from asynctrace.current import NoTrace as NoTrace
    from asynctrace.current import current_trace as current_trace
    from asynctrace.decorators import traced as traced
    from asynctrace.errors import AsyncTraceError as AsyncTraceError
    from asynctrace.errors import BatchTooLargeError as BatchTooLargeError
    from asynctrace.errors import ClosedError as ClosedError
    from asynctrace.errors import ConfigurationError as ConfigurationError
    from asynctrace.errors import DeliveryError as DeliveryError
    from asynctrace.errors import LaneFailure as LaneFailure
    from asynctrace.errors import MissingExtraError as MissingExtraError
    from asynctrace.errors import PartialWriteError as PartialWriteError
    from asynctrace.errors import PermanentSinkError as PermanentSinkError
    from asynctrace.errors import Rejection as Rejection
    from asynctrace.errors import SinkClosedError as SinkClosedError
    from asynctrace.errors import SinkError as SinkError
    from asynctrace.errors import StoreError as StoreError
    from asynctrace.errors import TraceNotFoundError as TraceNotFoundError
    from asynctrace.errors import TransientSinkError as TransientSinkError
    from asynctrace.executors import ContextExecutor as ContextExecutor
    from asynctrace.executors import in_context as in_context
    from asynctrace.exposition import PROMETHEUS_CONTENT_TYPE as PROMETHEUS_CONTENT_TYPE
    from asynctrace.exposition import to_otel as to_otel
    from asynctrace.exposition import to_prometheus as to_prometheus
    from asynctrace.pipeline.histogram import HistogramStats as HistogramStats
    from asynctrace.pipeline.ledger import LaneStats as LaneStats
    from asynctrace.pipeline.ledger import PipelineStats as PipelineStats
    from asynctrace.pipeline.options import LaneOptions as LaneOptions
    from asynctrace.pipeline.pipeline import Pipeline as Pipeline
    from asynctrace.pipeline.report import FlushReport as FlushReport
    from asynctrace.pipeline.report import LaneReport as LaneReport
    from asynctrace.pipeline.retry import RetryPolicy as RetryPolicy
    from asynctrace.pipeline.spool_page import SpoolStats as SpoolStats
    from asynctrace.ports import BulkReader as BulkReader
    from asynctrace.ports import CandidReader as CandidReader
    from asynctrace.ports import LocalSink as LocalSink
    from asynctrace.ports import Processor as Processor
    from asynctrace.ports import Reader as Reader
    from asynctrace.ports import Sink as Sink
    from asynctrace.ports import SizedReader as SizedReader
    from asynctrace.pruning import aprune as aprune
    from asynctrace.pruning import prune as prune
    from asynctrace.reading import SpanNode as SpanNode
    from asynctrace.reading import StoredRun as StoredRun
    from asynctrace.reading import afind_trace as afind_trace
    from asynctrace.reading import afind_traces as afind_traces
    from asynctrace.reading import find_trace as find_trace
    from asynctrace.reading import find_traces as find_traces
    from asynctrace.reading import open_store as open_store
    from asynctrace.receipt import Receipt as Receipt
    from asynctrace.recovering import RecoveryReport as RecoveryReport
    from asynctrace.recovering import arecover as arecover
    from asynctrace.span import Span as Span
    from asynctrace.trace import Trace as Trace
    from asynctrace.undelivered import RejectedRecord as RejectedRecord
    from asynctrace.undelivered import areplay_spools as areplay_spools
    from asynctrace.undelivered import dead_letters as dead_letters
    from asynctrace.undelivered import purge_dead_letters as purge_dead_letters
    from asynctrace.undelivered import purge_spools as purge_spools
    from asynctrace.undelivered import replay_dead_letters as replay_dead_letters
    from asynctrace.undelivered import spools as spools
    from asynctrace.verifying import Verdict as Verdict
    from asynctrace.verifying import Verification as Verification
    from asynctrace.verifying import averify as averify
    from asynctrace.verifying import verify as verify

_WHERE = {
    "api": "aflush ashutdown explain_redaction flush get_trace shutdown stats",
    "bound": "BoundTrace",
    "composition": "configure",
    "core.account": "Loss ProducerAccount Unproven",
    "core.batch": "Batch Mark",
    "core.level": "Level",
    "core.numbers": "Numbers",
    "core.query": "Query",
    "core.record": "Kind Record Status",
    "core.redaction": "Redactor",
    "core.redaction_match": "Redaction",
    "core.summary": "RunSummary",
    "current": "NoTrace current_trace",
    "errors": (
        "AsyncTraceError BatchTooLargeError ClosedError ConfigurationError DeliveryError LaneFailure "
        "MissingExtraError PartialWriteError PermanentSinkError Rejection SinkClosedError SinkError StoreError "
        "TraceNotFoundError TransientSinkError"
    ),
    "executors": "ContextExecutor in_context",
    "exposition": "PROMETHEUS_CONTENT_TYPE to_otel to_prometheus",
    "pipeline.histogram": "HistogramStats",
    "pipeline.ledger": "LaneStats PipelineStats",
    "pipeline.options": "LaneOptions",
    "pipeline.pipeline": "Pipeline",
    "pipeline.report": "FlushReport LaneReport",
    "pipeline.retry": "RetryPolicy",
    "pipeline.spool_page": "SpoolStats",
    "ports": "BulkReader CandidReader LocalSink Processor Reader Sink SizedReader",
    "pruning": "aprune prune",
    "reading": "SpanNode StoredRun afind_trace afind_traces find_trace find_traces open_store",
    "receipt": "Receipt",
    "recovering": "RecoveryReport arecover",
    "span": "Span",
    "trace": "Trace",
    "decorators": "traced",
    "undelivered": (
        "RejectedRecord areplay_spools dead_letters purge_dead_letters purge_spools replay_dead_letters "
        "spools"
    ),
    "verifying": "Verdict Verification averify verify",
}
_MODULES = {name: f"asynctrace.{module}" for module, names in _WHERE.items() for name in names.split()}

__all__ = sorted([*_MODULES, "__version__"])  # one table, not two that drift apart


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module 'asynctrace' has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
