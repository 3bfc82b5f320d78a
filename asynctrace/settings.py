"""Settings and the composition root: where environment, URLs, sinks and pipelines meet.

The only module that reads the environment, and only when something is traced, never at import.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from asynctrace.core.codec import Limits, set_limits
from asynctrace.core.level import Level
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.options import LOCAL, REMOTE, LaneOptions
from asynctrace.pipeline.pipeline import AnySink, Pipeline
from asynctrace.ports import LocalSink
from asynctrace.sinks import registry

PREFIX = "ASYNCTRACE_"
DEFAULT_STORE = "sqlite:./asynctrace.db"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings.

    Args:
        name: the keyword of :func:`configure` and the attribute of :class:`Settings`.
        default: the value when neither code nor environment says otherwise, as text.
        parse: text or value to value; raises ValueError.
        allowed: what ``parse`` takes, in words.
        meaning: one sentence.
    """

    name: str
    default: str
    parse: Callable[[Any], Any]
    allowed: str
    meaning: str

    @property
    def variable(self) -> str:
        """The environment variable."""
        return PREFIX + self.name.upper()


def _truth(value: object) -> bool:
    if isinstance(value, bool):
        return value
    known = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
    return known[str(value).strip().lower()]


def _positive(kind: type[int] | type[float]) -> Callable[[Any], Any]:
    def parse(value: Any) -> Any:
        number = kind(value)
        if not 0 < number < float("inf"):
            raise ValueError
        return number

    return parse


def _not_negative(value: Any) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _words(value: Any) -> tuple[Any, ...]:
    words = tuple(value.split()) if isinstance(value, str) else tuple(value)
    if not words:
        raise ValueError
    return words


def _color(value: Any) -> str:
    if value not in ("auto", "always", "never"):
        raise ValueError
    return str(value)


_SECONDS, _COUNT = "a number of seconds above 0", "a whole number above 0"

