"""``SocksAssociation``: UDP ASSOCIATE, for one client, as long as its TCP connection."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.crypto import METHODS
from common.errors import Overloaded
from common.proto.address import Address
from common.proto.socks5_udp import build_datagram, parse_datagram
from sslocal import udp
from sslocal.udp import associate
from tests.datagrams import FakeDatagramSocket
from tests.fakes import os_error, settle
from tests.udp_world import TIMEOUT, UDPWorld

HOST = "192.0.2.7"
PEER = (HOST, 50_123)
TARGET = Address("192.0.2.80", 443)
NAMED = Address("origin.example", 53)

MALFORMED = [
    b"",
    b"\x00",
    b"\x00\x00",
    b"\x00\x00\x00",
    b"\x00\x00\x00\x01",
    b"\x00\x00\x01\x01\xc0\x00\x02\x50\x01\xbbfragment",
    b"\x00\x00\x00\x02\xc0\x00\x02\x50\x01\xbbno such type",
    b"\x00\x00\x00\x03\x00\x01\xbbno name",
    b"\x00\x00\x00\x03\xff\x01\xbbshort name",
    b"\x00\x00\x00\x03\x05\xc3\xa9..b\x01\xbbno wire form",
    b"\x00\x00\x00\x04" + bytes(17),
]


class Control:
    """The TCP connection of a client; what the kernel says of its two ends."""

    def __init__(self, here, peer) -> None:
        self.here, self.peer = here, peer

    def getsockname(self):
        return self.here

    def getpeername(self):
        return self.peer


class SocksWorld(UDPWorld):
    def __init__(self, monkeypatch, **options) -> None:
        super().__init__(monkeypatch, **options)
        self.ports: list[FakeDatagramSocket] = []
        self.bind_error = None
        self.ended: list[Client] = []
        monkeypatch.setattr(udp, "bind_datagrams", self.bind)

    def bind(self, address: Address) -> FakeDatagramSocket:
        if self.bind_error is not None:
            raise self.bind_error
        assert address.port == 0
        self.ports.append(FakeDatagramSocket(name=(address.host, 31_000 + len(self.ports))))
        return self.ports[-1]

    def check_nothing_left(self, ports: int = 0) -> None:
        super().check_nothing_left(ports)
        assert all(port.closed for port in self.ports)


class Client:
    """Somebody who asked for an association, announcing ``port``."""

    def __init__(
        self, world: SocksWorld, port: int = 0, here=("127.0.0.1", 1080), peer=(HOST, 50_000)
    ) -> None:
        self.world, self.ended = world, 0
        self.association, self.bound = associate(world.service, Control(here, peer), port, self.on_end)
        self.port = world.ports[-1]

    def on_end(self) -> None:
        self.ended += 1

    def send(self, target: Address, payload: bytes, peer=PEER) -> None:
        self.send_raw(build_datagram(target, payload), peer)

    def send_raw(self, data: bytes, peer=PEER) -> None:
        self.port.arrive(data, peer)
        settle(self.world.loop)

    def received(self) -> list[tuple[Address, bytes]]:
        found = []
        for data, to in self.port.take():
            assert to == PEER
            source, payload = parse_datagram(memoryview(data))
            found.append((source, bytes(payload)))
        return found


@pytest.fixture
def world(monkeypatch):
    return SocksWorld(monkeypatch)


# -- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("payload", [b"", b"\x00", bytes(1400)])
def test_there_and_back(monkeypatch, method, payload):
    """K3, W34"""
    world = SocksWorld(monkeypatch, method=method)
    client = Client(world)
    for target in (TARGET, NAMED):
        client.send(target, payload)
    assert world.sent() == [(TARGET, payload), (NAMED, payload)]
    source = Address("203.0.113.9", 7)
    world.reply(source, payload)
    assert client.received() == [(source, payload)]
    client.association.end()
    world.check_nothing_left()


def test_every_association_has_a_port_and_a_link_of_its_own(world):
    clients = [Client(world) for _ in range(3)]
    for client in clients:
        client.send(TARGET, b"x")
    assert len({client.bound for client in clients}) == 3
    assert len(world.network.open) == 3


@pytest.mark.parametrize(
    ("here", "bound"),
    [
        (("192.0.2.1", 1080), "192.0.2.1"),
        (("::1", 1080, 0, 0), "::1"),
        (("::ffff:192.0.2.1", 1080, 0, 0), "192.0.2.1"),
    ],
)
def test_the_client_is_told_an_address_it_can_reach(world, here, bound):
    """The one it has reached us at, whatever we listen on."""
    client = Client(world, here=here, peer=here)
    assert client.bound == Address(bound, 31_000)


def test_a_reply_whose_source_has_no_wire_form_is_dropped(world):
    client = Client(world)
    client.send(TARGET, b"x")
    world.sent()
    world.network.last.arrive(
        b"\x03\x05\xc3\xa9..b\x00\x35hello", tuple(world.service.upstreams._upstreams[0].address)
    )
    settle(world.loop)
    assert client.received() == []
    assert world.counters["udp_dropped"] == 1


# -- whose datagrams count ---------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", [("192.0.2.8", PEER[1]), ("127.0.0.1", PEER[1])])
def test_only_the_host_of_the_connection_counts(world, stranger):
    """W33"""
    client = Client(world)
    client.send(TARGET, b"not mine", peer=stranger)
    assert world.network.opened == []
    assert world.counters["udp_dropped"] == 1
    client.send(TARGET, b"mine")
    client.send(TARGET, b"not mine", peer=stranger)
    assert world.sent() == [(TARGET, b"mine")]


def test_the_first_port_is_the_clients(world):
    """When it announced none."""
    client = Client(world)
    client.send(TARGET, b"first")
    client.send(TARGET, b"other", peer=(HOST, PEER[1] + 1))
    client.send(TARGET, b"again")
    assert world.sent() == [(TARGET, b"first"), (TARGET, b"again")]


def test_the_announced_port_is_the_clients(world):
    client = Client(world, port=PEER[1])
    client.send(TARGET, b"other", peer=(HOST, PEER[1] + 1))
    client.send(TARGET, b"mine")
    client.send(TARGET, b"other", peer=(HOST, PEER[1] + 1))
    assert world.sent() == [(TARGET, b"mine")]


@pytest.mark.parametrize("peer", [(HOST, PEER[1]), (f"::ffff:{HOST}", PEER[1], 0, 0)])
@pytest.mark.parametrize("control", [(HOST, 50_000), (f"::ffff:{HOST}", 50_000, 0, 0)])
def test_a_mapped_address_is_the_ipv4_address(world, control, peer):
    """A front on ``::`` sees IPv4 clients so."""
    client = Client(world, peer=control)
    client.send(TARGET, b"x", peer=peer)
    assert world.sent() == [(TARGET, b"x")]


def test_ipv6_clients(world):
    client = Client(world, here=("::1", 1080, 0, 0), peer=("::1", 50_000, 0, 0))
    client.send(TARGET, b"not mine", peer=("::2", 9, 0, 0))
    client.send(TARGET, b"mine", peer=("::1", 9, 0, 0))
    assert world.sent() == [(TARGET, b"mine")]


# -- what is malformed -------------------------------------------------------------------------------


@pytest.mark.parametrize("data", MALFORMED)
def test_malformed_datagrams_leave_no_trace(world, data):
    """K4, W1: no socket, no lookup, no longer life, and whoever sent them is not yet the client."""
    client = Client(world)
    world.pass_time(TIMEOUT - 1)
    client.send_raw(data, peer=(HOST, 666))
    assert (world.network.opened, world.resolver.asked) == ([], [])
    assert world.counters == {"udp_associations": 1, "udp_dropped": 1}
    client.send(TARGET, b"x")
    assert world.sent() == [(TARGET, b"x")]
    client.send_raw(data)
    world.pass_time(TIMEOUT - 0.01)
    client.send_raw(data)
    assert client.ended == 0
    world.pass_time(0.01)
    assert client.ended == 1
    world.check_nothing_left()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=64) | st.binary(max_size=64).map(lambda tail: b"\x00\x00\x00" + tail))
def test_any_datagram_is_relayed_or_dropped(monkeypatch, data):
    """K4"""
    world = SocksWorld(monkeypatch)
    client = Client(world)
    client.send_raw(data)
    assert len(world.sent() if world.network.opened else []) + world.counters["udp_dropped"] == 1
    client.association.end()
    world.check_nothing_left()


# -- how long ----------------------------------------------------------------------------------------


def test_it_ends_with_the_connection(world):
    """K6: at once, and the connection need not be told."""
    client = Client(world)
    client.send(TARGET, b"x")
    client.association.end()
    assert client.ended == 0
    world.check_nothing_left()


def test_when_it_is_quiet_the_connection_is_told(world):
    client = Client(world)
    client.send(TARGET, b"x")
    world.pass_time(TIMEOUT - 0.01)
    assert client.ended == 0
    world.pass_time(0.01)
    assert client.ended == 1
    assert world.counters["udp_expired"] == 1
    world.check_nothing_left()


@pytest.mark.parametrize("direction", ["out", "in"])
def test_datagrams_of_both_directions_keep_it(world, direction):
    client = Client(world)
    client.send(TARGET, b"x")
    world.sent()
    for _ in range(3):
        world.pass_time(TIMEOUT - 0.01)
        if direction == "out":
            client.send(TARGET, b"x")
        else:
            world.reply(TARGET, b"y")
    world.pass_time(TIMEOUT - 0.01)
    assert client.ended == 0
    world.pass_time(0.01)
    assert client.ended == 1


def test_the_quietest_makes_room_and_its_connection_is_told(monkeypatch):
    world = SocksWorld(monkeypatch, limit=2)
    first, second = Client(world), Client(world)
    world.pass_time(1)
    first.send(TARGET, b"x")
    third = Client(world)
    assert (first.ended, second.ended, third.ended) == (0, 1, 0)
    assert second.port.closed
    assert world.counters["udp_evicted"] == 1


def test_no_descriptor_for_a_port(world):
    world.bind_error = os_error(errno.EMFILE)
    with pytest.raises(Overloaded, match="no socket for UDP: Too many open files"):
        Client(world)
    world.check_nothing_left()


@pytest.mark.parametrize("ending", ["end", "expiry", "all"])
@pytest.mark.parametrize("used", [False, True])
def test_freed_by_refcount(world, ending, used):
    """R8"""
    client = Client(world)
    if used:
        client.send(TARGET, b"x")
        world.sent()
        world.reply(TARGET, b"y")
    freed = weakref.ref(client), weakref.ref(client.association)
    gc.collect()
    gc.disable()
    try:
        if ending == "end":
            client.association.end()
        elif ending == "expiry":
            world.pass_time(TIMEOUT)
        else:
            world.associations.close()
        del client
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()
    world.check_nothing_left()
