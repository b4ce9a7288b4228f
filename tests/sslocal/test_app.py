"""``LocalApp``: fronts, users and servers from a configuration."""

from __future__ import annotations

import contextlib
import os
import socket

import pytest

from common.config.schema import Credential, Local, Secret
from common.errors import BadRequest, CredentialsRequired
from common.proto.address import Address
from sslocal import LocalApp
from tests.pairs import LOOPBACK, making, running_pair, server_entry

USERS = (Credential("alice", Secret("wonder")),)


@pytest.fixture
def make_app():
    with making(LocalApp) as make:
        yield make


def service(app):
    return app._relays[0].make_handler.keywords["service"]


def test_it_listens_on_the_local_address(make_app):
    (address,) = make_app().listening
    assert address.host == "127.0.0.1"


def test_servers_are_tried_in_the_order_of_the_configuration(make_app):
    addresses = [Address(f"192.0.2.{number}", 8388) for number in range(3)]
    app = make_app(*(server_entry(address) for address in addresses))
    assert [upstream.address for upstream in service(app).upstreams.in_turn()] == addresses


def test_every_server_has_its_own_method(make_app):
    methods = ["aes-256-gcm", "2022-blake3-aes-128-gcm"]
    app = make_app(*(server_entry(method=method) for method in methods))
    assert [upstream.cipher.method.name for upstream in service(app).upstreams.in_turn()] == methods


def test_an_open_front_asks_nobody(make_app):
    front = service(make_app()).new_front(None)
    assert front.feed(b"\x05\x01\x00") is None
    assert front.outgoing() == b"\x05\x00"


@pytest.mark.parametrize(("password", "verdict"), [(b"wonder", b"\x00"), (b"blunder", b"\x01")])
def test_users_are_asked_for_their_password(make_app, password, verdict):
    """M10, K1"""
    front = service(make_app(auth=USERS)).new_front(None)
    front.feed(b"\x05\x02\x00\x02")
    assert front.outgoing() == b"\x05\x02"
    with contextlib.nullcontext() if verdict == b"\x00" else pytest.raises(CredentialsRequired):
        front.feed(b"\x01\x05alice%c%b" % (len(password), password))
    assert front.outgoing() == b"\x01" + verdict


def test_every_client_gets_a_front_of_its_own(make_app):
    new_front = service(make_app()).new_front
    assert new_front(None) is not new_front(None)


