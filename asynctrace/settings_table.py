"""The table of settings: names, variables, defaults and meanings, and how a text becomes a value."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

from asynctrace.core.level import Level
from asynctrace.core.redaction import Mode, Redactor
from asynctrace.errors import ConfigurationError
from asynctrace.pipeline.durability import DURABILITIES, Durability
from asynctrace.ports import Processor
from asynctrace.sinks import registry
from asynctrace.sinks._template import Template

PREFIX = "ASYNCTRACE_"
DEFAULT_STORE = "sqlite:./asynctrace.db"


@dataclass(frozen=True, slots=True)
class Setting:
    """One row of the table of settings.

    Args:
        name: the keyword of :func:`asynctrace.configure` and the attribute of :class:`asynctrace.settings.Settings`.
        default: the value when neither code nor environment says otherwise, as text.
        parse: text or value to value; raises ValueError, TypeError, KeyError or OverflowError for what is not allowed.
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


def truth(value: object) -> bool:
    """True or False of a bool or of its usual spellings.

    Raises:
        KeyError: it is none of them.
    """
    return value if isinstance(value, bool) else registry.TRUTHS[str(value).strip().lower()]


def truth_of(name: str, value: object) -> bool:
    """As :func:`truth`, for the argument of that name.

    Raises:
        ConfigurationError: it is no spelling of either.
    """
    try:
        return truth(value)
    except KeyError as error:
        raise ConfigurationError(name, value, "true or false") from error


def _count(value: Any) -> int:
    number = int(value)
    if number < 1 or (not isinstance(value, str) and number != value):
        raise ValueError
    return number


def _count_or_none(value: Any) -> int:
    return 0 if str(value).strip() == "0" else _count(value)


def _directory(value: Any) -> str:
    path = os.fspath(value)
    if not isinstance(path, str):
        raise TypeError
    return "" if path in ("", "auto") else os.path.abspath(os.path.expanduser(path))


def _text_size(value: Any) -> int:
    number = _count(value)
    if number < 100:
        raise ValueError
    return number


def _durability(value: Any) -> Durability | None:
    if value is None or value == "none":
        return None
    if value not in DURABILITIES:
        raise ValueError
    return cast(Durability, value)


def _journal_size(value: Any) -> int:
    number = _count(value)
    if number < 1 << 16:
        raise ValueError
    return number


def _seconds(value: Any) -> float:
    number = _seconds_or_none(value)
    if not number:
        raise ValueError
    return number


def _seconds_or_none(value: Any) -> float:
    number = float(value)
    if not 0 <= number < float("inf"):
        raise ValueError
    return number


def _seconds_or_never(value: Any) -> float | None:
    return None if value is None or str(value).strip().lower() == "never" else _seconds_or_none(value)


def _sinks(value: Any) -> tuple[Any, ...]:
    sinks = tuple(value.split()) if isinstance(value, str) else tuple(value)
    if not sinks:
        raise ValueError
    return sinks


def _format(value: Any) -> str:
    return Template(value).text


def _color(value: Any) -> str:
    if value not in ("auto", "always", "never"):
        raise ValueError
    return str(value)


def _processors(value: Any) -> tuple[Processor | str, ...]:
    given = value.split() if isinstance(value, str) else [value] if callable(value) else list(value)
    processors = tuple(given) if given != ["none"] else ()
    for processor in processors:
        hash(processor)  # who shares a pipeline has the same ones
        named = isinstance(processor, str) and all(part.strip() for part in processor.split(":", 1))
        if not (callable(processor) or (named and ":" in processor)):
            raise ValueError
    return processors


def _redact(value: Any) -> Mode | Redactor:
    return value if isinstance(value, Redactor) else Redactor(value).mode


_SECONDS, _COUNT = "a number of seconds above 0", "a whole number above 0"

