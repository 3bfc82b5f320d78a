"""The state directory: where spools and dead letters are kept from one start to the next."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

from asynctrace.pipeline.diagnostics import diagnostics

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")
_DIGEST = 12  # hex digits: two destinations of one kind do not meet


class StateDirectory:
    """The first of some directories that takes what is written; looked for when it is needed, made with the first file.

    Args:
        candidates: the directories, best first; none of them usable means that nothing outlives the process.
    """

    def __init__(self, candidates: Sequence[Path]) -> None:
        self._candidates = tuple(candidates)

    def __repr__(self) -> str:
        return f"<StateDirectory {', '.join(map(str, self._candidates)) or 'in memory'}>"

    def spools(self, key: str) -> list[Path]:
        """Where the spool of that lane may be, whether it exists or not, the best place first."""
        return self._below("spool", key)

    def dead_letters(self, key: str) -> list[Path]:
        """Where the dead letters of that lane may be, whether they exist or not, the best place first."""
        return self._below("dead", key)

    def retention(self, key: str) -> list[Path]:
        """Where it may be noted when that store was cleaned, whether it exists or not, the best place first."""
        return self._below("retention", key)

    def journals(self) -> list[Path]:
        """Where journals may be, whether there are any or not, the best place first."""
        return self._below("journal")

    def _below(self, *parts: str) -> list[Path]:
        return [candidate.joinpath(*parts) for candidate in self._candidates if _is_usable(candidate)]

    def complain(self) -> None:
        """Say, once a minute, that there is something to keep and nothing to keep it in."""
        if self._candidates:
            diagnostics.say(
                logging.WARNING,
                ("state directory", *map(str, self._candidates)),
                "no state directory can be written (%s): what cannot be delivered stays in memory",
                ", ".join(map(str, self._candidates)),
            )

    def existing(self, kind: str) -> list[Path]:
        """All directories of that kind (``spool``, ``dead`` or ``journal``), in all candidates."""
        found: list[Path] = []
        for candidate in self._candidates:
            if (candidate / kind).is_dir():
                found += sorted(path for path in (candidate / kind).iterdir() if path.is_dir())
        return found


def lane_key(kind: str, destination: str) -> str:
    """A name for what a lane leaves on disk: the same at every start with the same destination.

    Args:
        kind: of the sink, for people.
        destination: as the sink shows itself, without secrets.

    >>> lane_key("redis", "<RedisSink redis://cache:6379/0>")
    'redis-7316934a3ee6'
    """
    # An object without a repr of its own shows its address, another one at every start.
    digest = sha256(_ADDRESS.sub("", destination).encode("utf-8", "replace")).hexdigest()[:_DIGEST]
    return f"{re.sub(r'[^a-z0-9_]', '', kind.lower())[:40] or 'sink'}-{digest}"


def _is_usable(path: Path) -> bool:
    """Whether we may write there, now or once it is made; a directory of somebody else's is none of ours."""
    try:
        status = os.stat(path)
    except FileNotFoundError:
        above = path.parent
        while not above.exists() and above != above.parent:
            above = above.parent
        return above.is_dir() and os.access(above, os.W_OK | os.X_OK)
    except OSError:
        return False
    mine = os.name != "posix" or status.st_uid in (os.geteuid(), 0)
    return mine and path.is_dir() and os.access(path, os.R_OK | os.W_OK | os.X_OK)
