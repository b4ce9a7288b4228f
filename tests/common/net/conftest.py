"""Every test that takes ``loop`` runs twice: with the platform's selector and with ``select()``."""

from __future__ import annotations

import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from common.net.loop import EventLoop
from tests.clock import FakeClock

SELECTORS = [
    pytest.param(selectors.DefaultSelector, id="default"),
    pytest.param(selectors.SelectSelector, id="select"),
]


@pytest.fixture(params=SELECTORS)
def loop(request: pytest.FixtureRequest) -> Iterator[EventLoop]:
    loop = EventLoop(selector=request.param())
    yield loop
    loop.close()


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture(params=SELECTORS)
def clocked(request: pytest.FixtureRequest, clock: FakeClock) -> Iterator[EventLoop]:
    """A loop whose timers go by ``clock``."""
    loop = EventLoop(clock=clock, selector=request.param())
    yield loop
    loop.close()


@pytest.fixture
def pair() -> Iterator[Callable[[], tuple[socket.socket, socket.socket]]]:
    """Make connected, non-blocking socket pairs; closed at the end."""
    made: list[socket.socket] = []

    def make() -> tuple[socket.socket, socket.socket]:
        ends = socket.socketpair()
        for end in ends:
            end.setblocking(False)
        made.extend(ends)
        return ends

    yield make
    for end in made:
        end.close()
