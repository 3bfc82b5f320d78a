"""The composition root: where settings, URLs, sinks and options become pipelines.

A pipeline is shared by all who name the same sinks at the same home; the last one out closes it.
"""

from __future__ import annotations

import asyncio
import logging
import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from asynctrace import settings
from asynctrace.core import codec
from asynctrace.core.level import Level
from asynctrace.core.redaction import Redactor
from asynctrace.errors import ClosedError, ConfigurationError, MissingExtraError
from asynctrace.pipeline import sigterm
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.ledger import PipelineStats
from asynctrace.pipeline.options import LOCAL, REMOTE, LaneOptions
from asynctrace.pipeline.pipeline import Pipeline, Recovers
from asynctrace.pipeline.state_directory import StateDirectory
from asynctrace.ports import AnySink, LocalSink, Processor, Sink
from asynctrace.retention import Cleaner, Retention
from asynctrace.settings import Settings, SinkLike
from asynctrace.settings_table import DEFAULT_STORE
from asynctrace.sinks import registry

_Key = tuple[object, ...]

_OF_LOCAL: dict[str, dict[str, Any]] = {  # by the module of the sink, which need not be imported for it
    # A burst of many runs goes to a directory file by file.
    "asynctrace.sinks.file": {"max_records": 4096},
    # Few hops to the thread, and few records in memory at a time, which then are in the processor's caches.
    "asynctrace.sinks.jsonl": {"max_records": 2048, "high_water": 2048},
}


class _Shared:
    """A pipeline and how many hold it."""

    def __init__(self, key: _Key, pipeline: Pipeline) -> None:
        self.key = key
        self.pipeline = pipeline
        self.holders = 0


class Lease:
    """A holder's part in a pipeline."""

    def __init__(self, shared: _Shared) -> None:
        self._shared: _Shared | None = shared
        self.pipeline = shared.pipeline
        shared.holders += 1

    def share(self) -> Lease:
        """A part for another holder of the same pipeline.

        Raises:
            ClosedError: this part has been given back.
        """
        with _lock:
            if self._shared is None:
                raise ClosedError("the pipeline has been given back; ask for a new one")
            return Lease(self._shared)

    def release(self) -> bool:
        """Give the part back; whether the pipeline is now the caller's to close."""
        with _lock:
            shared, self._shared = self._shared, None
            if shared is None:
                return False
            shared.holders -= 1
            if shared.holders:
                return False
            _forget(shared)
            return True

    def part(self) -> None:
        """Have later holders make a pipeline of their own: the sinks of this one are being changed."""
        with _lock:
            if self._shared is not None:
                _forget(self._shared)


_lock = threading.RLock()  # re-entrant: a finaliser may open a trace while we are here
_pipelines: dict[_Key, _Shared] = {}
_default: Lease | None = None  # the process's own part
_default_key: _Key = ()


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def _forget(shared: _Shared) -> None:
    if _pipelines.get(shared.key) is shared:
        del _pipelines[shared.key]


def lease(
    sinks: Sequence[SinkLike] | None,
    home: asyncio.AbstractEventLoop | None = None,
    durability: Durability | Literal["none"] | None = None,
) -> Lease:
    """A part in the pipeline for those sinks; in the process default when there are none.

    Args:
        sinks: where the records go.
        home: the event loop that the holder lives on; None for the loop thread of the process.
        durability: what records survive; ``"none"``: nothing; None: what the settings say.

    Raises:
        ConfigurationError: a URL cannot be used.
    """
    values = settings.current()
    if durability in (None, values.durability or "none"):
        return _default_lease() if sinks is None else _lease(sinks, values, home)
    values = replace(values, durability=None if durability == "none" else durability)
    return _lease(_default_sinks(values) if sinks is None else sinks, values, home)


def _lease(sinks: Sequence[SinkLike], values: Settings, home: asyncio.AbstractEventLoop | None) -> Lease:
    key = (home, *_identity(sinks, values))
    with _lock:
        shared = _pipelines.get(key)
        if shared is None or shared.pipeline.closed:
            state = state_directory(sinks, values)
            shared = _pipelines[key] = _Shared(key, _make_pipeline(sinks, values, state))
            sigterm.handle(values.handle_sigterm)
            if home is not None:
                shared.pipeline.settle_on(home)
        return Lease(shared)


def _identity(sinks: Iterable[SinkLike], values: Settings) -> _Key:
    """What two holders must have in common to share a pipeline."""
    how = replace(values, sinks=(), sinks_are_default=False, enabled=True, level=Level.DEBUG)
    return (how, *[(_identity_of(sink), options) for sink, options in map(_split, sinks)])


def _identity_of(sink: str | AnySink) -> object:
    return registry.canonical_url(sink) if isinstance(sink, str) else id(sink)


def _split(sink: Any) -> tuple[str | AnySink, LaneOptions | None]:
    if not isinstance(sink, tuple):
        return sink, None
    if len(sink) != 2 or not isinstance(sink[1], LaneOptions):
        shown = tuple(registry.shown(part) if isinstance(part, str) else part for part in sink)
        raise ConfigurationError("sink", shown, "a URL, a sink, or a pair of one of them and LaneOptions")
    return sink


