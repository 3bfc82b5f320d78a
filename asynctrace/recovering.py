"""What killed processes left in their journals: delivered on demand, as the next start would."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace

from asynctrace import composition, settings
from asynctrace.core.arguments import number
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.ledger import PipelineStats

DEFAULT_TIMEOUT = 60.0
"""Seconds that delivering may take; what is not delivered then goes on waiting in the spool."""


@dataclass(frozen=True, slots=True)
class RecoveryReport:
    """What was found in the journals of killed processes, and where it is now.

    Args:
        journals: how many were recovered.
        records: found in them and not known to be safe; some may have been stored all the same.
        damaged: entries that could not be read.
        failed: journals that could not be recovered; they stay where they are.
        elsewhere: journals that wait for other sinks than these; nothing of them was delivered.
        stats: the ledger of the delivery; what was recovered counts as adopted there.
    """

    journals: int
    records: int
    damaged: int
    failed: int
    elsewhere: int
    stats: PipelineStats


async def arecover(
    to: str | None = None, *, state_dir: str | None = None, timeout: float = DEFAULT_TIMEOUT
) -> RecoveryReport:
    """Deliver what killed processes left in their journals; what living ones are writing is not touched.

    The records go to the configured sinks for which the journals were kept, as at the next start of the program, and
    with them what waits in their spools. Stores with a key keep one of what they had already.

    Args:
        to: the URL of a store that takes everything instead, whatever it was meant for.
        state_dir: where to look, a directory that is there; by default the setting ``state_dir``.
        timeout: seconds; what is not delivered then goes on waiting in the spool.

    Raises:
        ConfigurationError: a setting or an argument cannot be used, or ``to`` names a sink that keeps nothing.
        OSError: the state directory cannot be read, or the one that was named is not there.
    """
    number("timeout", timeout, "seconds")
    if to is not None and not isinstance(to, str):
        raise ConfigurationError("to", to, "the URL of a sink that keeps records")
    values = settings.current()
    if state_dir is not None:
        values = replace(values, state_dir=settings.with_given({"state_dir": state_dir}).state_dir)
        if values.state_dir:
            os.listdir(values.state_dir)  # a name that is wrong must not look like one that holds nothing
    composition.state_directory(values.sinks, values).existing("journal")  # a pipeline would go on without it
    pipeline = composition.make_pipeline(values, to)
    if to is not None and not pipeline.keeps:
        raise ConfigurationError("to", to, "the URL of a sink that keeps records")
    stats = await composition.deliver(pipeline, timeout)
    found = pipeline.recovery
    if found is None:
        return RecoveryReport(0, 0, 0, 0, 0, stats)
    return RecoveryReport(found.journals, found.records, found.damaged, found.failed, found.elsewhere, stats)
