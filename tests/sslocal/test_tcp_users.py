"""``LocalHandler`` and the users of a front's ``auth``: how many connections each one may have."""

from __future__ import annotations

import base64

import pytest

from common.relay.admission import Bounds
from common.relay.stages import STAGE_DRAIN
from common.relay.tcprelay import LINGER
from tests.forward_world import answer, status
from tests.local_world import SOCKS_ACCEPTED, TARGET, LocalWorld, socks_request

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")

GENERAL_FAILURE = b"\x05\x02\x01\x00" + b"\x05\x01\x00\x01\0\0\0\0\0\0"
FULL = "user alice has 2 connections, the limit: more are refused (1 so far)"


def credentials(user, password=b"secret"):
    return b"Proxy-Authorization: Basic " + base64.b64encode(user + b":" + password) + b"\r\n"


def socks5(user, command=1):
    return b"\x05\x01\x02\x01%c%b\x06secret" % (len(user), user) + socks_request(TARGET, command)


def connect(*who):
    return b"CONNECT origin.example:80 HTTP/1.1\r\nHost: origin.example:80\r\n%b\r\n" % credentials(*who)


def fetch(user):
    return b"GET http://origin.example/ HTTP/1.1\r\nHost: origin.example\r\n%b\r\n" % credentials(user)


ASK = {"socks5": socks5, "connect": connect, "fetch": fetch}


def local_world(monkeypatch, per_user=2):
    return LocalWorld(
        monkeypatch, auth=lambda user, password: password == "secret", bounds=Bounds(per_user=per_user)
    )


@pytest.fixture
def world(monkeypatch):
    return local_world(monkeypatch)


def refused(client):
    """Whether the client was told, in its own protocol, that this is too much."""
    told = client.take()
    return told.startswith(b"HTTP/1.1 503 ") or told == GENERAL_FAILURE


@pytest.mark.parametrize("how", ASK)
def test_a_user_has_so_many_connections(world, caplog, how):
    """Whichever protocol each of them speaks."""
    _first, held = world.ask(socks5(b"alice"))
    world.ask(connect(b"alice"))
    client, handler = world.ask(ASK[how](b"alice"))
    assert refused(client)
    assert (client.shut, handler.stage) == (True, STAGE_DRAIN)
    assert len(world.dialer.dials) == 2
    assert (world.counters["user_limit"], world.counters["overloaded"]) == (1, 1)
    assert [record.message for record in caplog.records] == [FULL]
    other, _handler = world.ask(ASK[how](b"bob"))
    assert not other.shut
    held.destroy()
    assert not refused(world.ask(ASK[how](b"alice"))[0])
    for handler in list(world.relay.handlers):
        handler.destroy()
    world.check_idle()


def test_a_page_says_why(world):
    for _ in range(2):
        world.ask(connect(b"alice"))
    client, _handler = world.ask(connect(b"alice"))
    assert b"User alice has 2 connections, the limit" in client.take()
    world.pass_time(LINGER)
    assert client.closed


def test_who_gave_the_wrong_password_takes_nobodys_place(world):
    client, _handler = world.ask(connect(b"alice", b"public"))
    assert status(client.take()) == 407
    world.ask(socks5(b"alice").replace(b"secret", b"public"))
    assert world.counters["credentials"] == 2
    assert len(world.admission.users) == 0


def test_an_open_front_has_nobody_to_count(monkeypatch):
    world = LocalWorld(monkeypatch, bounds=Bounds(per_user=0))
    client, _handler, _server = world.fetch(b"\x05\x01\x00" + socks_request(TARGET))
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED


def test_many_requests_are_one_connection(monkeypatch):
    """A client of HTTP gives its password with every request."""
    world = local_world(monkeypatch, per_user=1)
    client, handler, server = world.fetch(fetch(b"alice"))
    for _ in range(3):
        server.arrive(answer(b"body"))
        world.settle()
        assert client.take() == answer(b"body")
        client.arrive(fetch(b"alice"))
        world.settle()
    assert (handler.user, world.counters["user_limit"]) == ("alice", 0)
    assert refused(world.ask(fetch(b"alice"))[0])
    handler.destroy()
    assert len(world.admission.users) == 0


def test_a_connection_that_changes_hands(monkeypatch):
    """As between a proxy and this one: it is the user's of its last request."""
    world = local_world(monkeypatch, per_user=1)
    client, handler, server = world.fetch(fetch(b"alice"))
    server.arrive(answer(b"body"))
    world.settle()
    client.arrive(fetch(b"bob"))
    world.settle()
    assert (handler.user, len(world.admission.users)) == ("bob", 1)
    other, _handler = world.ask(fetch(b"alice"))
    assert not other.shut
    server.arrive(answer(b"body"))
    world.settle()
    client.take()
    client.arrive(fetch(b"alice"))
    world.settle()
    assert status(client.take()) == 503
    assert client.shut
    world.pass_time(LINGER)
    assert client.closed
    assert len(world.admission.users) == 1
    for handler in list(world.relay.handlers):
        handler.destroy()
    world.check_idle()
