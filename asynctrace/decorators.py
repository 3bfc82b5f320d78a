"""``@traced``: a span around every call of a function, of any kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, overload

from asynctrace.core.context import SpanContext, current_span
from asynctrace.current import current_trace
from asynctrace.errors import ConfigurationError
from asynctrace.span import Span

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def traced(function: _F, /) -> _F: ...
@overload
def traced(name: str | None = None, /, **fields: Any) -> Callable[[_F], _F]: ...
def traced(function: Any = None, /, **fields: Any) -> Any:
    """Open a span of the current trace around each call.

    Works on functions, coroutine functions, generators and asynchronous generators. A generator's span lasts
    from its first step to its end and is the current one during its steps only, not while the caller runs
    between them.

    Args:
        function: the function, or the span's name; by default the function's qualified name.
        fields: key-values on the span's start record.

    Raises:
        ConfigurationError: it decorates a class, or the result of ``@classmethod``.

    Example:
        >>> @traced
        ... def load(table):
        ...     return table.upper()
        >>> load("orders")
        'ORDERS'
    """
    if function is None or isinstance(function, str):
        return lambda wrapped: _wrap(wrapped, function, fields)
    return _wrap(function, None, fields)


class _Plan:
    """What the span of each call looks like."""

    def __init__(self, function: Callable[..., Any], name: str | None, fields: dict[str, Any]) -> None:
        inner = inspect.unwrap(function)
        self.name = name or getattr(function, "__qualname__", type(inner).__qualname__)
        self.fields = fields
        self.code = getattr(inner, "__code__", None)  # the work is there, not where the wrapper is

    def span(self) -> Span:
        span = current_trace().span(self.name, **self.fields)
        span.definition = self.code
        return span


def _wrap(function: Any, name: str | None, fields: dict[str, Any]) -> Any:
    if not callable(function) or inspect.isclass(function):
        raise ConfigurationError(
            "@traced", repr(function), "a function; a method gets it below @classmethod or @staticmethod"
        )
    plan = _Plan(function, name, fields)
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, plan)
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, plan)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with plan.span():
                return await function(*args, **kwargs)

        return run

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with plan.span():
            return function(*args, **kwargs)

    return call


class _Step:
    """Makes a generator's span the current one during a step; one after the other.

    A context variable that is set inside a generator is visible to its caller between two steps.
    """

    def __init__(self, span: Span) -> None:
        self._here: SpanContext | None = span  # or one that the generator has entered inside it

    def __enter__(self) -> None:
        self._token = current_span.set(self._here)

    def __exit__(self, *raised: object) -> None:
        self._here = current_span.get()
        try:
            current_span.reset(self._token)
        except ValueError:  # an asynchronous step that ended in another context, at the end of its loop
            pass


def _wrap_generator(function: Callable[..., Generator[Any, Any, Any]], plan: _Plan) -> Callable[..., Any]:
    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        span = plan.span()
        span.start()
        step = _Step(span)
        error: BaseException | None = None
        resume: Callable[[Any], Any] = generator.send
        value: Any = None
        try:
            while True:
                with step:
                    item = resume(value)
                try:
                    value, resume = (yield item), generator.send
                except GeneratorExit:
                    with step:
                        generator.close()
                    raise
                except BaseException as thrown:
                    value, resume = thrown, generator.throw
        except StopIteration as stop:
            return stop.value
        except BaseException as raised:
            error = raised
            raise
        finally:
            span.end(error)
            error = value = None  # a frame that holds its own exception is a cycle

    return steps


def _wrap_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], plan: _Plan
) -> Callable[..., Any]:
    @functools.wraps(function)
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        span = plan.span()
        span.start()
        step = _Step(span)
        error: BaseException | None = None
        resume: Callable[[Any], Any] = generator.asend
        value: Any = None
        try:
            while True:
                with step:
                    item = await resume(value)
                try:
                    value, resume = (yield item), generator.asend
                except GeneratorExit:
                    with step:
                        await generator.aclose()
                    raise
                except BaseException as thrown:
                    value, resume = thrown, generator.athrow
        except StopAsyncIteration:
            return
        except BaseException as raised:
            error = raised
            raise
        finally:
            span.end(error)
            error = value = None

    return steps