SETTINGS: tuple[Setting, ...] = (
    Setting("enabled", "true", _truth, "true or false", "Whether anything is recorded at all."),
    Setting("sinks", DEFAULT_STORE, _words, "sink URLs separated by whitespace", "Where records go by default."),
    Setting(
        "level", "debug", Level.parse, "debug, info, warning, error, critical or a number", "The lowest level recorded."
    ),
    Setting(
        "format",
        "{datetime} ({process:5d}, {thread:5d}) {message}",
        str,
        "a format string with the names of columns",
        "How a line of `stdout.txt` and `stderr.txt` looks.",
    ),
    Setting(
        "linger", "0.005", _not_negative, "a number of seconds from 0", "How long the writer gathers a burst of records."
    ),
    Setting("batch_interval", "1.0", _positive(float), _SECONDS, "Remote sinks: seconds between two writes."),
    Setting("batch_size", "100", _positive(int), _COUNT, "Remote sinks: most records in one write."),
    Setting("flush_trigger", "50", _positive(int), _COUNT, "Remote sinks: so many waiting records are written at once."),
    Setting("queue_size", "1000000", _positive(int), _COUNT, "Records that may wait for the writer."),
    Setting("close_timeout", "5.0", _positive(float), _SECONDS, "Seconds that closing may take."),
    Setting("max_text", "1048576", _positive(int), _COUNT, "Characters of a text value; what is longer is cut."),
    Setting("color", "auto", _color, "auto, always or never", "Colours of `console:`; `NO_COLOR` also turns them off."),
)
_BY_NAME = {setting.name: setting for setting in SETTINGS}


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; one attribute for each row of :data:`SETTINGS`."""

    enabled: bool
    sinks: tuple[str | AnySink, ...]
    level: Level
    format: str
    linger: float
    batch_interval: float
    batch_size: int
    flush_trigger: int
    queue_size: int
    close_timeout: float
    max_text: int
    color: str
    sinks_are_default: bool = False


def load(given: Mapping[str, Any], environment: Mapping[str, str] | None = None) -> Settings:
    """The settings: given by code, else by the environment, else the defaults.

    Args:
        given: values by the name of the setting.
        environment: variables; by default those of the process.

    Raises:
        ConfigurationError: a value cannot be used; it names the variable or the argument, and what is allowed.
    """
    environment = os.environ if environment is None else environment
    values: dict[str, Any] = {}
    for setting in SETTINGS:
        if setting.name in given:
            source, text = setting.name, given[setting.name]
        elif environment.get(setting.variable):
            source, text = setting.variable, environment[setting.variable]
        else:
            source, text = setting.variable, setting.default
        try:
            values[setting.name] = setting.parse(text)
        except (ValueError, TypeError, KeyError) as error:
            raise ConfigurationError(source, text, setting.allowed) from error
    if environment.get("NO_COLOR") and "color" not in given:
        values["color"] = "never"
    for name in given.keys() - _BY_NAME.keys():
        raise ConfigurationError("setting", name, f"one of {', '.join(_BY_NAME)}")
    _warn_of_unknown(environment)
    default = "sinks" not in given and not environment.get(_BY_NAME["sinks"].variable)
    return Settings(**values, sinks_are_default=default)


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    known = [setting.variable for setting in SETTINGS]
    for name in environment:
        if name.startswith(PREFIX) and name not in known:
            near = get_close_matches(name, known, n=1, cutoff=0.0)
            diagnostics.say(
                logging.WARNING, ("unknown", name), "the variable %s is unknown; the nearest known one is %s", name, near[0]
            )


# -- pipelines: made here, shared by all who name the same sinks at the same home --------------------------------


class Lease:
    """A holder's part in a pipeline.

    Args:
        pipeline: the pipeline.
        key: under which it is shared; None for a borrowed one, which the holder never closes.
    """

    def __init__(self, pipeline: Pipeline, key: tuple[object, ...] | None) -> None:
        self.pipeline = pipeline
        self._key = key

    def is_last(self) -> bool:
        """Give the part back; whether the pipeline is now to be closed."""
        key, self._key = self._key, None
        if key is None:
            return False
        with _lock:
            pipeline, holders = _shared[key]
            if holders > 1:
                _shared[key] = (pipeline, holders - 1)
                return False
            del _shared[key]
            return True


_lock = threading.RLock()
_shared: dict[tuple[object, ...], tuple[Pipeline, int]] = {}
_given: dict[str, Any] = {}
_default: tuple[tuple[object, ...], Pipeline] | None = None


def _after_fork() -> None:
    global _lock
    _lock = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)

SinkLike = str | AnySink | tuple[AnySink, LaneOptions]


def lease(sinks: Sequence[SinkLike] | str | None, home: Any = None) -> Lease:
    """A part in the pipeline for those sinks; in the process default when there are none.

    Args:
        sinks: URLs, sinks, or sinks with options; a text is split at whitespace.
        home: the event loop that the holder lives on; None for the loop thread of the process.

    Raises:
        ConfigurationError: a URL cannot be used.
    """
    if sinks is None:
        return Lease(default_pipeline(), None)
    wanted = tuple(sinks.split()) if isinstance(sinks, str) else tuple(sinks)
    settings = load(_given)
    key = (id(home) if home is not None else None, *map(_identity, wanted))
    with _lock:
        pipeline, holders = _shared.get(key, (None, 0))
        if pipeline is None or pipeline.closed:
            pipeline, holders = make_pipeline(wanted, settings), 0
            if home is not None:
                pipeline.settle_on(home)
        _shared[key] = (pipeline, holders + 1)
    return Lease(pipeline, key)


def check_sinks(sinks: Sequence[SinkLike] | str | None) -> None:
    """Tell a bad URL where it is written, not at the first record.

    Raises:
        ConfigurationError: a URL cannot be used.
    """
    for sink in sinks.split() if isinstance(sinks, str) else sinks or ():
        if isinstance(sink, str):
            registry.check_url(sink)


def default_pipeline() -> Pipeline:
    """The process default: made of what ``configure`` or the environment says, or of the default store."""
    global _default
    settings = load(_given)
    key = tuple(map(_identity, settings.sinks))
    with _lock:
        if _default is None or _default[0] != key or _default[1].closed:
            if settings.sinks_are_default:
                settings = replace(settings, sinks=(_writable_default(),))
            # The one before, if any, is for the end of the process: traces still hold it.
            _default = (key, make_pipeline(settings.sinks, settings))
        return _default[1]


def has_default() -> bool:
    """Whether somebody asked for a process default, by code or by the environment."""
    return _default is not None or bool(_given) or bool(os.environ.get(_BY_NAME["sinks"].variable))


def configure(*sinks: str | AnySink, **values: Any) -> Pipeline:
    """Set the process default; ``Trace()`` and ``get_trace()`` borrow it. An earlier one is flushed first.

    Lazy: starts no thread and makes no file before the first record.

    Args:
        sinks: URLs or sinks; without any, the setting ``sinks`` decides.
        values: settings by name, see :data:`SETTINGS`.

    Raises:
        ConfigurationError: a value or a URL cannot be used; the configuration before stays in force.

    Example:
        >>> configure("memory:", level="info").sinks()
        [<MemorySink of 0 records>]
    """
    global _given, _default
    given = {**values, "sinks": sinks} if sinks else dict(values)
    settings = load(given)
    pipeline = make_pipeline(settings.sinks, settings)
    with _lock:
        before, _default = _default, (tuple(map(_identity, settings.sinks)), pipeline)
        _given = given
    if before is not None:
        before[1].flush(before[1].close_timeout)
    return pipeline


def forget_default() -> None:
    """Without a process default, as before the first ``configure``; for ``shutdown``."""
    global _given, _default
    with _lock:
        _given, _default = {}, None
        _shared.clear()


def current_settings() -> Settings:
    """The settings that hold for the next trace."""
    return load(_given)


def make_pipeline(sinks: Sequence[SinkLike], settings: Settings) -> Pipeline:
    """A pipeline of its own for those sinks.

    Raises:
        ConfigurationError: a URL cannot be used.
    """
    set_limits(Limits(max_text=settings.max_text))
    pipeline = Pipeline(linger=settings.linger, capacity=settings.queue_size, close_timeout=settings.close_timeout)
    for item in sinks:
        sink, options = item if isinstance(item, tuple) else (make_sink(item, settings), None)
        pipeline.add_sink(sink, options or lane_options(sink, settings))
    return pipeline


def make_sink(sink: str | AnySink, settings: Settings | None = None) -> AnySink:
    """The sink of a URL, with the settings that concern it; a sink is given back as it is.

    Raises:
        ConfigurationError: the URL cannot be used.
    """
    if not isinstance(sink, str):
        return sink
    settings = settings or current_settings()
    return registry.sink_from_url(sink, {"format": settings.format, "color": settings.color})


def lane_options(sink: AnySink, settings: Settings) -> LaneOptions:
    """How the lane of that sink behaves unless somebody says otherwise."""
    if isinstance(sink, LocalSink):
        return LOCAL
    return replace(
        REMOTE,
        linger=settings.batch_interval,
        max_records=settings.batch_size,
        short=settings.batch_size,
        trigger=min(settings.flush_trigger, settings.batch_size),
    )


def _identity(sink: SinkLike) -> object:
    if isinstance(sink, tuple):
        return (id(sink[0]), sink[1])
    return registry.canonical_url(sink) if isinstance(sink, str) else id(sink)


def _writable_default() -> str:
    where = Path(DEFAULT_STORE.removeprefix("sqlite:"))
    if os.access(where if where.exists() else where.parent, os.W_OK):
        diagnostics.say(
            logging.INFO, ("default store",), "nothing is configured: records go to %s", DEFAULT_STORE
        )
        return DEFAULT_STORE
    diagnostics.say(
        logging.WARNING,
        ("default store",),
        "nothing is configured and %s cannot be written: records stay in memory",
        DEFAULT_STORE,
    )
    return "memory:"
