"""The JournalKeeper: tells the journal how far the lanes are, so that it can use its segments again."""

from __future__ import annotations

from asynctrace.pipeline.journal_entries import NoteEntry
from asynctrace.pipeline.journaled_intake import JournaledIntake
from asynctrace.pipeline.roster import Roster


class JournalKeeper:
    """Called by the writer between two slices, on the home loop; mostly finds nothing to do.

    Args:
        intake: whose journal it is.
        roster: the lanes.
    """

    def __init__(self, intake: JournaledIntake, roster: Roster) -> None:
        self._intake = intake
        self._roster = roster

    def __call__(self) -> None:
        journal = self._intake.journal
        if not journal.wants_notes:
            return
        safe, notes = self._intake.expected, []
        for lane in self._roster.lanes:
            lane.end_range()
            safe = min(safe, lane.safe)
            if lane.key is not None:
                stored = lane.stored_marks
                notes.append(
                    NoteEntry(
                        lane.key, lane.safe, stored.first, stored.last, stored.admitted, stored.filtered
                    )
                )
        journal.tend(safe, notes)
