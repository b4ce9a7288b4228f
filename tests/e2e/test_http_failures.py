"""Rows H7, H8 and fault W27: what the front says when it cannot do what it was asked."""

from __future__ import annotations

import base64
import secrets
import time

import pytest

from tests.e2e.clients import HttpWire, Response, dial, get, receive_exactly, receive_to_end
from tests.origin import black_hole, refused_port
from tests.waiting import wait_until

PROMPT = 5.0  # seconds; a second on a machine that has nothing else to do


def assert_readable(response: Response, *words: str) -> None:
    """An error page a person can read: short HTML that names the cause."""
    assert "text/html" in (response.value("content-type") or "")
    assert response.complete
    assert 0 < len(response.body) < 4096
    text = response.body.decode().lower()
    assert "<" in text
    assert not words or any(word in text for word in words), text


def ask(port: int, head: bytes) -> Response:
    """Send ``head``; return the one response. The front must answer promptly and close."""
    started = time.monotonic()
    with HttpWire(port) as wire:
        wire.send(head)
        response = wire.response()
        assert wire.rest() == b""
    assert time.monotonic() - started < PROMPT
    return response


def test_h7_refused_target(pair):
    with refused_port() as port:
        response = get(pair.local_port, f"http://127.0.0.1:{port}/")
    assert response.status == 502
    assert_readable(response, "refused", "closed")


def test_h7_bad_domain(pair):
    """A name no resolver can know (RFC 6761: localhost's own domain is never asked outside)."""
    response = get(pair.local_port, "http://no such.invalid/".replace(" ", "-" * 64))
    assert response.status in (400, 502)
    assert_readable(response)


def test_h7_server_away(start_pair):
    """W27: the server refuses: 502 at once for HTTP and CONNECT, 05 05 for SOCKS5, 5B for SOCKS4."""
    pair = start_pair()
    pair.server.stop()
    port = pair.local_port
    assert_readable(get(port, "http://example.test/"), "server")
    assert get(port, "http://example.test/").status == 502
    assert ask(port, b"CONNECT example.test:80 HTTP/1.1\r\nHost: a\r\n\r\n").status == 502
    with dial(port) as sock:
        sock.sendall(b"\x05\x01\x00\x05\x01\x00\x03\x01a\x00\x50")
        assert receive_exactly(sock, 4) == b"\x05\x00\x05\x05"
        receive_to_end(sock)
    with dial(port) as sock:
        sock.sendall(b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00")
        assert receive_exactly(sock, 2) == b"\x00\x5b"


def test_h7_wrong_key(start_pair):
    """The server stays silent until its deadline, so the front says what it knows then."""
    pair = start_pair(local_config={"password": "x" * 20, "timeout": 3}, server_config={"timeout": 1})
    response = get(pair.local_port, "http://example.test/")
    assert response.status in (502, 504)
    assert_readable(response, "key", "server")


def test_h7_target_that_never_accepts(start_pair):
    pair = start_pair(server_config={"connect_timeout": 1}, local_config={"connect_timeout": 1})
    with black_hole() as port:
        response = get(pair.local_port, f"http://127.0.0.1:{port}/")
    assert response.status in (502, 504)
    assert_readable(response)


@pytest.mark.parametrize(
    "head",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http:/// HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET http://a/ HTTP/1.1 more\r\n\r\n",
        b"GET http://a/ HTTP/x\r\n\r\n",
        b"GET http://a:0/ HTTP/1.1\r\nHost: a:0\r\n\r\n",
        b"GET http://a:65536/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.test HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.test:0 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT example.test:99999 HTTP/1.1\r\nHost: a\r\n\r\n",
        b"CONNECT http://example.test/ HTTP/1.1\r\nHost: a\r\n\r\n",
    ],
)
def test_h7_malformed(pair, head):
    response = ask(pair.local_port, head)
    assert response.status == 400
    assert_readable(response)


