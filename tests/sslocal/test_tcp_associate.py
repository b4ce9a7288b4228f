"""``LocalHandler`` and UDP ASSOCIATE: the TCP connection that an association lives as long as."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest

from common.proto.address import Address
from common.proto.socks5_udp import build_datagram, parse_datagram
from common.relay.admission import Bounds
from common.relay.associations import Associations
from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN, STAGE_UDP_ASSOC
from common.relay.tcprelay import LINGER
from sslocal import udp
from sslocal.udp import UDPService
from tests.datagrams import FakeDatagramSocket, Network
from tests.fakes import FakeSocket, os_error, settle
from tests.local_world import SERVER, SOCKS_GREETING, LocalWorld, socks_request
from tests.relay_world import LIMITS

ANYWHERE = Address("0.0.0.0", 0)
ASSOCIATE = SOCKS_GREETING + socks_request(ANYWHERE, 3)
ACCEPTED = b"\x05\x00\x05\x00\x00\x01\x7f\x00\x00\x01\x79\x18"  # 127.0.0.1, port 31000
CLIENT = ("192.0.2.7", 50_123)
TARGET = Address("192.0.2.80", 443)
TIMEOUT = 300.0


def as_user(name: bytes) -> bytes:
    return b"\x05\x01\x02\x01%c%b\x01p" % (len(name), name) + socks_request(ANYWHERE, 3)


class AssociateWorld(LocalWorld):
    """A local with UDP; ``ports`` are what clients were given, ``network`` has the links."""

    def __init__(self, monkeypatch, limit: int = 100, per_user: int = 100, **options) -> None:
        super().__init__(monkeypatch, **options)
        self.network = Network()
        self.ports: list[FakeDatagramSocket] = []
        self.bind_error: OSError | None = None
        monkeypatch.setattr(udp, "socket", self.network)
        monkeypatch.setattr(udp, "bind_datagrams", self.bind)
        self.associations = Associations(
            self.loop, limit=limit, timeout=TIMEOUT, counters=self.counters, per_user=per_user
        )
        self.service.udp = UDPService(
            self.loop,
            upstreams=self.upstreams,
            resolver=self.resolver,
            associations=self.associations,
            clock=self.service.clock,
            random=self.service.random,
            counters=self.counters,
        )

    def bind(self, address: Address) -> FakeDatagramSocket:
        if self.bind_error is not None:
            raise self.bind_error
        self.ports.append(FakeDatagramSocket(name=(address.host, 31_000 + len(self.ports))))
        return self.ports[-1]

    def associated(self):
        """A client, its handler, and the port it was given."""
        client, handler = self.ask(ASSOCIATE)
        assert client.take()[:6] == ACCEPTED[:6]
        return client, handler, self.ports[-1]

    def send(self, payload: bytes, port: FakeDatagramSocket | None = None) -> None:
        (port or self.ports[-1]).arrive(build_datagram(TARGET, payload), CLIENT)
        settle(self.loop)

    def check_idle(self) -> None:
        super().check_idle()
        assert len(self.associations) == 0
        assert self.network.open == []
        assert all(port.closed for port in self.ports)


@pytest.fixture
def world(monkeypatch):
    return AssociateWorld(monkeypatch)


# -- the request -------------------------------------------------------------------------------------


@pytest.mark.parametrize("bite", [None, 1])
def test_the_client_is_given_a_port(world, bite):
    """K3, W11: in any pieces; the address is the one it has reached us at."""
    client = FakeSocket()
    client.bite = bite
    client, handler = world.ask(ASSOCIATE, client=client)
    assert client.take() == ACCEPTED
    assert handler.stage == STAGE_UDP_ASSOC
    assert world.dialer.dials == []


def test_datagrams_there_and_back(world):
    """K3"""
    _client, _handler, port = world.associated()
    world.send(b"ping")
    link = world.network.last
    ((packet, to),) = link.take()
    assert to == tuple(SERVER)
    assert packet.endswith(b"ping")
    link.arrive(packet[:-4] + b"pong", to)
    settle(world.loop)
    ((datagram, to),) = port.take()
    assert (to, parse_datagram(memoryview(datagram))) == (CLIENT, (TARGET, b"pong"))


@pytest.mark.parametrize("port", [CLIENT[1], CLIENT[1] + 1])
def test_the_port_that_was_announced_counts(world, port):
    world.ask(SOCKS_GREETING + socks_request(Address("0.0.0.0", port), 3))
    world.send(b"ping")
    assert len(world.network.opened) == (port == CLIENT[1])


def test_what_is_sent_over_the_connection_is_nobodys(world):
    client, handler = world.ask(ASSOCIATE + b"and more")
    assert client.take() == ACCEPTED
    client.arrive(bytes(100_000))
    world.settle()
    assert (client.sent, client.arrived, handler.stage) == (b"", b"", STAGE_UDP_ASSOC)


def test_the_handshake_is_over(world):
    """W38: the association's own time counts from here on."""
    _client, handler, _port = world.associated()
    world.pass_time(LIMITS.handshake)
    assert handler.stage == STAGE_UDP_ASSOC


