"""Text of anything: what a value says of itself, when it does, in characters that every store takes."""

from __future__ import annotations

from itertools import pairwise
from types import FrameType, TracebackType
from typing import Any

from asynctrace.core.limits import cut_text

# Asked of `type` itself: a metaclass may have its own idea of `__name__`, or raise.
_name_of = type.__dict__["__name__"].__get__
_traceback_of = BaseException.__dict__["__traceback__"].__get__
_CO_VARARGS = 0x04  # of `inspect`, which would be a heavy import for one number
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
    """Whether the error asks the program to stop, rather than saying that a value is broken.

    KeyboardInterrupt does, and what is no Exception and comes out of a signal handler, as the SystemExit of one that
    ends the program. A SystemExit or CancelledError that the value itself raises is the value's affair: to let it
    through would end the program, or the task, that did nothing but record.
    """
    kind = type(error)  # isinstance would ask the error's own __class__
    if issubclass(kind, Exception):
        return False
    return issubclass(kind, KeyboardInterrupt) or _is_from_signal_handler(error)


def _is_from_signal_handler(error: BaseException) -> bool:
    traceback: TracebackType | None = _traceback_of(error)
    while traceback is not None:
        if _is_signal_handler(traceback.tb_frame):
            return True
        traceback = traceback.tb_next
    return False


def _is_signal_handler(frame: FrameType) -> bool:
    """Whether it was called as Python calls signal handlers: with a number and the frame that was interrupted."""
    code, values = frame.f_code, frame.f_locals
    given: list[Any] = [values.get(name) for name in code.co_varnames[: code.co_argcount]]
    if code.co_flags & _CO_VARARGS:
        rest = values.get(code.co_varnames[code.co_argcount + code.co_kwonlyargcount])
        given += rest if type(rest) is tuple else ()
    return any(
        issubclass(type(number), int) and type(interrupted) is FrameType
        for number, interrupted in pairwise(given)
    )


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
    except BaseException as error:  # a metaclass that answers for its classes
        if is_interrupt(error):
            raise
        return True
