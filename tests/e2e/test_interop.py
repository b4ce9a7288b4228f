"""Row S1: each half works with shadowsocks-libev's other half, every shared method, both ways."""

from __future__ import annotations

import os

import pytest

from tests.e2e.clients import bytes_go_both_ways, get, open_tunnel, receive_to_end
from tests.http_origin import content
from tests.origin import Received, echo, serve, sha256, source
from tests.processes import CLASSIC_METHODS, has_libev

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not has_libev(), reason="shadowsocks-libev is not installed"),
]

SIZE = 10 * 1024 * 1024
MIXED = [("ours", "libev"), ("libev", "ours")]


@pytest.mark.parametrize("method", CLASSIC_METHODS)
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_s1_ten_megabytes_both_ways(start_pair, kinds, method):
    pair = start_pair(kinds=kinds, method=method)
    bytes_go_both_ways(pair.local_port, SIZE)


@pytest.mark.parametrize("method", CLASSIC_METHODS)
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_s1_many_small_connections(start_pair, kinds, method):
    """Server-first, client-first and by name, one after another."""
    pair = start_pair(kinds=kinds, method=method)
    with serve(source(b"220 hello")) as greeter, serve(echo) as mirror:
        for host in ("127.0.0.1", "localhost"):
            for size in (1, 500, 16_383, 16_384, 40_000):
                data = os.urandom(size)
                with open_tunnel("socks5", pair.local_port, (host, mirror.port)) as sock:
                    sock.sendall(data)
                    got = Received(size)
                    while not got.ended.is_set():
                        piece = sock.recv(65536)
                        assert piece
                        got.add(piece)
                    assert got.digest() == sha256(data)
            with open_tunnel("socks5", pair.local_port, (host, greeter.port)) as sock:
                assert receive_to_end(sock) == b"220 hello"


def test_s1_http_front_over_ss_server(start_pair, site):
    pair = start_pair(kinds=("ours", "libev"))
    assert get(pair.local_port, site.url + "/chunked/100000").body == content(100_000)


def test_s1_ipv6_between_them(start_pair):
    for kinds in MIXED:
        pair = start_pair(kinds=kinds, host="::1")
        with serve(echo, "::1") as origin:
            tunnel = open_tunnel("socks5", pair.local_port, origin.address, proxy_host="::1")
            with tunnel as sock:
                sock.sendall(b"ping")
                assert sock.recv(4) == b"ping"
