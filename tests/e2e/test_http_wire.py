"""Rows H3, H5, H6, H15: the HTTP front byte by byte, over raw connections."""

from __future__ import annotations

import contextlib
import socket
import threading

import pytest

from tests.e2e.clients import HttpWire, Response, get
from tests.http_origin import content, serve_site
from tests.origin import discard, refused_port, serve, sha256


def absolute(origin, path: str = "/a", *fields: str, method: str = "GET") -> bytes:
    """Return a request head in absolute form."""
    lines = (f"{method} {origin.url}{path} HTTP/1.1", f"Host: {origin.origin.authority}", *fields, "", "")
    return "\r\n".join(lines).encode()


def connect(origin) -> bytes:
    authority = origin.origin.authority
    return f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode()


def origin_form(origin, path: str = "/a") -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: {origin.origin.authority}\r\n\r\n".encode()


# -- H3: every way a request may arrive --------------------------------------------------------


def cuts(data: bytes) -> dict[str, tuple[bytes, ...]]:
    middle = len(data) // 2
    line = data.index(b"\r\n") + 9  # within a header line
    return {
        "one segment": (data,),
        "two segments": (data[:middle], data[middle:]),
        "cut in a header line": (data[:line], data[line:]),
        "before the last byte": (data[:-1], data[-1:]),
        "byte by byte": tuple(data[i : i + 1] for i in range(len(data))),
    }


@pytest.mark.parametrize("cut", list(cuts(b"a\r\n" + b"b" * 20)))
def test_h3_absolute_form_in_pieces(pair, site, cut):
    with HttpWire(pair.local_port) as wire:
        wire.send(*cuts(absolute(site))[cut])
        assert wire.response().body == b"hello"


@pytest.mark.parametrize("cut", list(cuts(b"a\r\n" + b"b" * 20)))
def test_h3_connect_in_pieces(pair, site, cut):
    with HttpWire(pair.local_port) as wire:
        wire.send(*cuts(connect(site))[cut])
        established(wire)
        wire.send(origin_form(site))
        assert wire.response().body == b"hello"


def established(wire: HttpWire) -> None:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        head += wire._file.read(1)
    assert head.split()[1] == b"200", head
    assert b"content-length" not in head.lower()


def test_h3_connect_http_1_0_without_host(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(f"CONNECT {site.origin.authority} HTTP/1.0\r\n\r\n".encode())
        established(wire)
        wire.send(origin_form(site))
        assert wire.response().body == b"hello"


def test_h3_connect_with_the_first_payload_behind_it(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(connect(site) + origin_form(site, "/bytes/10"))
        established(wire)
        assert wire.response().body == content(10)


@pytest.mark.parametrize(
    "body", [b"a\r\n\r\nb\r\n\r\n", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n", b"\x05\x01\x00"]
)
def test_h3_bodies_that_look_like_requests(pair, site, body):
    with HttpWire(pair.local_port) as wire:
        head = absolute(site, "/echo", f"Content-Length: {len(body)}", method="POST")
        wire.send(head + body)
        assert wire.response().body == body
        wire.send(head, body)
        assert wire.response().body == body
    assert [seen.body_digest for seen in site.requests] == [sha256(body)] * 2


def test_h3_pipelined_requests_are_answered_in_order(pair, site):
    paths = [f"/bytes/{n}" for n in (1, 70_000, 2, 3)] + ["/chunked/5", "/status/204", "/bytes/6"]
    with HttpWire(pair.local_port) as wire:
        wire.send(b"".join(absolute(site, path) for path in paths))
        sizes = [len(wire.response().body) for _ in paths]
    assert sizes == [1, 70_000, 2, 3, 5, 0, 6]
    assert [seen.target for seen in site.requests] == paths


def test_h3_lower_case_host_and_blank_lines_between_requests(pair, site):
    """RFC 9112 section 2.2: an empty line before a request line is ignored."""
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site).replace(b"Host:", b"host:") + b"\r\n")
        assert wire.response().body == b"hello"
        wire.send(b"\r\n" + absolute(site, "/bytes/3"))
        assert wire.response().body == content(3)


def test_h3_options_asterisk(pair, site):
    """No path at all: OPTIONS becomes ``*`` (RFC 9112 section 3.2.4), GET becomes ``/``."""
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "", method="OPTIONS"), absolute(site, ""))
        assert [wire.response().status for _ in range(2)] == [200, 200]
    assert [seen.target for seen in site.requests] == ["*", "/"]