SETTINGS: tuple[Setting, ...] = (
    Setting("enabled", "true", truth, "true or false", "Whether anything is recorded at all."),
    Setting(
        "sinks", DEFAULT_STORE, _sinks, "sink URLs separated by whitespace", "Where records go by default."
    ),
    Setting(
        "level",
        "debug",
        Level.parse,
        "debug, info, warning, error, critical or a number from 0",
        "The lowest level recorded.",
    ),
    Setting(
        "format",
        "{datetime} ({process:5d}, {thread:5d}) {message}",
        _format,
        "a format string with the names of columns",
        "How a line of `stdout.txt` and `stderr.txt` looks.",
    ),
    Setting(
        "linger",
        "0.005",
        _seconds_or_none,
        "a number of seconds from 0",
        "How long the writer gathers a burst of records.",
    ),
    Setting("batch_interval", "1.0", _seconds, _SECONDS, "Remote sinks: seconds between two writes."),
    Setting("batch_size", "100", _count, _COUNT, "Remote sinks: most records in one write."),
    Setting("batch_bytes", "4194304", _count, _COUNT, "Remote sinks: most bytes in one write."),
    Setting(
        "flush_trigger", "50", _count, _COUNT, "Remote sinks: so many waiting records are written at once."
    ),
    Setting(
        "durability",
        "none",
        _durability,
        "none, process or disk",
        "What a record survives once its call has returned: nothing, a killed process, or a power failure too.",
    ),
    Setting(
        "journal_max_bytes",
        "67108864",
        _journal_size,
        "a whole number from 65536",
        "Bytes on disk for records that are not safe yet, with a `durability`.",
    ),
    Setting("queue_size", "1000000", _count, _COUNT, "Records that may wait for the writer."),
    Setting("queue_bytes", "536870912", _count, _COUNT, "Bytes that may wait for the writer."),
    Setting(
        "block_timeout",
        "0",
        _seconds_or_none,
        "a number of seconds from 0",
        "How long `info` waits for room in a thread without an event loop, before a record is dropped.",
    ),
    Setting(
        "close_timeout",
        "5.0",
        _seconds,
        _SECONDS,
        "Seconds that closing may take while no local store makes progress.",
    ),
    Setting(
        "handle_sigterm",
        "false",
        truth,
        "true or false",
        "Whether a SIGTERM delivers what there is before it goes on to whoever handled it before.",
    ),
    Setting(
        "max_text",
        "1048576",
        _text_size,
        "a whole number from 100",
        "Characters of a text value; what is longer is cut.",
    ),
    Setting(
        "processors",
        "none",
        _processors,
        "none, names as package.module:function separated by whitespace, or by code callables",
        "What each record goes through before it is searched for secrets; None from one of them holds it back.",
    ),
    Setting(
        "redact",
        "full",
        _redact,
        "full, keys, off, or by code a Redactor",
        "What is searched for secrets before a record is stored: names and texts, names of fields only, nothing.",
    ),
    Setting(
        "state_dir",
        "auto",
        _directory,
        "the path of a directory, or auto",
        "Where what a sink does not take waits for the next start; auto: `.asynctrace` beside the first local "
        "store, else `$XDG_STATE_HOME/asynctrace`.",
    ),
    Setting(
        "spool_max_bytes",
        "268435456",
        _count_or_none,
        "a whole number from 0",
        "Bytes that may wait on disk for one sink; 0: nothing is kept.",
    ),
    Setting(
        "spool_max_age", "604800", _seconds, _SECONDS, "Seconds after which a record on disk is given up."
    ),
    Setting(
        "spool_fsync",
        "1.0",
        _seconds_or_never,
        "a number of seconds from 0, or never",
        "Seconds after which a record on disk survives a power failure too; 0: at once.",
    ),
    Setting(
        "retention_days",
        "10",
        _seconds_or_none,
        "a number of days from 0",
        "Runs whose newest record is older leave the stores; 0: none for their age.",
    ),
    Setting(
        "retention_max_bytes",
        "0",
        _count_or_none,
        "a whole number from 0",
        "While a store takes more bytes, its oldest runs leave it; 0: none for its size.",
    ),
    Setting(
        "cleanup_interval",
        "3600",
        _seconds,
        _SECONDS,
        "Seconds between two looks for runs that leave a store.",
    ),
    Setting(
        "color",
        "auto",
        _color,
        "auto, always or never",
        "Colours of `console:`; without this setting `NO_COLOR` turns them off.",
    ),
)
