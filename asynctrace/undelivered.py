"""What waits on disk because its sink did not take it: spools and dead letters, to look at, deliver and delete."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from asynctrace import composition, settings
from asynctrace.core.arguments import number
from asynctrace.core.record import Record
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.dead_letters import DeadLetters
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.spool_page import SpoolStats, look, purge
from asynctrace.pipeline.state_directory import StateDirectory

DEFAULT_TIMEOUT = 60.0
"""Seconds that a replay may take; what is not delivered then goes on waiting."""


@dataclass(frozen=True, slots=True)
class RejectedRecord:
    """A record that its destination rejected for good.

    Args:
        lane: the kind of the sink and a digest of its destination.
        sink: the destination as it shows itself, without secrets.
        time_ns: wall clock of the rejection.
        reason: what it said.
        traceback: of an error that no sink should raise; else empty.
        record: the record.
    """

    lane: str
    sink: str
    time_ns: int
    reason: str
    traceback: str
    record: Record


def spools() -> list[SpoolStats]:
    """What waits on disk, a page for each destination; looking changes nothing.

    Raises:
        ConfigurationError: a setting cannot be used.
        OSError: the state directory cannot be read.
    """
    pages = (look(directory) for directory in _state().existing("spool"))
    return [page for page in pages if page.records or page.size]


async def areplay_spools(timeout: float = DEFAULT_TIMEOUT) -> PipelineStats:
    """Deliver what waits on disk to the configured sinks, as their next start would do; the ledger of that.

    What living processes hold is theirs to deliver. What was moved out of dead letters counts as replayed.

    Args:
        timeout: seconds; what is not delivered then goes on waiting.

    Raises:
        ConfigurationError: a setting, the URL of a sink or the timeout cannot be used.
        OSError: the state directory cannot be read.
    """
    number("timeout", timeout, "seconds")
    _state().existing("spool")  # a pipeline would go on without it
    return await composition.deliver(composition.make_pipeline(settings.current()), timeout)


def purge_spools(lane: str | None = None) -> int:
    """Delete what waits on disk, but for what living processes hold; how many records went.

    Args:
        lane: of one destination only.

    Raises:
        ConfigurationError: there is no such lane.
        OSError: the state directory cannot be written.
    """
    return sum(purge(directory) for directory in _chosen("spool", lane))


def dead_letters(lane: str | None = None) -> Iterator[RejectedRecord]:
    """Records that were rejected for good, the oldest of each destination first.

    Args:
        lane: of one destination only.

    Raises:
        ConfigurationError: there is no such lane.
        OSError: the state directory cannot be read.
    """
    for directory in _chosen("dead", lane):
        for letter in DeadLetters(directory):
            try:
                record = letter.to_record()
            except ValueError:  # of another version; it stays where it is
                continue
            yield RejectedRecord(
                directory.name, letter.sink, letter.time_ns, letter.reason, letter.traceback, record
            )


def replay_dead_letters(lane: str | None = None) -> int:
    """Move dead letters to where they are delivered from at the next start or replay; how many.

    Args:
        lane: of one destination only.

    Raises:
        ConfigurationError: there is no such lane.
        OSError: the state directory cannot be written; the letters are still there.
    """
    return sum(
        DeadLetters(directory).replay(directory.parents[1] / "spool" / directory.name)
        for directory in _chosen("dead", lane)
    )


def purge_dead_letters(lane: str | None = None) -> int:
    """Delete dead letters; how many went.

    Args:
        lane: of one destination only.

    Raises:
        ConfigurationError: there is no such lane.
        OSError: the state directory cannot be written.
    """
    return sum(DeadLetters(directory).purge() for directory in _chosen("dead", lane))


def _state() -> StateDirectory:
    values = settings.current()
    return composition.state_directory(values.sinks, values)


def _chosen(kind: str, lane: str | None) -> list[Path]:
    directories = _state().existing(kind)
    if lane is None:
        return directories
    chosen = [directory for directory in directories if directory.name == lane]
    if not chosen:
        allowed = ", ".join(directory.name for directory in directories) or "nothing: there is none"
        raise ConfigurationError("LANE", lane, allowed)
    return chosen
