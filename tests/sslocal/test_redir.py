"""``redir``: whose connection is taken, and UDP there and back; datagrams and servers are the test's."""

from __future__ import annotations

import errno
import logging
import socket
from collections import Counter, deque
from types import SimpleNamespace

import pytest

from common.errors import BadRequest, ProtocolError, TargetForbidden
from common.net.loop import READ, EventLoop
from common.proto.address import Address
from common.proto.fixed import FixedFront
from common.proto.request import Command, Request
from common.relay.associations import Associations
from sslocal import redir
from sslocal.redir import MAX_OUTLETS, RedirUDP, new_front, original_target
from tests.clock import FakeClock
from tests.fakes import FakeSelector, settle

PORT = 12345
OURS = "192.168.77.1"
CLIENT = ("192.168.77.2", 5000)
TARGET = Address("203.0.113.7", 443)
OTHER = Address("203.0.113.8", 3478)
TIMEOUT = 300.0


@pytest.fixture(autouse=True)
def this_host(monkeypatch):
    """One address is ours."""
    monkeypatch.setattr(redir, "is_local", lambda ip: str(ip) in (OURS, "0.0.0.0"))


# -- TCP -----------------------------------------------------------------------------------------------


def going_to(target, monkeypatch):
    """A connection that the kernel says was going to ``target``, or about which it says an error."""

    def tell(sock):
        if isinstance(target, OSError):
            raise target
        return target

    for mode in ("redirect", "tproxy"):
        monkeypatch.setitem(redir._TARGETS, mode, tell)
    return SimpleNamespace()


both_modes = pytest.mark.parametrize("mode", ["redirect", "tproxy"])


@both_modes
@pytest.mark.parametrize("target", [TARGET, Address("203.0.113.7", PORT), Address(OURS, 80)])
def test_the_front_knows_where_to_go(monkeypatch, mode, target):
    """The port alone is not ours, nor is the address."""
    front = new_front(going_to(target, monkeypatch), mode, PORT)
    assert isinstance(front, FixedFront)
    assert front.feed(b"") == Request(Command.CONNECT, target)


@both_modes
def test_a_loop_is_refused(monkeypatch, mode):
    """A connection made to the port itself would be relayed to the port itself."""
    sock = going_to(Address(OURS, PORT), monkeypatch)
    with pytest.raises(TargetForbidden, match=r"made to 192\.168\.77\.1:12345 itself"):
        original_target(sock, mode, PORT)
    front = new_front(sock, mode, PORT)
    with pytest.raises(TargetForbidden):
        front.feed(b"")


@both_modes
def test_a_connection_that_no_rule_sent(monkeypatch, mode):
    sock = going_to(OSError(errno.ENOENT, "No such file or directory"), monkeypatch)
    with pytest.raises(BadRequest, match="no rule sent this connection here: No such file"):
        original_target(sock, mode, PORT)
    with pytest.raises(BadRequest):
        new_front(sock, mode, PORT).feed(b"GET")


