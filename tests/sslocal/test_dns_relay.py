"""The ``dns`` local the whole way: a c-ares stub, sslocal, ssserver, and a fake resolver behind it."""

from __future__ import annotations

import contextlib

import pytest

from common.config.schema import Local
from common.errors import ResolveFailed
from common.net.loop import EventLoop
from common.net.resolver import Resolver
from common.proto.address import Address
from sslocal import LocalApp
from ssserver import ServerApp
from tests.asking import resolve
from tests.fakedns import FakeDNS
from tests.pairs import LOOPBACK, configured, server_entry


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        yield dns


class Pair:
    """Both programs on one loop, with a ``dns`` local; ``stub`` makes a fresh stub that asks it."""

    def __init__(self, stack, method, dns, hosts):
        self.loop = EventLoop()
        self.stack, self.hosts = stack, hosts
        stack.callback(self.loop.close)
        stack.callback(self.check_quiet)
        server = ServerApp(configured((server_entry(method=method),), mode="tcp_and_udp"), self.loop)
        stack.callback(server.stop)
        server.start()
        target = Address(dns.host, dns.port)
        local = Local(LOOPBACK, protocol="dns", mode="tcp_and_udp", target=target)
        upstream = server_entry(server.listening[0], method)
        self.local = LocalApp(configured((upstream,), locals=(local,)), self.loop)
        stack.callback(self.local.stop)
        self.local.start()

    def stub(self):
        server = str(self.local.listening[0])
        resolver = Resolver(self.loop, [server], hosts=self.hosts)
        self.stack.callback(resolver.close)
        return resolver

    def check_quiet(self):
        assert self.loop.statistics() == {"watched": 0, "timers": 0}


@pytest.fixture(params=["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def pair(request, dns, tmp_path):
    (tmp_path / "hosts").touch()
    with contextlib.ExitStack() as stack:
        yield Pair(stack, request.param, dns, str(tmp_path / "hosts"))


def test_a_stub_resolves_through_the_relay(pair, dns):
    """Issue 3: a DNS query through ``dns`` works end to end, and the second time it stays here."""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", cnames=("cdn.test",))
    for _ in range(2):
        assert resolve(pair.stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert dns.queries == [("www.test", "A", "udp"), ("www.test", "AAAA", "udp")]
    assert pair.local.statistics()["dns_hits"] == 2


def test_a_stub_is_told_what_does_not_exist(pair, dns):
    assert type(resolve(pair.stub(), "nowhere.test").error) is ResolveFailed


@pytest.mark.parametrize("forge", ["id", "question"])
def test_forged_answers_do_not_reach_a_stub(pair, dns, forge):
    """S4, W14"""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", forge=forge)
    assert resolve(pair.stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert pair.local.statistics()["udp_dropped"] == 2


def test_an_answer_from_another_port_does_not_reach_a_stub(pair, dns):
    """S4, W14: anybody may send to the port on the server's side (RFC 4787), and the sender is told apart."""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", forge="port")
    assert resolve(pair.stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert pair.local.statistics()["udp_dropped"] == 2


def test_what_is_too_long_for_udp_comes_over_tcp(pair, dns):
    """S4: TC is passed on, and the same port takes the stub's connection to the resolver."""
    dns.add("www.test", "192.0.2.1", "2001:db8::1", truncate=True)
    assert resolve(pair.stub(), "www.test").addresses == ["192.0.2.1", "2001:db8::1"]
    assert sorted(set(dns.queries)) == [
        ("www.test", kind, transport) for kind in ("A", "AAAA") for transport in ("tcp", "udp")
    ]
