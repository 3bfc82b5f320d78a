"""What a program traces, caught in memory."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from asynctrace import composition, current, reading, settings
from asynctrace.core.level import Level
from asynctrace.core.query import Query
from asynctrace.core.record import Kind, Record
from asynctrace.core.summary import RunSummary
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.pipeline import Pipeline
from asynctrace.sinks.memory import MemoryReader, MemorySink
from asynctrace.testing.losses import assert_no_loss

_PATIENCE = 10.0  # seconds for a flush into memory


class Traces:
    """The records of every trace that names no sinks of its own.

    Each look waits until all that was recorded before it is there.

    Args:
        pipeline: the process default.
        sink: its one sink.
    """

    def __init__(self, pipeline: Pipeline, sink: MemorySink) -> None:
        self._pipeline = pipeline
        self._sink = sink

    def __repr__(self) -> str:
        return f"<Traces: {len(self.records)} records>"

    @property
    def entries(self) -> tuple[Record, ...]:
        """All records, starts and ends of runs and spans included, in the order they were made."""
        self._pipeline.flush(_PATIENCE)
        return self._sink.records

    @property
    def records(self) -> tuple[Record, ...]:
        """The log records, in the order they were made."""
        return tuple(record for record in self.entries if record.kind is Kind.LOG)

    @property
    def messages(self) -> list[str]:
        """Their messages."""
        return [record.message for record in self.records]

    @property
    def runs(self) -> list[RunSummary]:
        """The runs, newest first."""
        self._pipeline.flush(_PATIENCE)
        return reading.find_traces(MemoryReader(self._sink))

    @property
    def stats(self) -> PipelineStats:
        """The ledger."""
        return self._pipeline.stats()

    def filter(
        self,
        text: str | None = None,
        /,
        *,
        level: Level | str | int | None = None,
        run_id: str | None = None,
        run_name: str | None = None,
        **fields: Any,
    ) -> list[Record]:
        """The log records that meet all conditions.

        Args:
            text: the message contains it, whatever the case.
            level: the record's level is this or above.
            run_id: of the record's run.
            run_name: the run's name or workflow name.
            fields: each field, bound or the record's own, has this value.

        Raises:
            ConfigurationError: the level is none.
        """
        query = Query(0 if level is None else Level.parse(level), text=text, name=run_name, fields=fields)
        return [r for r in self.records if query.admits(r) and run_id in (None, r.run_id)]

    def one(self, text: str | None = None, /, **conditions: Any) -> Record:
        """The only record that meets the conditions of :meth:`filter`.

        Raises:
            AssertionError: there is none, or there are several; it lists what was recorded.
        """
        found = self.filter(text, **conditions)
        if len(found) != 1:
            listed = "".join(f"\n  {Level(r.level).label} {r.message!r} {r.fields}" for r in self.records)
            raise AssertionError(f"{len(found)} records instead of one; recorded were:{listed or ' none'}")
        return found[0]

    def clear(self) -> None:
        """Forget what was recorded so far."""
        self._pipeline.flush(_PATIENCE)
        self._sink.clear()

    def assert_no_loss(self) -> None:
        """Everything that was recorded is here, to the record.

        Raises:
            AssertionError: it is not; it says what became of it.
        """
        assert_no_loss(self._pipeline)


@contextmanager
def captured(level: Level | str = "debug") -> Iterator[Traces]:
    """Inside, the process default is a memory that the test reads; afterwards it is what it was before.

    Traces that name sinks of their own go on writing there.

    Args:
        level: the lowest level that traces record.

    Example:
        >>> import asynctrace
        >>> with captured() as traces:
        ...     with asynctrace.Trace("run-1") as trace:
        ...         trace.info("loaded", rows=120)
        ...     traces.one("loaded").fields
        {'rows': 120}
    """
    before = settings._given
    sink = MemorySink()
    pipeline = composition.configure(sink, level=level)
    try:
        yield Traces(pipeline, sink)
    finally:
        current.end_own_run()
        if before is None:
            composition.forget()
            pipeline.close()
        else:
            sinks = before.get("sinks", ())
            composition.configure(
                *sinks, **{name: value for name, value in before.items() if name != "sinks"}
            )
