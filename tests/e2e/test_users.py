"""Many users on one port: SIP023 identity headers, and the trial decryption of SIP004, TCP and UDP.

Whom the server took a client for, a test reads in its log (``-v``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack

import pytest

from tests.e2e.clients import dial, get, open_tunnel, receive_exactly, socks5_reply, socks5_request
from tests.e2e.udp_clients import associate, stream
from tests.origin import echo, serve
from tests.processes import KEY_SIZES, Program, free_port, new_password
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

IDENTIFIED = ["2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm"]
TRIED = ["aes-256-gcm", "chacha20-ietf-poly1305", "xchacha20-ietf-poly1305"]
NAMES = ("alice", "bob", "Carol D.")
MANY = 100  # users
FLOW = 2_000  # datagrams
DEADLINE = 1  # seconds, of the handshake
EARLIEST, LATEST = 0.4, 6.0  # seconds until a rejected stream ends, on a busy machine

Start = Callable[..., Program]


class Port:
    """One ssserver port with users. ``own`` is its own key: the iPSK, or None for SIP004 without one."""

    def __init__(self, start: Start, method: str, names: Sequence[str], *, own: bool = True) -> None:
        self._start, self.method, self.port = start, method, free_port()
        self.own = new_password(method) if own else None
        self.keys = {name: new_password(method) for name in names}
        self.server = start(
            "server",
            {
                "server": "127.0.0.1",
                "server_port": self.port,
                "method": method,
                "password": self.own,
                "users": [{"name": name, "password": key} for name, key in self.keys.items()],
                "forbidden_ip": [],
                "timeout": DEADLINE,
                "verbose": 1,
            },
        )

    def password_of(self, name: str) -> str:
        """What the user puts into a client's configuration."""
        return f"{self.own}:{self.keys[name]}" if self.method in KEY_SIZES else self.keys[name]

    def local(self, password: str) -> int:
        """Start a local with this password; return its port."""
        port = free_port()
        server = {"server": "127.0.0.1", "server_port": self.port, "method": self.method}
        self._start("local", {**server, "password": password, "local_port": port})
        return port

    def was_seen(self, name: str, what: str) -> None:
        wait_until(lambda: f"({name}) {what}" in self.server.log(), what=f"{name} {what}")


def serves(port: Port, local: int, name: str) -> None:
    """A local is served, over TCP and UDP, as ``name``."""
    with serve(echo) as origin, open_tunnel("socks5", local, origin.address) as sock:
        data = os.urandom(100_000)
        sock.sendall(data)
        assert receive_exactly(sock, len(data)) == data
        port.was_seen(name, f"wants 127.0.0.1:{origin.port}")
    with serve_datagrams(mirror) as target, associate(local) as client:
        for size in (0, 1, 1200):
            payload = os.urandom(size)
            assert client.ask(target.address, payload) == payload
        port.was_seen(name, "has a UDP session")


@pytest.mark.parametrize("method", IDENTIFIED + TRIED)
def test_every_user_is_served_and_named(start_program, method):
    """A chain iPSK:uPSK at the client for SIP022 (SIP023), the user's own password for SIP004."""
    port = Port(start_program, method, NAMES, own=method in KEY_SIZES)
    for name in NAMES:
        serves(port, port.local(port.password_of(name)), name)


@pytest.mark.parametrize("method", TRIED[:1])
def test_sip004_the_ports_own_password_is_one_more_user(start_program, method):
    port = Port(start_program, method, NAMES)
    assert port.own is not None
    serves(port, port.local(port.password_of("bob")), "bob")
    with serve(echo) as origin, open_tunnel("socks5", port.local(port.own), origin.address) as sock:
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def are_rejected(port: Port, *passwords: str | None) -> None:
    """Locals with these passwords get nothing over TCP until the deadline, and nothing at all over UDP."""
    locals_ = [port.local(password) for password in passwords if password]
    with serve(echo) as origin, ExitStack() as stack:
        socks = [stack.enter_context(dial(local)) for local in locals_]
        started = time.monotonic()
        for sock in socks:
            sock.sendall(b"\x05\x01\x00" + socks5_request(*origin.address) + b"payload")
            assert receive_exactly(sock, 2) == b"\x05\x00"
            assert socks5_reply(sock)[1] == 0
        for sock in socks:
            assert sock.recv(1) == b""
            assert EARLIEST < time.monotonic() - started < LATEST
        assert origin.accepted == 0
    sockets = port.server.udp_sockets()
    with serve_datagrams(mirror) as target, ExitStack() as stack:
        for local in locals_:
            stack.enter_context(associate(local)).send(target.address, b"who")
        wait_until(lambda: port.server.log().count("datagram from") == len(locals_))
        assert target.received == 0
        assert port.server.udp_sockets() == sockets


def test_sip023_strangers_meet_silence(start_program):
    """A user nobody knows, a user with another server's key, and the iPSK alone, which is nobody's."""
    method = IDENTIFIED[1]
    port = Port(start_program, method, NAMES)
    stranger = new_password(method)
    are_rejected(port, f"{port.own}:{stranger}", f"{stranger}:{port.keys['bob']}", port.own)
    serves(port, port.local(port.password_of("bob")), "bob")


def test_sip004_strangers_meet_silence(start_program):
    """Nobody's password, and that of a user of another port."""
    port, other = (Port(start_program, TRIED[0], NAMES, own=False) for _ in range(2))
    are_rejected(port, new_password(TRIED[0]), other.password_of("bob"))
    serves(port, port.local(port.password_of("bob")), "bob")


@pytest.mark.parametrize("method", [IDENTIFIED[1], TRIED[0]])
def test_a_hundred_users(start_program, method, site, record_property):
    """First, last and one in between; a flow of datagrams of one while another one interrupts."""
    names = [f"user{number}" for number in range(MANY)]
    port = Port(start_program, method, names, own=method in KEY_SIZES)
    locals_ = {name: port.local(port.password_of(name)) for name in (names[0], names[50], names[-1])}
    for name, local in locals_.items():
        serves(port, local, name)
        assert get(local, site.url + "/bytes/1000").status == 200
    first, *_, last = locals_.values()
    with serve_datagrams(mirror) as target, associate(first) as one, associate(last) as other:
        started = time.monotonic()
        arrived = stream(one, target.address, FLOW, 100)
        record_property("datagrams_per_second", FLOW / (time.monotonic() - started))
        assert other.works(target.address)
        assert one.works(target.address)
        assert FLOW - arrived < FLOW // 100
        assert len(target.peers) == 2


@pytest.mark.parametrize("method", [IDENTIFIED[0], TRIED[1]])
def test_two_users_behind_one_address(start_program, method):
    """Datagrams and streams of both, by turns: everybody gets their own."""
    port = Port(start_program, method, NAMES, own=method in KEY_SIZES)
    one, other = (port.local(port.password_of(name)) for name in ("alice", "bob"))
    with serve_datagrams(mirror) as target, associate(one) as first, associate(other) as second:
        for _ in range(50):
            assert first.works(target.address)
            assert second.works(target.address)
        assert len(target.peers) == 2
    with serve(echo) as origin:
        for number in range(20):
            with open_tunnel("socks5", (one, other)[number % 2], origin.address) as sock:
                sock.sendall(b"ping")
                assert receive_exactly(sock, 4) == b"ping"
