"""Plain datagrams to targets: resolved, judged, one source port, and anybody may answer."""

from __future__ import annotations

import socket
from collections import Counter

import pytest

from common.errors import ResolveFailed
from common.net.loop import EventLoop
from common.proto.address import Address
from common.relay import targets
from common.relay.refusals import Refusals
from common.relay.targets import MAX_ROUTES, MAX_WAITING, ROUTE_SECONDS, Targets
from tests.clock import FakeClock
from tests.driving import drive, settle
from tests.fakes import FakeResolver, ips


class World:
    def __init__(self, user: str | None = None) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(clock=self.clock)
        self.resolver = FakeResolver()
        self.counters: Counter[str] = Counter()
        self.forbidden: set[str] = set()
        self.judged: list[tuple[Address, str]] = []
        self.replies: list[tuple[Address, bytes]] = []
        self.targets = Targets(
            self.loop,
            resolver=self.resolver,
            is_allowed=self.is_allowed,
            on_reply=lambda source, payload: self.replies.append((source, bytes(payload))),
            counters=self.counters,
            refusals=Refusals(self.loop, self.counters),
            user=user,
        )
        self.sockets: list[socket.socket] = []

    def is_allowed(self, target, ip) -> bool:
        self.judged.append((target, str(ip)))
        return str(ip) not in self.forbidden

    def service(self, host: str = "127.0.0.1") -> tuple[socket.socket, Address]:
        sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
        sock.bind((host, 0))
        sock.settimeout(10)
        self.sockets.append(sock)
        return sock, Address(*sock.getsockname()[:2])

    def close(self) -> None:
        self.targets.close()
        assert self.loop.statistics() == {"watched": 0, "timers": 0}
        self.loop.close()
        for sock in self.sockets:
            sock.close()


@pytest.fixture
def world():
    made = World()
    yield made
    made.close()


def test_there_and_back(world):
    service, address = world.service()
    world.targets.send(address, memoryview(b"ping"))
    data, client = service.recvfrom(99)
    assert data == b"ping"
    service.sendto(b"pong", client)
    drive(world.loop, lambda: world.replies)
    assert world.replies == [(address, b"pong")]


def test_empty_datagrams_are_datagrams(world):
    """W34."""
    service, address = world.service()
    world.targets.send(address, b"")
    data, client = service.recvfrom(99)
    assert data == b""
    service.sendto(b"", client)
    drive(world.loop, lambda: world.replies)
    assert world.replies == [(address, b"")]


def test_K3_all_targets_see_one_source_port_and_strangers_may_answer(world):
    one, first = world.service()
    two, second = world.service()
    stranger, third = world.service()
    world.targets.send(first, b"1")
    world.targets.send(second, b"2")
    clients = {one.recvfrom(9)[1], two.recvfrom(9)[1]}
    assert len(clients) == 1
    stranger.sendto(b"hello", clients.pop())
    drive(world.loop, lambda: world.replies)
    assert world.replies == [(third, b"hello")]


def test_ipv6_has_a_socket_of_its_own(world):
    four, first = world.service()
    six, second = world.service("::1")
    world.targets.send(first, b"4")
    world.targets.send(second, b"6")
    assert four.recvfrom(9)[0] == b"4"
    data, client = six.recvfrom(9)
    assert data == b"6"
    six.sendto(b"!", client[:2])
    drive(world.loop, lambda: world.replies)
    assert world.replies == [(second, b"!")]


def test_S3_every_target_is_judged_by_itself(world):
    """W7: that the first target was allowed says nothing of the second."""
    service, address = world.service()
    world.forbidden.add("127.0.0.2")
    world.targets.send(address, b"fine")
    world.targets.send(Address("127.0.0.2", address.port), b"not fine")
    assert service.recvfrom(9)[0] == b"fine"
    assert world.counters["forbidden"] == 1


