"""``Admission``: who gets in, who makes room, and that nothing is told twice."""

from __future__ import annotations

import ipaddress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ConnectFailed, Overloaded
from common.net.loop import EventLoop
from common.proto.address import Address
from common.relay.admission import GRACE, Admission, Bounds, Tally
from common.relay.stages import STAGE_CONNECTING, STAGE_DESTROYED, STAGE_INIT
from common.relay.tcprelay import TCPRelayHandler
from tests.clock import FakeClock
from tests.fakes import FakeSelector, FakeSocket
from tests.relay_world import World, another_relay

TARGET = Address("192.0.2.9", 80)


class Client(TCPRelayHandler):
    """Its first bytes are its request, for ``TARGET``; what fails ends it."""

    def on_prologue(self, data):
        self.advance(1)
        self.resolve(TARGET)

    def on_connected(self):
        self.stream(bytes, bytes)

    def on_failed(self, error):
        self.count(error)
        self.conclude()


def peers(monkeypatch, world, *hosts):
    """Accept a connection from each host; return their sockets."""
    socks = [FakeSocket() for _ in hosts]
    queue = list(zip(socks, hosts, strict=True))

    def accept():
        if not queue:
            raise BlockingIOError
        sock, host = queue.pop(0)
        return sock, (host, 50000)

    monkeypatch.setattr(world.listener, "accept", accept)
    world.relay.on_event(1)
    return socks


# -- handshakes --------------------------------------------------------------------------------------


def test_too_many_handshakes_end_with_the_oldest(monkeypatch, caplog):
    """W28: whatever they have sent, or not."""
    world = World(monkeypatch, Client, bounds=Bounds(handshakes=3))
    socks = [world.connect()[0] for _ in range(3)]
    world.pass_time(GRACE)
    socks += [world.connect()[0] for _ in range(2)]
    assert [sock.closed for sock in socks] == [True, True, False, False, False]
    assert world.counters["handshakes_closed"] == 2
    assert [record.message for record in caplog.records] == [
        "4 connections have not said what they want, of 4: the oldest are closed (1 so far)"
    ]


def test_nobody_is_closed_before_it_could_speak(monkeypatch):
    """A burst of honest clients is larger than the bound, and their bytes are still under way."""
    world = World(monkeypatch, Client, bounds=Bounds(handshakes=3))
    socks = [world.connect()[0] for _ in range(10)]
    world.pass_time(GRACE - 0.01)
    socks.append(world.connect()[0])
    assert not any(sock.closed for sock in socks)
    world.pass_time(0.01)
    socks.append(world.connect()[0])
    assert [sock.closed for sock in socks] == [True] * 9 + [False] * 3


def test_who_has_said_what_it_wants_is_no_handshake(monkeypatch):
    world = World(monkeypatch, Client, bounds=Bounds(handshakes=1))
    first, handler = world.connect()
    assert list(world.admission.handshakes) == [handler]
    first.arrive(b"x")
    world.settle()
    assert (handler.stage, world.admission.handshakes) == (STAGE_CONNECTING, {})
    second, _ = world.connect()
    world.pass_time(GRACE)
    third, _ = world.connect()
    assert [sock.closed for sock in (first, second, third)] == [False, True, False]


def test_what_is_concluded_is_no_handshake(monkeypatch):
    world = World(monkeypatch, Client, bounds=Bounds(handshakes=1))
    _sock, handler = world.connect()
    handler.conclude(b"no")
    assert world.admission.handshakes == {}


def test_a_full_house_is_opened_by_the_oldest_handshake(monkeypatch):
    """W10: the silent cannot keep others out for longer than ``GRACE``."""
    world = World(monkeypatch, Client, limit=2)
    silent = [world.connect()[0] for _ in range(2)]
    newcomer = FakeSocket()
    world.listener.queue.append(newcomer)
    assert world.settle() == 0, "paused, and no spin"
    world.pass_time(GRACE)
    assert [sock.closed for sock in (*silent, newcomer)] == [True, False, False]
    assert world.admission.count == 2


