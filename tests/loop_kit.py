"""Both makes of event loop: what holds on one of them must hold on the other."""

import asyncio
from collections.abc import Callable

import pytest
import uvloop

NewLoop = Callable[[], asyncio.AbstractEventLoop]

LOOPS: dict[str, NewLoop] = {"asyncio": asyncio.new_event_loop, "uvloop": uvloop.new_event_loop}


@pytest.fixture(params=LOOPS)
def either_loop(request: pytest.FixtureRequest) -> tuple[str, dict[str, object]]:
    """For coroutine tests: a module takes it under the name that anyio looks for, ``anyio_backend``."""
    return "asyncio", {"use_uvloop": request.param == "uvloop"}


@pytest.fixture(params=LOOPS)
def new_loop(request: pytest.FixtureRequest) -> NewLoop:
    """For tests that make their loops themselves."""
    return LOOPS[request.param]
