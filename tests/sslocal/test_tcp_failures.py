"""``LocalHandler`` and what never becomes a stream: servers that fail, clients that ask wrongly."""

from __future__ import annotations

import errno

import pytest

from common.errors import BadRequest, ConnectFailed, ConnectTimeout, Overloaded, ResolveFailed
from common.proto.address import Address
from common.relay.admission import Bounds
from common.relay.stages import STAGE_DESTROYED, STAGE_DNS, STAGE_DRAIN
from common.relay.tcprelay import LINGER
from tests.local_world import (
    HTTP,
    HTTP_ACCEPTED,
    SOCKS,
    SOCKS4,
    SOCKS_ACCEPTED,
    SOCKS_GREETING,
    TARGET,
    LocalWorld,
    header,
    socks_request,
)
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


# -- servers that fail -------------------------------------------------------------------------------

TWO = (Address("198.51.100.1", 8388), Address("198.51.100.2", 8388))
NAMES = (Address("one.example", 8388), Address("two.example", 8388))


def test_the_next_server_is_tried(monkeypatch):
    world = LocalWorld(monkeypatch, servers=TWO)
    client, _handler = world.ask(HTTP + b"hello")
    world.dialer.last.fail(ConnectFailed("refused"))
    assert world.dialer.last.addresses == [("198.51.100.2", 8388)]
    server = world.reach()
    assert client.take() == HTTP_ACCEPTED
    assert server.take() == header() + b"hello"


def test_the_server_that_worked_is_tried_first_by_the_next_client(monkeypatch):
    world = LocalWorld(monkeypatch, servers=TWO)
    world.ask(SOCKS)
    world.dialer.last.fail(ConnectTimeout("silent"))
    world.reach()
    world.ask(SOCKS)
    assert world.dialer.last.addresses == [("198.51.100.2", 8388)]
    world.dialer.last.fail(ConnectFailed("refused"))
    assert world.dialer.last.addresses == [("198.51.100.1", 8388)]


@pytest.mark.parametrize("at_once", [True, False])
def test_names_of_servers_that_do_not_resolve_are_passed_over(monkeypatch, at_once):
    world = LocalWorld(monkeypatch, servers=NAMES)
    if at_once:
        world.resolver.known["one.example"] = ResolveFailed("no such name")
    client, handler = world.ask(SOCKS)
    if not at_once:
        world.resolver.answer("one.example", ResolveFailed("no such name"))
    assert (handler.stage, world.resolver.waiting) == (STAGE_DNS, ["two.example"])
    world.resolver.answer("two.example", "198.51.100.2")
    world.reach()
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED


@pytest.mark.parametrize("at_once", [True, False])
def test_a_client_that_goes_while_the_second_name_is_looked_up(monkeypatch, at_once):
    """W20, R8: the lookup it is waiting for by now is the one that is cancelled."""
    world = LocalWorld(monkeypatch, servers=NAMES)
    if at_once:
        world.resolver.known["one.example"] = ResolveFailed("no such name")
    _client, handler = world.ask(SOCKS)
    if not at_once:
        world.resolver.answer("one.example", ResolveFailed("no such name"))
    handler.destroy()
    world.check_idle()


@pytest.mark.parametrize(
    ("request_", "error", "reply"),
    [
        (SOCKS, ConnectFailed("refused", errno.ECONNREFUSED), b"\x05\x00\x05\x05\x00\x01\0\0\0\0\0\0"),
        (SOCKS, ConnectTimeout("silent"), b"\x05\x00\x05\x04\x00\x01\0\0\0\0\0\0"),
        (SOCKS4, ConnectFailed("refused"), b"\x00\x5b\x00\x00\x00\x00\x00\x00"),
        (HTTP, ConnectFailed("refused by all"), b"HTTP/1.1 502 Bad Gateway\r\n"),
        (HTTP, ConnectTimeout("silent"), b"HTTP/1.1 504 Gateway Timeout\r\n"),
    ],
)
def test_when_no_server_is_left_the_client_is_told_once(monkeypatch, caplog, request_, error, reply):
    """H7, K5: in its own protocol, with the cause of the last one."""
    world = LocalWorld(monkeypatch, servers=TWO)
    client, handler = world.ask(request_)
    world.dialer.last.fail(ConnectFailed("the first"))
    world.dialer.last.fail(error)
    world.settle()
    told = client.take()
    assert told.startswith(reply)
    assert told.count(b"HTTP/1.1") <= 1
    assert (b"198.51.100.2:8388 is out of reach" in told) == told.startswith(b"HTTP")
    assert (client.shut, handler.stage) == (True, STAGE_DRAIN)
    label = "connect_timeout" if isinstance(error, ConnectTimeout) else "connect"
    assert world.counters == {"accepted": 1, label: 1}
    assert [record.levelname for record in caplog.records if record.levelname != "INFO"] == ["WARNING"]
    world.pass_time(LINGER)
    world.check_idle()


# -- limits of our own ---------------------------------------------------------------------------------

