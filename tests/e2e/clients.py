"""Plain clients of the local front: SOCKS and HTTP over raw sockets, no faster than the protocol.

``open_tunnel`` gives a socket that is the target's from then on; ``HttpWire`` sends bytes as told and
reads one response after another from the same connection.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass

from tests.origin import Received, duplex, read_to_end, serve, sha256

TIMEOUT = 30.0
FRONTS = ("socks5", "connect")
BLOCK = 64 * 1024


def dial(port: int, host: str = "127.0.0.1", *, buffers: int | None = None) -> socket.socket:
    """Connect to a local port; ``buffers`` sets the kernel's, in bytes."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    sock.settimeout(TIMEOUT)
    if buffers is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, buffers)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffers)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    try:
        sock.connect((host, port))
    except BaseException:
        sock.close()
        raise
    return sock


def socks5_request(host: str, port: int, command: int = 1) -> bytes:
    """Return a SOCKS5 request for a name or an IP literal (RFC 1928 section 4)."""
    try:
        ip = ipaddress.ip_address(host)
        address = (b"\x01" if ip.version == 4 else b"\x04") + ip.packed
    except ValueError:
        address = b"\x03" + bytes([len(host)]) + host.encode()
    return b"\x05" + bytes([command]) + b"\x00" + address + port.to_bytes(2, "big")


def receive_exactly(sock: socket.socket, size: int) -> bytes:
    """Read ``size`` bytes; EOFError when the stream ends before."""
    data = bytearray()
    while len(data) < size:
        if not (piece := sock.recv(size - len(data))):
            raise EOFError(f"{len(data)} of {size} bytes")
        data += piece
    return bytes(data)


def receive_to_end(sock: socket.socket) -> bytes:
    """Read to EOF; a reset counts as the end."""
    data = bytearray()
    with contextlib.suppress(ConnectionResetError):
        while piece := sock.recv(BLOCK):
            data += piece
    return bytes(data)


def ends(sock: socket.socket, timeout: float = 5.0) -> bool:
    """Whether the peer ends the stream within ``timeout`` seconds without sending a byte."""
    sock.settimeout(timeout)
    try:
        return sock.recv(1) == b""
    except TimeoutError:
        return False
    except ConnectionError:
        return True


def socks5_reply(sock: socket.socket) -> bytes:
    """Read one SOCKS5 reply whole."""
    head = receive_exactly(sock, 4)
    size = {1: 4, 4: 16}.get(head[3]) or receive_exactly(sock, 1)[0]
    return head + receive_exactly(sock, size + 2)


@contextlib.contextmanager
def open_tunnel(
    front: str,
    port: int,
    target: tuple[str, int],
    *,
    proxy_host: str = "127.0.0.1",
    buffers: int | None = None,
) -> Iterator[socket.socket]:
    """Ask the local on ``port`` for ``target`` the way ``front`` does; yield the tunnel."""
    with dial(port, proxy_host, buffers=buffers) as sock:
        if front == "socks5":
            sock.sendall(b"\x05\x01\x00")
            assert receive_exactly(sock, 2) == b"\x05\x00"
            sock.sendall(socks5_request(*target))
            reply = socks5_reply(sock)
            assert reply[1] == 0, reply
        else:
            host, number = target
            authority = f"[{host}]:{number}" if ":" in host else f"{host}:{number}"
            sock.sendall(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n".encode())
            head = b""
            while not head.endswith(b"\r\n\r\n"):
                head += receive_exactly(sock, 1)
            assert head.startswith(b"HTTP/1.1 200"), head
        yield sock


@dataclass(frozen=True)
class Response:
    """One HTTP response. Header names are lower case; ``complete`` is False when the body was cut."""

    version: str
    status: int
    reason: str
    headers: tuple[tuple[str, str], ...]
    body: bytes
    complete: bool = True

    def value(self, name: str) -> str | None:
        return next((value for key, value in self.headers if key == name), None)

    def values(self, name: str) -> list[str]:
        return [value for key, value in self.headers if key == name]


class HttpWire:
    """A raw HTTP connection to the front."""

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self.sock = dial(port, host)
        self._file = self.sock.makefile("rb")

    def __enter__(self) -> HttpWire:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()
        self.sock.close()

    def send(self, *pieces: bytes) -> None:
        """Send each piece with a ``send`` of its own."""
        for piece in pieces:
            self.sock.sendall(piece)

    def response(self, method: str = "GET") -> Response:
        """Read the next response; EOFError when the connection ends first."""
        line = self._line()
        version, status, *reason = line.split(" ", 2)
        headers: list[tuple[str, str]] = []
        while field := self._line():
            name, separator, value = field.partition(":")
            assert separator, field
            assert name == name.strip(), field
            headers.append((name.lower(), value.strip()))
        code = int(status)
        body, complete = b"", True
        if method != "HEAD" and code not in (204, 304) and code >= 200:
            body, complete = self._body(dict(headers))
        return Response(version, code, "".join(reason), tuple(headers), body, complete)

    def rest(self) -> bytes:
        """Read to the end of the connection."""
        with contextlib.suppress(ConnectionResetError):
            return self._file.read()
        return b""

    def _line(self) -> str:
        line = self._file.readline()
        if not line:
            raise EOFError("no response")
        assert line.endswith(b"\r\n"), line
        return line[:-2].decode("latin-1")

    def _body(self, headers: dict[str, str]) -> tuple[bytes, bool]:
        if headers.get("transfer-encoding", "").lower() == "chunked":
            return self._chunks()
        if "content-length" in headers:
            size = int(headers["content-length"])
            body = self._file.read(size)
            return body, len(body) == size
        return self._file.read(), True

    def _chunks(self) -> tuple[bytes, bool]:
        body = bytearray()
        try:
            while size := int(self._line().partition(";")[0], 16):
                chunk = self._file.read(size)
                body += chunk
                if len(chunk) < size or self._file.read(2) != b"\r\n":
                    return bytes(body), False
            while self._line():
                pass
        except (EOFError, ValueError, ConnectionError):
            return bytes(body), False
        return bytes(body), True


def get(port: int, url: str, *fields: str, method: str = "GET") -> Response:
    """Fetch ``url`` through the front on a connection of its own."""
    host = url.split("/")[2]
    head = "\r\n".join((f"{method} {url} HTTP/1.1", f"Host: {host}", *fields, "Connection: close"))
    with HttpWire(port) as wire:
        wire.send(head.encode() + b"\r\n\r\n")
        return wire.response(method)


def bytes_go_both_ways(port: int, size: int) -> None:
    """Check that ``size`` bytes arrive whole in either direction of one tunnel, at once."""
    up, down = os.urandom(size), os.urandom(size)
    at_origin, at_client = Received(size), Received(size)
    with serve(duplex(down, at_origin)) as origin, open_tunnel("socks5", port, origin.address) as sock:
        reader = threading.Thread(target=read_to_end, args=(sock, at_client))
        reader.start()
        sock.sendall(up)
        assert at_client.ended.wait(TIMEOUT)
        assert at_origin.ended.wait(TIMEOUT)
        sock.shutdown(socket.SHUT_WR)
        reader.join()
    assert at_client.digest() == sha256(down)
    assert at_origin.digest() == sha256(up)
