"""``LocalHandler`` and clients that ask for nothing: where they go is known before they speak."""

from __future__ import annotations

import gc
import weakref

import pytest

from common.errors import BadRequest, ConnectFailed, TargetForbidden
from common.proto.address import Address
from common.proto.fixed import FixedFront, RefusedFront
from common.relay.stages import STAGE_CONNECTING, STAGE_DRAIN
from common.relay.tcprelay import LINGER
from sslocal.tcp import HEADER_HOLD
from tests.fakes import FakeSocket
from tests.local_world import SERVER, LocalWorld, header
from tests.relay_world import LIMITS

TARGET = Address("origin.example", 80)


@pytest.fixture
def world(monkeypatch):
    return LocalWorld(monkeypatch, new_front=lambda sock: FixedFront(TARGET))


def test_the_server_is_dialled_before_the_client_speaks(world):
    """M4"""
    client, handler = world.connect()
    assert handler.stage == STAGE_CONNECTING
    assert world.dialer.last.addresses == [(SERVER.host, SERVER.port)]
    client.arrive(b"not read before there is somebody to read it for")
    assert world.settle() == 0


def test_a_client_that_speaks_first(world):
    """M4: header and payload in one flight, and not a byte of ours to the client."""
    client, _handler = world.connect()
    client.arrive(b"GET")
    server = world.reach()
    assert server.sends == [header() + b"GET"]
    server.arrive(b"200")
    world.settle()
    assert client.take() == b"200"
    client.end()
    server.end()
    world.settle()
    world.check_idle()


def test_a_target_that_speaks_first(world):
    client, _handler = world.connect()
    server = world.reach()
    world.pass_time(HEADER_HOLD)
    assert server.sends == [header()]
    server.arrive(b"220 ready")
    world.settle()
    assert client.take() == b"220 ready"


def test_the_front_knows_the_connection(monkeypatch):
    """As ``redir`` needs to, which asks the kernel about it."""
    asked = []

    def new_front(sock):
        asked.append(sock)
        return FixedFront(TARGET)

    client, _handler = LocalWorld(monkeypatch, new_front=new_front).connect()
    assert asked == [client]


def test_failures_are_an_end_without_words(world):
    """There is no protocol to say them in."""
    client, handler = world.connect()
    world.dialer.last.fail(ConnectFailed("refused"))
    world.settle()
    assert (client.sent, client.shut, handler.stage) == (b"", True, STAGE_DRAIN)
    world.pass_time(LINGER)
    world.check_idle()


@pytest.mark.parametrize(
    ("error", "label"),
    [(TargetForbidden("it is here"), "forbidden"), (BadRequest("no rule sent it"), "bad_request")],
)
def test_a_client_that_goes_nowhere_is_let_go(monkeypatch, error, label):
    world = LocalWorld(monkeypatch, new_front=lambda sock: RefusedFront(error))
    client, handler = world.connect()
    assert (client.sent, client.shut, handler.stage) == (b"", True, STAGE_DRAIN)
    assert world.counters[label] == 1
    assert world.dialer.dials == []
    world.pass_time(LINGER)
    world.check_idle()


def test_a_client_that_has_gone_already(world):
    client = FakeSocket()
    client.break_off()
    world.listener.queue.append(client)
    world.settle()
    assert client.closed
    assert world.dialer.dials == []
    world.check_idle()


def test_dialling_has_its_own_limit(world):
    """W38: the handshake was over before it began."""
    _client, handler = world.connect()
    world.pass_time(LIMITS.handshake)
    assert handler.stage == STAGE_CONNECTING


def test_draining_waits_for_them(world):
    _client, handler = world.connect()
    handler.on_drain()
    assert handler.stage == STAGE_CONNECTING


def test_freed_without_the_gc(world):
    """R8"""
    _client, handler = world.connect()
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        handler.destroy()
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
