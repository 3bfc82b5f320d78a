"""The methods that record: every handle (trace, bound trace, span) has them, in two colours over one path.

The body of :func:`_recorder` is the hot path. What is unusual about a call (format arguments, an exception, a
value that the C encoder refuses, no room) leaves it for :meth:`Emitter._emit`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from types import FrameType
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from asynctrace.core import codec
from asynctrace.core.codec import pack
from asynctrace.core.context import current_span
from asynctrace.core.exceptions import Caught, catch
from asynctrace.core.level import Level
from asynctrace.core.record import Detail, RawRecord
from asynctrace.core.run import RunContext
from asynctrace.core.text import is_interrupt
from asynctrace.handles import Awaited, methods, quiet
from asynctrace.pipeline.intake import Intake
from asynctrace.pipeline.room import DONE

_getframe = sys._getframe


def caller() -> FrameType | None:
    """The frame behind the calling function's own; None where only C code is, as at the interpreter's exit."""
    try:
        return _getframe(2)
    except ValueError:
        return None


def _recorder(level: Level, long_way: str, result: Awaited | None, inside: bool) -> Any:
    """See :data:`asynctrace.handles.Recorder`."""
    number = int(level)
    span_here = current_span.get

    def record(self: Emitter, message: object, /, *args: object, **fields: Any) -> Any:
        intake = self._intake
        if (
            args
            or type(message) is not str
            or "exc_info" in fields
            or (len(intake.records) >= intake.limit and intake.full())
        ):
            return getattr(self, long_way)(number, message, args, fields, caller())
        try:
            payload = pack(fields) if fields else None
            frame = _getframe(1)
        except BaseException as error:  # the long way takes every value; an interrupt goes on afterwards
            return getattr(self, long_way)(number, message, args, fields, caller(), interrupt=error)
        append = intake.append  # alone: as a method call it would be looked for in the class first
        append(
            RawRecord(
                number,
                self._context,
                self if inside else span_here(),  # type: ignore[arg-type]  # only a span is inside
                message,
                payload,
                frame.f_code,
                frame.f_lasti,
            )
        )
        if not intake.pending:
            intake.wake()
        return result

    return record


_Handle = TypeVar("_Handle", bound="type[Emitter]")


def recording(handle: _Handle) -> _Handle:
    """Class decorator: the recording methods."""
    for name, method in methods(handle, _recorder).items():
        setattr(handle, name, method)
    return handle


class Emitter:
    """Records with the caller's time, call site, run and span.

    Every field name is allowed, ``self`` and ``message`` too; only ``exc_info`` keeps its meaning from
    :mod:`logging`. No method raises because of what it is given. The awaitable twins record at the call; awaiting
    them waits only while the Intake is full.
    """

    __slots__ = ()

    _intake: Intake
    _context: RunContext
    _inside: ClassVar[bool] = False
    """Whether the handle is itself the span that its records belong to."""

    if TYPE_CHECKING:

        def debug(self, message: object, /, *args: object, **fields: Any) -> None:
            """Record at level debug; ``args`` are %-formatted into the message."""

        def info(self, message: object, /, *args: object, **fields: Any) -> None:
            """Record at level info; ``args`` are %-formatted into the message."""

        def warning(self, message: object, /, *args: object, **fields: Any) -> None:
            """Record at level warning; ``args`` are %-formatted into the message."""

        def error(self, message: object, /, *args: object, **fields: Any) -> None:
            """Record at level error; ``args`` are %-formatted into the message."""

        def critical(self, message: object, /, *args: object, **fields: Any) -> None:
            """Record at level critical; ``args`` are %-formatted into the message."""

        def adebug(self, message: object, /, *args: object, **fields: Any) -> Awaited:
            """As :meth:`debug`; awaiting it waits for room."""

        def ainfo(self, message: object, /, *args: object, **fields: Any) -> Awaited:
            """As :meth:`info`; awaiting it waits for room."""

        def awarning(self, message: object, /, *args: object, **fields: Any) -> Awaited:
            """As :meth:`warning`; awaiting it waits for room."""

        def aerror(self, message: object, /, *args: object, **fields: Any) -> Awaited:
            """As :meth:`error`; awaiting it waits for room."""

        def acritical(self, message: object, /, *args: object, **fields: Any) -> Awaited:
            """As :meth:`critical`; awaiting it waits for room."""

    def exception(self, message: object, /, *args: object, exc_info: object = True, **fields: Any) -> None:
        """Record at level error with the exception that is being handled.

        Args:
            message: %-format, or any object.
            args: for the format.
            exc_info: True for the exception being handled, an exception, or what ``sys.exc_info()`` gives.
            fields: key-values.
        """
        if self._enabled(Level.ERROR):
            self._emit(Level.ERROR, message, args, {**fields, "exc_info": exc_info}, caller())

    def aexception(
        self, message: object, /, *args: object, exc_info: object = True, **fields: Any
    ) -> Awaited:
        """As :meth:`exception`; awaiting it waits for room."""
        if self._enabled(Level.ERROR):
            return self._aemit(Level.ERROR, message, args, {**fields, "exc_info": exc_info}, caller())
        return DONE

    def log(self, level: object, message: object, /, *args: object, **fields: Any) -> None:
        """Record at a level given by name or number; an unknown one counts as info and is kept as a field."""
        number, interrupt = _level_of(level, fields)
        if self._enabled(number):
            self._emit(number, message, args, fields, caller(), interrupt=interrupt)
        elif interrupt is not None and is_interrupt(interrupt):
            raise interrupt

    def alog(self, level: object, message: object, /, *args: object, **fields: Any) -> Awaited:
        """As :meth:`log`; awaiting it waits for room."""
        number, interrupt = _level_of(level, fields)
        if self._enabled(number):
            return self._aemit(number, message, args, fields, caller(), interrupt=interrupt)
        if interrupt is not None and is_interrupt(interrupt):
            raise interrupt
        return DONE

    # -- the long way round ----------------------------------------------------------------------------------

    def _emit(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        fields: dict[str, Any],
        frame: FrameType | None,
        *,
        patient: bool = False,
        interrupt: BaseException | None = None,
    ) -> None:
        """Take any message, arguments and fields; re-raise only an interrupt that arrived in user code."""
        self._begin()
        if not self._enabled(level):  # the handle has opened itself just now
            return
        caught, in_error = _catch(fields.pop("exc_info", None))
        text, in_message = _text(message, args)
        payload, in_fields = _payload(fields)
        self._put(level, text, payload if caught is None else Detail(payload, caught), frame, patient=patient)
        for raised in (interrupt, in_error, in_message, in_fields):
            if raised is not None and is_interrupt(raised):
                raise raised

    def _aemit(
        self,
        level: int,
        message: object,
        args: tuple[object, ...],
        fields: dict[str, Any],
        frame: FrameType | None,
        *,
        interrupt: BaseException | None = None,
    ) -> Awaited:
        self._emit(level, message, args, fields, frame, patient=True, interrupt=interrupt)
        return self._intake.room() if self._intake.crowded else DONE

    def _put(
        self,
        level: int,
        message: str,
        fields: bytes | Detail | None,
        frame: FrameType | None,
        *,
        patient: bool = False,
    ) -> None:
        code, lasti = (frame.f_code, frame.f_lasti) if frame is not None else (None, 0)
        span: Any = self if self._inside else current_span.get()
        raw = RawRecord(level, self._context, span, message, fields, code, lasti)
        self._intake.put_record(raw, patient=patient)

    def _begin(self) -> None:
        """Called before a record that took the long way; a handle that is not open yet opens itself here."""

    def _enabled(self, level: int) -> bool:
        return level >= self._threshold

    _threshold: ClassVar[int] = 0
    _loud: ClassVar[type[Any] | None] = None

    def _set_threshold(self, threshold: int, variant: Callable[[Any, int], Any] | None = None) -> None:
        """Make the methods below the threshold do nothing, as cheaply as can be: by a class that has them so.

        Args:
            threshold: the lowest level recorded.
            variant: makes that class of the usual one and the threshold.
        """
        loud: Any = self._loud or type(self)
        wanted = (variant or quiet)(loud, threshold)
        if wanted is not type(self):  # an object that has changed its class is slower at everything
            self.__class__ = wanted


def _level_of(level: object, fields: dict[str, Any]) -> tuple[int, BaseException | None]:
    try:
        return Level.parse(level), None
    except BaseException as error:  # also what a text with methods of its own may raise
        fields.setdefault("level", level)
        return Level.INFO, error


def _text(message: object, args: tuple[object, ...]) -> tuple[str, BaseException | None]:
    text, interrupt = codec.text_of_any(message)
    if args:
        try:
            # As logging has it: a single mapping serves %(name)s.
            mapping = len(args) == 1 and issubclass(type(args[0]), Mapping) and args[0]
            text = codec.clean_text(text % (mapping or args))
        except BaseException as error:  # a bad format, or argument: both halves are kept
            if is_interrupt(error):
                return text, error
            shown, late = codec.text_of_any(args)
            return f"{text} {shown}", interrupt or late
    return text, interrupt


def _payload(fields: dict[str, Any]) -> tuple[bytes | None, BaseException | None]:
    if not fields:
        return None, None
    try:
        return pack(fields), None
    except BaseException as error:
        payload, interrupt = codec.pack_any(fields)
        return payload, interrupt or error


def _catch(exc_info: object) -> tuple[Caught | None, BaseException | None]:
    """What ``logging`` takes: an exception, a triple, or a true value for the one being handled."""
    kind = type(exc_info)  # a value may lie about its class, or raise when asked
    if exc_info is None or exc_info is False:
        return None, None
    error: object = exc_info
    interrupt = None
    if issubclass(kind, tuple):
        error = exc_info[1] if len(exc_info) > 1 else None  # type: ignore[arg-type, index]
    elif not issubclass(kind, BaseException):
        is_true, interrupt = _truth(exc_info)
        error = sys.exc_info()[1] if is_true else None
    if not issubclass(type(error), BaseException):
        return None, interrupt
    caught, late = catch(error)  # type: ignore[arg-type]
    return caught, interrupt or late


def _truth(value: object) -> tuple[bool, BaseException | None]:
    try:
        return bool(value), None
    except BaseException as error:  # an array, or a value that is broken
        return True, error
