"""``ServerApp``: one relay per configured server."""

from __future__ import annotations

import ipaddress
import subprocess
import sys

import pytest

from common.config.schema import DEFAULT_FORBIDDEN
from common.errors import RelayError
from common.proto.address import Address
from ssserver import ServerApp
from ssserver.app import JITTER
from tests.pairs import configured, making, running_pair, server_entry
from tests.processes import ROOT


@pytest.fixture
def make_app():
    with making(ServerApp) as make:
        yield make


def services(app):
    return [relay.make_handler.keywords["service"] for relay in app._relays]


def test_every_server_is_a_listener_with_its_cipher_and_memory(make_app):
    methods = ["aes-256-gcm", "2022-blake3-aes-128-gcm", "aes-256-gcm"]
    app = make_app(*(server_entry(method=method) for method in methods))
    assert len(set(app.listening)) == 3
    assert [service.cipher.method.name for service in services(app)] == methods
    assert len({id(service.salts) for service in services(app)}) == 3


def test_the_handshake_has_the_timeout_and_a_jitter_of_the_program(make_app):
    apps = [make_app(server_entry(), server_entry(), timeout=10.0) for _ in range(8)]
    (seconds,) = {relay.limits.handshake for app in apps for relay in app._relays}
    assert 10.0 <= seconds <= 10.0 * (1 + JITTER)


def test_the_jitter_differs_between_programs():
    show = "import ssserver.app; print(ssserver.app._PATIENCE)"
    drawn = {subprocess.check_output([sys.executable, "-c", show], cwd=ROOT) for _ in range(4)}
    assert len(drawn) > 1


@pytest.mark.parametrize("segmented", [False, True])
def test_segmented_headers_are_the_configurations(make_app, segmented):
    (service,) = services(make_app(segmented_header=segmented))
    assert service.segmented_header is segmented


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "0.0.0.0",
        "10.1.2.3",
        "169.254.169.254",
        "192.168.0.1",
        "172.31.255.255",
        "224.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "fe80::1",
        "fc00::1",
        "ff02::1",
    ],
)
def test_what_is_forbidden_by_default(make_app, address):
    """S3, W6"""
    (service,) = services(make_app(forbidden_ip=DEFAULT_FORBIDDEN))
    assert not service.gate.allows(Address("name.example", 80), ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["1.1.1.1", "11.1.1.1", "2606:4700::1111", "::ffff:1.1.1.1"])
def test_what_is_not(make_app, address):
    """W6: a bare 10.0.0.0 is not read as a /7."""
    (service,) = services(make_app(forbidden_ip=DEFAULT_FORBIDDEN))
    assert service.gate.allows(Address("name.example", 80), ipaddress.ip_address(address))


def test_an_empty_list_allows_all(make_app):
    (service,) = services(make_app(forbidden_ip=()))
    assert service.gate.allows(Address("127.0.0.1", 80), ipaddress.ip_address("127.0.0.1"))


def test_ports_with_different_methods_serve_at_once():
    """S10 in the small: two pairs of programs, one loop each."""
    with running_pair(method="chacha20-ietf-poly1305") as one, running_pair(method="none") as two:
        for pair in (one, two):
            client = pair.tunnel("socks5").say(b"hello").end()
            target = pair.accept().end()
            pair.drive(lambda client=client, target=target: client.ended and target.ended)
            assert target.heard == b"hello"
            pair.check_idle()


# -- modes, users and rules --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"), [("tcp_and_udp", (1, 1)), ("tcp_only", (1, 0)), ("udp_only", (0, 1))]
)
def test_what_each_mode_listens_on(make_app, mode, expected):
    app = make_app(server_entry()._replace(mode=mode))
    assert (len(app._relays), len(app._ports)) == expected
    assert len(app.listening) == 1, "UDP has the port that TCP got"


def test_rules_are_read_once_and_shared_by_the_ports_that_name_them(make_app, tmp_path):
    path = tmp_path / "rules.acl"
    path.write_text("[outbound_block_list]\n192.0.2.0/24\n")
    ruled = server_entry()._replace(acl=str(path))
    first, second, third = services(make_app(ruled, ruled, server_entry()))
    assert first.gate.refuses("192.0.2.1")
    assert second.gate.refuses("192.0.2.1")
    assert not third.gate.refuses("192.0.2.1")


def test_rules_that_cannot_be_read_leave_nothing_open(tmp_path):
    """Closed is what an access list fails to; and no port is left behind."""
    entries = (server_entry(), server_entry()._replace(acl=str(tmp_path / "missing.acl")))
    app = ServerApp(configured(entries))
    with pytest.raises((OSError, RelayError)):
        app.start()
    assert app.listening == ()
    assert app.loop.statistics() == {"watched": 0, "timers": 0}
    app.loop.close()


@pytest.mark.parametrize("reject", ["drain", "reset", "close"])
def test_the_way_to_reject_is_the_configurations(make_app, reject):
    (service,) = services(make_app(reject=reject))
    assert service.reject == reject
