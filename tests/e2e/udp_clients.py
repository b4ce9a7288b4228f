"""A SOCKS5 client of UDP ASSOCIATE over raw sockets, and what tests ask of it.

The surprise: a test never waits to see that a datagram is *not* answered. It sends another one behind
it, which takes the same way and is; what was to come earlier would have come by then.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import socket
from collections.abc import Iterator

from tests.e2e.clients import TIMEOUT, dial, receive_exactly, socks5_reply, socks5_request
from tests.udp_targets import MAX_DATAGRAM, datagram_socket

Target = tuple[str, int]

WINDOW = 32  # datagrams under way at one time: fewer than the smallest kernel queue holds
UDP_ASSOCIATE = 3


class Association:
    """One association: ``control`` is its TCP connection, ``sock`` sends to ``relay``, sslocal's UDP port."""

    def __init__(self, control: socket.socket, sock: socket.socket, relay: Target) -> None:
        self.control, self.sock, self.relay = control, sock, relay

    def send(self, target: Target, payload: bytes) -> None:
        self.send_raw(datagram(target, payload))

    def send_raw(self, data: bytes) -> None:
        """Send ``data`` as it is to the relay."""
        self.sock.sendto(data, self.relay)

    def receive(self) -> tuple[Target, bytes]:
        """Return the source and the payload of the next reply."""
        data, peer = self.sock.recvfrom(MAX_DATAGRAM)
        assert peer[:2] == self.relay
        return parse(data)

    def ask(self, target: Target, payload: bytes) -> bytes:
        """Return what ``target`` answers; it has to be the first to answer."""
        self.send(target, payload)
        source, answer = self.receive()
        assert source[1] == target[1], (source, target)
        return answer

    def works(self, target: Target) -> bool:
        """Whether an echo at ``target`` answers, and nobody before it."""
        payload = os.urandom(8)
        return self.ask(target, payload) == payload


@contextlib.contextmanager
def associate(
    port: int, host: str = "127.0.0.1", *, announced: bool = False, timeout: float = TIMEOUT
) -> Iterator[Association]:
    """Ask the local on ``port`` for an association; with ``announced`` the request names our port."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with dial(port, host) as control, datagram_socket(host) as sock:
        control.settimeout(timeout)
        sock.settimeout(timeout)
        control.sendall(b"\x05\x01\x00")
        assert receive_exactly(control, 2) == b"\x05\x00"
        wildcard = "::" if family == socket.AF_INET6 else "0.0.0.0"
        own = sock.getsockname()[:2] if announced else (wildcard, 0)
        control.sendall(socks5_request(*own, UDP_ASSOCIATE))
        reply = socks5_reply(control)
        assert reply[:3] == b"\x05\x00\x00", reply
        relay, rest = _split_address(reply[3:])
        assert rest == b""
        if relay[0] == "0.0.0.0":
            relay = host, relay[1]  # libev, on IPv6: "where you found me"
        yield Association(control, sock, relay)


def datagram(target: Target, payload: bytes, *, fragment: int = 0) -> bytes:
    """Return a SOCKS5 datagram (RFC 1928 section 7)."""
    return bytes([0, 0, fragment]) + socks5_request(*target)[3:] + payload


def parse(data: bytes) -> tuple[Target, bytes]:
    """Return the source and the payload of a SOCKS5 datagram."""
    assert data[:3] == b"\x00\x00\x00", data[:3]
    return _split_address(data[3:])


def _split_address(data: bytes) -> tuple[Target, bytes]:
    assert data[0] in (1, 4), "a reply names an IP address"
    size = 4 if data[0] == 1 else 16
    host = str(ipaddress.ip_address(data[1 : 1 + size]))
    return (host, int.from_bytes(data[1 + size : 3 + size], "big")), data[3 + size :]


def stream(client: Association, target: Target, count: int, size: int, window: int = WINDOW) -> int:
    """Send ``count`` numbered datagrams to an echo, ``window`` under way at most; return how many came back.

    Each comes back once, and whole, or it is lost. After a quiet second what is under way counts as lost.
    """
    filling = os.urandom(size - 4)
    missing: set[int] = set()
    client.sock.settimeout(1.0)
    sent = came_back = 0
    while sent < count or missing:
        while sent < count and len(missing) < window:
            missing.add(sent)
            client.send(target, sent.to_bytes(4, "big") + filling)
            sent += 1
        try:
            _, answer = client.receive()
        except TimeoutError:
            missing.clear()
            continue
        number = int.from_bytes(answer[:4], "big")
        assert answer[4:] == filling
        if number in missing:
            missing.remove(number)
            came_back += 1
    client.sock.settimeout(TIMEOUT)
    return came_back