# -- the process default -------------------------------------------------------------------------------------


def _default_lease() -> Lease:
    values = settings.current()
    key = _identity(values.sinks, values)
    with _lock:
        before = _default
        if before is None or key != _default_key or before.pipeline.closed:
            _set_default(values, key)
        else:
            before = None
        assert _default is not None
        mine = _default.share()
    if before is not None and before.release():
        before.pipeline.close()
    return mine


def _set_default(values: Settings, key: _Key) -> None:
    global _default, _default_key
    _default, _default_key = _lease(_default_sinks(values), values, None), key


def configure(*sinks: SinkLike, **values: Any) -> Pipeline:
    """Set the process default, which ``Trace()`` and ``get_trace()`` borrow. An earlier one is flushed first.

    Lazy: starts no thread and makes no file before the first record. Traces that borrowed the earlier default
    keep it until they are closed.

    Args:
        sinks: URLs, sinks, or pairs of one and :class:`LaneOptions`; without any, the setting ``sinks``
            decides.
        values: settings by name, see :data:`asynctrace.settings_table.SETTINGS`.

    Raises:
        ConfigurationError: a value or a URL cannot be used; the configuration before stays in force.

    Example:
        >>> configure("memory:", level="info").sinks()
        [<MemorySink of 0 records>]
    """
    given = {**values, "sinks": sinks} if sinks else values
    loaded = settings.with_given(given)
    with _lock:
        before = _default
        with _blaming(settings.origin_of_sinks(given)):
            _set_default(loaded, _identity(loaded.sinks, loaded))
        settings.give(given)
        assert _default is not None
        pipeline = _default.pipeline
    if before is not None:
        before.pipeline.flush(before.pipeline.close_timeout)
        if before.release():
            before.pipeline.close()
    return pipeline


def is_default(pipeline: Pipeline) -> bool:
    """Whether that is the process default now."""
    return _default is not None and _default.pipeline is pipeline


def forget() -> None:
    """Without a process default, as before the first ``configure``; for ``shutdown``."""
    global _default
    with _lock:
        _default = None
        _pipelines.clear()
        settings.give(None)


def _default_sinks(values: Settings) -> tuple[SinkLike, ...]:
    return (_default_store(),) if values.sinks_are_default and values.enabled else values.sinks


def _default_store() -> str:
    where = Path(DEFAULT_STORE.removeprefix("sqlite:"))
    if not where.is_dir() and os.access(where if where.exists() else where.parent, os.W_OK):
        diagnostics.say(
            logging.INFO, ("default store",), "nothing is configured: records go to %s", DEFAULT_STORE
        )
        return DEFAULT_STORE
    diagnostics.say(
        logging.WARNING,
        ("default store", "memory"),
        "nothing is configured and %s cannot be written: records stay in memory",
        DEFAULT_STORE,
    )
    return "memory:"


# -- making --------------------------------------------------------------------------------------------------


def checked(sinks: Iterable[SinkLike] | str | None) -> tuple[SinkLike, ...] | None:
    """The sinks that the text or the list names; None stands for the process default.

    A bad setting or URL is told where it is written, not at the first record.

    Raises:
        ConfigurationError: a value or a URL cannot be used.
    """
    values = settings.current()
    _processors_of(values)
    if sinks is None:
        with _blaming(settings.origin_of_sinks()):
            _check(values.sinks)
        return None
    named = _listed(sinks)
    _check(named)
    return named


def _listed(sinks: Any) -> tuple[SinkLike, ...]:
    if isinstance(sinks, str) and sinks.strip():
        return tuple(sinks.split())
    if isinstance(sinks, Iterable) and not isinstance(sinks, (str, bytes, Mapping)):
        return tuple(sinks)
    shown = type(sinks).__name__ if isinstance(sinks, (bytes, Mapping)) else sinks  # URLs hold passwords
    raise ConfigurationError("sinks", shown, "URLs separated by whitespace, or a list of URLs and sinks")


def _check(sinks: Iterable[SinkLike]) -> None:
    for sink, _ in map(_split, sinks):
        if isinstance(sink, str):
            registry.check_url(sink)
        elif not isinstance(sink, (LocalSink, Sink)):
            raise ConfigurationError("sink", repr(sink), "a URL, or an object with open, write and aclose")


@contextmanager
def _blaming(origin: str) -> Iterator[None]:
    """Have errors about a sink name what named the sink."""
    try:
        yield
    except MissingExtraError:  # names what to install for which scheme
        raise
    except ConfigurationError as error:
        name = origin if error.name == "sink" else f"{origin}: {error.name}"
        raise ConfigurationError(name, error.value, error.allowed) from error


