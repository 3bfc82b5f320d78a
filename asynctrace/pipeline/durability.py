"""Durability: what a recorded record survives, when that is switched on."""

from __future__ import annotations

from typing import Literal, get_args

Durability = Literal["process", "disk"]
"""``process``: what was recorded survives the death of the process. ``disk``: some milliseconds and an fsync later also
that of the machine; who flushes waits for it."""

DURABILITIES: tuple[str, ...] = get_args(Durability)
