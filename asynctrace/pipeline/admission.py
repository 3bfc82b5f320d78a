"""The Admission: which records a lane takes."""

from __future__ import annotations

from functools import partial

from asynctrace.core.record import Kind, Record
from asynctrace.pipeline.diagnostics import say_of_lane
from asynctrace.pipeline.options import LaneOptions


class Admission:
    """The lane's level and its rule; structural records always pass.

    Args:
        lane: the lane's name.
        options: of the lane.
    """

    def __init__(self, lane: str, options: LaneOptions) -> None:
        self._level = options.lowest
        self._rule = options.admit
        self._say = partial(say_of_lane, lane)

    @property
    def has_rule(self) -> bool:
        """Whether each record must be asked for."""
        return self._rule is not None

    def admits(self, record: Record) -> bool:
        """Whether the lane takes the record."""
        if record.kind is not Kind.LOG:
            return True
        if record.level < (record.context.run.level if self._level is None else self._level):
            return False
        if self._rule is None:
            return True
        try:
            return bool(self._rule(record))
        except Exception as error:  # the user's rule: when in doubt the record is kept
            self._say(error, "the rule %r raised %r; the record is admitted", self._rule, error)
            return True
