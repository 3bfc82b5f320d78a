"""A Protection: what stands between a record and a kill, as the pipeline's durability asks for it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from asynctrace.core.redaction import Redactor
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.journal import Journal
from asynctrace.pipeline.journal_keeper import JournalKeeper
from asynctrace.pipeline.journaled_intake import JournaledIntake
from asynctrace.pipeline.process import UnknownUsage
from asynctrace.pipeline.recovery import Recovery
from asynctrace.pipeline.roster import Roster
from asynctrace.pipeline.screen import Screen
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.pipeline.writer import Writer
from asynctrace.ports import Processor


class Protection:
    """Makes the parts of a pipeline that differ with its durability.

    Args:
        state: where journals are; None: nowhere, so that there is none.
        durability: what a record survives once its call has returned; None: nothing.
        max_bytes: bytes on disk for records that are not safe yet.
        redactor: takes the secrets out of a record before it is journaled.
    """

    def __init__(
        self, state: StateDirectory | None, durability: Durability | None, max_bytes: int, redactor: Redactor
    ) -> None:
        self._state = state
        self._durability = durability
        self._max_bytes = max_bytes
        self._redactor = redactor

    def new_intake(
        self,
        max_records: int,
        max_bytes: int,
        wake: Callable[[], None],
        producer: Callable[[], str],
        **waiting: Any,
    ) -> Intake:
        """An Intake; with a journal, if one is asked for.

        Args:
            max_records: as of :class:`Intake`, as are the others.
            max_bytes: see there.
            wake: see there.
            producer: asked for who numbers the records; it is another one after a fork.
            waiting: see there.
        """
        state, durability = self._state, self._durability
        if state is None or durability is None:
            return Intake(max_records, max_bytes, wake, **waiting)

        def new_journal() -> Journal:
            return Journal(
                state, producer(), self._redactor, durability=durability, max_bytes=self._max_bytes
            )

        return JournaledIntake(max_records, max_bytes, wake, new_journal, Screen(self._redactor), **waiting)

    def new_writer(self, intake: Intake, finisher: Finisher, roster: Roster, linger: float) -> Writer:
        """A Writer, which tells the journal how far the lanes are."""
        if isinstance(intake, JournaledIntake):
            return Writer(intake, finisher, roster.lanes, linger, JournalKeeper(intake, roster))
        return Writer(intake, finisher, roster.lanes, linger)

    def new_recovery(
        self, roster: Callable[[], Roster], processors: Sequence[Processor], *, to_all: bool
    ) -> Recovery | None:
        """What delivers the journals of killed processes; None where there can be none.

        Args:
            roster: whose lanes deliver them.
            processors: of the pipeline.
            to_all: whether each lane takes all, and not only what was meant for its sink.
        """
        if self._state is None:
            return None
        return Recovery(
            self._state,
            lambda: roster().lanes,
            lambda producer: Finisher(producer, processors, self._redactor, UnknownUsage()),
            to_all=to_all,
        )

    def serve(self, intake: Intake, roster: Roster) -> None:
        """Have the journal know for which sinks it is."""
        if isinstance(intake, JournaledIntake):
            intake.journal.serve([lane.key for lane in roster.lanes if lane.key is not None])
