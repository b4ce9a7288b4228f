"""Row S1 with further implementations, where they are: TCP and UDP, either half, identity headers.

Which ones, and how they are found, is in ``tests/peers.py``.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import bytes_go_both_ways, open_tunnel, receive_exactly, receive_to_end
from tests.e2e.udp_clients import associate, stream
from tests.origin import echo, serve, source
from tests.peers import LOOPBACK, PEERS, Half, Peer
from tests.processes import Program, free_port, is_udp_bound, new_password
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

pytestmark = pytest.mark.interop

SIZE = 10 * 1024 * 1024
SIZES = (1, 3, 100, 1200, 1372)  # bytes; shadowsocks-go holds itself to an MTU of 1,500
COUNT = 2_000
ROLES = ("local", "server")
NAMES = ("alice", "bob")


def cases(*, with_users: bool) -> list[object]:
    """Return every peer in each role, with every method."""
    found: list[object] = []
    for peer in PEERS:
        for role in ROLES:
            here = peer.words(role) is not None
            absent = pytest.mark.skipif(not here, reason=f"{peer.name} is not here as a {role}")
            for method in peer.identified if with_users else peer.methods:
                name = f"{peer.name}-{role}-{method}"
                found.append(pytest.param(peer, role, method, id=name, marks=absent))
    return found


class Mixed:
    """A pair of which ``role`` is the peer's and the other half ours."""

    def __init__(
        self, start: Callable[..., Program], folder: Path, peer: Peer, role: str, method: str
    ) -> None:
        self._start, self._folder, self._peer, self._role = start, folder, peer, role
        self.method, self.server_port = method, free_port()
        self._stack = contextlib.ExitStack()

    def server(self, password: str, users: dict[str, str] | None = None) -> None:
        """Start the server, ready for TCP and UDP when this returns."""
        half = Half("server", self.server_port, self.method, password, users=users or {})
        if self._role == "server":
            self._start_peer(half, self.server_port)
            return
        listed = [{"name": name, "password": key} for name, key in half.users.items()]
        settings = {"server": LOOPBACK, "server_port": half.server_port, "method": half.method}
        more = {"password": password, "users": listed or None, "forbidden_ip": [], "verbose": 1}
        self.ours = self._start("server", {**settings, **more})

    def local(self, password: str) -> int:
        """Start a local; return its port."""
        half = Half("local", self.server_port, self.method, password, port=free_port())
        if self._role == "local":
            self._start_peer(half, half.port)
        else:
            settings = {"server": LOOPBACK, "server_port": half.server_port, "method": half.method}
            self._start("local", {**settings, "password": password, "local_port": half.port})
        return half.port

    def _start_peer(self, half: Half, port: int) -> None:
        program = Program(self._peer.command(half, self._folder), self._folder / f"peer-{port}.log")
        self._stack.callback(program.process.wait)
        self._stack.callback(program.process.kill)
        program.wait_listening(port)
        if half.role == "server":
            wait_until(lambda: is_udp_bound(port), what=program.log())

    def close(self) -> None:
        self._stack.close()


@pytest.fixture
def mix(start_program, tmp_path) -> Iterator[Callable[[Peer, str, str], Mixed]]:
    with contextlib.ExitStack() as stack:

        def start(peer: Peer, role: str, method: str) -> Mixed:
            mixed = Mixed(start_program, tmp_path, peer, role, method)
            stack.callback(mixed.close)
            return mixed

        yield start


def has_tcp(port: int) -> None:
    """Bytes go both ways at once, whole; a target may speak first, or when it is asked."""
    bytes_go_both_ways(port, SIZE)
    with serve(source(b"220 hello")) as greeter:
        for host in (LOOPBACK, "localhost"):
            with open_tunnel("socks5", port, (host, greeter.port)) as sock:
                assert receive_to_end(sock) == b"220 hello"
    with serve(echo) as mirrored, open_tunnel("socks5", port, mirrored.address) as sock:
        for question in (b"question", b"another"):
            sock.sendall(question)
            assert receive_exactly(sock, len(question)) == question
        sock.shutdown(socket.SHUT_WR)
        assert receive_to_end(sock) == b""


def keeps_half_close(port: int) -> None:
    """A target may answer behind the client's end."""
    with serve(echo) as mirrored, open_tunnel("socks5", port, mirrored.address) as sock:
        sock.sendall(b"question")
        sock.shutdown(socket.SHUT_WR)
        assert receive_to_end(sock) == b"question"


def has_udp(port: int) -> None:
    """Both families and a name, one source port for all targets, and a flow of some size."""
    with (
        serve_datagrams(mirror) as four,
        serve_datagrams(mirror) as other,
        serve_datagrams(mirror, "::1") as six,
        associate(port) as client,
        associate(port) as another,
    ):
        for asking, target in ((client, four), (client, other), (another, six)):
            for size in SIZES:
                payload = os.urandom(size)
                asking.send(target.address, payload)
                assert asking.receive() == (target.address, payload)
        client.send(("localhost", four.port), b"by name")
        assert client.receive()[1] == b"by name"
        assert len({number for _, number in (*four.peers, *other.peers)}) == 1
        assert COUNT - stream(client, four.address, COUNT, 1200) < COUNT // 100


def mixes_families(port: int) -> None:
    """One client's datagrams, to IPv4 and IPv6 in turn."""
    with (
        serve_datagrams(mirror) as four,
        serve_datagrams(mirror, "::1") as six,
        associate(port) as client,
    ):
        for target in (four, six, four, six):
            client.send(target.address, b"whichever")
            assert client.receive() == (target.address, b"whichever")


def relays(peer: Peer, role: str, port: int) -> None:
    """All that the peer can; see ``tests/peers.py`` for what one cannot."""
    has_tcp(port)
    if peer.keeps_half_close:
        keeps_half_close(port)
    has_udp(port)
    if peer.mixes_families or role == "local":
        mixes_families(port)


@pytest.mark.parametrize(("peer", "role", "method"), cases(with_users=False))
def test_s1_with_one_key(mix, peer, role, method):
    mixed = mix(peer, role, method)
    password = new_password(method)
    mixed.server(password)
    relays(peer, role, mixed.local(password))


@pytest.mark.parametrize(("peer", "role", "method"), cases(with_users=True))
def test_s1_with_identity_headers(mix, peer, role, method):
    """Users of one port, told apart by SIP023; our server names them in its log."""
    mixed = mix(peer, role, method)
    own, keys = new_password(method), {name: new_password(method) for name in NAMES}
    mixed.server(own, keys)
    for name in NAMES:
        port = mixed.local(f"{own}:{keys[name]}")
        relays(peer, role, port)
        if role == "local":
            assert f"({name}) wants" in mixed.ours.log()
            assert f"({name}) has a UDP session" in mixed.ours.log()
