"""Rows of the way in by HTTP, for locals that speak it at the port where they speak SOCKS."""

from __future__ import annotations

import contextlib
import socket

from tests.conformance.clients import dial, exactly, reply
from tests.conformance.kit import Kit
from tests.conformance.programs import free_port
from tests.conformance.registry import Failed, NotApplicable, expect, row
from tests.conformance.targets import echo, pattern, received, serving

OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok"
HELLO = b"hello through the tunnel"


def message(sock: socket.socket) -> bytes:
    """Return a head up to its empty line, or whatever came before the end."""
    got = b""
    with contextlib.suppress(ConnectionError):
        while not got.endswith(b"\r\n\r\n") and (data := sock.recv(1)):
            got += data
    return got


def status(sock: socket.socket) -> int:
    """Read the head of an answer and return its status."""
    head = message(sock)
    if not head.startswith(b"HTTP/1."):
        raise Failed(f"{head[:40]!r} where an HTTP answer was due" if head else "closed without an answer")
    return int(head.split(b" ")[1])


def knows_http(kit: Kit) -> None:
    """Leave the row unless a CONNECT gets an answer at all."""
    with serving(echo) as target, dial(kit.shared().local.address) as sock:
        name = f"127.0.0.1:{target.port}"
        sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        if not message(sock).startswith(b"HTTP/1."):
            raise NotApplicable("the local does not speak HTTP here")


def get(port: int, more: str = "") -> bytes:
    """Return an absolute-form GET for a port of 127.0.0.1."""
    name = f"127.0.0.1:{port}"
    return f"GET http://{name}/a?b HTTP/1.1\r\nHost: {name}\r\n{more}\r\n".encode()


