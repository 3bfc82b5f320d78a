"""A Roster: the lanes of a pipeline, the sinks they lead to, and the level that they ask for."""

from __future__ import annotations

import threading
import weakref
from collections.abc import Callable
from types import MethodType
from typing import Any, TypeVar, cast

from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.finisher import Finisher
from asynctrace.pipeline.lane import Lane
from asynctrace.pipeline.options import LOCAL, REMOTE, LaneOptions
from asynctrace.pipeline.overflow import Recovery
from asynctrace.pipeline.report import LaneReport, report_of
from asynctrace.pipeline.settlement import TellDrops
from asynctrace.pipeline.shelter import Shelter
from asynctrace.pipeline.state_directory import StateDirectory, lane_key
from asynctrace.ports import AnySink, LocalSink

_S = TypeVar("_S")


class Roster:
    """Makes lanes and knows them; whoever adds or removes one sees to it that nothing else touches them.

    Args:
        finisher: numbers the records.
        options: how lanes behave unless somebody says otherwise; None: :data:`LOCAL` or :data:`REMOTE`.
        state: where what cannot be delivered is kept; None: nowhere.
        tell_drops: of a lane.
        recovery: brings what is in journals to the spools.
        durability: of the pipeline; ``"disk"`` has spools fsync each batch.
    """

    def __init__(
        self,
        finisher: Finisher,
        options: LaneOptions | None,
        state: StateDirectory | None,
        tell_drops: TellDrops,
        recovery: Recovery | None = None,
        durability: Durability | None = None,
    ) -> None:
        self._durability = durability
        self._recovery = recovery
        self.lanes: list[Lane] = []
        self._finisher = finisher
        self._options = options
        self._state = state
        self._tell_drops = tell_drops
        self._removed: list[Lane] = []
        self._sifting = False
        self._followers: weakref.WeakKeyDictionary[Any, Callable[[Any, int], None]] = (
            weakref.WeakKeyDictionary()
        )
        self._lock = threading.RLock()  # re-entrant: a finaliser may open a trace, which follows the level

    # -- sinks -----------------------------------------------------------------------------------------------

    def sinks(self, kind: type[_S] | None = None) -> list[Any]:
        """The sinks, or those of one type, in the order they were added."""
        return [lane.sink for lane in self.lanes if kind is None or isinstance(lane.sink, kind)]

    @property
    def is_local(self) -> bool:
        """Whether each sink can write without an event loop."""
        return all(isinstance(lane.sink, LocalSink) for lane in self.lanes)

    def lane_of(self, sink: AnySink) -> Lane:
        """The lane that leads to the sink.

        Raises:
            ConfigurationError: there is none.
        """
        lane = next((lane for lane in self.lanes if lane.sink is sink), None)
        if lane is None:
            raise ConfigurationError("sink", repr(sink), f"one of {self.sinks()!r}")
        return lane

    def add(self, sink: AnySink, options: LaneOptions | None = None) -> Lane:
        """A lane to the sink, which sees the records that are numbered from now on.

        Raises:
            ConfigurationError: it is no sink.
        """
        for verb in ("open", "write", "aclose"):
            if not callable(getattr(sink, verb, None)):
                raise ConfigurationError("sink", repr(sink), "an object with open, write and aclose")
        kind = type(sink).__name__.removesuffix("Sink").lower() or "sink"
        taken = {lane.name for lane in (*self.lanes, *self._removed)}
        name = next(n for n in (kind, *(f"{kind}-{i}" for i in range(2, len(taken) + 3))) if n not in taken)
        options = options or self._options or (LOCAL if isinstance(sink, LocalSink) else REMOTE)
        shelter = self._new_shelter(kind, name, sink, options)
        finisher = self._finisher
        lane = Lane(name, sink, options, finisher.producer, finisher.next_seq, self._tell_drops, shelter)
        self.lanes.append(lane)
        self._sifting = self._sifting or lane.sifting
        for each in self.lanes:
            each.sifting = self._sifting
        if lane.options.level is not None:
            self._tell_level()
        return lane

    def take_out(self, lane: Lane) -> bool:
        """Forget the lane, but for its name; whether it was there."""
        if lane not in self.lanes:
            return False
        self.lanes.remove(lane)
        self._removed.append(lane)
        return True

    def after_fork(self, finisher: Finisher) -> list[Lane]:
        """In a forked child: new lanes to the same sinks; the parent's, to be kept unused."""
        self._lock = threading.RLock()
        self._finisher = finisher
        inherited, self.lanes = self.lanes, []
        for lane in inherited:
            self.add(lane.sink, lane.options)
        return inherited

    def _new_shelter(self, kind: str, name: str, sink: AnySink, options: LaneOptions) -> Shelter | None:
        # An object that does not say where it writes to could be any other at the next start.
        nameless = repr(sink) == object.__repr__(sink)
        if self._state is None or nameless or not options.spool_max_bytes:
            return None
        return Shelter(
            self._state,
            lane_key(kind, repr(sink)),
            name,
            max_bytes=options.spool_max_bytes,
            max_age=options.spool_max_age,
            recovery=self._recovery,
            fsync_interval=0.0 if self._durability == "disk" else options.spool_fsync,
        )

    # -- levels ----------------------------------------------------------------------------------------------

    def follow_level(self, follower: Callable[[int], None]) -> None:
        """Tell the bound method, weakly held, now and later: the lowest level that a lane asks for by itself.

        A lane without a level takes what each run asks for, and does not count.
        """
        with self._lock:
            method = cast("MethodType", follower)
            self._followers[method.__self__] = method.__func__
            lowest = self._lowest_level()
        if lowest is not None:
            follower(lowest)

    def _lowest_level(self) -> int | None:
        levels = [level for lane in self.lanes if (level := lane.options.lowest) is not None]
        return min(levels, default=None)

    def _tell_level(self) -> None:
        with self._lock:
            lowest, followers = self._lowest_level(), list(self._followers.items())
        if lowest is not None:
            for owner, follow in followers:
                follow(owner, lowest)

    # -- all of them -----------------------------------------------------------------------------------------

    @property
    def pending(self) -> bool:
        """Whether any lane has records in memory."""
        return any(lane.pending for lane in self.lanes)

    @property
    def progress(self) -> int:
        """Records that local stores have made safe so far."""
        return sum(lane.counts.delivered for lane in self.lanes if isinstance(lane.sink, LocalSink))

    def owed(self, queued: int) -> int:
        """Records in memory that local stores have yet to make safe; ``queued`` wait in the Intake."""
        return sum(lane.pending + queued for lane in self.lanes if isinstance(lane.sink, LocalSink))

    def shelve_soon(self) -> None:
        """What was offered so far is to be safe at least on disk."""
        for lane in self.lanes:
            lane.shelve_soon()

    def settled(self, then: Callable[[], None]) -> None:
        """Call it when everything offered so far is settled in every lane; on the home loop."""
        countdown = _Countdown(len(self.lanes), then)
        for lane in self.lanes:
            lane.settled(countdown.one)

    def reports(self, queued: int) -> tuple[LaneReport, ...]:
        """What became of the records, lane by lane; ``queued`` of them wait in the Intake."""
        return tuple(report_of(lane.stats(queued), lane.safety) for lane in self.lanes)


class _Countdown:
    """Calls the function when so many have come in."""

    def __init__(self, count: int, then: Callable[[], None]) -> None:
        self._left = count + 1
        self._then = then
        self.one()

    def one(self) -> None:
        self._left -= 1
        if self._left == 0:
            self._then()
