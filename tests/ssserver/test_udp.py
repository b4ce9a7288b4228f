"""``ServerUDP``: sessions of clients, what leaves for their targets, and where replies go."""

from __future__ import annotations

import errno
import gc
import ipaddress
import os
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.acl.rules import AccessRules
from common.crypto import METHODS, Cipher, Family
from common.errors import ResolveFailed
from common.net.loop import EventLoop
from common.proto.address import Address
from common.relay import targets
from common.relay.associations import Associations
from common.relay.targets import MAX_WAITING, ROUTE_SECONDS, Targets
from ssserver.gate import Gate
from ssserver.udp import ServerAssociation, ServerUDP
from tests.clock import FakeClock
from tests.datagrams import FakeDatagramSocket, Network
from tests.fakes import FakeResolver, FakeSelector, settle
from tests.packets import of_user, with_users
from tests.pairs import PASSWORDS

NOW = 1_700_000_000.0
TIMEOUT = 300.0
PEER = ("198.51.100.9", 4321)
MOVED = ("203.0.113.77", 999)
TARGET = Address("192.0.2.80", 443)
SECOND = Address("192.0.2.81", 3478)
NAMED = Address("origin.example", 53)
SIP004 = "aes-256-gcm"
SIP022 = "2022-blake3-aes-128-gcm"

every_method = pytest.mark.parametrize("method", METHODS)
with_sessions = pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if method.family is Family.SIP022]
)


class ServerWorld:
    """One port of ssserver; clients, targets, names and time are the test's."""

    def __init__(
        self, monkeypatch, method=SIP004, *, cipher=None, limit=100, forbidden=(), rules=None
    ) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.resolver = FakeResolver()
        self.counters: Counter[str] = Counter()
        self.network = Network()
        monkeypatch.setattr(targets, "socket", self.network)
        self.associations = Associations(self.loop, limit=limit, timeout=TIMEOUT, counters=self.counters)
        self.cipher = cipher or Cipher.from_password(method, PASSWORDS.get(method, "correct horse"))
        self.packets = self.cipher.server_packets(clock=self.unix_time, random=os.urandom)
        self.port = FakeDatagramSocket()
        self.server = ServerUDP(
            self.loop,
            self.port,
            self.packets,
            associations=self.associations,
            resolver=self.resolver,
            gate=Gate([ipaddress.ip_network(text) for text in forbidden], rules),
            counters=self.counters,
            source_of=lambda host: host,
        )

    def unix_time(self) -> float:
        return NOW + self.clock.now

    def client(self, peer=PEER, cipher=None) -> Client:
        return Client(self, peer, cipher or self.cipher)

    def left(self) -> list[tuple[bytes, tuple]]:
        """What has left for targets since the last call."""
        return [sent for sock in self.network.opened for sent in sock.take()]

    def answer(self, payload: bytes, source=TARGET, sock=None) -> None:
        """A target, or anybody, sends to the socket of a session, the latest by default."""
        (sock or self.network.last).arrive(payload, tuple(source))
        settle(self.loop)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.loop)

    def stop(self) -> None:
        self.server.close()
        self.associations.close()
        assert self.port.closed
        self.check_nothing_left(ports=0)

    def check_nothing_left(self, ports: int = 1) -> None:
        assert len(self.associations) == 0
        assert self.network.open == []
        assert self.resolver.waiting == []
        assert self.loop.statistics() == {"watched": ports, "timers": 0}


class Client:
    """Who holds the key: one session, sent from ``peer``."""

    def __init__(self, world: ServerWorld, peer, cipher) -> None:
        self.world, self.peer = world, peer
        self.packets = cipher.client_packets(clock=world.unix_time, random=os.urandom)

    def sealed(self, payload: bytes, target=TARGET) -> bytes:
        return bytes(self.packets.seal(target, payload))

    def send(self, payload: bytes, target=TARGET) -> None:
        self.send_raw(self.sealed(payload, target))

    def send_raw(self, data: bytes) -> None:
        self.world.port.arrive(data, self.peer)
        settle(self.world.loop)

    def received(self) -> list[tuple[Address, bytes]]:
        found = []
        for data, to in self.world.port.take():
            assert to == self.peer
            source, payload = self.packets.open(data)
            found.append((source, bytes(payload)))
        return found


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)


