"""Targets for datagrams, on loopback and in threads; and a NAT to put between the two halves.

    with serve_datagrams(mirror) as target:      a UDP server that sends back what comes
        ...
        assert target.peers == [("127.0.0.1", 40001)]
    with serve_stun() as stun:                   two ports that say where a request came from (RFC 8489)
    with nat(server_port) as way:                what sslocal dials instead of ssserver

A target counts what reached it and remembers from where, which is what most tests are about: UDP gives
no other sign of what was refused or lost.
"""

from __future__ import annotations

import contextlib
import ipaddress
import selectors
import socket
import struct
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

SocketAddress = tuple[Any, ...]
Reply = Callable[[bytes], object]
Handler = Callable[[bytes, Reply], object]

ROOM = 1 << 20  # bytes asked for the kernel's queues; it may grant less
MAX_DATAGRAM = 65_536


def datagram_socket(host: str = "127.0.0.1", port: int = 0) -> socket.socket:
    """Return a bound, blocking UDP socket."""
    sock = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
    for option in (socket.SO_RCVBUF, socket.SO_SNDBUF):
        sock.setsockopt(socket.SOL_SOCKET, option, ROOM)
    sock.bind((host, port))
    return sock


def lost_by_the_kernel(port: int) -> int:
    """How many datagrams found no room in the queue of the UDP sockets on ``port``; only Linux tells."""
    tables = [Path(f"/proc/net/{name}") for name in ("udp", "udp6")]
    lines = [line.split() for table in tables if table.exists() for line in table.read_text().splitlines()]
    return sum(int(fields[-1]) for fields in lines if fields[1].endswith(f":{port:04X}"))


class Readers:
    """A thread that reads sockets and calls for every datagram, until it is closed."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake, woken = socket.socketpair()
        self._selector.register(woken, selectors.EVENT_READ)
        self._thread = threading.Thread(target=self._run, daemon=True)

    def add(self, sock: socket.socket, on_datagram: Callable[[bytes, SocketAddress], object]) -> None:
        """Read ``sock``, and close it in the end. Another thread may be the one that adds."""
        self._selector.register(sock, selectors.EVENT_READ, on_datagram)

    def start(self) -> None:
        self._thread.start()

    def close(self) -> None:
        self._wake.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _run(self) -> None:
        while True:
            for key, _ in self._selector.select():
                if key.data is None:
                    return
                with contextlib.suppress(OSError):  # what came back for an earlier datagram
                    key.data(*key.fileobj.recvfrom(MAX_DATAGRAM))


class DatagramTarget:
    """A UDP server. ``received`` counts its datagrams, ``peers`` has every source once, as (host, port)."""

    def __init__(self, handler: Handler, host: str = "127.0.0.1") -> None:
        self.host = host
        self.sock = datagram_socket(host)
        self.port: int = self.sock.getsockname()[1]
        self.received = 0
        self._handler = handler
        self._peers: dict[tuple[str, int], None] = {}

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def peers(self) -> list[tuple[str, int]]:
        return list(self._peers)

    def on_datagram(self, data: bytes, peer: SocketAddress) -> None:
        self._peers[peer[:2]] = None
        self.received += 1
        self._handler(data, lambda reply: self.sock.sendto(reply, peer))


@contextlib.contextmanager
def serve_datagrams(handler: Handler, host: str = "127.0.0.1") -> Iterator[DatagramTarget]:
    """Run a target: ``handler(data, reply)`` for every datagram."""
    readers = Readers()
    target = DatagramTarget(handler, host)
    readers.add(target.sock, target.on_datagram)
    readers.start()
    try:
        yield target
    finally:
        readers.close()


def mirror(data: bytes, reply: Reply) -> None:
    """Send it back."""
    reply(data)


def swallow(data: bytes, reply: Reply) -> None:
    """Say nothing."""


def burst(data: bytes, reply: Reply) -> None:
    """Send as many datagrams as the request's two bytes say, numbered."""
    for number in range(int.from_bytes(data[:2], "big")):
        reply(number.to_bytes(2, "big"))


# -- STUN ------------------------------------------------------------------------------------------

COOKIE = 0x2112A442
BINDING, BINDING_SUCCESS = 0x0001, 0x0101
CHANGE_REQUEST, XOR_MAPPED_ADDRESS, RESPONSE_ORIGIN, OTHER_ADDRESS = 0x0003, 0x0020, 0x802B, 0x802C
CHANGE_PORT = 2


def binding_request(transaction: bytes, *, change_port: bool = False) -> bytes:
    """Return a Binding request, with ``change_port`` one to be answered from the other port (RFC 5780)."""
    body = struct.pack(">HHI", CHANGE_REQUEST, 4, CHANGE_PORT) if change_port else b""
    return struct.pack(">HHI", BINDING, len(body), COOKIE) + transaction + body