def test_a_full_house_without_handshakes_waits(monkeypatch):
    world = World(monkeypatch, Client, limit=2)
    for _ in range(2):
        world.connect()[0].arrive(b"x")
        world.settle()
    world.listener.queue.append(FakeSocket())
    world.settle()
    world.pass_time(GRACE)
    assert (len(world.listener.queue), world.admission.count) == (1, 2)


def test_nobody_is_closed_when_nobody_else_comes(monkeypatch):
    """The house is full, the moment has come, and the queue is empty."""
    world = World(monkeypatch, Client, limit=2)
    socks = [world.connect()[0] for _ in range(2)]
    world.settle()
    world.pass_time(10 * GRACE)
    assert not any(sock.closed for sock in socks)
    assert world.counters["handshakes_closed"] == 0


def test_no_timer_is_left_of_a_pause(monkeypatch):
    world = World(monkeypatch, Client, limit=1)
    _sock, handler = world.connect()
    world.settle()
    handler.destroy()
    world.check_idle()


def test_a_fault_in_giving_way_ends_one_connection(monkeypatch, caplog):
    """R11"""

    class Clinging(Client):
        def give_way(self):
            self.on_fault(ZeroDivisionError("injected"))

    world = World(monkeypatch, Clinging, bounds=Bounds(handshakes=1))
    _sock, handler = world.connect()
    world.pass_time(GRACE)
    world.connect()
    assert handler.stage == STAGE_DESTROYED
    assert "failed on a bug" in caplog.text


# -- sources -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("192.0.2.1", "192.0.2.1", True),
        ("192.0.2.1", "192.0.2.2", False),
        ("192.0.2.1", "::ffff:192.0.2.1", True),
        ("2001:db8::1", "2001:db8::ffff:1", True),
        ("2001:db8::1", "2001:db8:0:1::1", False),
        ("fe80::1%eth0", "fe80::2%eth0", True),
    ],
)
def test_a_source_is_an_address_or_a_64(one, other, same):
    admission = Admission(EventLoop(FakeClock(), FakeSelector()), 10)
    assert (admission.source_of(one) == admission.source_of(other)) is same
    assert admission.source_of(one) is not None


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_no_source(host):
    """Behind a TLS proxy on the same machine, everybody comes from there."""
    assert Admission(EventLoop(FakeClock(), FakeSelector()), 10).source_of(host) is None


@given(st.ip_addresses(), st.ip_addresses(), st.integers(0, 32), st.integers(0, 128))
def test_the_prefixes_say_what_a_source_is(one, other, ipv4, ipv6):
    bounds = Bounds(ipv4_prefix=ipv4, ipv6_prefix=ipv6)
    admission = Admission(EventLoop(FakeClock(), FakeSelector()), 10, bounds)
    sources = []
    for ip in (one, other):
        prefix = ipv4 if ip.version == 4 else ipv6
        plain = getattr(ip, "ipv4_mapped", None)
        if ip.is_loopback or plain:
            return
        network = ipaddress.ip_network((ip, prefix), strict=False)
        sources.append((admission.source_of(str(ip)), network))
    assert (sources[0][0] == sources[1][0]) == (sources[0][1] == sources[1][1])


def test_a_source_over_its_bound_is_reset_before_anything_is_read(monkeypatch, caplog):
    world = World(monkeypatch, Client, bounds=Bounds(per_source=2))
    hosts = ["192.0.2.1", "192.0.2.1", "192.0.2.2", "192.0.2.1", "127.0.0.1", "192.0.2.1"]
    socks = peers(monkeypatch, world, *hosts)
    assert [sock.closed for sock in socks] == [False, False, False, True, False, True]
    assert all(sock.options for sock in socks if sock.closed), "linger 0: RST, and never FIN"
    assert (world.admission.count, world.counters["source_limit"]) == (4, 2)
    assert world.counters["accepted"] == 4
    assert [record.message for record in caplog.records] == [
        "the network of 192.0.2.1 has 2 connections, its limit: more are reset (1 so far)"
    ]
    for handler in list(world.relay.handlers):
        handler.destroy()
    assert len(world.admission.sources) == 0