def test_h7_other_schemes(pair):
    """Absolute-form https is 501 with a sentence; the client should have used CONNECT."""
    response = ask(pair.local_port, b"GET https://example.test/ HTTP/1.1\r\nHost: example.test\r\n\r\n")
    assert response.status == 501
    assert_readable(response, "connect")


def test_h7_header_over_64_kib(pair):
    head = b"GET http://a/ HTTP/1.1\r\nHost: a\r\n" + b"X-Filler: " + b"x" * 66_000 + b"\r\n\r\n"
    response = ask(pair.local_port, head)
    assert response.status == 431
    assert_readable(response)


def test_h7_a_head_without_end_is_cut_off(pair):
    """The front stops reading at its limit instead of collecting."""
    with HttpWire(pair.local_port) as wire:
        wire.send(b"GET http://a/ HTTP/1.1\r\n")
        try:
            for _ in range(4000):
                wire.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")
        except ConnectionError:
            return
        assert wire.response().status == 431


# -- H8: credentials -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def credentials() -> tuple[str, str]:
    return "someone", secrets.token_urlsafe(12)


@pytest.fixture
def guarded(start_pair, credentials):
    user, password = credentials
    return start_pair(local_config={"auth": {user: password}})


def basic(user: str, password: str) -> str:
    return "Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()


def test_h8_http_needs_the_credentials(guarded, site, credentials):
    user, password = credentials
    port = guarded.local_port
    for fields in ((), (basic(user, "wrong"),), (basic("", ""),), ("Proxy-Authorization: Bearer x",)):
        response = get(port, site.url + "/", *fields)
        assert response.status == 407
        assert (response.value("proxy-authenticate") or "").lower().startswith("basic realm=")
        assert_readable(response)
        head = "\r\n".join((f"CONNECT {site.origin.authority} HTTP/1.1", "Host: a", *fields, "", ""))
        assert ask(port, head.encode()).status == 407
    assert site.origin.accepted == 0
    assert get(port, site.url + "/", basic(user, password)).status == 200
    assert not site.requests[0].values("proxy-authorization")


def test_h8_socks5_needs_the_credentials(guarded, site, credentials):
    user, password = (text.encode() for text in credentials)
    with dial(guarded.local_port) as sock:
        sock.sendall(b"\x05\x01\x00")
        assert receive_to_end(sock) == b"\x05\xff"
    for given, verdict in ((b"wrong", False), (password, True)):
        with dial(guarded.local_port) as sock:
            sock.sendall(b"\x05\x01\x02\x01" + bytes([len(user)]) + user + bytes([len(given)]) + given)
            assert receive_exactly(sock, 2) == b"\x05\x02"
            reply = receive_exactly(sock, 2)
            assert (reply == b"\x01\x00") is verdict
            if not verdict:
                assert receive_to_end(sock) == b""
    assert site.origin.accepted == 0


def test_h8_socks4_is_refused_where_credentials_are_asked(guarded, site):
    with dial(guarded.local_port) as sock:
        port = site.origin.port.to_bytes(2, "big")
        sock.sendall(b"\x04\x01" + port + b"\x7f\x00\x00\x01someone\x00")
        reply = receive_to_end(sock)
    assert reply[:2] == b"\x00\x5b"
    assert len(reply) == 8
    assert site.origin.accepted == 0


def test_h8_nothing_of_it_is_logged(guarded, site, credentials):
    """Neither the right password nor a wrong one shows in a log."""
    attempt = secrets.token_urlsafe(12)
    get(guarded.local_port, site.url + "/", basic("someone", attempt))
    get(guarded.local_port, site.url + "/", basic(*credentials))
    guarded.stop()
    for program in guarded.programs:
        assert attempt not in program.log()
        assert credentials[1] not in program.log()
        assert guarded.password not in program.log()


def test_the_front_asked_for_itself_answers_once(pair):
    """Through the server back to this front, which gets an origin-form request there: no endless loop."""
    before = pair.local.descriptors()
    assert get(pair.local_port, f"http://127.0.0.1:{pair.local_port}/").status == 400
    wait_until(lambda: pair.local.descriptors() <= before + 1)
