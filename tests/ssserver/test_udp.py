"""``ServerUDP``: sessions of clients, what leaves for their targets, and where replies go."""

from __future__ import annotations

import gc
import ipaddress
import os

import pytest

from common.crypto import METHODS
from common.proto.address import Address
from ssserver.gate import Gate
from ssserver.udp import ServerUDP
from tests.datagrams import FakeDatagramSocket
from tests.fakes import settle
from tests.packets import of_user, with_users
from tests.server_udp_world import (
    FORBIDDEN,
    MOVED,
    NAMED,
    PEER,
    SECOND,
    SIP004,
    SIP022,
    TARGET,
    TIMEOUT,
    ServerWorld,
    alive,
    every_method,
    with_sessions,
)


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)


# -- there and back ----------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("payload", [b"", b"hello", bytes(1200), bytes(60_000)])
def test_there_and_back(monkeypatch, method, payload):
    """S1 in the small, W34: empty datagrams, too, either way."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    client.send(payload)
    assert world.left() == [(payload, tuple(TARGET))]
    world.answer(payload)
    assert client.received() == [(TARGET, payload)]
    assert world.counters == {
        "udp_associations": 1,
        "udp_bytes_up": len(payload),
        "udp_bytes_down": len(payload),
    }
    world.stop()


@every_method
def test_all_targets_of_a_client_see_one_source_port(monkeypatch, method):
    """K3: endpoint-independent mapping, a socket for each family."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    world.resolver.known[NAMED.host] = (ipaddress.ip_address("192.0.2.99"),)
    for target in (TARGET, SECOND, NAMED, Address("2001:db8::1", 9), Address("2001:db8::2", 9)):
        client.send(b"x", target)
    four, six = world.network.opened
    assert [to for _, to in four.sent] == [tuple(TARGET), tuple(SECOND), ("192.0.2.99", 53)]
    assert [to for _, to in six.sent] == [("2001:db8::1", 9), ("2001:db8::2", 9)]
    assert len(world.associations) == 1


@every_method
def test_replies_carry_the_real_source(monkeypatch, method):
    """K3: who answers need not have been asked."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    client.send(b"x")
    client.send(b"x", Address("2001:db8::1", 9))
    four, six = world.network.opened
    world.answer(b"1", ("192.0.2.81", 1), four)
    world.answer(b"2", ("2001:db8::9", 2, 0, 0), six)
    assert client.received() == [(Address("192.0.2.81", 1), b"1"), (Address("2001:db8::9", 2), b"2")]


@every_method
def test_clients_are_apart(monkeypatch, method):
    world = ServerWorld(monkeypatch, method)
    clients = [world.client(("198.51.100.9", port)) for port in (1, 2)]
    for client in clients:
        client.send(b"x")
    one, two = world.network.opened
    world.answer(b"for one", sock=one)
    assert clients[0].received() == [(TARGET, b"for one")]
    world.answer(b"for two", sock=two)
    assert clients[1].received() == [(TARGET, b"for two")]


def test_ports_are_apart(monkeypatch):
    """One client address may be a client of both; they share one limit."""
    world = ServerWorld(monkeypatch, "none", limit=2)
    world.client().send(b"x")
    port = FakeDatagramSocket()
    other = ServerUDP(
        world.loop,
        port,
        world.packets,
        associations=world.associations,
        resolver=world.resolver,
        gate=Gate(()),
        counters=world.counters,
        source_of=lambda host: host,
    )
    port.arrive(world.client().sealed(b"y"), PEER)
    settle(world.loop)
    world.answer(b"answer")
    assert (len(port.sent), len(world.port.sent), len(world.associations)) == (1, 0, 2)
    other.close()
    world.stop()


# -- sessions ----------------------------------------------------------------------------------------


@with_sessions
def test_a_client_that_moves_keeps_its_session(monkeypatch, method):
    """SIP022 3.2: replies go to where the last authentic datagram came from; the source port stays."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    client.send(b"1")
    client.peer = MOVED
    world.answer(b"before it has spoken")
    assert [to for _, to in world.port.take()] == [PEER]
    client.send(b"2")
    assert len(world.network.opened) == 1
    world.answer(b"after")
    assert client.received() == [(TARGET, b"after")]


