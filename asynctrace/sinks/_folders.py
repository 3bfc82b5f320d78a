"""The folder of a run: a name that holds any run id and never leads out of the directory."""

from __future__ import annotations

import hashlib
import re

PREFIX = "run_id="
MAX_BYTES = 200
"""Longest name behind the prefix; file systems take 255 bytes."""

_HASH_MARK = "~"  # in no escaped id, so a shortened name is never that of another run
_HASH_DIGITS = 32
_UNSAFE = re.compile(rb"[^A-Za-z0-9._@+,-]")


def folder_of(run_id: str) -> str:
    """The name of the run's folder: unsafe bytes as ``%XX``; over-long ids shortened, with a hash.

    >>> folder_of("job-7"), folder_of("../etc"), folder_of("")
    ('run_id=job-7', 'run_id=..%2Fetc', 'run_id=')
    """
    raw = run_id.encode("utf-8", "surrogatepass")
    name = _UNSAFE.sub(lambda found: b"%%%02X" % found[0][0], raw).decode("ascii")
    if len(name) > MAX_BYTES:
        kept = name[: MAX_BYTES - _HASH_DIGITS - len(_HASH_MARK)]
        kept = re.sub(r"%.?$", "", kept)  # no half of an escape
        name = f"{kept}{_HASH_MARK}{hashlib.sha256(raw).hexdigest()[:_HASH_DIGITS]}"
    return PREFIX + name
