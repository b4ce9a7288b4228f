"""IPv6 everywhere: listeners, the way between the two, targets; and addresses in every front."""

from __future__ import annotations

import pytest

from tests.e2e.clients import FRONTS, HttpWire, open_tunnel, receive_exactly
from tests.http_origin import content, serve_site
from tests.origin import echo, serve


@pytest.fixture
def pair6(start_pair):
    return start_pair(host="::1", method="2022-blake3-aes-256-gcm")


@pytest.mark.parametrize("target", ["::1", "127.0.0.1"])
@pytest.mark.parametrize("front", FRONTS)
def test_everything_over_ipv6(pair6, front, target):
    with serve(echo, target) as origin:
        tunnel = open_tunnel(front, pair6.local_port, origin.address, proxy_host="::1")
        with tunnel as sock:
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"


def test_absolute_form_with_an_ipv6_authority(pair6):
    with serve_site("::1") as site, HttpWire(pair6.local_port, "::1") as wire:
        authority = site.origin.authority
        wire.send(f"GET http://{authority}/bytes/10 HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
        assert wire.response().body == content(10)
        assert site.requests[0].values("host") == [authority]


@pytest.mark.parametrize("front", FRONTS)
def test_ipv6_targets_through_ipv4(pair, front):
    with serve(echo, "::1") as origin, open_tunnel(front, pair.local_port, origin.address) as sock:
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_the_wildcard_takes_both_families(start_pair):
    """``server: "::"`` listens for IPv4 and IPv6 alike."""
    pair = start_pair(server_config={"server": "::"})
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"
