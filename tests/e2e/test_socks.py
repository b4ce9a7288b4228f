"""Rows K1, K2, K5 and fault W11: SOCKS5, SOCKS4 and 4a at the front."""

from __future__ import annotations

import contextlib
import random
import secrets
import socket
import subprocess

import pytest

from tests.e2e.clients import dial, receive_exactly, receive_to_end, socks5_reply, socks5_request
from tests.e2e.test_http_clients import curl
from tests.http_origin import content, serve_site
from tests.origin import echo, refused_port, serve


def proxied(scheme: str, port: int, url: str, *more: str) -> subprocess.CompletedProcess[bytes]:
    return curl("-x", f"{scheme}://127.0.0.1:{port}", *more, url)


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "socks4", "socks4a"])
def test_k1_curl(pair, site, scheme):
    done = proxied(scheme, pair.local_port, site.url + "/bytes/100000")
    assert (done.returncode, done.stderr) == (0, b"")
    assert done.stdout == content(100_000)


@pytest.mark.parametrize("scheme", ["socks5h", "socks4a"])
def test_k1_curl_a_name(pair, site, scheme):
    """The name travels to the server, which knows it from its hosts file."""
    done = proxied(scheme, pair.local_port, f"http://localhost:{site.origin.port}/bytes/10")
    assert (done.returncode, done.stdout) == (0, content(10))


@pytest.mark.parametrize("scheme", ["socks5", "socks5h", "http"])
def test_k1_curl_ipv6_target(pair, scheme):
    with serve_site("::1") as site:
        done = proxied(scheme, pair.local_port, site.url + "/bytes/10")
        assert (done.returncode, done.stdout) == (0, content(10))
        assert site.requests[0].values("host") == [site.origin.authority]


def test_k1_curl_with_user_and_password(start_pair, site):
    user, password = "someone", secrets.token_urlsafe(12)
    pair = start_pair(local_config={"auth": {user: password}})
    url = site.url + "/bytes/10"
    done = proxied("socks5h", pair.local_port, url, "-U", f"{user}:{password}")
    assert (done.returncode, done.stdout) == (0, content(10))
    assert proxied("socks5h", pair.local_port, url, "-U", f"{user}:wrong").returncode == 97
    assert proxied("socks5h", pair.local_port, url).returncode == 97
    assert proxied("socks4a", pair.local_port, url, "-U", f"{user}:{password}").returncode == 97


def test_k2_w11_greeting_and_request_byte_by_byte(pair):
    with serve(echo) as origin, dial(pair.local_port) as sock:
        for byte in b"\x05\x02\x00\x02":
            sock.sendall(bytes([byte]))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        for byte in socks5_request(*origin.address):
            sock.sendall(bytes([byte]))
        assert socks5_reply(sock)[1] == 0
        sock.sendall(b"x")
        assert receive_exactly(sock, 1) == b"x"


def test_k2_w11_everything_in_one_segment(pair):
    """Greeting, request and payload before any answer was seen."""
    with serve(echo) as origin, dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00" + socks5_request(*origin.address) + b"payload")
        sock.shutdown(socket.SHUT_WR)
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[1] == 0
        assert receive_to_end(sock) == b"payload"


def test_k2_w11_request_with_payload(pair):
    with serve(echo) as origin, dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert receive_exactly(sock, 2) == b"\x05\x00"
        sock.sendall(socks5_request(*origin.address) + b"payload")
        assert socks5_reply(sock)[1] == 0
        assert receive_exactly(sock, 7) == b"payload"


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_k2_socks4_in_pieces_with_payload(pair, host):
    """SOCKS4 and 4a, byte by byte, payload in the last segment; the reply's first byte is 00."""
    with serve(echo) as origin, dial(pair.local_port) as sock:
        number = origin.port.to_bytes(2, "big")
        if host == "localhost":
            request = b"\x04\x01" + number + b"\x00\x00\x00\x07user\x00localhost\x00"
        else:
            request = b"\x04\x01" + number + socket.inet_aton(host) + b"user\x00"
        for byte in request[:-1]:
            sock.sendall(bytes([byte]))
        sock.sendall(request[-1:] + b"payload")
        assert receive_exactly(sock, 8)[:2] == b"\x00\x5a"
        assert receive_exactly(sock, 7) == b"payload"


@pytest.mark.parametrize("command", [2, 4, 0, 255], ids=["bind", "unknown", "zero", "last"])
def test_k5_unsupported_commands_get_07(pair, command):
    with dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00" + socks5_request("127.0.0.1", 80, command))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[:2] == b"\x05\x07"
        assert receive_to_end(sock) == b""


def test_k5_unknown_address_type_gets_08(pair):
    with dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00" + b"\x05\x01\x00\x02abc")
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[:2] == b"\x05\x08"
        assert receive_to_end(sock) == b""


@pytest.mark.parametrize("methods", [b"\x01\x02", b"\x01\x01", b"\x02\x80\xfe"])
def test_k5_no_acceptable_method_gets_ff(pair, methods):
    with dial(pair.local_port) as sock:
        sock.sendall(b"\x05" + methods)
        assert receive_to_end(sock) == b"\x05\xff"


@pytest.mark.parametrize(
    "opening",
    [b"\x00", b"\x06\x01\x00", b"\x16\x03\x01\x02\x00\x01\x00", b"\xff" * 40, b"\x05\x00"],
)
def test_k5_what_is_no_proxy_protocol_ends_the_connection(pair, opening):
    with dial(pair.local_port) as sock:
        sock.sendall(opening)
        receive_to_end(sock)


def test_k5_random_openings_end_the_connection_and_nothing_else(pair, site):
    """Noise behind every first byte that means something, and behind others."""
    dice = random.Random(5)
    for number in range(300):
        opening = dice.choice([b"\x05", b"\x05\x01\x00\x05\x01\x00", b"\x04\x01", b"GET ", b"CONNECT ", b""])
        with dial(pair.local_port) as sock:
            sock.sendall(opening + dice.randbytes(dice.randrange(1, 200)))
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            receive_to_end(sock)
        assert pair.local.running, number
    assert proxied("socks5h", pair.local_port, site.url + "/").stdout == b"hello"
    pair.local.assert_healthy()


def test_w27_a_refused_target_is_an_early_end(pair):
    """Success means "the server has it"; the protocol has no way to say more, so the stream ends."""
    with refused_port() as port, dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00" + socks5_request("127.0.0.1", port) + b"payload")
        assert receive_exactly(sock, 2) == b"\x05\x00"
        socks5_reply(sock)
        assert receive_to_end(sock) == b""
