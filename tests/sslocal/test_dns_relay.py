"""The ``dns`` local the whole way: a c-ares stub, the relay, a fake resolver."""

from __future__ import annotations

from collections import Counter

import pytest

from common.errors import ResolveFailed
from common.net.loop import EventLoop
from common.net.resolver import Resolver
from common.proto.address import Address, encode_address, parse_address
from common.relay.associations import Associations
from common.relay.datagrams import DatagramSocket
from sslocal.dns import DNSServer
from sslocal.udp import UDPService
from sslocal.upstreams import Upstream, Upstreams
from tests.asking import resolve
from tests.dns_world import LOCALHOST, PlainPackets, udp_socket
from tests.fakedns import FakeDNS
from tests.fakes import FakeResolver

# -- the whole way -----------------------------------------------------------------------------------------


class Relay:
    """An ssserver for one fake resolver, on the loop of the test."""

    def __init__(self, loop, dns):
        self.loop, self.dns = loop, dns
        self.counters = Counter()
        self.inner = DatagramSocket(loop, udp_socket(), self._on_query, self.counters)
        self.outer = {}

    def _on_query(self, data, link):
        target, size = parse_address(data)
        assert target == Address(self.dns.host, self.dns.port)
        if link not in self.outer:
            sock = udp_socket()
            self.outer[link] = DatagramSocket(self.loop, sock, self._on_answer_for(link), self.counters)
        self.outer[link].send(data[size:], target)

    def _on_answer_for(self, link):
        def on_answer(data, source):
            self.inner.send(encode_address(Address(*source)) + data, link)

        return on_answer

    def close(self):
        for sock in (self.inner, *self.outer.values()):
            sock.close()
        assert not self.counters


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        yield dns


@pytest.fixture
def stub(dns, tmp_path):
    """A c-ares resolver that asks a DNSServer that asks ``dns`` through a relay."""
    loop = EventLoop()
    relay = Relay(loop, dns)
    address = Address(LOCALHOST, relay.inner.sock.getsockname()[1])
    counters = Counter()
    service = UDPService(
        loop,
        upstreams=Upstreams([Upstream(address, PlainPackets())]),
        resolver=FakeResolver(),
        associations=Associations(loop, limit=10, timeout=300, counters=counters),
        clock=lambda: 1_700_000_000.0,
        random=lambda size: b"\x5a" * size,
        counters=counters,
    )
    sock = udp_socket()
    server = f"{LOCALHOST}:{sock.getsockname()[1]}"
    local = DNSServer(service, sock, Address(dns.host, dns.port))
    (tmp_path / "hosts").touch()
    stubs = []

    def make():
        stubs.append(Resolver(loop, [server], hosts=str(tmp_path / "hosts")))
        return stubs[-1]

    make.loop, make.counters = loop, counters
    yield make
    for each in stubs:
        each.close()
    local.close()
    relay.close()
    assert loop.statistics() == {"watched": 0, "timers": 0}
    loop.close()


def test_a_real_stub_resolves_through_the_relay(stub, dns):
    """Issue 3: a DNS query through ``dns`` end to end."""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", cnames=("cdn.test",))
    for _ in range(2):
        assert resolve(stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert dns.count("www.test") == 2, "A and AAAA, once each"
    assert stub.counters["dns_hits"] == 2


def test_a_real_stub_is_told_what_does_not_exist(stub, dns):
    assert type(resolve(stub(), "nowhere.test").error) is ResolveFailed


@pytest.mark.parametrize("forge", ["id", "question"])
def test_forged_answers_do_not_reach_a_real_stub(stub, dns, forge):
    """S4, W14"""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", forge=forge)
    assert resolve(stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert stub.counters["udp_dropped"] == 2
