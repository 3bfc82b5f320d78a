"""Streams out of a store: left early, and closed at once."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import TypeVar

_T = TypeVar("_T")


async def first_that(items: AsyncIterator[_T], admits: Callable[[_T], bool]) -> _T | None:
    """The first item that is admitted, or None.

    A generator that is merely dropped holds its files until the loop gets to it, which may be never.
    """
    try:
        async for item in items:
            if admits(item):
                return item
        return None
    finally:
        if isinstance(items, AsyncGenerator):
            await items.aclose()