def test_a_source_has_room_again_when_one_of_its_own_has_gone(monkeypatch):
    world = World(monkeypatch, Client, bounds=Bounds(per_source=1))
    peers(monkeypatch, world, "192.0.2.1")
    (handler,) = world.relay.handlers
    handler.destroy()
    (sock,) = peers(monkeypatch, world, "192.0.2.1")
    assert not sock.closed


def test_a_handler_that_cannot_be_made_is_not_counted(monkeypatch):
    world = World(monkeypatch, lambda *args: 1 / 0, bounds=Bounds(per_source=1))
    peers(monkeypatch, world, "192.0.2.1")
    world.check_idle()


def test_a_client_of_a_unix_socket_has_no_source(monkeypatch):
    world = World(monkeypatch, Client, bounds=Bounds(per_source=1))
    socks = [FakeSocket(), FakeSocket()]
    queue = list(socks)

    def accept():
        if not queue:
            raise BlockingIOError
        return queue.pop(), ""

    monkeypatch.setattr(world.listener, "accept", accept)
    world.relay.on_event(1)
    assert not any(sock.closed for sock in socks)


def test_tallies_are_kept_exactly():
    tally = Tally(2)
    assert [tally.take("a") for _ in range(3)] == [True, True, False]
    assert tally.take("b")
    assert len(tally) == 2
    tally.give("a")
    assert tally.take("a")
    for who in "aab":
        tally.give(who)
    assert len(tally) == 0


# -- connections to targets --------------------------------------------------------------------------


def test_connections_under_way_are_bounded(monkeypatch):
    world = World(monkeypatch, Client, bounds=Bounds(connecting=2))
    socks = []
    for _ in range(3):
        sock, _handler = world.connect()
        socks.append(sock.arrive(b"x"))
        world.settle()
    assert len(world.dialer.dials) == 2
    assert [sock.shut for sock in socks] == [False, False, True]
    assert (world.counters["overloaded"], world.counters["connecting_limit"]) == (1, 1)
    world.dialer.dials[0].succeed()
    world.dialer.dials[1].fail(ConnectFailed("refused"))
    assert world.admission.connecting == set()
    sock, handler = world.connect()
    sock.arrive(b"x")
    world.settle()
    assert world.admission.connecting == {handler}
    handler.destroy()
    assert world.admission.connecting == set()


def test_the_bound_is_an_error_of_the_way_there():
    admission = Admission(EventLoop(FakeClock(), FakeSelector()), 10, Bounds(connecting=0))
    with pytest.raises(Overloaded, match=r"^0 connections are being made, the limit: more are refused$"):
        admission.check_connecting()


# -- all together ------------------------------------------------------------------------------------


def test_statistics_say_what_there_is(monkeypatch):
    world = World(monkeypatch, Client)
    peers(monkeypatch, world, "192.0.2.1", "192.0.2.2")
    (first, second) = world.relay.handlers
    first.read_prologue()
    second.local.sock.arrive(b"x")
    world.settle()
    assert world.admission.statistics() == {
        "connections": 2,
        "handshakes": 1,
        "connecting": 1,
        "sources": 2,
    }
    assert (first.stage, second.stage) == (STAGE_INIT, STAGE_CONNECTING)


def test_listeners_share_one_admission(monkeypatch):
    """The oldest handshake of all makes room, whichever listener it came by."""
    world = World(monkeypatch, Client, bounds=Bounds(handshakes=1))
    first, _ = world.connect()
    queue, _relay = another_relay(world, Client)
    world.pass_time(GRACE)
    queue.queue.append(FakeSocket())
    world.settle()
    assert first.closed
