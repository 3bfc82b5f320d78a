"""The records that a receipt waits for, counted from the call that makes them to their end in every lane.

While nobody waits, nothing of this is on the path of a record: the Intakes have their plain ``append``. While somebody
does, they have one that asks the context which records those are.
"""

from __future__ import annotations

import os
import threading
import weakref
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, InvalidStateError
from contextlib import suppress
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from asynctrace.core.record import RawRecord
    from asynctrace.pipeline.intake import Barrier, Intake
    from asynctrace.pipeline.watch import Watch

Place = Literal["sink", "disk"]
"""Where a record counts as safe: in the sink, or there or in the lane's spool."""

Claims = tuple["Awaited", ...]
"""Who waits for one record: the innermost receipt that is open where it was made, and those around it."""

current: ContextVar[Awaited | None] = ContextVar("asynctrace_receipt", default=None)

_intakes: weakref.WeakSet[Intake] = weakref.WeakSet()
_open: weakref.WeakSet[Awaited] = weakref.WeakSet()
_lock = threading.RLock()  # re-entrant: a finaliser may make an Intake while we are here


def register(intake: Intake) -> None:
    """Remember the new Intake; if anybody waits already, it looks at its records from the start."""
    with _lock:
        _intakes.add(intake)
        if _open:
            _look(intake)


class Part:
    """One lane's share of the records that are waited for."""

    __slots__ = ("lost", "safe", "spooled", "waiting")

    def __init__(self) -> None:
        self.waiting = 0  # in memory
        self.spooled = 0  # on disk, and not in the sink
        self.safe = 0
        self.lost: Counter[str] = Counter()


class Awaited:
    """Counts records, and is done when the last of them has found its end after :meth:`leave`.

    Args:
        to: where they are to be safe.
    """

    def __init__(self, to: Place) -> None:
        self.to = to
        outer = current.get()
        while outer is not None and outer._left:
            outer = outer.outer
        self.outer: Awaited | None = outer
        self._begin()

    def _begin(self) -> None:
        self.done: Future[None] = Future()
        self.records = 0
        self.queued: Counter[Intake] = Counter()  # not offered to the lanes yet
        self.dropped: Counter[tuple[Intake, str]] = Counter()  # before any lane saw them, by reason
        self.parts: dict[Watch, Part] = {}
        self._unsettled = 0
        self._left = False
        self._lock = threading.RLock()  # re-entrant: a finaliser may emit while we count

    def enter(self) -> None:
        """Count from now on what is made in contexts that have this one as ``current``."""
        with _lock:
            if not _open:
                for intake in _intakes:
                    _look(intake)
            _open.add(self)

    def leave(self) -> None:
        """Count no further records."""
        with self._lock:
            self._left = True
            self._settle(0)
        with _lock:
            _open.discard(self)
            if not _open:
                for intake in _intakes:
                    _look_away(intake)

    def forget(self) -> None:
        """In a forked child: what was counted is the parent's."""
        self._begin()

    # -- any thread, at the call that makes a record ---------------------------------------------------------

    def take(self, intake: Intake) -> bool:
        """Count one record that goes into the Intake; whether it is counted."""
        with self._lock:
            if self._left:
                return False
            self.records += 1
            self.queued[intake] += 1
            self._unsettled += 1
            return True

    def drop(self, intake: Intake, reason: str) -> None:
        """Count one record that found no room there."""
        with self._lock:
            if not self._left:
                self.records += 1
                self.dropped[intake, reason] += 1

    # -- the home loop of the Intake -------------------------------------------------------------------------

    def offered(self, intake: Intake) -> None:
        """One record has come from the Intake to the lanes."""
        with self._lock:
            self.queued[intake] -= 1
            self._settle(1)

    def unfinishable(self, intake: Intake, reason: str) -> None:
        """One record never came to the lanes."""
        with self._lock:
            self.dropped[intake, reason] += 1
            self.offered(intake)

    def admitted(self, watch: Watch) -> Part:
        """The lane has admitted one record; its share."""
        with self._lock:
            self._unsettled += 1
            part = self.parts.get(watch)
            if part is None:
                part = self.parts[watch] = Part()
            part.waiting += 1
            return part

    def safe(self, part: Part, *, was_on_disk: bool) -> None:
        """The sink took one record."""
        with self._lock:
            _take_out(part, was_on_disk)
            part.safe += 1
            self._settle(1)

    def spooled(self, part: Part) -> bool:
        """One record is on disk now; whether that is its end."""
        with self._lock:
            part.waiting -= 1
            part.spooled += 1
            if self.to == "disk":
                self._settle(1)
            return self.to == "disk"

    def stranded(self) -> None:
        """One record stays on disk: nobody goes on delivering it."""
        with self._lock:
            self._settle(1)

    def lost(self, part: Part, reason: str, *, was_on_disk: bool) -> None:
        """One record was dropped, or rejected for good."""
        with self._lock:
            _take_out(part, was_on_disk)
            part.lost[reason] += 1
            self._settle(1)

    def _settle(self, count: int) -> None:
        self._unsettled -= count
        if self._left and not self._unsettled:
            with suppress(InvalidStateError):  # who waited has given up
                self.done.set_result(None)


def claim(intake: Intake) -> Claims:
    """Count a record that is made here for everybody who waits for it; who that is."""
    claims: list[Awaited] = []
    awaited = current.get()
    while awaited is not None:
        if awaited.take(intake):
            claims.append(awaited)
        awaited = awaited.outer
    return tuple(claims)


def drop(intake: Intake, reason: str) -> None:
    """Tell everybody who waits for records made here that one found no room."""
    awaited = current.get()
    while awaited is not None:
        awaited.drop(intake, reason)
        awaited = awaited.outer


def number(intake: Intake, raws: Sequence[RawRecord], first: int) -> dict[int, Claims]:
    """Who waits for which number, now that the records have theirs: one after the other from the first."""
    claims, numbered = intake.claims, {}
    for seq, raw in enumerate(raws, first):
        if (who := claims.pop(id(raw), None)) is not None:
            numbered[seq] = who
    return numbered


def offered(intake: Intake, numbered: Mapping[int, Claims]) -> None:
    """All lanes have seen these."""
    for who in numbered.values():
        for awaited in who:
            awaited.offered(intake)


def unfinishable(intake: Intake, raw: RawRecord, reason: str) -> None:
    """No lane will see this one."""
    for awaited in intake.claims.pop(id(raw), ()):
        awaited.unfinishable(intake, reason)


def _look(intake: Intake) -> None:
    if intake.plain_append is not None:  # somebody waited and was forgotten without a word
        return
    plain = intake.append
    reference = weakref.ref(intake)

    def append(raw: RawRecord | Barrier) -> None:
        if current.get() is not None and (intake := reference()) is not None and (who := claim(intake)):
            intake.claims[id(raw)] = who  # before the writer can take it, which looks here
        plain(raw)

    intake.append = append
    intake.plain_append = plain


def _look_away(intake: Intake) -> None:
    if intake.plain_append is not None:
        intake.append = intake.plain_append
        intake.plain_append = None


def _take_out(part: Part, was_on_disk: bool) -> None:
    if was_on_disk:
        part.spooled -= 1
    else:
        part.waiting -= 1


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()
    for awaited in list(_open):
        awaited.forget()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
