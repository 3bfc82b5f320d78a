"""How one lane behaves; defaults for local and for remote destinations."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from typing import Literal, get_args

from asynctrace.core.allowed import is_choice, is_number, is_positive, is_whole
from asynctrace.core.level import Level
from asynctrace.core.record import Record
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.bounds import Bounds
from asynctrace.pipeline.retry import RetryPolicy
from asynctrace.pipeline.rules import Rules, check
from asynctrace.pipeline.segments import FSYNC_INTERVAL
from asynctrace.pipeline.spool import MAX_AGE, MAX_BYTES
from asynctrace.ports import Safety

WhenFull = Literal["wait", "spill", "drop_oldest", "drop_newest"]
"""What happens when a lane's backlog is full.

``wait``: the writer waits for the lane, at most ``patience`` without progress; a lane that makes none is lagging and is
not waited for until no more than half of ``high_water`` waits; what then exceeds ``capacity`` is dropped as by
``drop_newest``.
``spill``: from ``high_water`` on, what waits goes to the lane's spool on disk, and newcomers behind it, until the sink
has taken all of that; nothing is dropped before ``spool_max_bytes`` are used up, for when half of ``capacity`` waits
for the disk, the writer waits too, at most ``patience`` without progress. Without a state directory, when its disk is
full, or when it does not answer, the memory fills up to ``capacity``; then as ``drop_oldest``.
``drop_oldest``: the oldest records below level error make room.
``drop_newest``: the newcomer is dropped; a tenth of the room is reserved for level error and above.
Every drop is counted by reason and told in the stream when room returns.
"""


@dataclass(frozen=True, slots=True)
class LaneOptions:
    """How a lane gathers, delivers and bounds its backlog.

    Args:
        linger: seconds to wait for more records before a write.
        trigger: records waiting that end the linger at once.
        max_records: most records in one write.
        max_bytes: most bytes in one write, see :mod:`asynctrace.core.size`; one record is written however large it is.
        short: while no more than this wait, one write takes them all; longer backlogs are cut into the largest
            power of two, so that a database prepares few statements.
        write_timeout: seconds for one write; None for no bound.
        high_water: records in the backlog from which on the writer waits for the lane (``when_full="wait"``) or they
            go to disk (``"spill"``), and none lingers; None: half of ``capacity``, at most 8,192.
        high_water_bytes: the same in bytes, whichever is reached first; None: half of ``capacity_bytes``, at most
            32 MiB.
        capacity: records that the backlog may hold; None: a million, or twice ``high_water`` if that is more.
            While the writer waits, the rest of the few hundred records that it has in hand waits outside.
        capacity_bytes: bytes that it may hold, whichever is reached first; None: 512 MiB, or twice
            ``high_water_bytes`` if that is more. An empty one takes any record.
        when_full: see :data:`WhenFull`.
        patience: seconds without progress after which the writer stops waiting for the lane.
        retry: when to try again after a transient failure.
        breaker_failures: transient failures in a row after which nothing is tried for a while: what waits stays in
            the backlog, or goes where ``when_full`` says; None: never.
        breaker_cooldown: seconds of that while; then one write is tried, and its answer decides whether more follow.
        surprises: tries for errors that no sink should raise.
        level: the lowest level that the lane takes, by name or number, however high that of a run is; None: what
            each run asks for. Structural records always pass.
        admit: a rule that decides for each log record whether the lane takes it; None takes all.
        mark_every: records between two marks in the store.
        spool_max_bytes: bytes that the lane may keep on disk; a tenth is reserved for level error and above.
        spool_max_age: seconds after which a record on disk is no longer worth delivering.
        spool_fsync: seconds after which a record on disk survives a power failure too; 0: at once, None: when the
            system gets to it. The death of the process it survives in any case.
        safety: what a record survives once the sink took it, for those who ask: ``memory``, ``process`` or ``disk``;
            None: what a local sink says of itself, and ``process`` for all others.

    Raises:
        ConfigurationError: an option has a value that cannot be used, or one that contradicts another.
    """

    linger: float = 0.0
    trigger: int = 1
    max_records: int = 1024
    max_bytes: int = 16 << 20
    short: int = 250
    write_timeout: float | None = 60.0
    high_water: int | None = None
    high_water_bytes: int | None = None
    capacity: int | None = None
    capacity_bytes: int | None = None
    when_full: WhenFull = "wait"
    patience: float = 0.25
    retry: RetryPolicy = field(default_factory=RetryPolicy)
    breaker_failures: int | None = None
    breaker_cooldown: float = 15.0
    surprises: int = 3
    level: Level | str | int | None = None
    admit: Callable[[Record], bool] | None = None
    mark_every: int = 10_000
    spool_max_bytes: int = MAX_BYTES
    spool_max_age: float = MAX_AGE
    spool_fsync: float | None = FSYNC_INTERVAL
    safety: Safety | None = None

    def __post_init__(self) -> None:
        check("LaneOptions", self, _RULES)
        if self.level is not None:
            try:
                object.__setattr__(self, "level", Level.parse(self.level))
            except ConfigurationError as error:
                raise ConfigurationError(
                    "LaneOptions.level", self.level, f"{error.allowed}, or None"
                ) from None
        for name, bound, name_of_most, most in (
            ("high_water", self.high_water, "capacity", self.capacity),
            ("high_water_bytes", self.high_water_bytes, "capacity_bytes", self.capacity_bytes),
        ):
            if bound is not None and most is not None and bound > most:
                raise ConfigurationError(
                    f"LaneOptions.{name}", bound, f"at most {name_of_most}, which is {most}"
                )

    @property
    def lowest(self) -> Level | None:
        """The level as such; None: what each run asks for."""
        return None if self.level is None else Level.parse(self.level)

    @property
    def bounds(self) -> Bounds:
        """How much the backlog holds: what is given, and what follows from it."""
        return Bounds.of(self.high_water, self.high_water_bytes, self.capacity, self.capacity_bytes)


_RULES: Rules = (
    (("linger", "patience"), is_number, "a number of seconds from 0"),
    (("breaker_cooldown",), is_positive, "a number of seconds above 0"),
    (("spool_max_age",), lambda value: is_positive(value, inf), "a number of seconds above 0"),
    (
        ("write_timeout",),
        lambda value: value is None or is_positive(value),
        "a number of seconds above 0, or None",
    ),
    (
        ("spool_fsync",),
        lambda value: value is None or is_number(value),
        "a number of seconds from 0, or None",
    ),
    (
        ("trigger", "max_records", "max_bytes", "short", "surprises", "mark_every"),
        lambda value: is_whole(value, 1),
        "a whole number above 0",
    ),
    (
        ("high_water", "high_water_bytes", "capacity", "capacity_bytes", "breaker_failures"),
        lambda value: value is None or is_whole(value, 1),
        "a whole number above 0, or None",
    ),
    (("spool_max_bytes",), lambda value: is_whole(value, 0), "a whole number from 0"),
    (("when_full",), lambda value: is_choice(value, get_args(WhenFull)), ", ".join(get_args(WhenFull))),
    (
        ("safety",),
        lambda value: value is None or is_choice(value, get_args(Safety)),
        f"{', '.join(get_args(Safety))}, or None",
    ),
    (("retry",), lambda value: isinstance(value, RetryPolicy), "a RetryPolicy"),
    (("admit",), lambda value: value is None or callable(value), "a callable, or None"),
)


LOCAL = LaneOptions()
"""Local stores: no linger of their own (the writer's is enough), waited for when they are behind, never left alone:
a locked database or a full disk is back at any moment, and the program waits for it.
"""

REMOTE = LaneOptions(
    linger=1.0,
    trigger=50,
    max_records=100,
    max_bytes=4 << 20,
    short=100,
    write_timeout=30.0,
    capacity=100_000,
    capacity_bytes=128 << 20,
    when_full="spill",
    breaker_failures=8,
)
"""Remote stores: a write a second, at once when 50 records wait, at most 100 in one write.

Eight failures, with the pauses between them, are some six seconds: a restart of the destination is over by then, and
what takes longer is an outage.
"""
