"""A web site on loopback that remembers what it was asked, to see what a proxy made of a request.

    /echo       the request body back, in the request's own framing
    /bytes/N    N bytes with Content-Length          /chunked/N   the same in chunks
    /close/N    N bytes ended by the connection      /short/N     promises N bytes, sends half, ends
    /cut/N      the same in chunks
    /status/N   status N with an empty body          /hints       103 first, then 200
    /upgrade    101, then an echo of raw bytes       /wait        200 once ``release`` is set
    anything else: 200 and "hello"

HTTP grammar is h11's. The surprise: a body is remembered by size and SHA-256 only.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import threading
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import h11

from tests.origin import Origin, echo

PATTERN = hashlib.sha256(b"pattern").digest() * 2048  # 64 KiB


def content(size: int) -> bytes:
    """Return the body of /bytes/N and its kin."""
    return (PATTERN * (size // len(PATTERN) + 1))[:size]


@dataclass(frozen=True)
class Seen:
    """One request as it reached the origin. Header names are lower case."""

    method: str
    target: str
    headers: tuple[tuple[str, str], ...]
    body_size: int
    body_digest: str

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class Site:
    """The handler behind ``serve_site``: ``requests`` holds what was asked, in order of completion."""

    def __init__(self) -> None:
        self.requests: list[Seen] = []
        self.release = threading.Event()
        self.heads = 0

    def __call__(self, sock: socket.socket) -> None:
        connection = h11.Connection(h11.SERVER, max_incomplete_event_size=256 * 1024)
        with contextlib.suppress(h11.RemoteProtocolError):  # a request cut short, as some tests want
            while self._exchange(connection, sock):
                connection.start_next_cycle()

    def _exchange(self, connection: h11.Connection, sock: socket.socket) -> bool:
        request = _next_event(connection, sock)
        if not isinstance(request, h11.Request):
            return False
        self.heads += 1
        if request.target == b"/upgrade":
            self._remember(request, b"")
            reply = h11.InformationalResponse(
                status_code=101, headers=[("Upgrade", "raw"), ("Connection", "upgrade")]
            )
            sock.sendall(connection.send(reply) or b"")
            sock.sendall(connection.trailing_data[0])
            echo(sock)
            return False
        if connection.they_are_waiting_for_100_continue:
            go = h11.InformationalResponse(status_code=100, headers=[])
            sock.sendall(connection.send(go) or b"")
        body = b"".join(_body(connection, sock))
        self._remember(request, body)
        for event in self._answer(request, body):
            data = connection.send(event)
            assert data is not None
            sock.sendall(data)
        return connection.our_state is h11.DONE and connection.their_state is h11.DONE

    def _remember(self, request: h11.Request, body: bytes) -> None:
        headers = tuple((k.decode(), v.decode("latin-1")) for k, v in request.headers)
        digest = hashlib.sha256(body).hexdigest()
        self.requests.append(
            Seen(request.method.decode(), request.target.decode(), headers, len(body), digest)
        )

    def _answer(self, request: h11.Request, body: bytes) -> Iterator[h11.Event]:
        name, _, argument = request.target.decode().lstrip("/").partition("/")
        size = int(argument) if argument.isdigit() else 0
        status, payload = 200, b"hello"
        headers = [("Content-Type", "application/octet-stream"), ("X-Origin", "site")]
        if name == "echo":
            payload = body
        elif name in ("bytes", "chunked", "close", "short", "cut"):
            payload = content(size)
        elif name == "status":
            status, payload = size, b""
        elif name == "hints":
            yield h11.InformationalResponse(status_code=103, headers=[("Link", "</style.css>")])
        elif name == "wait":
            self.release.wait(30.0)
        if name in ("chunked", "cut") or (name == "echo" and _is_chunked(request)):
            headers.append(("Transfer-Encoding", "chunked"))
        elif name == "close":
            headers.append(("Connection", "close"))
        elif status not in (204, 304):
            headers.append(("Content-Length", str(len(payload))))
        yield h11.Response(status_code=status, headers=headers, reason=b"Fine")
        if request.method == b"HEAD":
            payload = b""
        if name in ("short", "cut"):
            yield h11.Data(data=payload[: size // 2])
            return  # the connection closes under an unfinished body
        for start in range(0, len(payload), len(PATTERN)):
            yield h11.Data(data=payload[start : start + len(PATTERN)])
        yield h11.EndOfMessage()


def _is_chunked(request: h11.Request) -> bool:
    return any(name == b"transfer-encoding" for name, _ in request.headers)


def _next_event(connection: h11.Connection, sock: socket.socket) -> h11.Event | type[h11.PAUSED]:
    while (event := connection.next_event()) is h11.NEED_DATA:
        connection.receive_data(sock.recv(65536))
    return event


def _body(connection: h11.Connection, sock: socket.socket) -> Iterable[bytes]:
    while isinstance(event := _next_event(connection, sock), h11.Data):
        yield bytes(event.data)


@dataclass(frozen=True)
class HttpOrigin:
    """A running site."""

    site: Site
    origin: Origin
    scheme: str

    @property
    def url(self) -> str:
        return f"{self.scheme}://{self.origin.authority}"

    @property
    def requests(self) -> list[Seen]:
        return self.site.requests


@contextlib.contextmanager
def serve_site(host: str = "127.0.0.1", tls: ssl.SSLContext | None = None) -> Iterator[HttpOrigin]:
    """Run a ``Site`` for the length of a ``with`` block, over TLS when given a context."""
    site = Site()
    origin = Origin(site, host, tls=tls)
    try:
        yield HttpOrigin(site, origin, "https" if tls else "http")
    finally:
        site.release.set()
        origin.close()
