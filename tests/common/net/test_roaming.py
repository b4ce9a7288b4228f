"""Changes of address, and sockets that stayed behind; both for real, in a network namespace of its own."""

from __future__ import annotations

import errno
import socket
import sys

import pytest

from common.net import roaming
from common.net.loop import EventLoop
from common.net.roaming import SETTLE_SECONDS, AddressWatch, is_stranded
from tests.clock import FakeClock
from tests.driving import settle
from tests.netns import hosts, why_not

QUIET = {"watched": 0, "timers": 0}
OLD, NEW, PEER = "192.0.2.1", "198.51.100.1", "203.0.113.1"


class World:
    """A host with addresses, and a loop that hears of them."""

    def __init__(self, host):
        self.host = host
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock)
        self.told = 0
        with host.entered():
            self.watch = AddressWatch(self.loop, self.on_change)

    def on_change(self):
        self.told += 1

    def address(self, verb, address):
        self.host.ip("address", verb, f"{address}/24", "dev", "up0")

    def pass_time(self, seconds):
        settle(self.loop)
        self.clock.advance(seconds)
        settle(self.loop)


@pytest.fixture
def world():
    reason = why_not()
    if reason is not None:
        pytest.skip(reason)
    with hosts("alone") as (host,):
        host.ip("link", "add", "up0", "type", "veth", "peer", "name", "up1")
        for device in ("up0", "up1"):
            host.ip("link", "set", device, "up")
        host.ip("address", "add", f"{OLD}/24", "dev", "up0")
        world = World(host)
        yield world
        world.watch.close()
        assert world.loop.statistics() == QUIET
        world.loop.close()


def test_a_change_is_told_once_it_has_settled(world):
    """However many addresses come and go together."""
    world.address("add", NEW)
    world.address("del", OLD)
    world.pass_time(SETTLE_SECONDS - 0.01)
    assert world.told == 0
    world.pass_time(0.01)
    assert world.told == 1
    world.pass_time(10)
    assert world.told == 1
    world.address("add", OLD)
    world.pass_time(SETTLE_SECONDS)
    assert world.told == 2


def test_once_closed_it_tells_nothing(world):
    world.address("add", NEW)
    settle(world.loop)
    assert world.loop.statistics() == {"watched": 1, "timers": 1}
    world.watch.close()
    world.watch.close()
    assert world.loop.statistics() == QUIET
    world.pass_time(SETTLE_SECONDS)
    assert world.told == 0


def test_a_late_event_of_a_closed_watch_is_nothing(world):
    world.watch.close()
    world.watch.on_event(1)


def test_lost_news_are_news(world, monkeypatch):
    """The kernel says that it had no room for all of them."""

    class Overrun:
        def __init__(self):
            self.answers = [OSError(errno.ENOBUFS, "no room"), BlockingIOError()]

        def recv(self, size):
            raise self.answers.pop(0)

    monkeypatch.setattr(world.watch, "_sock", overrun := Overrun())
    world.watch.on_event(1)
    assert not overrun.answers
    monkeypatch.undo()
    world.pass_time(SETTLE_SECONDS)
    assert world.told == 1


def test_a_watch_that_fails_is_closed(world, caplog):
    world.watch.on_fault(OSError(errno.EBADF, "broken"))
    assert world.loop.statistics() == QUIET
    assert "changes of address are not heard of any more" in caplog.text


@pytest.mark.parametrize("refusal", ["socket", "bind", "platform"])
def test_where_nobody_tells_nothing_is_watched(monkeypatch, refusal):
    class Refused:
        def __init__(self, *args):
            if refusal == "socket":
                raise OSError(errno.EAFNOSUPPORT, "no netlink here")
            self.closed = False
            sockets.append(self)

        def bind(self, address):
            raise OSError(errno.EPERM, "not for you")

        def close(self):
            self.closed = True

    sockets = []
    if refusal == "platform":
        monkeypatch.setattr(sys, "platform", "darwin")
    else:
        monkeypatch.setattr(roaming.socket, "socket", Refused)
    loop = object()  # not even looked at
    AddressWatch(loop, None).close()
    assert all(sock.closed for sock in sockets)


@pytest.fixture
def connected(world):
    """A UDP socket that left by the old address; a TCP one tells the same of itself."""
    world.host.ip("route", "add", "default", "dev", "up0")
    with world.host.entered():
        sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.connect((PEER, 9))
    assert sock.getsockname()[0] == OLD
    yield sock
    sock.close()


def stranded(world, sock):
    with world.host.entered():
        return is_stranded(sock)


def test_a_socket_whose_address_is_here_is_well(world, connected):
    assert not stranded(world, connected)
    world.address("add", NEW)
    assert not stranded(world, connected)


def test_a_socket_whose_address_has_been_replaced_is_stranded(world, connected):
    world.address("add", NEW)
    world.address("del", OLD)
    assert stranded(world, connected)


def test_without_any_network_the_address_may_come_back(world, connected):
    world.address("del", OLD)
    assert not stranded(world, connected)
    world.address("add", OLD)
    world.host.ip("route", "replace", "default", "dev", "up0")
    assert not stranded(world, connected)


def test_a_socket_that_is_not_connected_any_more_is_not_judged(world):
    with world.host.entered(), socket.socket() as sock:
        assert not is_stranded(sock)


def test_a_refusal_for_another_reason_proves_nothing(world, connected, monkeypatch):
    class Refused(socket.socket):
        def bind(self, address):
            raise OSError(errno.EACCES, "not allowed")

    monkeypatch.setattr(roaming.socket, "socket", Refused)
    assert not stranded(world, connected)


def test_ipv6(world):
    world.host.ip("address", "add", "2001:db8::1/64", "dev", "up0", "nodad")
    with world.host.entered():
        sock = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
    with sock:
        sock.connect(("2001:db8::9", 9))
        assert not stranded(world, sock)
        world.host.ip("address", "add", "2001:db8:1::1/64", "dev", "up0", "nodad")
        world.host.ip("address", "del", "2001:db8::1/64", "dev", "up0")
        world.host.ip("-6", "route", "replace", "default", "dev", "up0")
        assert stranded(world, sock)
