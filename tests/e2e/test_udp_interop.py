"""Row S1 over UDP: each half works with shadowsocks-libev's other half, every shared method."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import TIMEOUT, dial, receive_exactly
from tests.e2e.udp_clients import Association, associate, stream
from tests.origin import echo, serve
from tests.processes import CLASSIC_METHODS, Pair, Program, free_port, has_libev, is_udp_bound
from tests.udp_targets import datagram_socket, mirror, serve_datagrams
from tests.waiting import wait_until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.skipif(not has_libev(), reason="shadowsocks-libev is not installed"),
]

MIXED = [("ours", "libev"), ("libev", "ours")]
SIZES = (1, 2, 3, 100, 1200, 1300)  # bytes; libev reads no more than two of its MTUs
COUNT, WINDOW = 2_000, 16
UDP = {"mode": "tcp_and_udp"}  # libev has it off unless it is asked for


def echoes(client: Association, target: tuple[str, int]) -> bool:
    """Whether datagrams of all sizes come back as they were, and from where they went."""
    payloads = [os.urandom(size) for size in SIZES]
    for payload in payloads:
        client.send(target, payload)
    return [client.receive() for _ in payloads] == [(target, payload) for payload in payloads]


@pytest.mark.parametrize("method", CLASSIC_METHODS)
@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_s1_udp_echo_both_ways(start_pair, kinds, method):
    """Targets of both families and by name, through one association; then a flow of some size."""
    pair = start_pair(kinds=kinds, method=method, local_config=UDP, server_config=UDP)
    with (
        serve_datagrams(mirror) as four,
        serve_datagrams(mirror, "::1") as six,
        associate(pair.local_port) as client,
    ):
        assert echoes(client, four.address)
        assert echoes(client, six.address)
        client.send(("localhost", four.port), b"by name")
        assert client.receive()[1] == b"by name"
        arrived = stream(client, four.address, COUNT, 1200, WINDOW)
        assert COUNT - arrived < COUNT // 100


@pytest.mark.parametrize("kinds", MIXED, ids="-".join)
def test_s1_udp_over_ipv6(start_pair, kinds):
    pair = start_pair(kinds=kinds, host="::1", local_config=UDP, server_config=UDP)
    with serve_datagrams(mirror, "::1") as target, associate(pair.local_port, "::1") as client:
        assert echoes(client, target.address)


@contextlib.contextmanager
def ss_tunnel(folder: Path, pair: Pair, target: tuple[str, int]) -> Iterator[int]:
    """Run libev's ``ss-tunnel`` to ``target`` through the pair's server; yield its port, TCP and UDP."""
    port = free_port()
    argv = ["ss-tunnel", "-s", "127.0.0.1", "-p", str(pair.server_port), "-k", pair.password, "-u"]
    argv += ["-m", pair.method, "-b", "127.0.0.1", "-l", str(port), "-L", f"{target[0]}:{target[1]}"]
    program = Program(argv, folder / "tunnel.log")
    try:
        program.wait_listening(port)
        wait_until(lambda: is_udp_bound(port))
        yield port
    finally:
        program.process.kill()
        program.process.wait()


def test_s1_ss_tunnel_udp(start_pair, tmp_path):
    """Several clients of libev's tunnel, each with its own way back."""
    pair = start_pair(kinds=("ours", "ours"))
    with (
        serve_datagrams(mirror) as target,
        ss_tunnel(tmp_path, pair, target.address) as port,
        contextlib.ExitStack() as stack,
    ):
        clients = [stack.enter_context(datagram_socket()) for _ in range(5)]
        for client in clients:
            client.settimeout(TIMEOUT)
            client.sendto(b"%d" % client.getsockname()[1], ("127.0.0.1", port))
        for client in clients:
            assert client.recv(100) == b"%d" % client.getsockname()[1]
        assert len(target.peers) == len(clients)


def test_s1_ss_tunnel_tcp(start_pair, tmp_path):
    pair = start_pair(kinds=("ours", "ours"))
    with (
        serve(echo) as origin,
        ss_tunnel(tmp_path, pair, origin.address) as port,
        dial(port) as one,
        dial(port) as other,
    ):
        for sock in (one, other, one):
            sock.sendall(b"ping")
            assert receive_exactly(sock, 4) == b"ping"
