"""When a file of lines is full, what it is called then, and which files belong together.

``traces.jsonl`` becomes ``traces.000001.jsonl``, the next one ``traces.000002.jsonl``; compressed,
``traces.000001.jsonl.gz``. A name is given once and never to another file, so a reader that is in the middle of the
files is not led astray when one more is rotated.
"""

from __future__ import annotations

import gzip
import os
import re
import stat
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import BinaryIO, Literal, cast, get_args

from asynctrace.core.allowed import is_choice, is_positive, is_whole
from asynctrace.errors import ConfigurationError
from asynctrace.sinks._pruned import last_deleted, path_of

Compression = Literal["none", "gzip"]
"""What becomes of a rotated file: it stays as it is, or is compressed."""

GZIPPED = ".gz"
_DIGITS = 6


@dataclass(frozen=True, slots=True)
class Rotation:
    """When a file makes way for a new one, and what becomes of it.

    Args:
        size: bytes that a file may have; a batch is never split, so a file may hold more by one batch. None: any.
        every: seconds; a file whose last line was written in an earlier such interval (counted from 1970, UTC: a day
            begins at midnight) makes way. None: never.
        keep: rotated files that stay; older ones are deleted, which marks tell. None: all.
        compress: see :data:`Compression`.
        exempt: name of files that never make way.

    Raises:
        ConfigurationError: an argument is out of range; it is named as the sinks' argument.
    """

    size: int | None = None
    every: float | None = None
    keep: int | None = None
    compress: Compression = "none"
    exempt: str = ""

    def __post_init__(self) -> None:
        if self.size is not None and not is_whole(self.size, 1):
            raise ConfigurationError("rotate_bytes", self.size, "a whole number of bytes from 1")
        if self.every is not None and not is_positive(self.every):
            raise ConfigurationError("rotate_every", self.every, "a number of seconds above 0")
        if self.keep is not None and not is_whole(self.keep, 0):
            raise ConfigurationError("keep", self.keep, "a whole number of files from 0")
        if not is_choice(self.compress, get_args(Compression)):
            raise ConfigurationError("compress", self.compress, " or ".join(get_args(Compression)))

    @property
    def tidies(self) -> bool:
        """Whether anything is done with rotated files."""
        return self.keep is not None or self.compress != "none"

    @property
    def ever(self) -> bool:
        """Whether any file makes way."""
        return self.size is not None or self.every is not None

    def is_due(self, path: str, status: os.stat_result, more: int, now: float) -> bool:
        """Whether the file makes way before so many bytes more.

        Args:
            path: of the file.
            status: of the file.
            more: bytes that are about to be added.
            now: wall clock, seconds since the epoch.
        """
        if not status.st_size or not stat.S_ISREG(status.st_mode) or os.path.basename(path) == self.exempt:
            return False
        if self.size is not None and status.st_size + more > self.size:
            return True
        return self.every is not None and status.st_mtime // self.every < now // self.every


NEVER = Rotation()
"""Files grow as long as there is room."""


def rotated(path: str) -> list[str]:
    """The files that the path had before, oldest first; of one that is being compressed, either name.

    Raises:
        OSError: the directory cannot be read.
    """
    folder, name = os.path.split(path)
    stem, suffix = os.path.splitext(name)
    pattern = re.compile(
        rf"{re.escape(stem)}\.(\d{{{_DIGITS},}}){re.escape(suffix)}(?:{re.escape(GZIPPED)})?"
    )
    # The system reads a directory in pieces. Of a file that is just being compressed, a reading may pass the place
    # of the new name before that is there, and find the old one gone; the next reading finds the new one.
    found = _numbered(folder, pattern)
    found |= _numbered(folder, pattern)
    return [os.path.join(folder, found[number]) for number in sorted(found)]


def _numbered(folder: str, pattern: re.Pattern[str]) -> dict[int, str]:
    found: dict[int, str] = {}
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if (match := pattern.fullmatch(entry.name)) is not None:
                    number, known = int(match[1]), found.get(int(match[1]))
                    # Both are whole; the plain one reads faster.
                    if known is None or len(entry.name) < len(known):
                        found[number] = entry.name
    except FileNotFoundError:
        pass
    return found


def number_of(part: str, path: str) -> int:
    """The number of a file that was rotated away from that path."""
    stem, suffix = os.path.splitext(path)
    return int(part.removesuffix(GZIPPED).removesuffix(suffix).removeprefix(f"{stem}."))


def next_name(path: str) -> str:
    """What the file of that path is called once it is rotated."""
    stem, suffix = os.path.splitext(path)
    before = rotated(path)
    last = max(number_of(before[-1], path) if before else 0, last_deleted(path_of(path)))
    while True:
        last += 1
        name = f"{stem}.{last:0{_DIGITS}d}{suffix}"
        # In this order: of one that is being compressed, the new name is there before the old one goes.
        if not os.path.lexists(name) and not os.path.lexists(name + GZIPPED):
            return name


def opened(path: str) -> Iterator[tuple[str, BinaryIO]]:
    """The file of that path and those before it, oldest first, each open for reading as long as it is the turn's.

    What was written before the first one is asked for is in one of them, whatever is rotated meanwhile. Files that go
    away before their turn are passed over.

    Raises:
        OSError: the directory or a file cannot be read.
    """
    # Held from the start: it may have got another name when its turn comes.
    live = _opened_now(path)
    try:
        held = os.fstat(live.fileno()) if live is not None else None
        for part in rotated(path):
            file = _opened_now(part) or (None if part.endswith(GZIPPED) else _opened_now(part + GZIPPED))
            if file is None:
                continue
            with closing(file):
                if held is None or not os.path.samestat(held, os.fstat(file.fileno())):
                    yield part, file
        if live is not None:
            yield path, live
    finally:
        if live is not None:
            live.close()


def opened_one(path: str) -> Iterator[tuple[str, BinaryIO]]:
    """The file of that path alone, if it is there.

    Raises:
        OSError: it cannot be read.
    """
    file = _opened_now(path)
    if file is not None:
        with closing(file):
            yield path, file


def _opened_now(path: str) -> BinaryIO | None:
    try:
        if path.endswith(GZIPPED):
            return cast("BinaryIO", gzip.open(path, "rb"))
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        return None
