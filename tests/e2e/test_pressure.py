"""Rows R5, R12 and fault W3: what a target, a client or ten thousand of them can make the relay hold."""

from __future__ import annotations

import contextlib
import resource
import socket
import statistics
import time

import pytest

from tests.e2e.clients import dial, ends, get, open_tunnel, receive_exactly
from tests.e2e.test_streams import wait_for_rest, warm_up
from tests.origin import black_hole, echo, flood, serve
from tests.processes import Pair
from tests.waiting import wait_until

MB = 1024 * 1024
PER_STALLED = 64 * 1024
PER_IDLE = 16 * 1024
STALLED = 80
PINNED_TOGETHER = 8 * MB


def test_r5_w3_a_target_that_never_accepts_holds_the_client_back(start_pair):
    """The client pushes 400 MiB towards a full accept queue: it blocks, and the relay stays small."""
    pair = start_pair(local_config={"connect_timeout": 4}, server_config={"connect_timeout": 4})
    with black_hole() as port, open_tunnel("socks5", pair.local_port, ("127.0.0.1", port)) as sock:
        sock.settimeout(1.0)
        taken = 0
        with contextlib.suppress(TimeoutError):
            while taken < 400 * MB:
                taken += sock.send(bytes(64 * 1024))
        assert taken < 64 * MB
        assert all(program.peak_rss() < 40 * MB for program in pair.programs)
        sock.settimeout(20.0)
        with contextlib.suppress(ConnectionError):
            assert sock.recv(1) == b""


def test_r5_the_front_says_so_when_the_server_never_accepts(start_pair):
    """The server itself is the black hole: a CONNECT gets 504, SOCKS5 its code, within the timeout."""
    with black_hole() as port:
        pair = start_pair(dial_port=port, local_config={"connect_timeout": 1})
        assert get(pair.local_port, "http://example.test/").status == 504
        with dial(pair.local_port) as sock:
            sock.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x50")
            assert receive_exactly(sock, 4)[2:] == b"\x05\x04"


@pytest.mark.slow
def test_r12_stalled_readers_cost_little_and_hinder_nobody(start_pair):
    """Clients ask for more than they will ever read; one ordinary client beside them.

    Fewer than the row's 2,000, since a kernel takes some 10 MB of its own memory for each. So the
    fixed part of what stalled connections may pin together is allowed for apart.
    """
    pair = start_pair()
    warm_up(pair)
    with serve(flood) as source, serve(echo) as target, contextlib.ExitStack() as stack:
        before = [program.rss() for program in pair.programs]
        for _ in range(STALLED):
            sock = stack.enter_context(
                open_tunnel("socks5", pair.local_port, source.address, buffers=16 * 1024)
            )
            receive_exactly(sock, 1)
        wait_for_rest(pair)
        delays = exchange_delays(pair, target.address, 50)
        grown = [program.rss() - start for program, start in zip(pair.programs, before, strict=True)]
    assert max(grown) < PINNED_TOGETHER + STALLED * PER_STALLED, f"local and server grew by {grown} bytes"
    assert statistics.median(delays) < 0.25, delays


def exchange_delays(pair: Pair, target: tuple[str, int], count: int) -> list[float]:
    """Do ``count`` small exchanges on one connection; return the seconds each took."""
    delays = []
    with open_tunnel("socks5", pair.local_port, target) as sock:
        for _ in range(count):
            started = time.monotonic()
            sock.sendall(b"ping")
            receive_exactly(sock, 4)
            delays.append(time.monotonic() - started)
    return delays


@pytest.mark.slow
def test_ten_thousand_idle_connections(start_pair):
    """Established, silent, as many as this user's descriptors allow: small, asleep, still serving."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (limits[1], limits[1]))
    count = min(10_000, (limits[1] - 1000) // 2)
    pair = start_pair()
    try:
        with contextlib.ExitStack() as stack:
            origin = stack.enter_context(serve(echo))
            target = stack.enter_context(idle_target())
            exchange_delays(pair, origin.address, 20)
            before = [program.rss() for program in pair.programs]
            for sock in connect_many(pair.local_port, target, count):
                stack.enter_context(sock)
            grown = [(p.rss() - start) / count for p, start in zip(pair.programs, before, strict=True)]
            assert max(grown) < PER_IDLE, f"bytes per idle connection: {grown}"
            wait_for_rest(pair)
            exchange_delays(pair, origin.address, 20)
        for program in pair.programs:
            wait_until(lambda program=program: program.descriptors() < 100, timeout=30.0)
        with serve(echo) as origin:
            exchange_delays(pair, origin.address, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@contextlib.contextmanager
def idle_target():
    """A listener that accepts nothing by itself: the kernel completes its handshakes."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(4096)
        listener.setblocking(False)
        yield listener


def connect_many(port: int, listener: socket.socket, count: int):
    """Yield the client and the target end of ``count`` tunnels to ``listener``."""
    host, number = listener.getsockname()
    request = b"\x05\x01\x00\x05\x01\x00\x01" + socket.inet_aton(host) + number.to_bytes(2, "big")
    for start in range(0, count, 200):
        clients = []
        for _ in range(min(200, count - start)):
            sock = dial(port)
            yield sock
            sock.sendall(request)
            clients.append(sock)
        for sock in clients:
            assert receive_exactly(sock, 12)[2:4] == b"\x05\x00"
        for _ in clients:
            yield wait_until(lambda: accept_one(listener))


def accept_one(listener: socket.socket) -> socket.socket | None:
    try:
        return listener.accept()[0]
    except BlockingIOError:
        return None


def test_half_open_clients_hinder_nobody_and_end_at_the_timeout(start_pair, site):
    """W38: silent and dribbling clients are gone after ``timeout``; others are served meanwhile."""
    pair = start_pair(local_config={"timeout": 2}, server_config={"timeout": 2})
    with contextlib.ExitStack() as stack:
        started = time.monotonic()
        opened = [b"", b"\x05", b"\x05\x01\x00\x05\x01", b"\x04\x01", b"GET http://a", b"CONNECT a:1 HT"]
        clients = []
        for beginning in opened * 20:
            sock = stack.enter_context(dial(pair.local_port))
            sock.sendall(beginning)
            clients.append(sock)
        assert get(pair.local_port, site.url + "/").status == 200
        for sock in clients:
            sock.settimeout(20.0)
            while sock.recv(4096):  # HTTP may be told 408 first
                pass
        assert time.monotonic() - started > 1.5
    with dial(pair.local_port) as sock:
        sock.sendall(b"GET http://example.test/ HTTP/1.1\r\nHost:")
        sock.settimeout(20.0)
        assert sock.recv(4096).startswith(b"HTTP/1.1 408 ")
        assert ends(sock)
