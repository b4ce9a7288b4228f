"""Datagrams through both programs in one process: the engine against real sockets."""

from __future__ import annotations

import contextlib
import os
import random
import socket

import pytest

from common.config.schema import Local
from common.crypto import METHODS
from common.proto.address import Address, encode_address
from common.proto.socks5_udp import build_datagram, parse_datagram
from tests.datagrams import FakeDatagramSocket
from tests.pairs import LOOPBACK, AppPair, running_pair

SIZES = [0, 1, 1200, 9000, 60_000]
FLIGHT, ROUNDS = 20, 50  # datagrams under way, and how many times


class Endpoint:
    """A UDP socket that waits by driving the pair."""

    def __init__(self, pair: AppPair, stack: contextlib.ExitStack, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self.pair = pair
        self.sock = stack.enter_context(socket.socket(family, socket.SOCK_DGRAM))
        self.sock.bind((host, 0))
        self.sock.setblocking(False)
        self.address = Address(*self.sock.getsockname()[:2])
        self.inbox: list[tuple[bytes, tuple]] = []

    def poll(self) -> bool:
        with contextlib.suppress(BlockingIOError):
            self.inbox.append(self.sock.recvfrom(70_000))
        return bool(self.inbox)

    def receive(self) -> tuple[bytes, tuple]:
        self.pair.drive(self.poll)
        return self.inbox.pop(0)


class Client(Endpoint):
    """A SOCKS5 client with an association."""

    def __init__(self, pair: AppPair, stack: contextlib.ExitStack, host: str = "127.0.0.1") -> None:
        super().__init__(pair, stack, host)
        front = pair.local.listening[0]
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        sock = socket.socket(family)
        sock.connect((host, front.port))
        self.control = pair._peer(sock)
        self.control.say(b"\x05\x01\x00\x05\x03\x00" + encode_address(Address("0.0.0.0", 0)))
        size = 2 + 3 + (19 if ":" in host else 7)
        pair.drive(lambda: len(self.control.heard) >= size or self.control.gone)
        assert self.control.heard[:5] == b"\x05\x00\x05\x00\x00"
        self.relay = parse_datagram(memoryview(b"\0\0\0" + self.control.heard[5:]))[0]

    def send(self, target: Address, payload: bytes) -> None:
        self.sock.sendto(build_datagram(target, payload), tuple(self.relay))

    def hear(self) -> tuple[Address, bytes]:
        data, peer = self.receive()
        assert peer[:2] == self.relay
        source, payload = parse_datagram(memoryview(data))
        return source, bytes(payload)


@pytest.fixture
def stack():
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture
def pair():
    with running_pair(method="2022-blake3-aes-128-gcm") as pair:
        yield pair


def check_nothing_left(pair: AppPair) -> None:
    """Once the server has forgotten the clients, too, as it does with time."""
    pair.server.associations.close()
    assert len(pair.local.associations) == 0
    pair.check_idle()


# -- SOCKS5 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_an_echo(stack, method, loops):
    """K3: two targets see one source port; replies carry the real source; nothing is left behind (K6)."""
    with running_pair(method=method, loops=loops) as pair:
        client = Client(pair, stack)
        targets = [Endpoint(pair, stack) for _ in range(2)]
        peers = set()
        for size in SIZES:
            payload = random.Random(size).randbytes(size)
            for target in targets:
                client.send(target.address, payload)
                data, peer = target.receive()
                assert data == payload
                peers.add(peer)
                target.sock.sendto(data[::-1], peer)
                assert client.hear() == (target.address, payload[::-1])
        assert len(peers) == 1
        client.control.end()
        pair.drive(lambda: client.control.gone)
        check_nothing_left(pair)


def test_clients_have_source_ports_of_their_own(pair, stack):
    target = Endpoint(pair, stack)
    clients = [Client(pair, stack) for _ in range(10)]
    for client in clients:
        client.send(target.address, repr(client.address).encode())
    for _ in clients:
        target.sock.sendto(*target.receive())
    for client in clients:
        assert client.hear() == (target.address, repr(client.address).encode())


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_both_families(stack, host):
    """Fronts and servers on ``::`` serve both; and a client of either reaches targets of both."""
    wild = Address("::", 0)
    with running_pair(local={"local": wild}) as pair:
        client = Client(pair, stack, host)
        assert client.relay.host == host
        for target in (Endpoint(pair, stack, "127.0.0.1"), Endpoint(pair, stack, "::1")):
            client.send(target.address, b"ping")
            target.sock.sendto(*target.receive())
            assert client.hear() == (target.address, b"ping")


def test_a_target_by_name(pair, stack):
    """The reply names the address."""
    client, target = Client(pair, stack), Endpoint(pair, stack)
    client.send(Address("localhost", target.address.port), b"ping")
    target.sock.sendto(*target.receive())
    assert client.hear() == (target.address, b"ping")


def test_a_flow_of_full_sized_datagrams(pair, stack):
    """As HTTP/3 has it: a flight is under way all the time; loopback loses none of it."""
    client, target = Client(pair, stack), Endpoint(pair, stack)
    for number in range(ROUNDS):
        payloads = [bytes([number, part]) * 600 for part in range(FLIGHT)]
        for payload in payloads:
            client.send(target.address, payload)
        for _ in payloads:
            target.sock.sendto(*target.receive())
        assert [client.hear()[1] for _ in payloads] == payloads


def test_the_end_of_the_connection_is_the_end(pair, stack):
    """K6, by reset, too."""
    for how in ("end", "reset"):
        client, target = Client(pair, stack), Endpoint(pair, stack)
        client.send(target.address, b"x")
        target.receive()
        getattr(client.control, how)()
        pair.drive(lambda: not pair.local.associations)
        client.send(target.address, b"late")
    check_nothing_left(pair)


def test_whatever_reaches_either_port(pair, stack):
    """K4: both programs live on, and keep nothing of it."""
    client, target, stranger = Client(pair, stack), Endpoint(pair, stack), Endpoint(pair, stack)
    noise = random.Random(4)
    client.send(target.address, b"before")
    _, peer = target.receive()
    watched = [loop.statistics() for loop in pair.loops]
    for number in range(500):
        data = noise.randbytes(number % 90)
        client.sock.sendto(data, tuple(client.relay))
        stranger.sock.sendto(data, tuple(client.relay))
        stranger.sock.sendto(data, tuple(pair.server.listening[0]))
        pair.step()
    assert [loop.statistics() for loop in pair.loops] == watched
    assert len(pair.server.associations) == 1
    client.send(target.address, b"after")
    assert target.receive() == (b"after", peer)


# -- tunnels -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_a_tunnel(stack, method):
    """M5: any number of clients, each with a source port of its own, and none of it over TCP."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as service:
        service.bind(("127.0.0.1", 0))
        local = Local(LOOPBACK, "tunnel", "udp_only", target=Address(*service.getsockname()))
        with running_pair(method=method, local={"locals": (local,)}) as pair:
            target = Endpoint(pair, stack)
            target.sock = service
            service.setblocking(False)
            (front,) = pair.local.listening
            clients = [Endpoint(pair, stack) for _ in range(5)]
            for client in clients:
                client.sock.sendto(repr(client.address).encode(), front)
            peers = set()
            for _ in clients:
                data, peer = target.receive()
                peers.add(peer)
                service.sendto(data + b"!", peer)
            for client in clients:
                assert client.receive() == (repr(client.address).encode() + b"!", tuple(front))
            assert len(peers) == len(clients)


# -- leaving -----------------------------------------------------------------------------------------


def test_sslocal_stops(pair, stack):
    """S6: an association ends with its port; the client sees its connection end."""
    client, target = Client(pair, stack), Endpoint(pair, stack)
    client.send(target.address, b"x")
    target.receive()
    pair.local.stop()
    pair.drive(lambda: client.control.gone)
    assert len(pair.local.associations) == 0
    assert pair.local.listening == ()


def test_sslocal_drains(pair, stack):
    """S6: an association goes on for as long as the connection it belongs to."""
    client, target = Client(pair, stack), Endpoint(pair, stack)
    client.send(target.address, b"x")
    data, peer = target.receive()
    pair.local.drain()
    assert pair.local.listening == ()
    target.sock.sendto(data, peer)
    assert client.hear() == (target.address, b"x")
    client.control.sock.close()
    pair.drive(lambda: len(pair.local.associations) == 0)


@pytest.mark.parametrize("leave", ["drain", "stop"])
def test_ssserver_leaves_and_a_successor_takes_over(stack, leave):
    """S6: the port is free at once, and a client of SIP022 need not even notice."""
    with running_pair(method="2022-blake3-aes-256-gcm", loops=2) as pair:
        client, target = Client(pair, stack), Endpoint(pair, stack)
        client.send(target.address, b"before")
        target.receive()
        address = pair.server.listening[0]
        getattr(pair.server, leave)()
        assert pair.loops[1].statistics() == {"watched": 0, "timers": 0}
        (server,) = pair.server.config.servers
        successor = type(pair.server)(
            pair.server.config._replace(servers=(server._replace(address=address),)), pair.loops[1]
        )
        successor.start()
        stack.callback(successor.stop)
        client.send(target.address, b"after")
        data, peer = target.receive()
        target.sock.sendto(data, peer)
        assert client.hear() == (target.address, b"after")
        successor.stop()


def test_expiry_on_the_real_clock(stack):
    """The shortest there is: quiet associations are gone on both sides, and the client is told."""
    options = {"udp_timeout": 0.05}
    with running_pair(local=options, server=options) as pair:
        client, target = Client(pair, stack), Endpoint(pair, stack)
        client.send(target.address, os.urandom(9))
        target.receive()
        pair.drive(lambda: client.control.gone and not pair.server.associations)
        pair.check_idle()
        assert pair.local.statistics()["udp_expired"] == 1
        assert pair.server.statistics()["udp_expired"] == 1


def test_fakes_behave_as_sockets_do():
    """What the tests of the engine rely on, held against the kernel."""
    real = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    for sock in (real, FakeDatagramSocket()):
        sock.setblocking(False)
        with pytest.raises(BlockingIOError):
            sock.recvfrom_into(memoryview(bytearray(9)))
        assert sock.sendto(b"abc", ("127.0.0.1", 9)) == 3
        sock.close()
        assert sock.fileno() == -1
