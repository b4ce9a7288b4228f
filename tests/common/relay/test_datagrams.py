"""``DatagramSocket``: batches, errors that are nobody's fault, and the end."""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter

import pytest

from common.errors import ProtocolError
from common.net.loop import READ, EventLoop
from common.relay.datagrams import BATCH, DatagramSocket
from tests.clock import FakeClock
from tests.datagrams import FakeDatagramSocket
from tests.driving import drive
from tests.fakes import FakeSelector, os_error, settle

PEER = ("192.0.2.7", 5000)
OTHER = ("192.0.2.8", 5001)


class World:
    """A socket whose owner keeps what comes, and does what ``then`` says."""

    def __init__(self) -> None:
        self.loop = EventLoop(FakeClock(), FakeSelector())
        self.counters: Counter[str] = Counter()
        self.wire = FakeDatagramSocket()
        self.received: list[tuple[bytes, tuple[str, int]]] = []
        self.then = lambda data: None
        self.socket = DatagramSocket(self.loop, self.wire, self.on_datagram, self.counters)

    def on_datagram(self, data, peer) -> None:
        self.received.append((bytes(data), peer))
        self.then(bytes(data))

    @property
    def watched(self) -> int:
        return self.loop.statistics()["watched"]


@pytest.fixture
def world():
    return World()


# -- receiving ---------------------------------------------------------------------------------------


def test_datagrams_arrive_with_their_senders(world):
    world.wire.arrive(b"one", PEER)
    world.wire.arrive(b"two", OTHER)
    world.loop.step(0)
    assert world.received == [(b"one", PEER), (b"two", OTHER)]
    assert not world.wire.blocking


def test_empty_datagrams_are_datagrams(world):
    """W34"""
    world.wire.arrive(b"", PEER)
    world.loop.step(0)
    assert world.received == [(b"", PEER)]


def test_a_flood_does_not_starve_the_rest(world):
    """W26: a batch for each event."""
    for _ in range(BATCH + 1):
        world.wire.arrive(b"x", PEER)
    world.loop.step(0)
    assert len(world.received) == BATCH
    world.loop.step(0)
    assert len(world.received) == BATCH + 1


def test_what_arrives_dies_with_the_call(world):
    """One buffer for all: whoever keeps bytes copies them."""
    views = []
    wire = FakeDatagramSocket()
    sock = DatagramSocket(world.loop, wire, lambda data, peer: views.append(data), world.counters)
    wire.arrive(b"first", PEER)
    wire.arrive(b"FIRST", PEER)
    world.loop.step(0)
    assert [bytes(view) for view in views] == [b"FIRST", b"FIRST"]
    sock.close()


def test_another_way_to_receive():
    """As of what the kernel tells beside a datagram."""
    world = World()
    queue = [BlockingIOError(), (3, "and more")]

    def receive(buffer):
        answer = queue.pop()
        if isinstance(answer, Exception):
            raise answer
        buffer[:3] = b"abc"
        return answer

    received = []
    wire = FakeDatagramSocket()
    sock = DatagramSocket(
        world.loop,
        wire,
        lambda data, origin: received.append((bytes(data), origin)),
        world.counters,
        receive=receive,
    )
    wire.arrive(b"ignored", PEER)
    sock.on_event(READ)
    assert received == [(b"abc", "and more")]
    sock.close()


# -- errors ------------------------------------------------------------------------------------------


def test_errors_are_about_earlier_datagrams_and_forgotten(world, caplog):
    """What ICMP said is no reason to stop."""
    world.wire.queue.extend([os_error(errno.ECONNREFUSED), os_error(errno.EHOSTUNREACH)])
    world.wire.arrive(b"good", PEER)
    world.loop.step(0)
    assert world.received == [(b"good", PEER)]
    assert world.counters == {"udp_errors": 2}
    assert caplog.records == []


def test_errors_without_end_are_no_spin(world):
    world.wire.queue.extend(os_error(errno.ENETDOWN) for _ in range(3 * BATCH))
    world.loop.step(0)
    assert world.counters == {"udp_errors": BATCH}


