"""What a reader is asked for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec

from asynctrace.core.codec import canonical, clean_text, pack_any, to_json
from asynctrace.core.record import Kind, Record
from asynctrace.core.run import COLUMN_FIELD_SET
from asynctrace.errors import ConfigurationError


@dataclass(frozen=True, slots=True)
class Query:
    """Conditions that a record must meet, all of them; the default admits everything.

    Texts and values are brought into canonical form, as those of records are.

    Args:
        level: the lowest level number, 0 for all. Structural records pass this test.
        since_ns: wall-clock stamp, inclusive.
        until_ns: wall-clock stamp, exclusive.
        text: the message contains it, whatever the case; that of a start or an end is the name of its span or run.
        name: the run's name or its ``workflow_name`` is this.
        fields: each named field (bound or own, columns included) has this value, or is a list with this value in
            it. None for a field that fills a column: it has no value.
        limit: at most so many runs, or records of one run; None for all.
        floor: as ``level``, for structural records too: the end of what failed has level error.

    Raises:
        ConfigurationError: a text is none, or ``fields`` is no mapping.
    """

    level: int = 0
    since_ns: int | None = None
    until_ns: int | None = None
    text: str | None = None
    name: str | None = None
    fields: Mapping[str, Any] = field(default_factory=dict)
    limit: int | None = None
    floor: int = 0

    def __post_init__(self) -> None:
        for name in ("text", "name"):
            value = getattr(self, name)
            if value is not None:
                if not isinstance(value, str):
                    raise ConfigurationError(name, value, "a text")
                object.__setattr__(self, name, clean_text(value))
        if not isinstance(self.fields, Mapping):
            raise ConfigurationError("fields", self.fields, "a mapping of names to values")
        if self.fields:
            payload, interrupt = pack_any(self.fields)
            if interrupt is not None:
                raise interrupt
            object.__setattr__(self, "fields", canonical(payload))

    def admits(self, record: Record) -> bool:
        """Whether the record meets every condition but the limit."""
        if record.level < self.floor or (record.kind is Kind.LOG and record.level < self.level):
            return False
        if self.since_ns is not None and record.time_ns < self.since_ns:
            return False
        if self.until_ns is not None and record.time_ns >= self.until_ns:
            return False
        if self.text is not None and self.text.lower() not in record.message.lower():
            return False
        own = record.fields
        if self.name is not None and self.name not in (record.context.run.name, own.get("workflow_name")):
            return False
        return all(
            column_has(own.get(name), wanted)
            if name in COLUMN_FIELD_SET
            else name in own and has(own[name], wanted)
            for name, wanted in self.fields.items()
        )


EVERYTHING = Query()


def has(value: Any, wanted: Any) -> bool:
    """Whether a canonical value is the wanted one, or a list with that in it."""
    return bool(value == wanted or (isinstance(value, list) and wanted in value))


def column_has(text: str | None, wanted: Any) -> bool:
    """The same of a column, where JSON stands for what was no text.

    >>> column_has("nightly", "nightly"), column_has('["nightly","eu"]', "eu"), column_has("5", 5)
    (True, True, True)
    """
    if text is None or wanted is None:
        return text is wanted
    is_text = isinstance(wanted, str)
    if text == (wanted if is_text else to_json(wanted).decode()):
        return True
    if is_text and not text.startswith("["):
        return False
    try:
        return has(msgspec.json.decode(text), wanted)
    except (ValueError, RecursionError):  # it was a text
        return False
