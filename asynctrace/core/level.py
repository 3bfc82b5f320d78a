"""Levels: the five of the standard library, by their numbers and lower-case names."""

from __future__ import annotations

from enum import IntEnum

from asynctrace.errors import ConfigurationError


class Level(IntEnum):
    """How much a record matters; the numbers are those of :mod:`logging`.

    >>> Level.parse("Warning") is Level.WARNING, Level.parse(40).label
    (True, 'error')
    """

    DEBUG = 10
    INFO = 20
    WARNING = 30
    ERROR = 40
    CRITICAL = 50

    @property
    def label(self) -> str:
        """The lower-case name, as every store keeps it."""
        return LABELS[self]

    @classmethod
    def parse(cls, value: object) -> Level:
        """The level of that name or number; a number between two levels counts as the lower one.

        Raises:
            ConfigurationError: the name is unknown or the number is negative.
        """
        if isinstance(value, str):
            name = value.strip().upper()
            name = _ALIASES.get(name, name)
            if name in cls.__members__:
                return cls[name]
            if name.isascii() and name.isdigit():
                return cls._of_number(int(name))
        elif isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            return cls._of_number(value)
        raise ConfigurationError("level", value, f"{', '.join(LABELS.values())} or a number from 0")

    @classmethod
    def _of_number(cls, number: int) -> Level:
        return max((level for level in cls if level <= number), default=cls.DEBUG)


LABELS: dict[int, str] = {level: level.name.lower() for level in Level}
_ALIASES = {"WARN": "WARNING", "FATAL": "CRITICAL", "EXCEPTION": "ERROR"}
