"""Asserting that nothing was lost: by the ledger while the pipeline lives, by the marks in the store afterwards."""

from __future__ import annotations

from collections.abc import Iterable

from asynctrace.pipeline import home
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.pipeline import Pipeline
from asynctrace.ports import Reader
from asynctrace.verifying import Verification, averify, verify

_PATIENCE = 10.0  # seconds for a flush


def assert_no_loss(*where: str | Reader | Pipeline, timeout: float = _PATIENCE) -> None:
    """Nothing is lost, doubled in a keyed store, still on its way, or waiting on disk.

    Not for a pipeline at home on the running loop, which this would block: :func:`aassert_no_loss`.

    Args:
        where: stores to verify and pipelines to look at; without any, all pipelines of this process.
        timeout: seconds for what is still on its way.

    Raises:
        AssertionError: something is; it says what, where and how many.
        StoreError: a store is not there.

    Example:
        >>> import tempfile
        >>> from asynctrace import Trace
        >>> url = f"sqlite:{tempfile.mkdtemp()}/t.db"
        >>> with Trace("run-1", sinks=[url]) as trace:
        ...     trace.info("hello")
        >>> assert_no_loss(url)
    """
    problems: list[str] = []
    for each in where or home.pipelines():
        if isinstance(each, Pipeline):
            each.flush(timeout)
            problems += _ledger_problems(each.stats())
        else:
            problems += _store_problems(verify(each))
    _judge(problems)


async def aassert_no_loss(*where: str | Reader | Pipeline, timeout: float = _PATIENCE) -> None:
    """As :func:`assert_no_loss`, without blocking the event loop."""
    problems: list[str] = []
    for each in where or home.pipelines():
        if isinstance(each, Pipeline):
            await each.aflush(timeout)
            problems += _ledger_problems(each.stats())
        else:
            problems += _store_problems(await averify(each))
    _judge(problems)


def _ledger_problems(stats: PipelineStats) -> Iterable[str]:
    for lane in stats.lanes:
        told = f"lane {lane.lane} of pipeline {stats.producer}"
        if lane.dead:
            yield f"{told}: {lane.dead} record(s) rejected for good: {lane.last_error}"
        for reason, count in lane.dropped.items():
            yield f"{told}: {count} record(s) dropped: {reason}"
        if lane.pending:
            yield f"{told}: {lane.pending} record(s) not delivered in time: {lane.last_error}"
        if lane.spooled:
            yield f"{told}: {lane.spooled} record(s) on disk, not in the sink: {lane.last_error}"
        if not lane.balanced:
            yield f"{told}: the ledger does not balance: {lane}"


def _store_problems(found: Verification) -> Iterable[str]:
    for account in found.producers:
        told = f"producer {account.producer} in {found.store}"
        for loss in account.losses:
            among = ", ".join(f"{first}-{last}" for first, last in loss.missing)
            yield f"{told}: {loss.records} record(s) lost {'' if loss.exact else 'among '}{among}"
        if account.dropped:
            yield f"{told}: {account.dropped} record(s) dropped"


def _judge(problems: list[str]) -> None:
    if problems:
        raise AssertionError("records were lost:\n  " + "\n  ".join(problems))
