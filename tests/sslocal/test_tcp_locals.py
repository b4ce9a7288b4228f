"""``LocalHandler`` of other locals than the mixed one: fixed targets, and the control of a UDP association."""

from __future__ import annotations

import gc
import weakref

import pytest

from common.errors import ConnectFailed, Overloaded, TargetForbidden
from common.proto.address import Address
from common.proto.fixed import FixedFront, RefusedFront
from common.relay.stages import STAGE_CONNECTING, STAGE_DESTROYED, STAGE_DRAIN, STAGE_UDP_ASSOC
from common.relay.tcprelay import LINGER
from sslocal import tcp
from sslocal.tcp import HEADER_HOLD
from tests.fakes import LIMITS
from tests.local_world import SOCKS_GREETING, LocalWorld, header, socks_request

TARGET = Address("origin.example", 80)
BOUND = Address("127.0.0.1", 40000)
ASSOCIATE = SOCKS_GREETING + socks_request(Address("0.0.0.0", 5353), 3)
ASSOCIATED = b"\x05\x00" + b"\x05\x00\x00\x01\x7f\x00\x00\x01\x9c\x40"


# -- where it goes is known before it speaks -----------------------------------------------------------


@pytest.fixture
def tunnel(monkeypatch):
    return LocalWorld(monkeypatch, new_front=lambda sock: FixedFront(TARGET))


def test_a_tunnel_dials_at_once_and_says_nothing_of_its_own(tunnel):
    """M4: the client may wait for the target to speak first."""
    client, handler = tunnel.connect()
    assert handler.stage == STAGE_CONNECTING
    server = tunnel.reach()
    assert client.sent == b""
    tunnel.pass_time(HEADER_HOLD)
    server.arrive(b"220 ready")
    tunnel.settle()
    assert (server.take(), client.take()) == (header(), b"220 ready")


def test_what_a_tunnels_client_sends_first_leaves_with_the_header(tunnel):
    client, _handler = tunnel.connect()
    client.arrive(b"hello")
    server = tunnel.reach()
    assert server.sends == [header() + b"hello"]


def test_a_tunnel_that_cannot_be_dialled_just_ends(tunnel):
    client, handler = tunnel.connect()
    tunnel.dialer.last.fail(ConnectFailed("refused"))
    tunnel.settle()
    assert (client.sent, client.shut, handler.stage) == (b"", True, STAGE_DRAIN)
    tunnel.pass_time(LINGER)
    tunnel.check_idle()


def test_a_client_whose_target_is_not_allowed_just_ends(monkeypatch):
    world = LocalWorld(monkeypatch, new_front=lambda sock: RefusedFront(TargetForbidden("it is us")))
    client, _handler = world.connect()
    assert (client.sent, client.shut, world.dialer.dials) == (b"", True, [])
    assert world.counters["forbidden"] == 1
    world.pass_time(LINGER)
    world.check_idle()


# -- the control of a UDP association ------------------------------------------------------------------


class FakeAssociation:
    """What ``associate`` returns, as far as its control connection knows it."""

    def __init__(self, on_end):
        self.on_end, self.ended = on_end, 0

    def end(self):
        self.ended += 1
        self.on_end()


@pytest.fixture
def made(monkeypatch):
    """The associations made, and the ports their clients announced."""
    made = []

    def associate(service, control, port, on_end):
        made.append((FakeAssociation(on_end), port))
        return made[-1][0], BOUND

    monkeypatch.setattr(tcp, "associate", associate)
    return made


@pytest.fixture
def world(monkeypatch, made):
    return LocalWorld(monkeypatch, udp=object())


def test_an_association_is_told_where_to_send(world, made):
    """K3"""
    client, handler = world.ask(ASSOCIATE)
    assert client.take() == ASSOCIATED
    assert handler.stage == STAGE_UDP_ASSOC
    ((_, port),) = made
    assert port == 5353


def test_an_association_lives_as_long_as_its_control(world, made):
    """K6: no deadline of the handshake, and what is said there meanwhile is ignored."""
    client, handler = world.ask(ASSOCIATE)
    world.pass_time(LIMITS.handshake * 100)
    client.arrive(bytes(100_000))
    world.settle()
    assert (client.arrived, handler.stage) == (b"", STAGE_UDP_ASSOC)
    ((association, _),) = made
    assert association.ended == 0
    client.end()
    world.settle()
    assert association.ended == 1
    world.check_idle()


def test_a_control_that_breaks_ends_its_association(world, made):
    client, _handler = world.ask(ASSOCIATE)
    client.break_off()
    world.settle()
    ((association, _),) = made
    assert association.ended == 1
    world.check_idle()


def test_an_association_that_ends_takes_its_control_along(world, made):
    """It was quiet for too long, or made room for another."""
    client, _handler = world.ask(ASSOCIATE)
    ((association, _),) = made
    association.on_end()
    assert client.closed
    assert association.ended == 0, "it knows"
    world.check_idle()


def test_a_control_that_cannot_be_told_ends_both(world, made):
    client, handler = world.connect()
    client.arrive(SOCKS_GREETING)
    world.settle()
    client.arrive(socks_request(Address("0.0.0.0", 0), 3))
    client.shut = True  # sending fails, receiving does not
    world.settle()
    ((association, _),) = made
    assert (association.ended, handler.stage) == (1, STAGE_DESTROYED)
    world.check_idle()


def test_an_association_without_a_descriptor_is_refused(world, monkeypatch):
    def associate(*args):
        raise Overloaded("no socket for UDP")

    monkeypatch.setattr(tcp, "associate", associate)
    client, handler = world.ask(ASSOCIATE)
    assert client.take() == b"\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0"
    assert handler.stage == STAGE_DRAIN
    assert world.counters["overloaded"] == 1


def test_without_udp_here_it_is_refused(monkeypatch, made):
    world = LocalWorld(monkeypatch)
    client, _handler = world.ask(ASSOCIATE)
    assert client.take() == b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0"
    assert made == []


def test_a_control_is_freed_without_the_gc(world, made):
    """R8"""
    client, handler = world.ask(ASSOCIATE)
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        client.end()
        world.settle()
        made.clear()
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
