"""``LocalHandler`` and access rules: through a server, directly, or nowhere."""

from __future__ import annotations

import gc
import weakref

import pytest

from common.acl.rules import AccessRules
from common.errors import ConnectFailed, ResolveFailed
from common.proto.address import Address
from common.relay.admission import Bounds
from common.relay.stages import STAGE_ADDR, STAGE_DNS, STAGE_DRAIN
from common.relay.tcprelay import LINGER
from sslocal.tcp import HEADER_HOLD
from tests.local_world import (
    HTTP_ACCEPTED,
    SERVER,
    SOCKS_ACCEPTED,
    SOCKS_GREETING,
    LocalWorld,
    header,
    socks_request,
)

RULES = AccessRules.parse(
    "[proxy_all]\n"
    "[bypass_list]\n192.168.0.0/16\n||home.example\n"
    "[proxy_list]\n||vpn.home.example\n"
    "[outbound_block_list]\n||ads.example\n192.168.6.0/24\n",
    "rules",
)
NAMES_ONLY = AccessRules.parse("[proxy_all]\n[bypass_list]\n||home.example\n", "rules")
THROUGH = [(SERVER.host, SERVER.port)]
GENERAL_FAILURE = b"\x05\x01\x00\x01\0\0\0\0\0\0"
FORBIDDEN = b"\x05\x02\x00\x01\0\0\0\0\0\0"


@pytest.fixture
def world(monkeypatch):
    return LocalWorld(monkeypatch, rules=RULES)


def connect(world, host, port=80, payload=b""):
    return world.ask(SOCKS_GREETING + socks_request(Address(host, port)) + payload)


# -- three ways --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "dialled"),
    [
        ("192.168.1.1", [("192.168.1.1", 80)]),
        ("192.0.2.1", THROUGH),
        ("2001:db8::1", THROUGH),
        ("a.vpn.home.example", THROUGH),
    ],
)
def test_what_is_known_at_once_is_dialled_at_once(world, host, dialled):
    connect(world, host)
    assert world.dialer.last.addresses == dialled
    assert host not in world.resolver.asked


def test_a_name_that_bypasses_is_resolved_here(world):
    _client, handler = connect(world, "printer.home.example")
    assert (handler.stage, world.resolver.waiting) == (STAGE_DNS, ["printer.home.example"])
    world.resolver.answer("printer.home.example", "192.168.1.2", "203.0.113.1")
    assert world.dialer.last.addresses == [("192.168.1.2", 80), ("203.0.113.1", 80)]


@pytest.mark.parametrize(
    ("addresses", "dialled"),
    [(("192.168.1.2",), [("192.168.1.2", 80)]), (("203.0.113.1",), THROUGH)],
)
def test_another_name_is_judged_by_its_addresses(world, addresses, dialled):
    _client, handler = connect(world, "origin.example")
    assert (handler.stage, world.resolver.waiting) == (STAGE_DNS, ["origin.example"])
    world.resolver.answer("origin.example", *addresses)
    world.resolver.answer("origin.example", *addresses)  # for the dial, where that is direct
    assert world.dialer.last.addresses == dialled


def test_a_name_that_does_not_resolve_here_is_the_servers(world):
    connect(world, "origin.example")
    world.resolver.answer("origin.example", ResolveFailed("no such name"))
    assert world.dialer.last.addresses == THROUGH


def test_names_are_not_told_to_a_resolver_that_need_not_know(monkeypatch):
    world = LocalWorld(monkeypatch, rules=NAMES_ONLY)
    connect(world, "origin.example")
    assert world.resolver.asked == []
    assert world.dialer.last.addresses == THROUGH


# -- the direct way ----------------------------------------------------------------------------------


def test_a_direct_stream_is_plain(world):
    """No header, however long the client is silent."""
    client, handler = connect(world, "192.168.1.1")
    target = world.reach()
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED
    world.pass_time(HEADER_HOLD)
    assert target.sends == []
    client.arrive(b"ping")
    world.settle()
    target.arrive(b"pong")
    world.settle()
    assert (target.take(), client.take()) == (b"ping", b"pong")
    assert handler.way is not world.upstreams
    client.end()
    target.end()
    world.settle()
    world.check_idle()


def test_a_request_directly(world):
    """H2: the origin sees what it would see through a server."""
    request = b"GET http://192.168.1.1/ HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n"
    _client, _handler, target = world.fetch(request)
    assert target.take() == b"GET / HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n"