def alive() -> int:
    """Associations and what they hold, ended or not."""
    return sum(isinstance(each, ServerAssociation | Targets) for each in gc.get_objects())


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


def test_the_log_names_the_user(monkeypatch, caplog):
    caplog.set_level("DEBUG", "shadowrelay.ssserver")
    method = METHODS[SIP004]
    world = ServerWorld(monkeypatch, cipher=with_users(method, 2))
    world.client(PEER, of_user(method, 2)).send(b"x")
    world.client(PEER, of_user(method, 2)).send(b"x")
    assert [record.getMessage() for record in caplog.records] == ["198.51.100.9:4321 (u2) has a UDP session"]


# -- what is not ours --------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_what_does_not_open_leaves_no_trace(monkeypatch, method):
    """K4, S9: no answer, no association, no lookup, and the session that it spoiled goes on."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    packet = client.sealed(b"good")
    bent = bytearray(packet)
    bent[len(bent) // 2] ^= 1
    strange = Cipher.from_password("none", "").client_packets(clock=world.unix_time, random=os.urandom)
    wrong = [b"", b"\x00", bytes(2), bytes(3), packet[:-1], packet + b"\x00", bytes(bent), bytes(60)]
    for data in (*wrong, bytes(strange.seal(TARGET, b"plain"))):
        client.send_raw(data)
    assert (len(world.associations), world.network.opened, world.resolver.asked) == (0, [], [])
    assert world.port.sent == []
    assert world.counters == {"udp_dropped": 9}
    world.check_nothing_left()
    client.send_raw(packet)
    assert world.left() == [(b"good", tuple(TARGET))]
    client.send_raw(packet)
    assert world.left() == []
    assert world.counters["udp_dropped"] == 10


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\x01",
        b"\x02\x00\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x35",
        b"\x03\xffshort\x00\x35",
        b"\x04" * 18,
    ],
)
def test_an_authentic_packet_without_a_target_leaves_no_trace(monkeypatch, inside):
    """K4: with the key and without sense."""
    world = ServerWorld(monkeypatch, "none")
    world.client().send_raw(inside)
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()


@pytest.mark.parametrize("method", ["none", SIP004, SIP022, "2022-blake3-chacha20-poly1305"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=120))
def test_any_datagram_is_relayed_or_dropped(method, data, monkeypatch):
    """K4: ``none`` relays what happens to be a packet; nothing else passes."""
    world = ServerWorld(monkeypatch, method)
    world.client().send_raw(data)
    if len(world.associations) == 0:
        assert world.counters == {"udp_dropped": 1}
        world.check_nothing_left()
    else:
        assert method == "none"
    world.stop()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_change_to_a_real_packet_is_noticed(method, data, monkeypatch):
    """K4: cut anywhere, or with any byte changed."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    packet = bytearray(client.sealed(b"hello"))
    place = data.draw(st.integers(0, len(packet) - 1))
    if data.draw(st.booleans()):
        del packet[place:]
    else:
        packet[place] ^= data.draw(st.integers(1, 255))
    client.send_raw(bytes(packet))
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()


def test_clients_that_are_not_admitted_are_not_heard(monkeypatch):
    rules = AccessRules.parse("[reject_all]\n[white_list]\n198.51.100.0/24\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    world.client(("203.0.113.1", 1)).send(b"x")
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()
    world.client().send(b"x")
    assert world.left() == [(b"x", tuple(TARGET))]


# -- what is forbidden -------------------------------------------------------------------------------

FORBIDDEN = ("10.0.0.0/8", "127.0.0.0/8", "::1/128")


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "::1", "::ffff:10.0.0.1"])
def test_every_datagrams_own_target_is_checked(monkeypatch, host):
    """S3, W7: the second one, too, of an association that had an allowed target."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    for number in range(3):
        client.send(b"fine")
        client.send(b"not fine", Address(host, 53))
        assert world.left() == [(b"fine", tuple(TARGET))]
        assert world.counters["forbidden"] == number + 1
    assert world.counters["udp_bytes_up"] == 12, "what is forbidden has not been sent"


def test_names_are_checked_by_what_they_resolve_to(monkeypatch):
    """S3, W7: and what was checked is what is sent to."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    client.send(b"1", NAMED)
    world.resolver.answer(NAMED.host, "10.0.0.1", "192.0.2.99")
    assert world.left() == [(b"1", ("192.0.2.99", 53))]
    client.send(b"2", Address("inside.example", 53))
    world.resolver.answer("inside.example", "10.0.0.1", "::1")
    assert world.left() == []
    assert world.counters["forbidden"] == 1


