"""``ServerLink``, whatever becomes of the server's address: names, routes, families."""

from __future__ import annotations

import errno
import socket

import pytest

from common.errors import ResolveFailed
from common.proto.address import Address
from sslocal.udp import LOOK_SECONDS, MAX_WAITING, RETRY_SECONDS
from tests.udp_world import NAMED, SERVER, Owner, UDPWorld

TARGET = Address("192.0.2.80", 443)
SOURCE = Address("192.0.2.80", 443)
ADDRESSES = ("198.51.100.1", "198.51.100.2")


@pytest.fixture
def world(monkeypatch):
    return UDPWorld(monkeypatch)


# -- the server's name -------------------------------------------------------------------------------


def test_datagrams_wait_for_the_servers_name(named):
    """W23: nothing blocks; they leave in their order, and were kept as copies."""
    owner = Owner(named)
    scratch = bytearray(b"0")
    for number in range(MAX_WAITING):
        scratch[0] = number
        owner.link.send(TARGET, memoryview(scratch))
    assert named.network.opened == []
    assert named.resolver.waiting == [NAMED.host]
    named.resolver.answer(NAMED.host, SERVER.host)
    assert named.sent() == [(TARGET, bytes([number])) for number in range(MAX_WAITING)]
    assert named.counters == {"udp_bytes_up": MAX_WAITING}
    owner.link.send(TARGET, b"at once")
    assert named.sent() == [(TARGET, b"at once")]


def test_few_wait(named):
    owner = Owner(named)
    for _ in range(MAX_WAITING + 5):
        owner.link.send(TARGET, b"x")
    assert named.counters == {"udp_dropped": 5}
    named.resolver.answer(NAMED.host, SERVER.host)
    assert len(named.sent()) == MAX_WAITING


def test_nobody_waits_for_a_closed_link(named):
    owner = Owner(named)
    owner.link.send(TARGET, b"x")
    owner.link.close()
    assert named.resolver.waiting == []
    named.resolver.answer(NAMED.host, SERVER.host)
    named.check_nothing_left()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_name_that_does_not_resolve_at_first(named, at_once):
    """What waited is lost; a second later the next datagram asks again."""
    owner = Owner(named)
    if at_once:
        named.resolver.known[NAMED.host] = ResolveFailed("no such name")
    owner.link.send(TARGET, b"lost")
    if not at_once:
        named.resolver.answer(NAMED.host, ResolveFailed("no such name"))
    named.pass_time(RETRY_SECONDS - 0.01)
    owner.link.send(TARGET, b"lost, too")
    assert len(named.resolver.asked) == 1
    assert named.counters == {"udp_dropped": 2}
    named.resolver.known.clear()
    named.pass_time(0.01)
    owner.link.send(TARGET, b"found")
    assert len(named.resolver.asked) == 2
    named.resolver.answer(NAMED.host, SERVER.host)
    assert named.sent() == [(TARGET, b"found")]


def settled(world, *addresses):
    """An owner whose link has its server's address."""
    owner = Owner(world)
    owner.link.send(TARGET, b"first")
    world.resolver.answer(NAMED.host, *addresses)
    assert world.sent() == [(TARGET, b"first")]
    return owner


def destination(world, owner):
    """Where the next datagram goes, and which socket it leaves by."""
    owner.link.send(TARGET, b"x")
    (sock,) = (sock for sock in world.network.open if sock.sent)
    ((_, to),) = sock.take()
    return to, sock


def test_the_name_is_looked_up_again_by_traffic_and_seldom(named):
    owner = settled(named, ADDRESSES[0])
    for _ in range(10):
        named.pass_time(LOOK_SECONDS / 10 - 0.01)
        owner.link.send(TARGET, b"x")
    assert len(named.resolver.asked) == 1
    named.pass_time(0.1)
    assert len(named.resolver.asked) == 1, "a quiet link asks nobody"
    owner.link.send(TARGET, b"x")
    owner.link.send(TARGET, b"x")
    assert len(named.resolver.asked) == 2
    assert len(named.sent()) == 12, "the known address serves meanwhile"


def test_a_server_that_moves_is_followed(named):
    """By the same source port, in the same session; the old address is not heard any more."""
    owner = settled(named, ADDRESSES[0])
    named.pass_time(LOOK_SECONDS)
    _, before = destination(named, owner)
    named.resolver.answer(NAMED.host, ADDRESSES[1])
    assert destination(named, owner) == ((ADDRESSES[1], NAMED.port), before)
    named.reply(SOURCE, b"late", server=(ADDRESSES[0], NAMED.port))
    assert owner.replies == []
    named.reply(SOURCE, b"new", server=(ADDRESSES[1], NAMED.port))
    assert owner.replies == [(SOURCE, b"new")]


def test_an_address_that_is_still_the_servers_is_kept(named):
    """Round robin is no move."""
    owner = settled(named, *ADDRESSES)
    named.pass_time(LOOK_SECONDS)
    owner.link.send(TARGET, b"x")
    named.resolver.answer(NAMED.host, *reversed(ADDRESSES))
    named.sent()
    assert destination(named, owner)[0] == (ADDRESSES[0], NAMED.port)


