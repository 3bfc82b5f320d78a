"""Every error that asynctrace raises, named by what the caller should do.

AsyncTraceError
├── ConfigurationError (ValueError)     correct the named setting, URL or argument
│   └── MissingExtraError (ImportError) install the named extra
├── SinkError                           raised by sinks, handled by their lane; never by user code
│   ├── TransientSinkError              send the same batch again, later
│   ├── BatchTooLargeError              send the batch again in smaller pieces
│   ├── PermanentSinkError              do not send this batch again
│   ├── PartialWriteError               some records were stored, the named ones were not
│   └── SinkClosedError                 open the sink first
├── DeliveryError                       look at the named lanes: records are not safe yet
├── ClosedError                         open a new trace or pipeline
└── StoreError                          look at the named store
    └── TraceNotFoundError (LookupError)   check the run id and the store
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


class AsyncTraceError(Exception):
    """The base of every error of this package."""


class ConfigurationError(AsyncTraceError, ValueError):
    """A setting, a URL or an argument has a value that cannot be used.

    Args:
        name: what holds the value: a variable, a parameter, a URL.
        value: the value as it was given; it is shown, so pass no secret.
        allowed: what would have been accepted, in words.
    """

    def __init__(self, name: str, value: object, allowed: str) -> None:
        self.name = name
        self.value = value
        self.allowed = allowed
        super().__init__(f"{name}: {value!r} cannot be used; allowed: {allowed}")

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, object, str]]:
        return type(self), (self.name, self.value, self.allowed)


class MissingExtraError(ConfigurationError, ImportError):  # type: ignore[misc]  # both have a `name`, and it fits
    """A feature needs a package that is not installed.

    Args:
        feature: what was asked for, for example ``redis://``.
        package: the package that could not be imported.
        extra: the extra of asynctrace that brings it.
    """

    def __init__(self, feature: str, package: str, extra: str) -> None:
        self.feature = feature
        self.package = package
        self.extra = extra
        super().__init__(feature, f"package {package} is missing", f"pip install 'asynctrace[{extra}]'")

    def __reduce__(self) -> tuple[type[ConfigurationError], tuple[str, object, str]]:
        return type(self), (self.feature, self.package, self.extra)


class SinkError(AsyncTraceError):
    """A destination did not take a batch; the lane decides what follows."""


class TransientSinkError(SinkError):
    """The destination is away, busy or slow: the same batch may succeed later.

    Args:
        message: what happened, without secrets.
        retry_after: seconds the destination asked to be left alone, if it said so.
    """

    def __init__(self, message: str, *, retry_after: float | None = None) -> None:
        self.retry_after = retry_after
        super().__init__(message)


class BatchTooLargeError(SinkError):
    """The destination takes fewer records or bytes at once: the lane halves the batch."""


class PermanentSinkError(SinkError):
    """The destination will never take this batch: wrong credentials, no such table."""


@dataclass(frozen=True, slots=True)
class Rejection:
    """One record of a batch that was not stored.

    Args:
        index: position in the batch, from 0.
        reason: what the destination said.
        retryable: whether the same record may be accepted later.
    """

    index: int
    reason: str
    retryable: bool = False


class PartialWriteError(SinkError):
    """Some records were stored; the rejections name those that were not."""

    def __init__(self, rejections: Sequence[Rejection]) -> None:
        self.rejections = tuple(rejections)
        shown = ", ".join(f"#{r.index}: {r.reason}" for r in self.rejections[:3])
        super().__init__(f"{len(self.rejections)} record(s) rejected ({shown})")


class SinkClosedError(SinkError):
    """The sink was written to before ``open`` or after ``aclose``."""


@dataclass(frozen=True, slots=True)
class LaneFailure:
    """What one lane could not make safe.

    Args:
        lane: the lane's name.
        reason: the last error or the policy that applied, in words.
        records: how many records are concerned.
    """

    lane: str
    reason: str
    records: int


class DeliveryError(AsyncTraceError):
    """Records are not safe in every lane that admits them."""

    def __init__(self, failures: Sequence[LaneFailure]) -> None:
        self.failures = tuple(failures)
        shown = "; ".join(f"{f.lane}: {f.records} record(s): {f.reason}" for f in self.failures)
        super().__init__(shown or "delivery failed")

    def __reduce__(self) -> tuple[type[DeliveryError], tuple[tuple[LaneFailure, ...]]]:
        return type(self), (self.failures,)


class ClosedError(AsyncTraceError):
    """The trace, pipeline or loop that was asked has ended."""


class StoreError(AsyncTraceError):
    """A store cannot be read: it is not there, or it holds something else."""


class TraceNotFoundError(StoreError, LookupError):
    """The store holds no run of that id.

    Args:
        run_id: the id that was asked for.
        store: the store that was searched, without secrets.
    """

    def __init__(self, run_id: str, store: str) -> None:
        self.run_id = run_id
        self.store = store
        super().__init__(f"no run {run_id!r} in {store}")

    def __reduce__(self) -> tuple[type[TraceNotFoundError], tuple[str, str]]:
        return type(self), (self.run_id, self.store)
