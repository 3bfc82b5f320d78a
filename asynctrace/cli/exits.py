"""What the command's exit codes mean."""

from __future__ import annotations

from enum import IntEnum


class Exit(IntEnum):
    """How the command ended; shells see the number."""

    OK = 0
    NOT_FOUND = 1
    USAGE = 2
    UNREADABLE = 3
    MISSING_EXTRA = 4
    LOSS = 5
    UNPROVEN = 6
    OUTPUT = 7
    INTERRUPTED = 130  # 128 + SIGINT, as shells say it
    BROKEN_PIPE = 141  # 128 + SIGPIPE


class CommandLineError(Exception):
    """The words on the command line are none that the command knows, or do not fit together."""


class OutputFailedError(Exception):
    """Standard output does not take what is printed: a full disk, a closed descriptor."""


class OutputClosedError(Exception):
    """Whoever read the output has gone, as ``head`` does: there is nobody left to tell."""