def test_a_name_that_is_lost_later_costs_nothing(named):
    owner = settled(named, ADDRESSES[0])
    named.pass_time(LOOK_SECONDS)
    owner.link.send(TARGET, b"x")
    named.resolver.answer(NAMED.host, ResolveFailed("the DNS server failed"))
    named.sent()
    assert destination(named, owner)[0] == (ADDRESSES[0], NAMED.port)
    named.pass_time(RETRY_SECONDS)
    owner.link.send(TARGET, b"x")
    assert len(named.resolver.asked) == 3


# -- routes, families, descriptors -------------------------------------------------------------------


def test_the_first_address_with_a_route_is_used(named):
    """A server with both families, from a network with one: the kernel knows, nothing need be lost."""
    named.unreachable = {"2001:db8::1"}
    owner = settled(named, "2001:db8::1", ADDRESSES[0])
    assert named.network.last.family == socket.AF_INET
    assert destination(named, owner)[0] == (ADDRESSES[0], NAMED.port)


@pytest.mark.parametrize("code", [errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EADDRNOTAVAIL])
def test_a_network_that_goes_and_comes_back(named, code):
    """The socket is bound to no address of ours, so it serves again as it is."""
    owner = settled(named, ADDRESSES[0])
    named.network.last.error = code
    owner.link.send(TARGET, b"lost")
    assert named.counters["udp_errors"] == 1
    named.network.last.error = None
    owner.link.send(TARGET, b"back")
    assert named.sent() == [(TARGET, b"back")]


def test_a_network_that_changes_its_family(named):
    """IPv4 is gone: a second later the other address is found, and gets a socket of its family."""
    owner = settled(named, ADDRESSES[0], "2001:db8::1")
    old = named.network.last
    named.unreachable = {ADDRESSES[0]}
    old.error = errno.ENETUNREACH
    for _ in range(3):
        owner.link.send(TARGET, b"lost")
    assert len(named.resolver.asked) == 1
    named.pass_time(RETRY_SECONDS)
    owner.link.send(TARGET, b"lost")
    named.resolver.answer(NAMED.host, ADDRESSES[0], "2001:db8::1")
    (new,) = named.network.open
    assert (old.closed, new.family) == (True, socket.AF_INET6)
    owner.link.send(TARGET, b"found")
    assert [to for _, to in new.sent] == [("2001:db8::1", NAMED.port, 0, 0)]
    assert named.sent() == [(TARGET, b"found")]
    named.reply(SOURCE, b"y", server=("2001:db8::1", NAMED.port, 0, 0))
    assert owner.replies == [(SOURCE, b"y")]


def test_a_full_buffer_is_no_change_of_the_network(named):
    owner = settled(named, ADDRESSES[0])
    named.network.last.error = errno.EAGAIN
    owner.link.send(TARGET, b"lost")
    named.network.last.error = None
    assert destination(named, owner)[0] == (ADDRESSES[0], NAMED.port)
    assert "udp_errors" not in named.counters


def test_no_descriptor_is_tried_again(world):
    owner = Owner(world)
    world.network.error = errno.EMFILE
    owner.link.send(TARGET, b"lost")
    world.network.error = None
    owner.link.send(TARGET, b"lost, too")
    assert world.counters == {"udp_dropped": 2, "descriptor_limit": 1}
    world.pass_time(RETRY_SECONDS)
    owner.link.send(TARGET, b"x")
    assert world.sent() == [(TARGET, b"x")]


def test_no_descriptor_for_the_other_family(named):
    """What serves is not closed before there is something better."""
    owner = settled(named, ADDRESSES[0])
    named.pass_time(LOOK_SECONDS)
    owner.link.send(TARGET, b"x")
    named.network.error = errno.EMFILE
    named.resolver.answer(NAMED.host, "2001:db8::1")
    named.sent()
    assert destination(named, owner)[0] == (ADDRESSES[0], NAMED.port)


def test_ipv6(monkeypatch):
    world = UDPWorld(monkeypatch, servers=(Address("2001:db8:0::1", 8388),))
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    server = ("2001:db8::1", 8388, 0, 0)
    assert [to for _, to in world.network.last.sent] == [server]
    world.sent()
    world.reply(SOURCE, b"other interface", server=(*server[:3], 7))
    world.reply(SOURCE, b"y", server=server)
    assert owner.replies == [(SOURCE, b"y")]


def test_a_server_on_this_link(monkeypatch):
    """The kernel takes and tells the number of a zone; two-tuples of Python lose it."""
    world = UDPWorld(monkeypatch, servers=(Address("fe80::1%lo", 8388),))
    Owner(world).link.send(TARGET, b"x")
    scope = socket.if_nametoindex("lo")
    assert [to for _, to in world.network.last.sent] == [("fe80::1", 8388, 0, scope)]


def test_a_zone_that_is_not_there(monkeypatch):
    world = UDPWorld(monkeypatch, servers=(Address("fe80::1%nowhere0", 8388),))
    Owner(world).link.send(TARGET, b"x")
    assert world.counters == {"udp_dropped": 1}
    assert world.network.opened == []
