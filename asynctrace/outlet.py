"""An Outlet: where the handles of one run put their records, and from which level on."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.journaled_intake import JournaledIntake
from asynctrace.pipeline.room import DONE

if TYPE_CHECKING:
    from asynctrace.emitter import Emitter

OFF = 1 << 30
"""A threshold that no level reaches."""


class Outlet:
    """Shared by a trace, its bound handles and its quiet spans.

    Args:
        intake: takes the records.
        threshold: the lowest level recorded; lanes that are added may lower it.
    """

    def __init__(self, intake: Intake | Nowhere, threshold: int) -> None:
        self.intake = intake
        self.threshold = threshold
        self._handles: weakref.WeakSet[Emitter] = weakref.WeakSet()
        # Makes the classes of handles; None: the usual ones.
        self._variant: Callable[[Any, int], Any] | None = None
        self.span_class: Callable[[int], Any] | None = None
        """Makes the class of spans with that threshold; None: the usual one."""
        if isinstance(intake, JournaledIntake):
            from asynctrace import journaling  # it imports the handles, which import this

            self._variant = journaling.handle_class(intake.journal.durability)
            self.span_class = journaling.span_class(intake.journal.durability)
        self._lock = threading.RLock()  # re-entrant: a finaliser may make a handle while we are here

    @property
    def recording(self) -> bool:
        """Whether anything is recorded at all."""
        return self.threshold != OFF

    def join(self, handle: Emitter) -> None:
        """Silence the handle below the threshold, and keep it so when that changes."""
        with self._lock:
            self._handles.add(handle)
            handle._set_threshold(self.threshold, self._variant)

    def lower(self, threshold: int) -> None:
        """Have all handles record from that level on, unless they do so already."""
        with self._lock:
            if self.recording and threshold < self.threshold:
                self.threshold = threshold
                for handle in list(self._handles):
                    handle._set_threshold(threshold, self._variant)


class LongWay:
    """Stands before an Intake and looks full, so that every call takes the long way.

    Args:
        intake: the Intake behind it; None for a trace that is not open yet.
    """

    records: Sequence[Any] = ()
    limit = 0

    def __init__(self, intake: Intake | Nowhere | None) -> None:
        self._behind = intake

    def full(self) -> bool:
        """Yes."""
        return True

    def __getattr__(self, name: str) -> Any:
        return getattr(self._behind, name)


class Nowhere:
    """Stands for the Intake where nothing is recorded: counts what it is given."""

    records: Sequence[Any] = ()
    limit = 0
    pending = True
    crowded = False

    def __init__(self) -> None:
        self.ignored = 0

    def full(self) -> bool:
        """No record goes the short way here."""
        return True

    def append(self, record: object) -> None:
        """Count it."""
        self.ignored += 1

    def put_record(self, record: object, *, patient: bool) -> None:
        """Count it."""
        self.ignored += 1

    def room(self) -> Any:
        """There always is."""
        return DONE
