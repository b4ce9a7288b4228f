"""What several modules test: two fake sockets and the flows between them, and a relay of toys."""

from __future__ import annotations

import pytest

from common.net.loop import EventLoop
from tests.clock import FakeClock
from tests.fakes import FakeSelector, FakeSocket
from tests.flow_world import Connection
from tests.relay_world import World
from tests.toy_relay import Toy


@pytest.fixture
def loop():
    return EventLoop(FakeClock(), FakeSelector())


@pytest.fixture
def client():
    return FakeSocket()


@pytest.fixture
def target():
    return FakeSocket()


@pytest.fixture
def connection(loop, client, target):
    return Connection(loop, client, target)


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch, Toy)
