"""Text of anything: what a value says of itself, when it does, in characters that every store takes."""

from __future__ import annotations

from typing import Any

from asynctrace.core.limits import cut_text

# Asked of `type` itself: a metaclass may have its own idea of `__name__`, or raise.
_name_of = type.__dict__["__name__"].__get__
_DECIMAL_BITS = 2048  # beyond, decimal text costs quadratic time and CPython may refuse it (4,300 digits)


def class_name(value: object) -> str:
    """The name of the value's class, without running any code of the value."""
    name: str = _name_of(type(value))
    return name


def clean(text: str, limit: int) -> str:
    """An exact str of at most ``limit`` characters; lone surrogates become ``\\udc80`` escapes."""
    if not text.isascii():
        try:
            text.encode()
        except UnicodeEncodeError:
            text = text.encode("utf-8", "backslashreplace").decode()
    return cut_text(text, limit)


def int_text(value: int) -> str:
    """An exact int in decimal; in hexadecimal when it has more than 2048 bits."""
    return str(value) if value.bit_length() <= _DECIMAL_BITS else hex(value)


def is_interrupt(error: BaseException) -> bool:
    """Whether the error asks the program to stop, rather than saying that a value is broken."""
    return not issubclass(type(error), Exception)  # isinstance would ask the error's own __class__


def describe(value: Any) -> tuple[str, BaseException | None]:
    """What the value says of itself: ``str()``, else ``repr()``, else a mark with its class and the error.

    Returns:
        the text, neither cleaned nor cut, and the interrupt (KeyboardInterrupt …) that came out of the value.
    """
    if type(value) is int:
        return int_text(value), None
    if issubclass(type(value), str):
        return str.__str__(value), None
    try:
        return str.__str__(str(value)), None
    except BaseException as error:
        raised, interrupt = class_name(error), error if is_interrupt(error) else None
    if interrupt is None and _has_own_str(type(value)):  # else str() has asked repr() already
        try:
            return str.__str__(repr(value)), None
        except BaseException as error:
            interrupt = error if is_interrupt(error) else None
    return f"<{class_name(value)} object; str() raised {raised}>", interrupt


def _has_own_str(kind: type) -> bool:
    try:
        return getattr(kind, "__str__", None) is not object.__str__
    except Exception:  # a metaclass that answers for its classes
        return True
