"""``LocalApp``: fronts, users and servers from a configuration."""

from __future__ import annotations

import contextlib

import pytest

from common.config.schema import Credential, Secret
from common.errors import CredentialsRequired
from common.proto.address import Address
from sslocal import LocalApp
from tests.pairs import configured, running_pair, server_entry

USERS = (Credential("alice", Secret("wonder")),)


@pytest.fixture
def make_app():
    apps = []

    def make(*servers, **options):
        apps.append(LocalApp(configured(servers or (server_entry(),), **options)))
        apps[-1].start()
        return apps[-1]

    yield make
    for app in apps:
        app.stop()
        app.loop.close()


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
