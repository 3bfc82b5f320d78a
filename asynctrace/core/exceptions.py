"""Exceptions: caught as they are at the call, told as text by the writer."""

from __future__ import annotations

from traceback import TracebackException

from msgspec import Struct

from asynctrace.core.codec import clean_text, text_of_any
from asynctrace.core.text import is_interrupt

# Asked of `type` itself: a metaclass may have its own idea of them, or raise.
_module_of = type.__dict__["__module__"].__get__
_qualname_of = type.__dict__["__qualname__"].__get__


class ExceptionInfo(Struct, frozen=True, gc=False):
    """An exception as text.

    Args:
        type: the class, with its module unless that is ``builtins``.
        message: what ``str()`` of it gave.
        stack: the traceback with causes and groups, as the interpreter would print it.
    """

    type: str
    message: str
    stack: str


class Caught(Struct, gc=False):
    """An exception at the moment of the call; it holds no frame, so nothing is kept alive.

    Args:
        type: as in :class:`ExceptionInfo`.
        message: as in :class:`ExceptionInfo`.
        traceback: its frames and causes; source lines are looked up when it is told.
    """

    type: str
    message: str
    traceback: TracebackException | None


def catch(error: BaseException) -> tuple[Caught, BaseException | None]:
    """Keep what the exception says now: its text and its traceback may change while it travels on.

    Returns:
        what is kept, and the interrupt that came out of the exception's own methods, as with
        :func:`asynctrace.core.codec.pack_any`.
    """
    traceback = interrupt = None
    try:
        traceback = TracebackException.from_exception(error, lookup_lines=False, compact=True)
    except BaseException as raised:
        # A hostile __cause__, __notes__ or __str__ must not replace the user's own error.
        interrupt = raised if is_interrupt(raised) else None
    text, late = text_of_any(error)
    return Caught(type_name(type(error)), text, traceback), interrupt or late


def tell(caught: Caught | ExceptionInfo) -> ExceptionInfo:
    """The exception as text; reads source lines through the interpreter's own cache."""
    if isinstance(caught, ExceptionInfo):
        return caught
    try:
        stack = "".join(caught.traceback.format()) if caught.traceback is not None else ""
    except Exception:  # what it says is kept without its stack
        stack = ""
    return ExceptionInfo(
        clean_text(caught.type), caught.message, clean_text(stack or f"{caught.type}: {caught.message}\n")
    )


def type_name(kind: type) -> str:
    """The class's qualified name; ``builtins`` is left out."""
    module, name = _module_of(kind), _qualname_of(kind)
    return name if type(module) is not str or module == "builtins" else f"{module}.{name}"
