"""What the pair is asked to reach: small TCP and UDP servers on loopback, a thread for each connection.

A target knows how many connections it accepted and the first bytes of all of them, which is how a row
learns that something was, or was not, relayed.
"""

from __future__ import annotations

import contextlib
import hashlib
import random
import socket
import struct
import threading
from collections.abc import Callable, Iterator

from tests.conformance.registry import NotApplicable

Handler = Callable[[socket.socket], None]

BLOCK = 1 << 16
PATTERN = random.Random(1).randbytes(BLOCK - 8)
PATIENCE = 60.0  # seconds a target waits for anything


def pattern(size: int) -> Iterator[bytes]:
    """Yield ``size`` bytes in blocks that all differ, so that a block lost, doubled or moved shows."""
    for number in range(-(-size // BLOCK)):
        block = number.to_bytes(8, "big") + PATTERN
        yield block[: size - number * BLOCK]


def digest_of(size: int) -> str:
    """Return the SHA-256 of ``pattern(size)``."""
    return digest(pattern(size))


def digest(parts: Iterator[bytes]) -> str:
    found = hashlib.sha256()
    for part in parts:
        found.update(part)
    return found.hexdigest()


def received(sock: socket.socket, size: int | None = None, piece: int = BLOCK) -> Iterator[bytes]:
    """Yield what arrives: ``size`` bytes, or all until EOF; an early EOF just ends it."""
    left = size
    while left is None or left > 0:
        data = sock.recv(piece if left is None else min(piece, left))
        if not data:
            return
        yield data
        if left is not None:
            left -= len(data)


class Target:
    """A TCP server on one port of 127.0.0.1, and of ::1 where that can be had."""

    def __init__(self, handler: Handler) -> None:
        self._handler = handler
        self.accepted = 0
        self.connections: list[socket.socket] = []
        self._listeners = [_listening(socket.AF_INET, "127.0.0.1", 0)]
        self.port: int = self._listeners[0].getsockname()[1]
        with contextlib.suppress(OSError):
            self._listeners.append(_listening(socket.AF_INET6, "::1", self.port))
        for listener in self._listeners:
            threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    @property
    def address(self) -> tuple[str, int]:
        return "127.0.0.1", self.port

    @property
    def address6(self) -> tuple[str, int]:
        if len(self._listeners) < 2:
            raise NotApplicable("no IPv6 on this machine")
        return "::1", self.port

    def _accept(self, listener: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while True:
                sock, _ = listener.accept()
                self.accepted += 1
                self.connections.append(sock)
                threading.Thread(target=self._serve, args=(sock,), daemon=True).start()

    def _serve(self, sock: socket.socket) -> None:
        with contextlib.suppress(OSError), sock:
            sock.settimeout(PATIENCE)
            self._handler(sock)

    def close(self) -> None:
        for sock in self._listeners:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)  # wakes the thread in accept
            sock.close()
        for sock in self.connections:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)


def _listening(family: int, host: str, port: int) -> socket.socket:
    sock = socket.socket(family)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.listen(512)
    except OSError:
        sock.close()
        raise
    return sock


@contextlib.contextmanager
def serving(handler: Handler) -> Iterator[Target]:
    """Run a target with ``handler`` for each connection."""
    target = Target(handler)
    try:
        yield target
    finally:
        target.close()


# -- handlers ------------------------------------------------------------------------------------


def echo(sock: socket.socket) -> None:
    """Send back what comes, and EOF for EOF."""
    for data in received(sock):
        sock.sendall(data)
    sock.shutdown(socket.SHUT_WR)
    list(received(sock))


def endless(sock: socket.socket) -> None:
    """Send for ever."""
    while True:
        sock.sendall(PATTERN)


def deaf(sock: socket.socket) -> None:
    """Keep the connection and read nothing."""
    threading.Event().wait(PATIENCE)


def sender(size: int) -> Handler:
    """Send ``size`` bytes of the pattern after a first byte has come, then EOF."""

    def handler(sock: socket.socket) -> None:
        sock.recv(1)
        for part in pattern(size):
            sock.sendall(part)
        sock.shutdown(socket.SHUT_WR)
        list(received(sock))

    return handler


def taker(sock: socket.socket) -> None:
    """Read eight bytes of length and then as much; answer with the SHA-256 of it, then EOF."""
    size = int.from_bytes(b"".join(received(sock, 8)), "big")
    sock.sendall(digest(received(sock, size)).encode())


def counter(seen: list[bytes]) -> Handler:
    """Add what arrives to ``seen``, answer nothing."""

    def handler(sock: socket.socket) -> None:
        for data in received(sock):
            seen.append(data)

    return handler


def reset(sock: socket.socket) -> None:
    """Close with RST."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- UDP -----------------------------------------------------------------------------------------


class UDPTarget:
    """Echoes datagrams; ``sources`` are the addresses they came from, ``seen`` what was in them."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._sock.bind((host, 0))
        except OSError:
            self._sock.close()
            raise NotApplicable("no IPv6 on this machine") from None
        self._sock.settimeout(0.2)
        self.host, self.port = host, self._sock.getsockname()[1]
        self.sources: list[tuple[str, int]] = []
        self.seen: list[bytes] = []
        self._open = True
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    def _serve(self) -> None:
        while self._open:
            with contextlib.suppress(OSError):
                data, source = self._sock.recvfrom(65535)
                self.sources.append(source[:2])
                self.seen.append(data)
                self._sock.sendto(data, source)

    def close(self) -> None:
        self._open = False
        self._thread.join()
        self._sock.close()


@contextlib.contextmanager
def udp_serving(host: str = "127.0.0.1") -> Iterator[UDPTarget]:
    """Run an echo for datagrams."""
    target = UDPTarget(host)
    try:
        yield target
    finally:
        target.close()
