"""Classes of handles: each has recording methods of its own, and those below its threshold do nothing.

An attribute of the instance would silence a method too, but the interpreter finds a method of the class faster.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine, Mapping
from functools import cache
from types import FunctionType
from typing import Any

from asynctrace.core.level import Level
from asynctrace.pipeline.room import DONE

Awaited = Coroutine[Any, Any, None]

Recorder = Callable[[Level, str, Awaited | None, bool], Any]
"""Makes the method for one level in one colour; the two differ in what they give back. It takes the level, the name of
the method for unusual calls, what a usual call gives back, and whether the handle is itself the span that its records
belong to."""

COLOURS: tuple[tuple[str, str, Awaited | None], ...] = (("", "_emit", None), ("a", "_aemit", DONE))
"""Of the recording methods: the prefix of the name, the method for unusual calls, what a usual call gives back."""


def methods(handle: type[Any], recorder: Recorder, threshold: int = 0) -> dict[str, Any]:
    """The recording methods of a class of handles, from the threshold on.

    Each has a code object of its own, which the interpreter adapts to this class; one that serves several classes
    of handles stays as slow as it is at first.
    """
    made: dict[str, Any] = {}
    for level in Level:
        if level < threshold:
            continue
        for prefix, long_way, result in COLOURS:
            name = prefix + level.label
            record = recorder(level, long_way, result, handle._inside)
            code = record.__code__.replace(co_name=name, co_qualname=f"{handle.__name__}.{name}")
            made[name] = FunctionType(code, record.__globals__, name, None, record.__closure__)
    return made


def variant(base: type[Any], loud: type[Any], threshold: int, own: Mapping[str, Any]) -> type[Any]:
    """A class derived from the base that passes for the usual one.

    Args:
        base: has the methods that are not its own.
        loud: the usual class, whose methods all record.
        threshold: the lowest level recorded.
        own: methods.
    """
    facts = {
        "__slots__": (),
        "__doc__": loud.__doc__,
        "__module__": loud.__module__,
        "_loud": loud,
        "_threshold": threshold,
    }
    return type(loud.__name__, (base,), {**facts, **own})


@cache
def quiet(loud: type[Any], threshold: int) -> type[Any]:
    """The class itself, or one whose methods below the threshold do nothing."""
    silent = [level.label for level in Level if level < threshold]
    if not silent:
        return loud
    own = {**dict.fromkeys(silent, _nothing), **{f"a{name}": _nothing_awaitable for name in silent}}
    return variant(loud, loud, threshold, own)


def _nothing(self: object, message: object, /, *args: object, **fields: object) -> None:
    pass


def _nothing_awaitable(self: object, message: object, /, *args: object, **fields: object) -> Awaited:
    return DONE
