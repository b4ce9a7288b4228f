"""``TunnelUDP``: a local port that leads to one target (M5), for any number of clients."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.crypto import METHODS
from common.proto.address import Address
from sslocal.udp import TunnelUDP
from tests.datagrams import FakeDatagramSocket
from tests.fakes import settle
from tests.udp_world import SERVER, TIMEOUT, UDPWorld

CLIENT = ("127.0.0.1", 50_000)
TARGET = Address("192.0.2.53", 53)
NAMED = Address("resolver.example", 53)


class TunnelWorld(UDPWorld):
    def __init__(self, monkeypatch, target=TARGET, **options) -> None:
        super().__init__(monkeypatch, **options)
        self.port = FakeDatagramSocket()
        self.tunnel = TunnelUDP(self.service, self.port, target)

    def send(self, payload: bytes, client=CLIENT) -> None:
        self.port.arrive(payload, client)
        settle(self.loop)

    def stop(self) -> None:
        self.tunnel.close()
        self.associations.close()
        assert self.port.closed
        self.check_nothing_left()


@pytest.fixture
def world(monkeypatch):
    return TunnelWorld(monkeypatch)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("payload", [b"", b"query", bytes(1200)])
@pytest.mark.parametrize("target", [TARGET, NAMED, Address("2001:db8::53", 53)])
def test_there_and_back(monkeypatch, method, payload, target):
    """M5, W34"""
    world = TunnelWorld(monkeypatch, target, method=method)
    world.send(payload)
    assert world.sent() == [(target, payload)]
    source = target if target.ip else Address("203.0.113.53", 53)
    world.reply(source, payload)
    assert world.port.take() == [(payload, CLIENT)]
    world.stop()


def test_every_client_has_a_link(world):
    clients = [("127.0.0.1", 50_000), ("127.0.0.1", 50_001), ("127.0.0.2", 50_000)]
    for client in clients:
        world.send(repr(client).encode(), client)
    links = world.network.opened
    assert [world.sent(link) for link in links] == [[(TARGET, repr(client).encode())] for client in clients]
    for link, client in zip(reversed(links), reversed(clients), strict=True):
        world.reply(TARGET, b"for " + repr(client).encode(), link)
    assert world.port.take() == [(b"for " + repr(client).encode(), client) for client in reversed(clients)]


def test_a_client_keeps_its_link(world):
    """K3"""
    for _ in range(3):
        world.send(b"x")
    assert len(world.network.opened) == 1
    assert len(world.associations) == 1


@pytest.mark.parametrize(
    "stranger", [Address("192.0.2.53", 54), Address("192.0.2.54", 53), Address("::1", 53)]
)
def test_strangers_are_not_the_target(world, stranger):
    """The client could not tell: anybody could answer its DNS. Nor do they keep the association."""
    world.send(b"query")
    world.sent()
    world.pass_time(TIMEOUT - 1)
    world.reply(stranger, b"forged")
    assert world.port.take() == []
    assert world.counters["udp_dropped"] == 1
    world.pass_time(1)
    assert len(world.associations) == 0


@pytest.mark.parametrize("source", [Address("203.0.113.53", 53), Address("2001:db8::53", 53)])
def test_only_the_port_of_a_named_target_is_known_here(monkeypatch, source):
    world = TunnelWorld(monkeypatch, NAMED)
    world.send(b"query")
    world.sent()
    world.reply(source._replace(port=5353), b"forged")
    world.reply(source, b"answer")
    assert world.port.take() == [(b"answer", CLIENT)]


def test_a_mapped_address_is_the_ipv4_address(world):
    world.send(b"query")
    world.sent()
    world.reply(Address("::ffff:192.0.2.53", 53), b"answer")
    assert world.port.take() == [(b"answer", CLIENT)]


# -- how many, how long ------------------------------------------------------------------------------


@pytest.mark.parametrize("direction", ["out", "in"])
def test_datagrams_of_both_directions_keep_an_association(world, direction):
    world.send(b"x")
    world.sent()
    for _ in range(3):
        world.pass_time(TIMEOUT - 0.01)
        if direction == "out":
            world.send(b"x")
        else:
            world.reply(TARGET, b"y")
    assert len(world.network.opened) == 1
    world.pass_time(TIMEOUT)
    world.check_nothing_left(ports=1)


def test_a_client_that_comes_back_is_a_new_one(world):
    world.send(b"x")
    world.pass_time(TIMEOUT)
    world.send(b"x")
    assert [sock.closed for sock in world.network.opened] == [True, False]
    assert world.counters["udp_associations"] == 2


def test_the_quietest_client_makes_room(monkeypatch):
    world = TunnelWorld(monkeypatch, limit=2)
    for port in (1, 2, 1, 3):
        world.send(b"x", ("127.0.0.1", port))
    assert [sock.closed for sock in world.network.opened] == [False, True, False]
    assert world.counters["udp_evicted"] == 1
    world.stop()


def test_tunnels_share_the_limit_and_nothing_else(monkeypatch):
    """One client address may be a client of both."""
    world = TunnelWorld(monkeypatch, limit=3)
    other_port = FakeDatagramSocket()
    other = TunnelUDP(world.service, other_port, NAMED)
    world.send(b"one")
    assert world.sent() == [(TARGET, b"one")]
    other_port.arrive(b"two", CLIENT)
    settle(world.loop)
    assert world.sent() == [(NAMED, b"two")]
    assert len(world.associations) == 2
    other.close()
    world.stop()


def test_10000_clients_leave_nothing(monkeypatch):
    """M5: no socket, no timer, and no memory: what is left is left to the gc, and there is nothing."""
    world = TunnelWorld(monkeypatch, limit=20_000)
    gc.collect()
    gc.disable()
    try:
        for number in range(10_000):
            world.port.arrive(b"x", (f"127.0.{number >> 8}.{number & 255}", 50_000))
        settle(world.loop)
        assert len(world.network.open) == len(world.associations) == 10_000
        assert world.loop.statistics() == {"watched": 10_001, "timers": 1}
        assert all(len(sock.sent) == 1 for sock in world.network.opened)
        associations = [weakref.ref(association) for association in world.associations._table.values()]
        links = [weakref.ref(ref().link) for ref in associations]
        world.pass_time(TIMEOUT)
        assert {ref() for ref in associations + links} == {None}
    finally:
        gc.enable()
    world.check_nothing_left(ports=1)
    assert world.counters["udp_expired"] == 10_000


# -- the end -----------------------------------------------------------------------------------------


def test_a_waiting_client_is_forgotten_in_the_end(monkeypatch):
    world = TunnelWorld(monkeypatch, servers=(Address("server.example", 8388),))
    world.send(b"x")
    assert world.resolver.waiting == ["server.example"]
    world.stop()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=100))
def test_whatever_the_server_sends(monkeypatch, data):
    """K4: relayed or dropped."""
    world = TunnelWorld(monkeypatch)
    world.send(b"x")
    world.network.last.arrive(data, tuple(SERVER))
    settle(world.loop)
    assert len(world.port.take()) + world.counters["udp_dropped"] == 1
    world.stop()