def test_h3_refused_port(pair):
    with refused_port() as port:
        assert get(pair.local_port, f"http://127.0.0.1:{port}/").status == 502


def test_h3_http_1_0_client_gets_plain_framing(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(f"GET {site.url}/chunked/1000 HTTP/1.0\r\n\r\n".encode())
        response = wire.response()
        assert response.value("transfer-encoding") is None
        assert response.body == content(1000)
        assert wire.rest() == b""


# -- H5, H6 --------------------------------------------------------------------------------------


def test_h5_one_connection_several_origins(pair, site):
    with serve_site() as other, HttpWire(pair.local_port) as wire:
        for origin in (site, other, other, site):
            wire.send(absolute(origin, "/bytes/100"))
            assert wire.response().body == content(100)
        assert (len(site.requests), len(other.requests)) == (2, 2)
        assert {seen.values("host")[0] for seen in other.requests} == {other.origin.authority}


def test_h5_pipelined_to_several_origins(pair, site):
    with serve_site() as other, HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/bytes/1") + absolute(other, "/bytes/2") + absolute(site, "/bytes/3"))
        assert [len(wire.response().body) for _ in range(3)] == [1, 2, 3]


def test_h5_a_tunnel_after_a_request(pair, site):
    """A kept connection may turn into a tunnel."""
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site))
        assert wire.response().body == b"hello"
        wire.send(connect(site))
        established(wire)
        wire.send(origin_form(site))
        assert wire.response().body == b"hello"


