"""Every test that takes ``loop`` runs twice: with the platform's selector and with ``select()``."""

from __future__ import annotations

import contextlib
import selectors
import socket
from collections.abc import Callable, Iterator

import pytest

from common.net import dialer, sockets
from common.net.loop import DefaultSelector, EventLoop
from common.net.resolver import Resolver
from tests.clock import FakeClock
from tests.endpoints import Outcome
from tests.fakedns import FakeDNS

SELECTORS = [
    pytest.param(DefaultSelector, id="default"),
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


@pytest.fixture
def link() -> Iterator[tuple[socket.socket, socket.socket]]:
    """A connected TCP pair: client, server."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        client = socket.create_connection(listener.getsockname())
        server, _ = listener.accept()
    with client, server:
        yield client, server


@pytest.fixture
def outcome():
    outcome = Outcome()
    yield outcome
    if outcome.sock is not None:
        outcome.sock.close()
    assert outcome.calls <= 1


@pytest.fixture
def distant(monkeypatch):
    """No address is this host's own: every connection takes its time, and the loop has to tell."""

    def begin_connection(*args, **options):
        return sockets.begin_connection(*args, **options)[0], False

    monkeypatch.setattr(dialer, "begin_connection", begin_connection)


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        yield dns


@pytest.fixture
def hosts(tmp_path):
    path = tmp_path / "hosts"
    path.write_text("")
    return path


@pytest.fixture
def make(dns, hosts):
    """Make resolvers that ask ``dns`` and nobody else; closed, and checked, at the end."""
    with contextlib.ExitStack() as stack:

        def make(loop, servers=None, **options):
            options.setdefault("patience", 0.25)
            asked = [dns.server] if servers is None else servers
            resolver = Resolver(loop, asked, hosts=str(hosts), **options)
            stack.callback(lambda: check_quiet(loop))
            stack.callback(resolver.close)
            return resolver

        yield make


def check_quiet(loop):
    assert loop.statistics() == {"watched": 0, "timers": 0}