def test_a_name_that_changes_its_mind_is_checked_again(monkeypatch):
    """W7: rebinding. A checked address serves a minute; then the name is resolved and judged anew."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    client.send(b"1", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    world.pass_time(ROUTE_SECONDS - 0.01)
    client.send(b"2", NAMED)
    assert world.left() == [(b"1", ("192.0.2.99", 53)), (b"2", ("192.0.2.99", 53))]
    assert len(world.resolver.asked) == 1
    world.pass_time(0.01)
    client.send(b"3", NAMED)
    world.resolver.answer(NAMED.host, "127.0.0.1")
    assert world.left() == []
    assert world.counters["forbidden"] == 1


def test_names_that_the_rules_refuse_are_not_resolved(monkeypatch):
    rules = AccessRules.parse("[outbound_block_list]\n||ads.example\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    world.client().send(b"x", Address("x.ads.example", 53))
    assert world.resolver.asked == []
    assert world.counters["forbidden"] == 1


def test_port_0_is_no_target(world):
    world.client().send(b"x", Address("192.0.2.1", 0))
    assert (world.network.opened, world.resolver.asked) == ([], [])
    assert world.counters["udp_dropped"] == 1


# -- names -------------------------------------------------------------------------------------------


def test_a_slow_name_holds_nobody_up(world):
    """W23"""
    client, other = world.client(), world.client(MOVED)
    client.send(b"slow", NAMED)
    client.send(b"quick")
    other.send(b"other")
    assert world.left() == [(b"quick", tuple(TARGET)), (b"other", tuple(TARGET))]
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert world.left() == [(b"slow", ("192.0.2.99", 53))]


def test_few_datagrams_wait_and_nobody_else_s(world):
    client, other = world.client(), world.client(MOVED)
    for _ in range(MAX_WAITING + 3):
        client.send(b"x", NAMED)
    assert world.counters["udp_dropped"] == 3
    other.send(b"y", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert len(world.left()) == MAX_WAITING + 1


def test_a_name_without_an_address(world):
    client = world.client()
    client.send(b"x", NAMED)
    world.resolver.answer(NAMED.host, ResolveFailed("no such name"))
    assert world.counters["udp_dropped"] == 1
    client.send(b"x", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert world.left() == [(b"x", ("192.0.2.99", 53))]


@pytest.mark.parametrize("ending", ["expired", "evicted", "stopped"])
def test_nobody_waits_for_an_association_that_ended(monkeypatch, ending):
    """W20: a late answer brings nothing back."""
    world = ServerWorld(monkeypatch, limit=1)
    world.client().send(b"x", NAMED)
    if ending == "expired":
        world.pass_time(TIMEOUT)
    elif ending == "evicted":
        world.client(MOVED).send(b"y")
    else:
        world.stop()
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert [payload for payload, _ in world.left()] == ([b"y"] if ending == "evicted" else [])


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


# -- what the kernel refuses -------------------------------------------------------------------------


def test_no_descriptor_for_a_session(world):
    client = world.client()
    world.network.error = errno.EMFILE
    client.send(b"lost")
    assert world.counters["udp_dropped"] == 1
    world.network.error = None
    client.send(b"sent")
    assert world.left() == [(b"sent", tuple(TARGET))]


def test_what_cannot_be_sent_is_not_counted_as_sent(world):
    client = world.client()
    client.send(b"x")
    world.network.last.error = errno.ENETUNREACH
    client.send(b"lost")
    world.network.last.error = None
    world.port.error = errno.ENOBUFS
    world.answer(b"lost, too")
    world.port.error = None
    world.answer(b"y")
    assert client.received() == [(TARGET, b"y")]
    assert world.counters["udp_bytes_up"] == 1
    assert world.counters["udp_errors"] == 2


def test_a_source_without_a_wire_form_is_dropped(world):
    client = world.client()
    client.send(b"x")
    world.answer(b"y", ("fe80::1%eth0", 9, 0, 2))
    assert client.received() == []
    assert world.counters["udp_dropped"] == 1


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