def test_without_udp_it_is_refused(monkeypatch):
    """K5: command not supported, and the reason is counted."""
    world = LocalWorld(monkeypatch)
    client, handler = world.ask(ASSOCIATE)
    assert client.take() == b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0"
    assert (handler.stage, client.shut) == (STAGE_DRAIN, True)
    assert world.counters["unsupported"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_without_a_descriptor_it_is_refused(world):
    world.bind_error = os_error(errno.EMFILE)
    client, handler = world.ask(ASSOCIATE)
    assert client.take() == b"\x05\x00\x05\x01\x00\x01\0\0\0\0\0\0"
    assert handler.stage == STAGE_DRAIN
    assert world.counters["overloaded"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_client_that_reset_before_it_was_served(world, caplog):
    """The kernel knows its address no more."""
    client, handler = world.connect()
    client.arrive(ASSOCIATE)
    client.break_off()
    world.settle()
    assert handler.stage == STAGE_DESTROYED
    assert caplog.records == []
    world.check_idle()


def test_a_client_that_does_not_take_its_reply(world):
    client, _handler = world.ask(ASSOCIATE, client=FakeSocket(room=3))
    assert world.settle() == 0
    client.room = None
    world.settle()
    assert client.take() == ACCEPTED


def test_a_reply_that_cannot_be_sent_ends_it(world, monkeypatch):
    client, handler = world.connect()
    client.arrive(SOCKS_GREETING)
    world.settle()
    client.arrive(socks_request(ANYWHERE, 3))
    monkeypatch.setattr(client, "send", lambda data: (_ for _ in ()).throw(os_error(errno.EPIPE)))
    world.settle()
    assert handler.stage == STAGE_DESTROYED
    world.check_idle()


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("used", [False, True])
@pytest.mark.parametrize("gone", [FakeSocket.end, FakeSocket.break_off])
def test_it_ends_with_its_connection(world, gone, used):
    """K6"""
    client, _handler, _port = world.associated()
    if used:
        world.send(b"x")
    gone(client)
    world.settle()
    assert client.closed
    world.check_idle()


def test_the_connection_ends_with_it(world):
    """When it is quiet for too long: the client is told, and can ask for another."""
    client, _handler, _port = world.associated()
    world.pass_time(TIMEOUT - 0.01)
    assert not client.closed
    world.pass_time(0.01)
    assert client.closed
    assert world.counters["udp_expired"] == 1
    world.check_idle()


def test_datagrams_keep_the_connection(world):
    client, _handler, _port = world.associated()
    for _ in range(3):
        world.pass_time(TIMEOUT - 0.01)
        world.send(b"x")
    assert not client.closed


def test_the_quietest_client_makes_room(monkeypatch):
    world = AssociateWorld(monkeypatch, limit=2)
    first, _handler, port = world.associated()
    second, _handler, _port = world.associated()
    world.pass_time(1)
    world.send(b"x", port)
    third, _handler, _port = world.associated()
    assert [sock.closed for sock in (first, second, third)] == [False, True, False]
    assert world.admission.count == 2


def test_the_quietest_client_of_a_user_makes_room(monkeypatch):
    """Its connection ends, so that it knows; other users keep theirs."""
    world = AssociateWorld(monkeypatch, per_user=2, auth=lambda user, password: True)
    bob, _handler = world.ask(as_user(b"bob"))
    clients = [world.ask(as_user(b"alice"))[0] for _ in range(3)]
    assert [sock.closed for sock in (bob, *clients)] == [False, True, False, False]
    assert world.counters["udp_user_limit"] == 1
    assert (world.admission.count, len(world.associations)) == (3, 3)


def test_each_is_a_connection_of_its_user_too(monkeypatch):
    world = AssociateWorld(monkeypatch, bounds=Bounds(per_user=1), auth=lambda user, password: True)
    first, second = (world.ask(as_user(b"alice"))[0] for _ in range(2))
    assert second.take() == b"\x05\x02\x01\x00\x05\x01\x00\x01\0\0\0\0\0\0"
    assert (first.closed, len(world.ports)) == (False, 1)


def test_all_end_with_the_table(world):
    """S6: as when the program drains."""
    clients = [world.associated()[0] for _ in range(3)]
    world.associations.close()
    assert all(client.closed for client in clients)
    world.check_idle()


@pytest.mark.parametrize("ending", ["destroy", "left", "expired", "fault"])
def test_freed_without_the_gc(world, ending):
    """R8"""
    client, handler, _port = world.associated()
    world.send(b"x")
    freed = weakref.ref(handler), weakref.ref(handler.association)
    gc.collect()
    gc.disable()
    try:
        if ending == "destroy":
            handler.destroy()
        elif ending == "left":
            client.end()
            world.settle()
        elif ending == "expired":
            world.pass_time(TIMEOUT)
        else:
            handler.on_fault(ZeroDivisionError("injected"))
        del handler
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()
    world.check_idle()