@pytest.mark.parametrize("via", [None, "somewhere"])
def test_the_pseudonym_in_via_is_the_configurations(via):
    with running_pair(local={"via": via}) as pair:
        target = str(pair.target)
        client = pair.dial().say(f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n\r\n".encode())
        origin = pair.accept()
        pair.drive(lambda: origin.heard.endswith(b"\r\n\r\n"))
        assert (b"\r\nVia: 1.1 somewhere\r\n" in origin.heard) == (via is not None)
        client.reset()


def test_credentials_do_not_travel():
    """H2, H8: through the whole pair, with a user."""
    with running_pair(local={"auth": USERS}) as pair:
        target = str(pair.target)
        request = f"GET http://{target}/ HTTP/1.1\r\nHost: {target}\r\n"
        refused = pair.dial().say(request.encode() + b"\r\n")
        pair.drive(lambda: refused.ended)
        assert refused.heard.startswith(b"HTTP/1.1 407 ")
        client = pair.dial().say(
            request.encode() + b"Proxy-Authorization: Basic YWxpY2U6d29uZGVy\r\nX-Kept: yes\r\n\r\n"
        )
        origin = pair.accept()
        pair.drive(lambda: origin.heard.endswith(b"\r\n\r\n"))
        assert b"X-Kept: yes" in origin.heard
        assert b"proxy-authorization" not in origin.heard.lower()
        client.reset()


# -- ways in and modes -------------------------------------------------------------------------------


def kinds(app):
    """How many TCP listeners and which UDP ports it has."""
    return len(app._relays), [type(port).__name__ for port, _ in app._ports]


TUNNEL = Local(LOOPBACK, "tunnel", target=Address("192.0.2.9", 53))


@pytest.mark.parametrize(
    ("local", "expected"),
    [
        (Local(LOOPBACK), (1, [])),
        (Local(LOOPBACK, "http"), (1, [])),
        (TUNNEL, (1, ["TunnelUDP"])),
        (TUNNEL._replace(mode="tcp_only"), (1, [])),
        (TUNNEL._replace(mode="udp_only"), (0, ["TunnelUDP"])),
        (TUNNEL._replace(protocol="dns"), (1, ["DNSServer"])),
    ],
)
def test_what_each_way_in_listens_on(make_app, local, expected):
    """M4, M5"""
    app = make_app(locals=(local,))
    assert kinds(app) == expected
    assert len(app.listening) == 1, "UDP has the port that TCP got"


def test_several_ways_in(make_app):
    app = make_app(locals=(Local(LOOPBACK), TUNNEL, Local(LOOPBACK, "http")))
    assert kinds(app) == (3, ["TunnelUDP"])
    assert len(app.listening) == 3


@pytest.mark.parametrize(
    ("local", "has"),
    [
        (Local(LOOPBACK), True),
        (Local(LOOPBACK, mode="tcp_only"), False),
        (Local(LOOPBACK, "http"), False),
        (TUNNEL, False),
    ],
)
def test_who_may_ask_for_udp(make_app, local, has):
    """K3"""
    assert (service(make_app(locals=(local,))).udp is not None) == has


def test_a_http_way_in_speaks_nothing_else(make_app):
    """Where a mixed one answers SOCKS, this one sees bad syntax."""
    front = service(make_app(locals=(Local(LOOPBACK, "http", auth=USERS),))).new_front(None)
    with pytest.raises(BadRequest):
        front.feed(b"\x05\x01\x02\r\n\r\n")
    asked = b"CONNECT origin.example:443 HTTP/1.1\r\nHost: origin.example:443\r\n\r\n"
    with pytest.raises(CredentialsRequired):
        service(make_app(locals=(Local(LOOPBACK, "http", auth=USERS),))).new_front(None).feed(asked)


def test_servers_serve_what_their_mode_says(make_app):
    first, second, third = (server_entry(Address(f"192.0.2.{number}", 8388)) for number in range(3))
    app = make_app(first._replace(mode="tcp_only"), second._replace(mode="udp_only"), third)
    assert [up.address for up in service(app).upstreams.in_turn()] == [first.address, third.address]
    assert [up.address for up in service(app).udp.upstreams.in_turn()] == [second.address, third.address]


def test_a_unix_socket_is_a_way_in(make_app, tmp_path):
    path = str(tmp_path / "front")
    app = make_app(locals=(Local(Address("", 0), mode="tcp_only", path=path),))
    assert app.listening == (path,)
    with socket.socket(socket.AF_UNIX) as client:
        client.connect(path)
        client.sendall(b"\x05\x01\x00")
        client.setblocking(False)
        reply = b""
        while not reply:
            app.loop.step(0.01)
            with contextlib.suppress(BlockingIOError):
                reply = client.recv(9)
        assert reply == b"\x05\x00"
    app.stop()
    assert not os.path.exists(path)


def test_a_tunnel_lets_the_target_speak_first():
    """M4: two connections at once, and neither client says anything before it is spoken to."""
    with running_pair() as pair:
        pair.local.config = pair.local.config._replace(
            locals=(Local(LOOPBACK, "tunnel", "tcp_only", target=pair.target),)
        )
        pair.local.open()
        front = pair.local.listening[-1]
        conversations = []
        for greeting in (b"220 one", b"220 two"):
            client = pair.dial(front)
            target = pair.accept().say(greeting)
            conversations.append((client, target, greeting))
        pair.drive(lambda: all(client.heard == greeting for client, _, greeting in conversations))
        for client, target, _ in conversations:
            client.say(b"thanks").end()
            target.end()
        pair.drive(lambda: all(target.ended for _, target, _ in conversations))
        assert all(target.heard == b"thanks" for _, target, _ in conversations)


@pytest.mark.parametrize("protocol", ["tunnel", "dns"])
def test_rules_of_a_local_are_its_own(make_app, tmp_path, protocol):
    """Questions of a dns local go through the server whatever the rules say."""
    path = tmp_path / "rules.acl"
    path.write_text("[bypass_list]\n192.0.2.0/24\n")
    app = make_app(locals=(TUNNEL._replace(protocol=protocol, acl=str(path)), Local(LOOPBACK)))
    with_rules, without = (relay.make_handler.keywords["service"] for relay in app._relays)
    assert (with_rules.rules is not None) == (protocol == "tunnel")
    assert without.rules is None