def test_h5_after_a_close_delimited_response_the_connection_ends(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/close/5000"))
        assert wire.response().body == content(5000)


def test_h6_framing_is_kept(pair, site):
    """HEAD, 204, 304, chunked and Content-Length in a row on one connection."""
    script = [
        ("HEAD", "/bytes/1000", 200, b""),
        ("GET", "/status/204", 204, b""),
        ("GET", "/status/304", 304, b""),
        ("GET", "/chunked/1000", 200, content(1000)),
        ("HEAD", "/chunked/1000", 200, b""),
        ("GET", "/bytes/1000", 200, content(1000)),
        ("DELETE", "/bytes/0", 200, b""),
    ]
    with HttpWire(pair.local_port) as wire:
        for method, path, status, body in script:
            wire.send(absolute(site, path, method=method))
            response = wire.response(method)
            assert (response.status, response.body) == (status, body), path
        assert response.value("via")
    assert [(seen.method, seen.target) for seen in site.requests] == [row[:2] for row in script]


def test_h6_expect_100_waits_for_the_origin(pair, site):
    with HttpWire(pair.local_port) as wire:
        fields = ("Content-Length: 5", "Expect: 100-continue")
        wire.send(absolute(site, "/echo", *fields, method="PUT"))
        assert wire.response().status == 100
        wire.send(b"12345")
        assert wire.response().body == b"12345"
        wire.send(absolute(site))
        assert wire.response().body == b"hello"


def test_h6_early_hints_pass(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/hints"))
        assert [wire.response().status for _ in range(2)] == [103, 200]


def test_h6_chunked_request_keeps_its_body(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/echo", "Transfer-Encoding: chunked", method="POST"))
        wire.send(b"5;name=value\r\nhello\r\n", b"6\r\n wor", b"ld\r\n0\r\n\r\n")
        assert wire.response().body == b"hello world"
        wire.send(absolute(site))
        assert wire.response().body == b"hello"


@pytest.mark.parametrize("path", ["/short/100000", "/cut/100000"])
def test_h6_a_response_cut_short_is_seen_to_be(pair, site, path):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, path))
        response = wire.response()
    assert response.status == 200
    assert not response.complete
    assert content(100_000).startswith(response.body)


def test_h6_upgrade_becomes_a_tunnel(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/upgrade", "Connection: Upgrade", "Upgrade: raw") + b"early")
        assert wire.response().status == 101
        wire.send(b" and late")
        assert wire._file.read(14) == b"early and late"


def test_h6_a_header_block_of_60_kib_passes(pair, site):
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/a", *(f"X-{n}: {'v' * 1000}" for n in range(58))))
        assert wire.response().status == 200
    assert len(site.requests[0].values("x-57")[0]) == 1000


@pytest.mark.parametrize("reply", [b"\x00\xff" * 500, b"HTTP/9.9 what\r\n\r\n", b"SSH-2.0-x\r\n"])
def test_h6_an_origin_that_speaks_no_http_is_502(pair, reply):
    def handler(sock):
        sock.recv(65536)
        sock.sendall(reply)

    with serve(handler) as origin:
        assert get(pair.local_port, f"http://{origin.authority}/").status == 502


def test_w35_an_answer_before_the_end_of_the_request_is_whole(pair):
    """413 to an upload, and the origin leaves: the client is still sending, and gets all of it."""
    page = content(300_000)

    def handler(sock):
        sock.recv(1000)
        head = f"HTTP/1.1 413 Too Large\r\nContent-Length: {len(page)}\r\nConnection: close\r\n\r\n"
        sock.sendall(head.encode() + page)
        sock.shutdown(socket.SHUT_WR)
        discard(sock)

    with serve(handler) as origin, HttpWire(pair.local_port) as wire:
        head = f"POST http://{origin.authority}/ HTTP/1.1\r\nHost: x\r\nContent-Length: {2**40}\r\n\r\n"
        wire.send(head.encode())
        sender = threading.Thread(target=send_for_ever, args=(wire.sock,))
        sender.start()
        response = wire.response()
        wire.sock.shutdown(socket.SHUT_RDWR)
        sender.join()
    assert (response.status, response.complete, response.body) == (413, True, page)


def send_for_ever(sock: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            sock.sendall(bytes(16384))


# -- H15: framing attacks ------------------------------------------------------------------------

ATTACKS = {
    "te and cl": ({400}, ("Transfer-Encoding: chunked", "Content-Length: 3")),
    "two content-lengths": ({400}, ("Content-Length: 3", "Content-Length: 4")),
    "signed content-length": ({400}, ("Content-Length: +3",)),
    "obs-fold": ({400}, ("X-A: b", "  folded", "Content-Length: 0")),
    "space before the colon": ({400}, ("Content-Length : 3",)),
    "bare cr": ({400}, ("X-A: b\rContent-Length: 3",)),
    "nul": ({400}, ("X-A: b\0c",)),
    "unknown coding": ({501}, ("Transfer-Encoding: xchunked",)),
    "chunked not last": ({400, 501}, ("Transfer-Encoding: chunked, gzip",)),
    "connection names host": ({400}, ("Connection: host", "Content-Length: 0")),
    "connection names content-length": ({400}, ("Connection: content-length", "Content-Length: 0")),
}


def refusal(wire: HttpWire) -> Response:
    """Read the one response and see the connection end behind it."""
    response = wire.response()
    assert wire.rest() == b""
    return response


@pytest.mark.parametrize("attack", ATTACKS)
def test_h15_smuggling_is_refused_and_nothing_forwarded(pair, site, attack):
    statuses, fields = ATTACKS[attack]
    with HttpWire(pair.local_port) as wire:
        wire.send(
            absolute(site, "/echo", *fields, method="POST") + b"0\r\n\r\nGET /smuggled HTTP/1.1\r\n\r\n"
        )
        response = refusal(wire)
    assert response.status in statuses
    assert site.requests == []
    assert site.site.heads == 0


@pytest.mark.parametrize("size", ["1" + "0" * 16, "f" * 17, "-1", "0x5", "5 5", ""])
def test_h15_chunk_sizes_out_of_bounds(pair, site, size):
    """The head may already be on its way; the request never completes at the origin."""
    with HttpWire(pair.local_port) as wire:
        wire.send(absolute(site, "/echo", "Transfer-Encoding: chunked", method="POST"))
        wire.send(size.encode() + b"\r\nhello\r\n0\r\n\r\n")
        assert refusal(wire).status == 400
    assert site.requests == []


def test_h15_no_host_and_two_hosts(pair, site):
    """RFC 9112 section 3.2."""
    for head in (
        f"GET {site.url}/ HTTP/1.1\r\n\r\n",
        f"GET {site.url}/ HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n",
    ):
        with HttpWire(pair.local_port) as wire:
            wire.send(head.encode())
            assert refusal(wire).status == 400
    assert site.site.heads == 0


def test_h15_the_received_host_is_not_trusted(pair, site):
    """RFC 9112 section 3.2.2: with absolute-form, Host is made from the target."""
    with HttpWire(pair.local_port) as wire:
        wire.send(f"GET {site.url}/ HTTP/1.1\r\nHost: elsewhere.test\r\n\r\n".encode())
        assert wire.response().status == 200
    assert site.requests[0].values("host") == [site.origin.authority]
