"""``@traced``: a span around every call of a function, of any kind."""

from __future__ import annotations

import functools
import inspect
from collections.abc import AsyncGenerator, Callable, Generator
from typing import Any, TypeVar, overload

from asynctrace.api import current_trace
from asynctrace.core.context import current_span
from asynctrace.span import Span

_F = TypeVar("_F", bound=Callable[..., Any])


@overload
def traced(function: _F, /) -> _F: ...
@overload
def traced(name: str | None = None, /, **fields: Any) -> Callable[[_F], _F]: ...
def traced(function: Any = None, /, **fields: Any) -> Any:
    """Open a span of the current trace around each call.

    Works on functions, coroutine functions, generators and asynchronous generators. A generator's span lasts from its
    first step to its end and is the current one during its steps only, not while the caller runs between them.

    Args:
        function: the function, or the span's name; by default the function's qualified name.
        fields: key-values on the span's start record.

    Example:
        >>> @traced
        ... def load(table):
        ...     return table.upper()
        >>> load("orders")
        'ORDERS'
    """
    if callable(function):
        return _wrap(function, function.__qualname__, fields)
    return lambda wrapped: _wrap(wrapped, function or wrapped.__qualname__, fields)


def _wrap(function: Callable[..., Any], name: str, fields: dict[str, Any]) -> Callable[..., Any]:
    if inspect.isasyncgenfunction(function):
        return _wrap_async_generator(function, name, fields)
    if inspect.iscoroutinefunction(function):

        @functools.wraps(function)
        async def run(*args: Any, **kwargs: Any) -> Any:
            with _open(function, name, fields):
                return await function(*args, **kwargs)

        return run
    if inspect.isgeneratorfunction(function):
        return _wrap_generator(function, name, fields)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        with _open(function, name, fields):
            return function(*args, **kwargs)

    return call


def _open(function: Callable[..., Any], name: str, fields: dict[str, Any]) -> Span:
    span = current_trace().span(name, **fields)
    span.definition = inspect.unwrap(function).__code__  # where the work is, not where this wrapper is
    return span


def _wrap_generator(
    function: Callable[..., Generator[Any, Any, Any]], name: str, fields: dict[str, Any]
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def steps(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        generator = function(*args, **kwargs)
        span = _open(function, name, fields)
        span.start()
        error: BaseException | None = None
        try:
            resume, value = generator.send, None
            while True:
                # A context variable set inside a generator is visible to its caller between two steps,
                # so the span is the current one around each step only.
                token = current_span.set(span)
                try:
                    item = resume(value)  # type: ignore[arg-type]
                finally:
                    current_span.reset(token)
                try:
                    value = yield item
                    resume = generator.send
                except GeneratorExit:
                    generator.close()
                    raise
                except BaseException as thrown:
                    resume, value = generator.throw, thrown  # type: ignore[assignment]
        except StopIteration as stop:
            return stop.value
        except BaseException as raised:
            error = raised
            raise
        finally:
            span.end(error)

    return steps


def _wrap_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], name: str, fields: dict[str, Any]
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def steps(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        generator = function(*args, **kwargs)
        span = _open(function, name, fields)
        span.start()
        error: BaseException | None = None
        try:
            resume, value = generator.asend, None
            while True:
                token = current_span.set(span)
                try:
                    item = await resume(value)  # type: ignore[arg-type]
                finally:
                    current_span.reset(token)
                try:
                    value = yield item
                    resume = generator.asend
                except GeneratorExit:
                    await generator.aclose()
                    raise
                except BaseException as thrown:
                    resume, value = generator.athrow, thrown  # type: ignore[assignment]
        except StopAsyncIteration:
            return
        except BaseException as raised:
            error = raised
            raise
        finally:
            span.end(error)

    return steps