@row("http-connect", "HTTP CONNECT at the same port")
def http_connect(kit: Kit) -> str:
    knows_http(kit)
    with serving(echo) as target, dial(kit.shared().local.address) as sock:
        name = f"127.0.0.1:{target.port}"
        sock.sendall(f"CONNECT {name} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
        expect((code := status(sock)) == 200, f"status {code}")
        sock.sendall(HELLO)
        reply(sock, len(HELLO), HELLO)
    return "200, bytes echoed"


@row("http-connect-bytewise", "a CONNECT in segments of one byte, payload right behind it")
def http_connect_bytewise(kit: Kit) -> str:
    knows_http(kit)
    with serving(echo) as target, dial(kit.shared().local.address) as sock:
        for byte in f"CONNECT 127.0.0.1:{target.port} HTTP/1.0\r\n\r\n".encode() + HELLO:
            sock.sendall(bytes((byte,)))
        expect((code := status(sock)) == 200, f"status {code}")
        reply(sock, len(HELLO), HELLO)
    return "200, bytes echoed"


@row("http-get", "an absolute-form GET reaches the origin in origin-form, without Proxy-Connection")
def http_get(kit: Kit) -> str:
    heads: list[bytes] = []

    def origin(sock: socket.socket) -> None:
        heads.append(message(sock))
        sock.sendall(OK)

    knows_http(kit)
    with serving(origin) as target, dial(kit.shared().local.address) as sock:
        sock.sendall(get(target.port, "Proxy-Connection: close\r\n"))
        expect((code := status(sock)) == 200, f"status {code}")
        expect(exactly(sock, 2) == b"ok", "the body differs")
    expect(heads[0].startswith(b"GET /a?b HTTP/1.1\r\n"), f"the origin saw {heads[0][:40]!r}")
    expect(b"proxy-connection" not in heads[0].lower(), "the origin saw Proxy-Connection")
    return "GET /a?b, 200"


@row("http-two-origins", "two requests to different origins on one connection of the client")
def http_two_origins(kit: Kit) -> str:
    def origin(name: bytes):
        def handler(sock: socket.socket) -> None:
            while message(sock):
                sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n" + name)

        return handler

    knows_http(kit)
    with serving(origin(b"1")) as one, serving(origin(b"2")) as two, dial(kit.shared().local.address) as sock:
        for target, name in ((one, b"1"), (two, b"2"), (one, b"1")):
            sock.sendall(get(target.port))
            expect((code := status(sock)) == 200, f"status {code}")
            expect(exactly(sock, 1) == name, "the answer is the other origin's")
    return "each answered by its own"


@row("http-post", "a chunked POST of 1 MB arrives whole, as do the bytes after Expect: 100-continue")
def http_post(kit: Kit) -> str:
    size, sizes = 1_000_000, []

    def origin(sock: socket.socket) -> None:
        head = message(sock).lower()
        if b"100-continue" in head:
            sock.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")
        count = 0
        while line := _line(sock):
            length = int(line.split(b";")[0], 16)
            count += len(b"".join(received(sock, length)))
            _line(sock)
            if not length:
                break
        sizes.append(count)
        sock.sendall(OK)

    knows_http(kit)
    with serving(origin) as target:
        name = f"127.0.0.1:{target.port}"
        for expectation in ("", "Expect: 100-continue\r\n"):
            head = f"POST http://{name}/ HTTP/1.1\r\nHost: {name}\r\nTransfer-Encoding: chunked\r\n"
            with dial(kit.shared().local.address) as sock:
                sock.sendall(f"{head}{expectation}\r\n".encode())
                if expectation:
                    expect((code := status(sock)) == 100, f"status {code} where 100 was due")
                for part in pattern(size):
                    sock.sendall(f"{len(part):x}\r\n".encode() + part + b"\r\n")
                sock.sendall(b"0\r\n\r\n")
                expect((code := status(sock)) == 200, f"status {code}")
    expect(sizes == [size, size], f"the origin got {sizes} bytes")
    return "1 MB twice, 200"


def _line(sock: socket.socket) -> bytes:
    got = b""
    while not got.endswith(b"\r\n") and (data := sock.recv(1)):
        got += data
    return got[:-2]


@row("http-no-body", "answers without a body, 204, 304 and to HEAD, do not hold up the next request")
def http_no_body(kit: Kit) -> str:
    def origin(sock: socket.socket) -> None:
        while head := message(sock):
            code = head.split(b"/")[1][:3]
            length = b"" if code == b"204" else b"Content-Length: 9\r\n"
            sock.sendall(b"HTTP/1.1 " + code + b" x\r\n" + length + b"\r\n")

    knows_http(kit)
    with serving(origin) as target, dial(kit.shared().local.address) as sock:
        name = f"127.0.0.1:{target.port}"
        for method, code in (("GET", 204), ("GET", 304), ("HEAD", 200), ("GET", 204)):
            sock.sendall(f"{method} http://{name}/{code} HTTP/1.1\r\nHost: {name}\r\n\r\n".encode())
            expect((seen := status(sock)) == code, f"{seen} where {code} was due")
    return "204, 304, HEAD, 204 on one connection"


@row("http-refused", "a GET for an origin that refuses is answered with 502, 503 or 504")
def http_refused(kit: Kit) -> str:
    knows_http(kit)
    with dial(kit.shared().local.address) as sock:
        sock.sendall(get(free_port()))
        code = status(sock)
    expect(code in (502, 503, 504), f"status {code}")
    return f"status {code}"


AMBIGUOUS = {
    "two lengths": "Content-Length: 3\r\nContent-Length: 4\r\n",
    "a blank before the colon": "X-A : 1\r\n",
    "an unknown coding": "Transfer-Encoding: xchunked\r\n",
    "both lengths": "Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
    "a folded line": "X-A: 1\r\n 2\r\n",
    "Connection: host": "Connection: host\r\n",
}
REFUSED = ("two lengths", "a blank before the colon", "an unknown coding")  # RFC 9112 5.1, 6.1, 6.3


def _is_clear(head: bytes) -> bool:
    """Whether a forwarded head can be read in one way only: one kind of length, no folding, a Host."""
    head = head.lower()
    lengths = (b"\r\ncontent-length:" in head) + (b"\r\ntransfer-encoding:" in head)
    return lengths < 2 and b"\r\n " not in head and b"\r\nhost:" in head


@row(
    "http-smuggling",
    "a request that can be read in two ways is refused, or forwarded without the doubt",
)
def http_smuggling(kit: Kit) -> str:
    heads: list[bytes] = []

    def origin(sock: socket.socket) -> None:
        heads.append(message(sock))
        sock.sendall(OK)

    knows_http(kit)
    seen = {}
    for name, field in AMBIGUOUS.items():
        heads.clear()
        with serving(origin) as target, dial(kit.shared().local.address, 5.0) as sock:
            sock.sendall(get(target.port, field) + b"0\r\n\r\n")
            answer = message(sock)
        if heads:
            expect(name not in REFUSED and _is_clear(heads[0]), f"{name}: forwarded")
            seen[name] = "forwarded without it"
        else:
            seen[name] = answer.split(b" ")[1].decode() if answer else "closed"
    return ", ".join(f"{name}: {how}" for name, how in seen.items())