def test_the_kernel_is_asked_by_mode():
    """On a connection that no rule touched, TPROXY's answer is the name of the socket."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        name = listener.getsockname()
        with socket.create_connection(name), listener.accept()[0] as accepted:
            assert original_target(accepted, "tproxy", PORT) == Address(*name)


# -- UDP -----------------------------------------------------------------------------------------------


class FakePort:
    """The bound UDP socket: ``queue`` holds (data, sender, target)."""

    family = socket.AF_INET

    def __init__(self):
        self.queue = deque()
        self.closed = False

    @property
    def ready(self):
        return READ if self.queue else 0

    def fileno(self):
        return -1 if self.closed else 7

    def getsockname(self):
        return ("0.0.0.0", PORT)

    def setblocking(self, flag):
        assert not flag

    def recvfrom_into(self, buffer):
        raise AssertionError("this loses the target")

    def close(self):
        self.closed = True


class FakeLink:
    """The way to the server: ``sent`` went there, ``on_reply`` is how it answers."""

    def __init__(self, on_reply):
        self.on_reply, self.sent, self.closed = on_reply, [], False

    def send(self, target, payload):
        self.sent.append((target, bytes(payload)))

    def close(self):
        self.closed = True


class FakeOutlet:
    """A socket that ``bind_foreign`` made."""

    def __init__(self, world, source):
        self.world, self.source, self.closed = world, source, False
        self.family = socket.AF_INET6 if ":" in source.host else socket.AF_INET
        self.error = None

    def sendto(self, data, address):
        if self.error is not None:
            raise self.error
        self.world.replies.append((tuple(address), self.source, bytes(data)))

    def close(self):
        self.closed = True


class RedirWorld:
    """A ``RedirUDP`` on fakes."""

    def __init__(self, monkeypatch, limit=100):
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.counters = Counter()
        self.associations = Associations(self.loop, limit=limit, timeout=TIMEOUT, counters=self.counters)
        self.port = FakePort()
        self.links, self.outlets, self.replies = [], [], []
        self.bind_error = None
        monkeypatch.setattr(redir, "receive_with_target", self._receive)
        monkeypatch.setattr(redir, "bind_foreign", self._bind)
        service = SimpleNamespace(
            loop=self.loop,
            associations=self.associations,
            counters=self.counters,
            open_link=self._link,
        )
        self.redir = RedirUDP(service, self.port)

    def _link(self, on_reply):
        self.links.append(FakeLink(on_reply))
        return self.links[-1]

    def _receive(self, sock, buffer):
        assert sock is self.port
        if not self.port.queue:
            raise BlockingIOError
        data, sender, target = self.port.queue.popleft()
        buffer[: len(data)] = data
        return len(data), (sender, target)

    def _bind(self, source):
        if self.bind_error is not None:
            raise self.bind_error
        self.outlets.append(FakeOutlet(self, source))
        return self.outlets[-1]

    def arrive(self, data, sender=CLIENT, target=TARGET):
        self.port.queue.append((data, sender, target))
        settle(self.loop)

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        settle(self.loop)

    @property
    def bound(self):
        return [outlet.source for outlet in self.outlets if not outlet.closed]

    def close(self):
        self.redir.close()
        self.associations.close()
        assert self.bound == []
        assert all(link.closed for link in self.links)
        assert self.loop.statistics() == {"watched": 0, "timers": 0}


@pytest.fixture
def world(monkeypatch):
    world = RedirWorld(monkeypatch)
    yield world
    world.close()


def test_datagrams_go_where_they_were_going(world):
    """One link for a client, whatever its targets; empty datagrams too."""
    world.arrive(b"one")
    world.arrive(b"two", target=OTHER)
    world.arrive(b"")
    (link,) = world.links
    assert link.sent == [(TARGET, b"one"), (OTHER, b"two"), (TARGET, b"")]
    assert len(world.associations) == 1


def test_every_client_address_has_a_link(world):
    for number, port in enumerate((5000, 5001, 5000)):
        world.arrive(b"%d" % number, sender=("192.168.77.2", port))
    assert [link.sent for link in world.links] == [[(TARGET, b"0"), (TARGET, b"2")], [(TARGET, b"1")]]


def test_replies_come_from_who_answered(world):
    """W-rows on UDP: the real source, and anybody may answer (endpoint-independent filtering)."""
    world.arrive(b"ping")
    for source in (TARGET, OTHER, TARGET):
        world.links[0].on_reply(source, memoryview(b"pong"))
    assert world.replies == [(CLIENT, source, b"pong") for source in (TARGET, OTHER, TARGET)]
    assert world.bound == [TARGET, OTHER]


def test_clients_share_the_sockets_that_replies_leave_by(world):
    senders = [("192.168.77.2", 5000), ("192.168.77.3", 6000)]
    for sender in senders:
        world.arrive(b"ping", sender=sender)
    for link in world.links:
        link.on_reply(TARGET, b"pong")
    assert world.replies == [(sender, TARGET, b"pong") for sender in senders]
    assert world.bound == [TARGET]


def test_mapped_addresses_are_ipv4_addresses(world):
    """A dual-stack port tells IPv4 clients so, and a server may name its sources so."""
    world.arrive(b"ping", sender=("::ffff:192.168.77.2", 5000, 0, 0))
    world.links[0].on_reply(Address("::ffff:203.0.113.7", 443), b"pong")
    assert world.replies == [(CLIENT, TARGET, b"pong")]


def test_ipv6(world):
    target = Address("2001:db8:113::7", 443)
    world.arrive(b"ping", sender=("2001:db8:77::2", 5000, 0, 0), target=target)
    assert world.links[0].sent == [(target, b"ping")]
    world.links[0].on_reply(target, b"pong")
    assert world.replies == [(("2001:db8:77::2", 5000), target, b"pong")]


@pytest.mark.parametrize("target", [None, Address(OURS, PORT)])
def test_datagrams_that_no_rule_sent_are_dropped(world, target):
    """As those sent to the port itself, which would come back without end."""
    world.arrive(b"probe", target=target)
    assert world.links == []
    assert len(world.associations) == 0
    assert world.counters == {"udp_dropped": 1}


@pytest.mark.parametrize(
    "source",
    [
        Address("name.example", 443),
        Address(OURS, 53),
        Address("0.0.0.0", 53),
        Address("224.0.0.251", 5353),
        Address("ff02::fb", 5353),
        Address("203.0.113.7", 0),
    ],
)
def test_no_reply_from_what_is_not_one_other_host(world, source):
    """A socket bound there would take datagrams that are meant for others."""
    world.arrive(b"ping")
    with pytest.raises(ProtocolError, match="not one other host"):
        world.links[0].on_reply(source, b"pong")
    assert world.outlets == world.replies == []


def test_no_reply_from_the_other_family(world):
    world.arrive(b"ping")
    for _ in range(2):
        with pytest.raises(ProtocolError, match="not of one address family"):
            world.links[0].on_reply(Address("2001:db8:113::7", 443), b"pong")
    assert world.replies == []


def test_replies_that_cannot_be_sent_are_counted(world):
    world.arrive(b"ping")
    world.links[0].on_reply(TARGET, b"pong")
    world.outlets[0].error = OSError(errno.EMSGSIZE, "Message too long")
    world.links[0].on_reply(TARGET, b"pong")
    assert world.counters["udp_errors"] == 1
    world.outlets[0].error = BlockingIOError()
    world.links[0].on_reply(TARGET, b"pong")
    assert world.counters["udp_errors"] == 1
    assert len(world.replies) == 1


def test_a_missing_capability_is_told_once(world, caplog):
    caplog.set_level(logging.DEBUG, "shadowrelay.sslocal")
    world.bind_error = PermissionError(errno.EPERM, "TPROXY needs the capability CAP_NET_ADMIN")
    world.arrive(b"ping")
    for _ in range(3):
        world.links[0].on_reply(TARGET, b"pong")
    assert world.counters["udp_errors"] == 3
    warnings = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert [record.getMessage() for record in warnings] == [
        "replies to UDP clients cannot be sent: TPROXY needs the capability CAP_NET_ADMIN"
    ]


def test_no_descriptor_for_a_reply(world, caplog):
    """The next reply finds one again."""
    world.bind_error = OSError(errno.EMFILE, "Too many open files")
    world.arrive(b"ping")
    world.links[0].on_reply(TARGET, b"pong")
    world.bind_error = None
    world.links[0].on_reply(TARGET, b"pong")
    assert world.counters["udp_errors"] == 1
    assert len(world.replies) == 1
    assert not caplog.records


# -- bounds --------------------------------------------------------------------------------------------


def test_sockets_for_replies_are_bounded(world, caplog):
    """The quietest goes first; none of this counts as a client."""
    world.arrive(b"ping")
    sources = [Address("203.0.113.7", 1000 + number) for number in range(MAX_OUTLETS + 1)]
    for source in (*sources[:MAX_OUTLETS], sources[0], sources[MAX_OUTLETS]):
        world.links[0].on_reply(source, b"pong")
    assert len(world.bound) == MAX_OUTLETS
    assert set(sources) - set(world.bound) == {sources[1]}
    assert len(world.replies) == MAX_OUTLETS + 2
    assert world.counters == {"udp_associations": 1}
    assert [record.message for record in caplog.records] == [
        f"there are {MAX_OUTLETS} sockets to reply from, the limit: the quietest makes room (1 so far)"
    ]


def test_nothing_is_left_after_the_timeout(world):
    """Replies keep a client alive as its own datagrams do."""
    world.arrive(b"ping")
    world.pass_time(TIMEOUT - 1)
    world.links[0].on_reply(TARGET, b"pong")
    world.pass_time(TIMEOUT - 1)
    assert len(world.associations) == len(world.bound) == 1
    world.pass_time(2)
    assert len(world.associations) == len(world.bound) == 0
    assert world.links[0].closed
    assert world.loop.statistics() == {"watched": 1, "timers": 0}
    world.arrive(b"again")
    assert len(world.links) == 2


def test_too_many_clients_evict_the_quietest(monkeypatch):
    world = RedirWorld(monkeypatch, limit=2)
    for port in (5000, 5001, 5000, 5002):
        world.arrive(b"ping", sender=("192.168.77.2", port))
    assert [link.closed for link in world.links] == [False, True, False]
    assert world.counters["udp_evicted"] == 1
    world.close()


def test_nothing_is_opened_after_the_end(world):
    world.arrive(b"ping")
    world.redir.close()
    world.links[0].on_reply(TARGET, b"late")
    assert world.outlets == world.replies == []