def stun_addresses(message: bytes, transaction: bytes) -> dict[int, tuple[str, int]]:
    """Return the addresses in a Binding success response, by attribute type."""
    kind, size, cookie = struct.unpack_from(">HHI", message)
    assert (kind, cookie, message[8:20]) == (BINDING_SUCCESS, COOKIE, transaction)
    assert size == len(message) - 20
    found, at = {}, 20
    while at < len(message):
        attribute, length = struct.unpack_from(">HH", message, at)
        found[attribute] = _read_address(attribute, message[at + 4 : at + 4 + length], transaction)
        at += 4 + length
    return found


class StunServer:
    """Two ports of one host; each answers a Binding request itself, or has the other one answer."""

    def __init__(self, host: str = "127.0.0.1") -> None:
        self.socks = datagram_socket(host), datagram_socket(host)

    @property
    def addresses(self) -> list[tuple[str, int]]:
        return [sock.getsockname()[:2] for sock in self.socks]

    def answer(self, here: int, data: bytes, peer: SocketAddress) -> None:
        if len(data) < 20 or struct.unpack_from(">H", data)[0] != BINDING:
            return
        change = data[20:24] == struct.pack(">HH", CHANGE_REQUEST, 4) and data[27] & CHANGE_PORT
        origin = self.socks[1 - here if change else here]
        body = b"".join(
            _write_address(attribute, address, data[8:20])
            for attribute, address in (
                (XOR_MAPPED_ADDRESS, peer[:2]),
                (RESPONSE_ORIGIN, origin.getsockname()[:2]),
                (OTHER_ADDRESS, self.socks[1 - here].getsockname()[:2]),
            )
        )
        origin.sendto(struct.pack(">HHI", BINDING_SUCCESS, len(body), COOKIE) + data[8:20] + body, peer)


@contextlib.contextmanager
def serve_stun(host: str = "127.0.0.1") -> Iterator[StunServer]:
    """Run a ``StunServer``."""
    readers = Readers()
    stun = StunServer(host)
    for here, sock in enumerate(stun.socks):
        readers.add(sock, lambda data, peer, here=here: stun.answer(here, data, peer))
    readers.start()
    try:
        yield stun
    finally:
        readers.close()


def _mask(attribute: int, transaction: bytes) -> bytes:
    return COOKIE.to_bytes(4, "big") + transaction if attribute == XOR_MAPPED_ADDRESS else bytes(16)


def _write_address(attribute: int, address: tuple[str, int], transaction: bytes) -> bytes:
    mask = _mask(attribute, transaction)
    packed = ipaddress.ip_address(address[0]).packed
    value = bytes([0, 1 if len(packed) == 4 else 2])
    value += _xor(address[1].to_bytes(2, "big"), mask) + _xor(packed, mask)
    return struct.pack(">HH", attribute, len(value)) + value


def _read_address(attribute: int, value: bytes, transaction: bytes) -> tuple[str, int]:
    mask = _mask(attribute, transaction)
    port = int.from_bytes(_xor(value[2:4], mask), "big")
    return str(ipaddress.ip_address(_xor(value[4:], mask))), port


def _xor(data: bytes, mask: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(data, mask, strict=False))


# -- between the halves ----------------------------------------------------------------------------


class Nat:
    """Forwards between one client and a server, from a source port of its own that can change.

    ``sent`` and ``answered`` hold what came from each end. ``copies`` is how often everything goes on, which
    may be never.
    """

    def __init__(self, server: tuple[str, int], readers: Readers) -> None:
        self.server = server
        self.copies = 1
        self.sent: list[bytes] = []
        self.answered: list[bytes] = []
        self._readers = readers
        self.client: SocketAddress | None = None
        self._inside = datagram_socket(server[0])
        self.port: int = self._inside.getsockname()[1]
        readers.add(self._inside, self._on_client)
        self.rebind()

    def rebind(self) -> None:
        """Forward from another port from now on; what still comes to the old one is forwarded, too."""
        self._outside = datagram_socket(self.server[0])
        self._readers.add(self._outside, self._on_server)

    @property
    def source(self) -> tuple[str, int]:
        """The address that the server sees."""
        address: tuple[str, int] = self._outside.getsockname()[:2]
        return address

    def replay(self, data: bytes) -> None:
        """Send ``data`` to the server as if the client had sent it."""
        self._outside.sendto(data, self.server)

    def inject(self, data: bytes) -> None:
        """Send ``data`` to the client as if it came from the server."""
        assert self.client is not None
        self._inside.sendto(data, self.client)

    def _on_client(self, data: bytes, peer: SocketAddress) -> None:
        self.client = peer
        self.sent.append(data)
        for _ in range(self.copies):
            self.replay(data)

    def _on_server(self, data: bytes, peer: SocketAddress) -> None:
        self.answered.append(data)
        for _ in range(self.copies):
            self.inject(data)


@contextlib.contextmanager
def nat(server_port: int, host: str = "127.0.0.1") -> Iterator[Nat]:
    """Run a ``Nat`` before a UDP server; what sslocal dials is its ``port``."""
    readers = Readers()
    between = Nat((host, server_port), readers)
    readers.start()
    try:
        yield between
    finally:
        readers.close()