def make_sink(sink: str | AnySink, values: Settings) -> AnySink:
    """The sink of a URL, with the settings that concern it; a sink is given back as it is.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    if not isinstance(sink, str):
        return sink
    defaults = {"format": values.format, "color": values.color}
    if values.durability == "disk":  # the journal forgets what the store has: the store must not lose it then
        defaults |= {"synchronous": "full", "durability": "disk"}
    return registry.sink_from_url(sink, defaults)


def lane_options(sink: AnySink, values: Settings) -> LaneOptions:
    """How the lane of that sink behaves unless somebody says otherwise."""
    if isinstance(sink, LocalSink) and sink.safety == "memory":
        return replace(LOCAL, spool_max_bytes=0)  # what it does not take, nobody wants back at the next start
    options = replace(
        LOCAL if isinstance(sink, LocalSink) else REMOTE,
        spool_max_bytes=values.spool_max_bytes,
        spool_max_age=values.spool_max_age,
        spool_fsync=values.spool_fsync,
    )
    if isinstance(sink, LocalSink):
        return replace(options, **_OF_LOCAL.get(type(sink).__module__, {}))
    return replace(
        options,
        linger=values.batch_interval,
        max_records=values.batch_size,
        max_bytes=values.batch_bytes,
        short=values.batch_size,
        trigger=min(values.flush_trigger, values.batch_size),
    )


def make_lane(sink: SinkLike, values: Settings) -> tuple[AnySink, LaneOptions]:
    """The sink, made when it is a URL, and how its lane behaves.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    named, options = _split(sink)
    made = make_sink(named, values)
    return made, options or lane_options(made, values)


def _processors_of(values: Settings) -> list[Processor]:
    """The processors that the setting names or is; a module is imported now, not where settings are read."""
    if not values.processors:
        return []
    from pkgutil import resolve_name  # takes a quarter of the time of importing asynctrace

    found: list[Processor] = []
    for processor in values.processors:
        if isinstance(processor, str):
            try:
                called: Any = resolve_name(processor)
            except (ImportError, AttributeError, ValueError) as error:
                raise ConfigurationError("processors", processor, f"what can be imported: {error}") from error
            if not callable(called):
                raise ConfigurationError("processors", processor, "the name of a callable")
            found.append(called)
        else:
            found.append(processor)
    return found


def redactor_of(values: Settings) -> Redactor:
    """The redactor that the setting ``redact`` names or is."""
    return values.redact if isinstance(values.redact, Redactor) else Redactor(values.redact)


def state_directory(sinks: Iterable[SinkLike], values: Settings) -> StateDirectory:
    """Where what those sinks do not take is kept; nothing is made.

    Raises:
        ConfigurationError: a URL cannot be used.
    """
    if values.state_dir:
        return StateDirectory([Path(values.state_dir)])
    urls = [named for named, _ in map(_split, sinks) if isinstance(named, str)]
    beside = [
        Path(path).parent / ".asynctrace" for url in urls if (path := registry.path_of(url)) is not None
    ]
    return StateDirectory([*beside[:1], Path(values.state_home) / "asynctrace"])


def _cleaner(sinks: Iterable[SinkLike], values: Settings, state: StateDirectory) -> Cleaner | None:
    """What removes old runs from the stores among those sinks, if the settings ask for it."""
    retention = Retention(values.retention_days, values.retention_max_bytes)
    urls = [
        named for named, _ in map(_split, sinks) if isinstance(named, str) and registry.is_readable(named)
    ]
    return Cleaner(urls, retention, values.cleanup_interval, state) if urls and retention.removes else None


def make_pipeline(values: Settings, to: str | None = None) -> Pipeline:
    """A pipeline of its own for the sinks that the settings name, shared with nobody.

    Args:
        values: the settings.
        to: the URL of a sink that recovers what was meant for all others instead.

    Raises:
        ConfigurationError: the URL of a sink cannot be used.
    """
    state = state_directory(values.sinks, values)
    if to is None:
        return _make_pipeline(values.sinks, values, state)
    return _make_pipeline((to,), values, state, "all")


async def deliver(pipeline: Pipeline, timeout: float) -> PipelineStats:
    """Have the pipeline deliver here what waits for it on disk, and close it; the ledger of that.

    Args:
        pipeline: a new one, shared with nobody.
        timeout: seconds; what is not delivered then goes on waiting.
    """
    pipeline.settle_on(asyncio.get_running_loop())
    pipeline.start()
    await pipeline.aclose(timeout)
    return pipeline.stats()


def _make_pipeline(
    sinks: Iterable[SinkLike], values: Settings, state: StateDirectory, recovers: Recovers = "own"
) -> Pipeline:
    lanes = [make_lane(sink, values) for sink in sinks]
    if codec.limits().max_text != values.max_text:
        codec.set_limits(replace(codec.limits(), max_text=values.max_text))
    pipeline = Pipeline(
        linger=values.linger,
        capacity=values.queue_size,
        capacity_bytes=values.queue_bytes,
        block_timeout=values.block_timeout,
        close_timeout=values.close_timeout,
        processors=_processors_of(values),
        redactor=redactor_of(values),
        state=state,
        chore=_cleaner(sinks, values, state),
        durability=values.durability,
        journal_max_bytes=values.journal_max_bytes,
        recovers=recovers,
    )
    for sink, options in lanes:
        pipeline.add_sink(sink, options)
    return pipeline