def test_the_next_request_may_go_another_way(world):
    """A kept-alive client; the parked stream leads to another origin."""
    client, handler, target = world.fetch(b"GET http://192.168.1.1/ HTTP/1.1\r\nHost: 192.168.1.1\r\n\r\n")
    target.arrive(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    world.settle()
    assert handler.stage == STAGE_ADDR
    client.arrive(b"GET http://192.0.2.1/ HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n")
    world.settle()
    assert target.closed
    assert world.dialer.last.addresses == THROUGH
    assert world.reach().take() == header("192.0.2.1") + b"GET / HTTP/1.1\r\nHost: 192.0.2.1\r\n\r\n"


def test_a_target_that_cannot_be_reached_directly_is_named(world):
    """And no server is blamed, nor tried."""
    client, _handler = world.ask(b"CONNECT 192.168.1.1:80 HTTP/1.1\r\nHost: 192.168.1.1:80\r\n\r\n")
    world.dialer.last.fail(ConnectFailed("refused"))
    world.settle()
    told = client.take()
    assert told.startswith(b"HTTP/1.1 502 ")
    assert b"192.168.1.1:80 is out of reach" in told
    assert len(world.dialer.dials) == 1
    assert not world.upstreams._unreachable


def test_a_direct_name_with_a_blocked_address(world):
    """Its other addresses are fine."""
    client, _handler = connect(world, "printer.home.example")
    world.resolver.answer("printer.home.example", "192.168.6.1", "192.168.1.2")
    assert world.dialer.last.addresses == [("192.168.1.2", 80)]
    world.reach()
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED


def test_a_direct_name_with_blocked_addresses_only(world):
    client, handler = connect(world, "printer.home.example")
    world.resolver.answer("printer.home.example", "192.168.6.1")
    world.settle()
    assert world.dialer.dials == []
    assert client.take() == b"\x05\x00" + FORBIDDEN
    assert (handler.stage, world.counters["forbidden"]) == (STAGE_DRAIN, 1)


# -- nowhere -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["x.ads.example", "192.168.6.1"])
def test_what_is_blocked_is_refused_at_once(world, host):
    """S3: in the client's own protocol, and nobody is asked about it."""
    client, handler = connect(world, host)
    assert client.take() == b"\x05\x00" + FORBIDDEN
    assert (handler.stage, world.counters["forbidden"]) == (STAGE_DRAIN, 1)
    assert (world.dialer.dials, world.resolver.asked) == ([], [])
    world.pass_time(LINGER)
    world.check_idle()


@pytest.mark.parametrize("method", [b"CONNECT x.ads.example:80", b"GET http://x.ads.example/"])
def test_http_clients_are_told_which_target(world, method):
    client, _handler = world.ask(method + b" HTTP/1.1\r\nHost: x.ads.example\r\n\r\n")
    told = client.take()
    assert told.startswith(b"HTTP/1.1 403 ")
    assert b"x.ads.example:80 is blocked by a rule here" in told


def test_blocked_by_its_addresses(monkeypatch):
    """Of a name that has to be resolved anyway."""
    world = LocalWorld(monkeypatch, rules=RULES)
    client, handler = connect(world, "origin.example")
    world.resolver.answer("origin.example", "192.168.6.1")
    world.settle()
    assert client.take() == b"\x05\x00" + FORBIDDEN
    assert handler.stage == STAGE_DRAIN


# -- leaving -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["origin.example", "printer.home.example", "192.168.1.1"])
def test_a_client_that_leaves_meanwhile(world, host):
    """W20, R8: a late answer dials nobody."""
    client, handler = connect(world, host)
    freed = weakref.ref(handler)
    dials = len(world.dialer.dials)
    gc.collect()
    gc.disable()
    try:
        handler.destroy()
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.resolver.answer(host, "192.168.1.2")
    assert len(world.dialer.dials) == dials
    assert client.closed
    world.check_idle()


def test_a_client_that_resets_while_its_name_is_judged(world):
    client, _handler = connect(world, "origin.example")
    client.break_off()
    world.resolver.answer("origin.example", "203.0.113.1")
    world.settle()
    assert world.dialer.dials == []
    world.check_idle()


def test_http_tunnels_are_judged_the_same(world):
    client, _handler, _target = world.fetch(
        b"CONNECT 192.168.1.1:443 HTTP/1.1\r\nHost: 192.168.1.1:443\r\n\r\n"
    )
    assert world.dialer.last.addresses == [("192.168.1.1", 443)]
    assert client.take() == HTTP_ACCEPTED


def test_a_limit_of_our_own_on_the_direct_way(monkeypatch, caplog):
    """It is told as ours, and not as the target's."""
    world = LocalWorld(monkeypatch, rules=RULES, bounds=Bounds(connecting=0))
    client, _handler = connect(world, "192.168.1.1")
    assert client.take() == b"\x05\x00" + GENERAL_FAILURE
    assert (world.counters["connecting_limit"], world.counters["overloaded"]) == (1, 1)
    assert [record.message for record in caplog.records] == [
        "0 connections are being made, the limit: more are refused (1 so far)"
    ]
