"""The applications: SOCKS5 by TCP and UDP, and plain sockets to look at how a connection ends."""

from __future__ import annotations

import contextlib
import selectors
import socket
import time
from collections.abc import Iterable

from tests.conformance.registry import Failed
from tests.conformance.wire import address, split_address

SECONDS = 20.0  # how long a client waits for anything
GREETING = b"\x05\x01\x00"
CONNECT, BIND, ASSOCIATE = 1, 2, 3


class Refused(Exception):
    """The local answered a request with an error: the SOCKS reply code, or None when it just closed."""

    def __init__(self, code: int | None) -> None:
        super().__init__("closed" if code is None else f"reply {code:#04x}")
        self.code = code


def dial(to: tuple[str, int], seconds: float = SECONDS) -> socket.socket:
    """Return a connection that sends what it is given at once."""
    sock = socket.create_connection(to, seconds)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return sock


def exactly(sock: socket.socket, size: int) -> bytes:
    """Return ``size`` bytes; fail when the stream ends before."""
    got = b""
    while len(got) < size:
        data = sock.recv(size - len(got))
        if not data:
            raise Failed(f"the stream ended after {len(got)} of {size} bytes")
        got += data
    return got


def ending(sock: socket.socket, seconds: float = SECONDS) -> str:
    """Return how the stream ends, "FIN" or "RST", or "open" when it has not within ``seconds``."""
    deadline = time.monotonic() + seconds
    try:
        while (left := deadline - time.monotonic()) > 0:
            sock.settimeout(left)
            if not sock.recv(65536):
                return "FIN"
    except TimeoutError:
        pass
    except OSError:
        return "RST"
    return "open"


def endings(socks: Iterable[socket.socket], seconds: float) -> list[tuple[str, float]]:
    """Return how and when, in seconds from now, each ended; a byte received reads "answered"."""
    socks = list(socks)
    started = time.monotonic()
    found = dict.fromkeys(range(len(socks)), ("open", seconds))
    with selectors.DefaultSelector() as selector:
        for number, sock in enumerate(socks):
            sock.setblocking(False)
            selector.register(sock, selectors.EVENT_READ, number)
        while selector.get_map() and (left := started + seconds - time.monotonic()) > 0:
            for key, _ in selector.select(left):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                try:
                    how = "answered" if sock.recv(1) else "FIN"
                except OSError:
                    how = "RST"
                found[key.data] = how, time.monotonic() - started
                selector.unregister(sock)
    return list(found.values())


def request(sock: socket.socket, to: tuple[str, int], command: int = CONNECT) -> tuple[str, int]:
    """Send greeting and request, and return the address of the reply."""
    sock.sendall(GREETING)
    reply(sock, 2, b"\x05\x00")
    sock.sendall(bytes((5, command, 0)) + address(*to))
    return bound(sock)


def reply(sock: socket.socket, size: int, wanted: bytes) -> None:
    """Read ``size`` bytes that must be ``wanted``."""
    got = exactly(sock, size)
    if got != wanted:
        raise Failed(f"{got.hex(' ')} where {wanted.hex(' ')} was due")


def bound(sock: socket.socket) -> tuple[str, int]:
    """Read the reply to a request and return its address."""
    try:
        head = exactly(sock, 4)
    except (Failed, ConnectionError):
        raise Refused(None) from None
    if head[1]:
        raise Refused(head[1])
    if head[3] not in (1, 4):
        raise Failed(f"the reply has address type {head[3]}")
    rest = exactly(sock, {1: 6, 4: 18}[head[3]])
    found = split_address(head[3:] + rest)
    assert found is not None
    return found[0]


def tunnel(local: tuple[str, int], to: tuple[str, int], seconds: float = SECONDS) -> socket.socket:
    """Return a connection to ``to`` through the local; raises ``Refused``."""
    sock = dial(local, seconds)
    try:
        request(sock, to)
    except BaseException:
        sock.close()
        raise
    return sock


def works(local: tuple[str, int], to: tuple[str, int]) -> float:
    """Exchange some bytes with an echo through the local; return how long that took, seconds."""
    started = time.monotonic()
    with tunnel(local, to) as sock:
        sock.sendall(b"still there?")
        reply(sock, 12, b"still there?")
    return time.monotonic() - started


class Association:
    """A SOCKS5 UDP association: a socket of the application and the TCP connection it hangs on."""

    def __init__(self, local: tuple[str, int]) -> None:
        self._stack = contextlib.ExitStack()
        self.control = self._stack.enter_context(dial(local))
        host, port = request(self.control, ("0.0.0.0", 0), ASSOCIATE)
        self.relay = (local[0] if host in ("0.0.0.0", "::") else host, port)
        self.sock = self._stack.enter_context(socket.socket(type=socket.SOCK_DGRAM))
        self.sock.bind(("127.0.0.1", 0))
        self.sock.settimeout(5.0)

    def send(self, to: tuple[str, int], data: bytes) -> None:
        self.sock.sendto(bytes(3) + address(*to) + data, self.relay)

    def receive(self) -> tuple[tuple[str, int], bytes]:
        """Return where the next datagram is from, and what is in it."""
        data, _ = self.sock.recvfrom(65535)
        if data[:3] != bytes(3):
            raise Failed(f"a datagram begins with {data[:3].hex(' ')}")
        found = split_address(data[3:])
        if found is None:
            raise Failed("a datagram with half an address")
        return found

    def exchange(self, to: tuple[str, int], data: bytes, tries: int = 3) -> tuple[str, int]:
        """Have ``data`` echoed and return the source of the answer; UDP may lose, so it is tried again."""
        for _ in range(tries):
            self.send(to, data)
            with contextlib.suppress(TimeoutError):
                while True:
                    source, got = self.receive()
                    if got == data:
                        return source
        raise Failed(f"no echo of {len(data)} bytes in {tries} tries")

    def close(self) -> None:
        self._stack.close()

    def __enter__(self) -> Association:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