def test_S3_the_first_allowed_address_of_a_name_is_used(world):
    service, address = world.service()
    world.forbidden.add("127.0.0.2")
    world.resolver.known["svc.test"] = tuple(ips("127.0.0.2", "127.0.0.1"))
    world.targets.send(Address("svc.test", address.port), b"x")
    assert service.recvfrom(9)[0] == b"x"


def test_of_the_allowed_addresses_the_first_with_a_route_is_used(world):
    """A name with both families, from a host with one: fe80::1 without its zone leads nowhere."""
    service, address = world.service()
    world.resolver.known["svc.test"] = tuple(ips("fe80::1", "127.0.0.1"))
    world.targets.send(Address("svc.test", address.port), b"x")
    assert service.recvfrom(9)[0] == b"x"
    assert world.counters == {"udp_bytes_up": 1}


def test_bytes_are_counted_where_they_leave_and_where_they_come_from(request):
    world = World("u")
    request.addfinalizer(world.close)
    service, address = world.service()
    world.forbidden.add("127.0.0.2")
    for payload, host in ((b"sent", "127.0.0.1"), (b"forbidden", "127.0.0.2"), (b"nobody", "slow.test")):
        world.targets.send(Address(host, address.port), payload)
    _, client = service.recvfrom(9)
    service.sendto(b"answer", client)
    drive(world.loop, lambda: world.replies)
    assert world.counters == {
        "udp_bytes_up": 4,
        "udp_bytes_up[u]": 4,
        "udp_bytes_down": 6,
        "udp_bytes_down[u]": 6,
        "forbidden": 1,
    }


def test_a_slow_name_delays_only_its_own_datagrams(world):
    service, address = world.service()
    world.targets.send(Address("slow.test", address.port), memoryview(bytearray(b"late")))
    world.targets.send(address, b"at once")
    assert service.recvfrom(9)[0] == b"at once"
    world.resolver.answer("slow.test", "127.0.0.1")
    assert service.recvfrom(9)[0] == b"late"


def test_W7_a_checked_address_is_reused_for_a_while_and_then_checked_again(world):
    service, address = world.service()
    world.targets.send(address, b"1")
    world.targets.send(address, b"2")
    assert len(world.judged) == 1
    world.forbidden.add("127.0.0.1")
    world.clock.advance(ROUTE_SECONDS)
    settle(world.loop)
    world.targets.send(address, b"3")
    assert len(world.judged) == 2
    assert world.counters["forbidden"] == 1
    assert [service.recvfrom(9)[0] for _ in range(2)] == [b"1", b"2"]


def test_routes_are_bounded(world):
    for port in range(1, 3 * MAX_ROUTES):
        world.targets.send(Address("127.0.0.1", port), b"")
        assert len(world.targets._routes) <= MAX_ROUTES


def test_datagrams_that_wait_for_names_are_bounded(world):
    for number in range(MAX_WAITING + 3):
        world.targets.send(Address(f"n{number}.test", 9), b"x")
    assert world.resolver.waiting == [f"n{number}.test" for number in range(MAX_WAITING)]
    assert world.counters["udp_dropped"] == 3
    world.resolver.answer("n0.test", ResolveFailed("no"))
    assert world.counters["udp_dropped"] == 4
    world.targets.send(Address("again.test", 9), b"x")
    assert world.resolver.waiting[-1] == "again.test"


def test_port_0_is_nobody(world):
    world.targets.send(Address("127.0.0.1", 0), b"x")
    assert world.resolver.asked == []
    assert world.counters == {"udp_dropped": 1}


def test_nothing_is_sent_after_close(world):
    world.targets.send(Address("slow.test", 9), b"x")
    world.targets.close()
    assert world.resolver.waiting == []


def test_no_descriptor_no_datagram(world, monkeypatch):
    def no_socket(*_):
        raise OSError(24, "Too many open files")

    monkeypatch.setattr(targets.socket, "socket", no_socket)
    world.targets.send(Address("127.0.0.1", 9), b"x")
    monkeypatch.undo()
    assert world.counters == {"udp_dropped": 1, "descriptor_limit": 1}
