"""``LocalHandler`` under access rules: through a server, directly, or nowhere."""

from __future__ import annotations

import pytest

from common.acl import AccessRules
from common.errors import ConnectFailed, ResolveFailed
from common.proto.address import Address
from common.relay.stages import STAGE_ADDR, STAGE_CONNECTING, STAGE_DNS
from common.relay.tcprelay import LINGER
from tests.local_world import (
    SERVER,
    SOCKS_ACCEPTED,
    SOCKS_GREETING,
    LocalWorld,
    header,
    socks_request,
)

RULES = AccessRules.parse(
    "[proxy_all]\n[bypass_list]\n192.0.2.0/24\n|direct.example\n[outbound_block_list]\n|ads.example\n10.0.0.0/8\n",
    "rules",
)
THE_SERVER = [(SERVER.host, SERVER.port)]


@pytest.fixture
def world(monkeypatch):
    return LocalWorld(monkeypatch, rules=RULES)


def socks(host: str) -> bytes:
    return SOCKS_GREETING + socks_request(Address(host, 80))


def get(host: str, path: str = "/") -> bytes:
    return f"GET http://{host}{path} HTTP/1.1\r\nHost: {host}\r\n\r\n".encode()


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def test_a_bypassing_target_is_dialled_itself_and_spoken_to_plainly(world):
    client, handler, target = world.fetch(socks("192.0.2.7") + b"hello")
    assert world.dialer.last.addresses == [("192.0.2.7", 80)]
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED
    assert target.sends == [b"hello"], "no header"
    target.arrive(b"back").end()
    client.end()
    world.settle()
    assert client.take() == b"back"
    world.check_idle()
    assert handler.way.in_turn  # its own, and not the servers'


def test_a_silent_client_of_a_direct_target_sends_nothing(world):
    """There is no header that could be waiting."""
    client, _handler, target = world.fetch(socks("192.0.2.7"))
    world.pass_time(1)
    assert target.sends == []
    client.end()
    world.settle()
    assert target.shut


def test_everything_else_goes_through_the_server(world):
    _client, _handler, server = world.fetch(socks("203.0.113.1") + b"hello")
    assert world.dialer.last.addresses == THE_SERVER
    assert server.take() == header("203.0.113.1") + b"hello"


def test_a_name_is_resolved_when_a_rule_of_networks_may_hold_for_it(world):
    client, handler = world.ask(socks("origin.example"))
    assert (handler.stage, world.resolver.waiting) == (STAGE_DNS, ["origin.example"])
    client.arrive(bytes(1000))
    assert world.settle() == 0, "the client is not read meanwhile"
    world.resolver.answer("origin.example", "203.0.113.1")
    assert (handler.stage, world.dialer.last.addresses) == (STAGE_CONNECTING, THE_SERVER)


def test_and_may_turn_out_to_be_direct(world):
    world.ask(socks("origin.example"))
    world.resolver.answer("origin.example", "192.0.2.7")
    world.resolver.answer("origin.example", "192.0.2.7")  # now to dial it
    assert world.dialer.last.addresses == [("192.0.2.7", 80)]


def test_a_name_that_does_not_resolve_here_is_the_servers_to_know(world):
    _client, _handler = world.ask(socks("inner.example"))
    world.resolver.answer("inner.example", ResolveFailed("no such name"))
    assert world.dialer.last.addresses == THE_SERVER


def test_a_name_that_is_listed_is_not_resolved_to_be_judged(world):
    world.resolver.known["direct.example"] = ()
    world.ask(socks("ads.example"))
    assert world.resolver.asked == []


@pytest.mark.parametrize("host", ["ads.example", "10.1.2.3"])
@pytest.mark.parametrize(("make", "reply"), [(socks, b"\x05\x00\x05\x02"), (get, b"HTTP/1.1 403 ")])
def test_a_blocked_target_is_refused_once_and_nobody_is_dialled(world, host, make, reply):
    client, _handler = world.ask(make(host))
    told = client.take()
    assert told.startswith(reply)
    assert told.count(b"HTTP/1.1") == (make is get)
    assert client.shut
    assert world.dialer.dials == []
    assert world.counters["forbidden"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_name_whose_address_is_blocked_is_refused_after_the_lookup(world):
    client, _handler = world.ask(get("rebound.example"))
    world.resolver.answer("rebound.example", "10.0.0.1")
    world.settle()
    assert client.take().startswith(b"HTTP/1.1 403 ")
    assert world.dialer.dials == []


def test_of_a_direct_names_addresses_the_blocked_ones_are_not_dialled(world):
    world.ask(socks("direct.example"))
    world.resolver.answer("direct.example", "10.0.0.1", "203.0.113.7")
    assert world.dialer.last.addresses == [("203.0.113.7", 80)]


def test_a_direct_name_with_blocked_addresses_only_is_refused(world):
    client, _handler = world.ask(socks("direct.example"))
    world.resolver.answer("direct.example", "10.0.0.1")
    world.settle()
    assert client.take() == b"\x05\x00\x05\x02\x00\x01\0\0\0\0\0\0"
    assert world.dialer.dials == []


def test_a_direct_target_that_refuses_is_told_and_is_no_outage_of_the_servers(world, caplog):
    client, _handler = world.ask(get("192.0.2.7"))
    world.dialer.last.fail(ConnectFailed("refused"))
    world.settle()
    told = client.take()
    assert told.startswith(b"HTTP/1.1 502 ")
    assert b"the target 192.0.2.7:80 is out of reach" in told.lower()
    assert [record for record in caplog.records if record.levelname == "WARNING"] == []


def test_kept_alive_requests_each_go_their_own_way(world):
    """H5: through the server, directly, and nowhere, on one connection of the client."""
    client, handler, server = world.fetch(get("203.0.113.1"))
    server.arrive(ANSWER)
    world.settle()
    assert client.take() == ANSWER
    client.arrive(get("192.0.2.7"))
    world.settle()
    assert server.closed
    target = world.reach()
    assert target.take() == b"GET / HTTP/1.1\r\nHost: 192.0.2.7\r\n\r\n"
    target.arrive(ANSWER)
    world.settle()
    assert (client.take(), handler.stage) == (ANSWER, STAGE_ADDR)
    client.arrive(get("ads.example"))
    world.settle()
    assert client.take().startswith(b"HTTP/1.1 403 ")
    assert target.closed


def test_a_stale_direct_stream_is_tried_again_directly(world):
    client, _handler, target = world.fetch(get("192.0.2.7"))
    target.arrive(ANSWER)
    world.settle()
    client.take()
    client.arrive(get("192.0.2.7", "/2"))
    world.settle()
    target.end()
    world.settle()
    fresh = world.reach()
    fresh.end()
    world.settle()
    told = client.take()
    assert told.startswith(b"HTTP/1.1 502 ")
    assert b"the target closed the connection before it answered" in told.lower()
    assert [dial.addresses for dial in world.dialer.dials] == [[("192.0.2.7", 80)]] * 2


def test_a_client_that_goes_while_its_target_is_judged(world):
    """W20, R8"""
    _client, handler = world.ask(socks("origin.example"))
    handler.destroy()
    world.check_idle()


def test_a_client_that_reset_while_its_target_was_judged_is_dialled_for_nobody(world):
    """W20"""
    client, _handler = world.ask(socks("origin.example"))
    client.break_off()
    world.resolver.answer("origin.example", "203.0.113.1")
    world.settle()
    assert world.dialer.dials == []
    world.check_idle()