def test_a_datagram_that_breaks_the_protocol_is_dropped_alone(world, caplog):
    """K4, W1: the rest of the batch is served."""
    caplog.set_level(logging.DEBUG, "shadowrelay.udp")

    def refuse(data):
        if data == b"bad":
            raise ProtocolError("no such thing")

    world.then = refuse
    for data in (b"good", b"bad", b"good"):
        world.wire.arrive(data, PEER)
    world.loop.step(0)
    assert len(world.received) == 3
    assert world.counters == {"udp_dropped": 1}
    assert [record.getMessage() for record in caplog.records] == [
        "datagram from ('192.0.2.7', 5000) dropped: no such thing"
    ]
    assert caplog.records[0].levelno == logging.DEBUG


def test_a_bug_costs_one_datagram(world, caplog):
    """R11: the loop goes on, and so does the socket."""

    def fail(data):
        if data == b"bad":
            raise ZeroDivisionError("injected")

    world.then = fail
    for data in (b"bad", b"good"):
        world.wire.arrive(data, PEER)
    settle(world.loop)
    assert world.received[-1] == (b"good", PEER)
    assert [record.exc_info[0] for record in caplog.records] == [ZeroDivisionError]
    assert world.watched == 1


# -- sending -----------------------------------------------------------------------------------------


def test_sending(world):
    assert world.socket.send(b"hello", PEER)
    assert world.socket.send(memoryview(b""), OTHER)
    assert world.wire.sent == [(b"hello", PEER), (b"", OTHER)]


@pytest.mark.parametrize(
    ("code", "counted"), [(errno.EAGAIN, 0), (errno.ENETUNREACH, 1), (errno.EMSGSIZE, 1)]
)
def test_what_cannot_be_sent_is_dropped(world, code, counted):
    """A full buffer is no error: that is how UDP loses datagrams."""
    world.wire.error = code
    assert not world.socket.send(b"hello", PEER)
    assert world.counters["udp_errors"] == counted
    world.wire.error = None
    assert world.socket.send(b"hello", PEER)


# -- the end -----------------------------------------------------------------------------------------


def test_closing(world):
    world.socket.close()
    world.socket.close()
    assert world.wire.closed
    assert world.watched == 0


def test_closed_by_what_it_received(world):
    """R10: nothing of the batch is served any more."""
    world.then = lambda data: world.socket.close()
    for _ in range(2):
        world.wire.arrive(b"x", PEER)
    world.loop.step(0)
    assert len(world.received) == 1


def test_closed_by_what_it_refused(world):
    def refuse(data):
        world.socket.close()
        raise ProtocolError("and good bye")

    world.then = refuse
    for _ in range(2):
        world.wire.arrive(b"x", PEER)
    world.loop.step(0)
    assert len(world.received) == 1


def test_closed_earlier_in_the_same_batch_of_events(world):
    """R10: its event was ready when another closed it."""
    world.wire.arrive(b"x", PEER)
    world.socket.close()
    world.socket.on_event(READ)
    assert world.received == []


# -- on real sockets ---------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
@pytest.mark.parametrize("size", [0, 1, 65_000])
def test_there_and_back(host, size):
    """W34: from nothing to nearly the most there is, in both families."""
    loop = EventLoop()
    payload = bytes(range(256)) * 256
    received = []
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_DGRAM) as peer:
        peer.bind((host, 0))
        peer.settimeout(10)
        ours = socket.socket(family, socket.SOCK_DGRAM)
        ours.bind((host, 0))
        sock = DatagramSocket(
            loop, ours, lambda data, source: received.append((bytes(data), source)), Counter()
        )
        assert sock.send(payload[:size], peer.getsockname())
        data, source = peer.recvfrom(70_000)
        assert (data, source) == (payload[:size], ours.getsockname())
        peer.sendto(data, source)
        drive(loop, lambda: received)
        assert received == [(payload[:size], peer.getsockname())]
        sock.close()
    assert loop.statistics() == {"watched": 0, "timers": 0}
    loop.close()


def test_more_than_a_datagram_holds_is_dropped():
    loop, counters = EventLoop(), Counter()
    sock = DatagramSocket(
        loop, socket.socket(socket.AF_INET, socket.SOCK_DGRAM), lambda data, peer: None, counters
    )
    assert not sock.send(bytes(65_536), ("127.0.0.1", 9))
    assert counters == {"udp_errors": 1}
    sock.close()
    loop.close()