@with_sessions
def test_what_is_not_authentic_moves_nobody(monkeypatch, method):
    """Neither a copy nor anything else from elsewhere."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    packet = client.sealed(b"1")
    client.send_raw(packet)
    client.peer = MOVED
    for data in (packet, packet[:-1], os.urandom(len(packet))):
        client.send_raw(data)
    client.peer = PEER
    world.answer(b"still here")
    assert client.received() == [(TARGET, b"still here")]
    assert world.counters["udp_dropped"] == 3


@pytest.mark.parametrize("method", ["none", SIP004])
def test_without_sessions_an_address_is_a_client(monkeypatch, method):
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    client.send(b"1")
    client.peer = MOVED
    client.send(b"2")
    assert len(world.network.opened) == 2
    assert len(world.associations) == 2


@with_sessions
def test_a_session_that_expired_here_may_go_on(monkeypatch, method):
    """Its window was kept as long as its packets can be replayed; its source port is new."""
    world = ServerWorld(monkeypatch, method, limit=1)
    client, other = world.client(), world.client()
    packet = client.sealed(b"1")
    client.send_raw(packet)
    other.send(b"evicts it")
    client.send_raw(packet)
    assert len(world.network.opened) == 2, "a copy brings nothing back"
    client.send(b"2")
    assert len(world.network.opened) == 3
    world.answer(b"y")
    assert client.received() == [(TARGET, b"y")]


# -- users -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [SIP004, SIP022])
def test_users_are_counted_apart(monkeypatch, method):
    world = ServerWorld(monkeypatch, cipher=with_users(METHODS[method], 3))
    for number in (1, 3):
        client = world.client(("198.51.100.9", number), of_user(METHODS[method], number))
        client.send(bytes(10 * number))
        world.answer(bytes(number))
        assert client.received() == [(TARGET, bytes(number))]
    assert world.counters == {
        "udp_associations": 2,
        "udp_bytes_up": 40,
        "udp_bytes_down": 4,
        "udp_bytes_up[u1]": 10,
        "udp_bytes_down[u1]": 1,
        "udp_bytes_up[u3]": 30,
        "udp_bytes_down[u3]": 3,
    }


def test_users_of_one_address_are_apart(monkeypatch):
    """SIP004 knows a client by its address, and by whose key it uses there."""
    method = METHODS[SIP004]
    world = ServerWorld(monkeypatch, cipher=with_users(method, 2))
    clients = [world.client(PEER, of_user(method, number)) for number in (1, 2)]
    for client in clients:
        client.send(b"x")
    for client, sock in zip(clients, world.network.opened, strict=True):
        world.answer(b"y", sock=sock)
        assert client.received() == [(TARGET, b"y")]


@pytest.mark.parametrize("method", [SIP004, SIP022])
def test_a_user_has_so_many_sessions(monkeypatch, method):
    """Wherever they come from; the quietest of its own makes room."""
    method = METHODS[method]
    world = ServerWorld(monkeypatch, cipher=with_users(method, 2), per_user=2)
    first, second, third = (
        world.client((f"198.51.100.{number}", 9), of_user(method, 1)) for number in range(3)
    )
    other = world.client(PEER, of_user(method, 2))
    for client in (other, first, second, first, third):
        client.send(b"x")
        world.pass_time(1)
    assert [sock.closed for sock in world.network.opened] == [False, False, True, False]
    assert world.counters["udp_user_limit"] == 1
    second.send(b"again")
    assert len(world.associations) == 3
    assert [sock.closed for sock in world.network.opened] == [False, True, True, False, False]
    world.stop()


def test_the_log_names_the_user(monkeypatch, caplog):
    caplog.set_level("DEBUG", "shadowrelay.ssserver")
    method = METHODS[SIP004]
    world = ServerWorld(monkeypatch, cipher=with_users(method, 2))
    world.client(PEER, of_user(method, 2)).send(b"x")
    world.client(PEER, of_user(method, 2)).send(b"x")
    assert [record.getMessage() for record in caplog.records] == ["198.51.100.9:4321 (u2) has a UDP session"]


# -- how many, how long ------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize("direction", ["up", "down"])
def test_datagrams_of_both_directions_keep_an_association(monkeypatch, method, direction):
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    client.send(b"x")
    for _ in range(3):
        world.pass_time(TIMEOUT - 0.01)
        if direction == "up":
            client.send(b"x")
        else:
            world.answer(b"y")
    world.pass_time(TIMEOUT - 0.01)
    assert len(world.network.open) == 1
    world.pass_time(0.01)
    world.check_nothing_left()
    assert world.counters["udp_expired"] == 1


def test_the_quietest_makes_room(monkeypatch):
    world = ServerWorld(monkeypatch, limit=3)
    clients = [world.client(("198.51.100.9", port)) for port in range(4)]
    for client in clients[:3]:
        client.send(b"x")
    world.answer(b"y", sock=world.network.opened[0])
    clients[3].send(b"x")
    assert [sock.closed for sock in world.network.opened] == [False, True, False, False]
    assert world.counters["udp_evicted"] == 1


@pytest.mark.parametrize("method", [SIP004, SIP022])
def test_10000_flows_leave_nothing(monkeypatch, method):
    """No socket, no timer, no session, and no memory: nothing is left to the gc, either."""
    world = ServerWorld(monkeypatch, method, limit=20_000)
    gc.collect()
    gc.disable()
    try:
        for number in range(10_000):
            peer = (f"10.0.{number >> 8}.{number & 255}", 50_000)
            client = world.client(peer)
            world.port.arrive(client.sealed(b"x"), peer)
        settle(world.loop)
        assert len(world.network.open) == len(world.associations) == 10_000
        assert world.loop.statistics() == {"watched": 10_001, "timers": 1}
        assert alive() == 20_000
        world.pass_time(TIMEOUT)
        assert alive() == 0
    finally:
        gc.enable()
    world.check_nothing_left()
    assert not getattr(world.packets, "_sessions", None), "SIP022: forgotten there, too"
    assert world.counters["udp_expired"] == 10_000


# -- the end -----------------------------------------------------------------------------------------


@every_method
def test_stopping_ends_everything(monkeypatch, method):
    world = ServerWorld(monkeypatch, method)
    for number in range(5):
        client = world.client(("198.51.100.9", number))
        client.send(b"x")
        client.send(b"x", NAMED)
    world.stop()


@pytest.mark.parametrize("target", [TARGET, NAMED, Address("10.0.0.1", 1)])
def test_freed_by_refcount(monkeypatch, target):
    """R8"""
    world = ServerWorld(monkeypatch, SIP022, forbidden=FORBIDDEN)
    world.client().send(b"x", target)
    assert alive() == 2
    gc.collect()
    gc.disable()
    try:
        world.pass_time(TIMEOUT)
        assert alive() == 0
    finally:
        gc.enable()
