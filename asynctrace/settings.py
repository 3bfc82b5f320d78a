"""Settings: the values in force, given by code, by the environment or by default.

The only module that reads the environment, and only when something is traced, never at import.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

from asynctrace.core.level import Level
from asynctrace.core.redaction import Mode, Redactor
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.diagnostics import diagnostics
from asynctrace.pipeline.durability import Durability
from asynctrace.pipeline.options import LaneOptions
from asynctrace.ports import AnySink, Processor
from asynctrace.settings_table import PREFIX, SETTINGS, Setting

SinkLike = str | AnySink | tuple[str | AnySink, LaneOptions]
"""What names a destination: a URL, a sink, or one of both with options for its lane."""

_BY_NAME = {setting.name: setting for setting in SETTINGS}
_STATE_HOME = "XDG_STATE_HOME"
_READ = (*(setting.variable for setting in SETTINGS), "NO_COLOR", _STATE_HOME)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force; one attribute for each row of :data:`asynctrace.settings_table.SETTINGS`.

    ``sinks_are_default`` tells that nobody named any sink; ``state_home`` is where programs of this user keep
    their state.
    """

    enabled: bool
    sinks: tuple[SinkLike, ...]
    level: Level
    format: str
    linger: float
    batch_interval: float
    batch_size: int
    batch_bytes: int
    flush_trigger: int
    durability: Durability | None
    journal_max_bytes: int
    queue_size: int
    queue_bytes: int
    block_timeout: float
    close_timeout: float
    handle_sigterm: bool
    max_text: int
    processors: tuple[Processor | str, ...]
    redact: Mode | Redactor
    state_dir: str
    spool_max_bytes: int
    spool_max_age: float
    spool_fsync: float | None
    retention_days: float
    retention_max_bytes: int
    cleanup_interval: float
    color: str
    sinks_are_default: bool = False
    state_home: str = ""


def load(given: Mapping[str, Any], environment: Mapping[str, str]) -> Settings:
    """The settings: given by code, else by the environment, else the defaults.

    Args:
        given: values by the name of the setting.
        environment: variables; an empty one counts as not set, an unknown one of ours is warned of.

    Raises:
        ConfigurationError: a value cannot be used; it names the variable or the argument and what is allowed.
    """
    for name in given.keys() - _BY_NAME.keys():
        raise ConfigurationError("setting", name, f"one of {', '.join(_BY_NAME)}")
    values = {setting.name: _value(setting, given, environment) for setting in SETTINGS}
    told = {name for name, setting in _BY_NAME.items() if name in given or environment.get(setting.variable)}
    if environment.get("NO_COLOR") and "color" not in told:  # https://no-color.org
        values["color"] = "never"
    _warn_of_unknown(environment)
    return Settings(
        **values, sinks_are_default="sinks" not in told, state_home=_state_home(environment.get(_STATE_HOME))
    )


def _state_home(given: str | None) -> str:
    # https://specifications.freedesktop.org/basedir-spec/latest/: a relative path is not valid.
    return given if given and os.path.isabs(given) else os.path.expanduser("~/.local/state")


def _value(setting: Setting, given: Mapping[str, Any], environment: Mapping[str, str]) -> Any:
    source, value = setting.variable, environment.get(setting.variable) or setting.default
    if setting.name in given:
        source, value = setting.name, given[setting.name]
    try:
        return setting.parse(value)
    except (ValueError, TypeError, KeyError, OverflowError) as error:
        raise ConfigurationError(source, value, setting.allowed) from error


def _warn_of_unknown(environment: Mapping[str, str]) -> None:
    for name in environment:
        if name.startswith(PREFIX) and name not in _READ:
            near = get_close_matches(name, [setting.variable for setting in SETTINGS], n=1, cutoff=0.0)[0]
            diagnostics.say(
                logging.WARNING,
                ("unknown variable", name),
                "the variable %s is unknown; the nearest known one is %s",
                name,
                near,
            )


# -- what is in force ----------------------------------------------------------------------------------------

_given: Mapping[str, Any] | None = None
_loaded: tuple[object, list[str | None], Settings] | None = None


def current() -> Settings:
    """The settings that hold for the next trace; worked out again only when one of them was changed.

    Raises:
        ConfigurationError: a variable has a value that cannot be used.
    """
    global _loaded
    given, texts = _given, [os.environ.get(variable) for variable in _READ]
    if _loaded is None or _loaded[0] is not given or _loaded[1] != texts:
        _loaded = (given, texts, load(given or {}, os.environ))
    return _loaded[2]


def with_given(given: Mapping[str, Any]) -> Settings:
    """The settings that would hold if code gave these.

    Raises:
        ConfigurationError: as :func:`load`.
    """
    return load(given, os.environ)


def give(given: Mapping[str, Any] | None) -> None:
    """From now on code gives these; None takes back what it gave."""
    global _given
    _given = given


def origin_of_sinks(given: Mapping[str, Any] | None = None) -> str:
    """What names the sinks of the process default: the variable, or else ``sink``.

    Args:
        given: what code gives; None: what it gave last.
    """
    setting = _BY_NAME["sinks"]
    by_code = setting.name in ((_given or {}) if given is None else given)
    return setting.variable if not by_code and os.environ.get(setting.variable) else "sink"


def is_configured() -> bool:
    """Whether code or environment says where records go by default."""
    return _given is not None or bool(os.environ.get(_BY_NAME["sinks"].variable))