FULL = "0 connections are being made, the limit: more are refused"


def overload(world, how):
    """Let a client that asks for something meet a limit on its way to the first of two servers."""
    if how == "connecting":
        return world.ask(HTTP)
    if how == "lookups":
        world.resolver.known["one.example"] = Overloaded("too many names are being looked up", "lookup_limit")
        return world.ask(HTTP)
    client, handler = world.ask(HTTP)
    world.dialer.last.fail(Overloaded("no descriptors"))
    world.settle()
    return client, handler


@pytest.mark.parametrize(
    ("how", "servers", "bounds", "label", "told"),
    [
        ("connecting", TWO, Bounds(connecting=0), "connecting_limit", FULL),
        ("lookups", NAMES, Bounds(), "lookup_limit", "too many names are being looked up"),
        ("descriptors", TWO, Bounds(), "descriptor_limit", "no descriptors"),
    ],
)
def test_a_limit_of_our_own_is_no_servers_fault(monkeypatch, caplog, how, servers, bounds, label, told):
    """No other server is tried, none is called unreachable, and the order stays."""
    caplog.set_level("INFO")
    world = LocalWorld(monkeypatch, servers=servers, bounds=bounds)
    client, handler = overload(world, how)
    page = client.take()
    assert page.startswith(b"HTTP/1.1 503 ")
    assert told[1:].encode() in page
    assert b"out of reach" not in page
    assert (client.shut, handler.stage) == (True, STAGE_DRAIN)
    assert len(world.dialer.dials) == (how == "descriptors")
    assert world.counters == {"accepted": 1, "overloaded": 1, label: 1}
    assert [record.message for record in caplog.records] == [f"{told} (1 so far)"]
    assert next(world.upstreams.in_turn()).address == servers[0]
    world.pass_time(LINGER)
    world.check_idle()


# -- clients that ask for the wrong thing --------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_", "reply", "label"),
    [
        (SOCKS_GREETING + socks_request(TARGET, 2), b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0", "unsupported"),
        (SOCKS_GREETING + socks_request(TARGET, 3), b"\x05\x00\x05\x07\x00\x01\0\0\0\0\0\0", "unsupported"),
        (b"\x05\x01\x01", b"\x05\xff", "unsupported"),
        (b"GET http://\r\n\r\n", b"HTTP/1.1 400 Bad Request\r\n", "bad_request"),
        (b"\x16\x03\x01", b"", "bad_request"),
    ],
)
def test_requests_that_cannot_be_served_are_refused_once_and_dial_nobody(world, request_, reply, label):
    """K5: BIND, UDP where it is off, no acceptable method, bad syntax, and TLS on the plain port."""
    client, handler = world.ask(request_)
    told = client.take()
    assert told[: len(reply)] == reply
    assert told.startswith(b"HTTP") or told == reply
    assert world.dialer.dials == []
    assert (client.shut, handler.stage) == (True, STAGE_DRAIN)
    assert world.counters[label] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_wrong_password_opens_nothing(monkeypatch):
    """H8, M10"""
    world = LocalWorld(monkeypatch, auth=lambda user, password: False)
    client, _handler = world.ask(HTTP)
    assert client.take().startswith(b"HTTP/1.1 407 ")
    socks, _handler = world.ask(b"\x05\x01\x02\x01\x01u\x01p" + socks_request(TARGET))
    assert socks.take() == b"\x05\x02\x01\x01"
    assert (world.dialer.dials, world.resolver.asked) == ([], [])
    assert world.counters["credentials"] == 2


def test_the_right_password_opens_the_way(monkeypatch):
    world = LocalWorld(monkeypatch, auth=lambda user, password: (user, password) == ("u", "p"))
    client, _handler, _server = world.fetch(b"\x05\x01\x02\x01\x01u\x01p" + socks_request(TARGET))
    assert client.take() == b"\x05\x02\x01\x00" + SOCKS_ACCEPTED


@pytest.mark.parametrize(
    ("begun", "told"), [(b"", b""), (b"\x05\x01", b"\x05\xff"), (b"CONNECT a", b"HTTP/1.1 408 ")]
)
def test_a_client_that_does_not_finish_asking(world, begun, told):
    """W38"""
    client, handler = world.ask(begun)
    world.pass_time(LIMITS.handshake - 0.01)
    assert client.sent == b""
    world.pass_time(0.01)
    assert client.take()[: len(told) or None] == told
    assert world.counters["handshake_timeout"] == 1
    world.pass_time(LINGER)
    assert handler.stage == STAGE_DESTROYED
    world.check_idle()


def test_a_target_without_a_wire_form_is_the_clients_error(world, monkeypatch):
    def no_wire_form(*args, **kwargs):
        raise BadRequest("host name cannot be encoded")

    client, _handler = world.connect()
    monkeypatch.setattr(type(next(world.upstreams.in_turn()).cipher), "client_stream", no_wire_form)
    client.arrive(HTTP)
    world.settle()
    assert client.take().startswith(b"HTTP/1.1 400 ")
    assert world.dialer.dials == []
