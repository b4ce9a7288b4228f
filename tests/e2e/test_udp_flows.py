"""10,000 UDP flows at once, and what is left of them when they have been idle for ``udp_timeout``: nothing.

Each flow is a client of a tunnel with an address of its own, an association and a socket at either half,
and a source port at the target. A client that has its answer closes its socket: it is the relay that has
to keep the flow.

The surprise: ports run out before descriptors do. Every socket of the relay takes one of the 28,232 that
Linux gives away, and without one ``sendto`` says EAGAIN. So the clients, which would be the third to take
one for each flow, share a single port on 10,000 addresses.
"""

from __future__ import annotations

import contextlib
import os
import time

import pytest

from tests.e2e.clients import TIMEOUT
from tests.processes import Pair, Program, free_port
from tests.udp_targets import datagram_socket, mirror, serve_datagrams
from tests.waiting import wait_until

FLOWS = 10_000
ABREAST = 32  # clients at one time: fewer datagrams than the smallest kernel queue holds
UDP_TIMEOUT = 10  # seconds; all flows open within a third of it
PATIENCE = 60.0  # seconds on a busy machine

# Bytes that a round may add. A flow takes about 2 KB, and none of that may stay. What a relay does remember
# of a flow that has gone are the salts of its two packets, up to a fixed number; ``none`` has no salts.
GROWTH = {"none": 100 * FLOWS, "aes-256-gcm": 500 * FLOWS}


def begin_flows(port: int, own_port: int) -> None:
    """Have every client say something of its own to the tunnel on ``port``, and hear it from the echo."""
    for first in range(0, FLOWS, ABREAST):
        with contextlib.ExitStack() as stack:
            clients = [
                stack.enter_context(datagram_socket(f"127.1.{number // 250}.{number % 250 + 1}", own_port))
                for number in range(first, min(first + ABREAST, FLOWS))
            ]
            for client in clients:
                client.settimeout(TIMEOUT)
                client.sendto(client.getsockname()[0].encode(), ("127.0.0.1", port))
            for client in clients:
                assert client.recv(100) == client.getsockname()[0].encode()


def counts(pair: Pair) -> list[tuple[int, int]]:
    """The descriptors of both halves, and how many of those are UDP sockets with a port."""
    return [(program.descriptors(), program.udp_sockets()) for program in pair.programs]


def last_opened(program: Program) -> str:
    """The descriptor that goes last when flows end in the order they came; asking for one is cheap."""
    folder = f"/proc/{program.pid}/fd"
    return f"{folder}/{max(map(int, os.listdir(folder)))}"


@pytest.mark.slow
@pytest.mark.parametrize("method", GROWTH)
def test_ten_thousand_flows_leave_nothing(start_pair, method):
    """No socket, and no memory: when they have gone, as many again fit into what they took."""
    settings = {"udp_timeout": UDP_TIMEOUT, "udp_max_associations": FLOWS, "nofile": FLOWS + 1000}
    with serve_datagrams(mirror) as target:
        port, own_port = free_port(), free_port()
        tunnel = {"protocol": "tunnel", "local_address": "127.0.0.1", "local_port": port}
        entry = {**tunnel, "forward_address": target.host, "forward_port": target.port}
        pair = start_pair(method=method, local_config={"locals": [entry], **settings}, server_config=settings)
        pair.local.wait_ready()
        before = counts(pair)
        all_open = [(descriptors + FLOWS, ports + FLOWS) for descriptors, ports in before]
        memory = []

        def open_at_once() -> bool:
            """Those of before live on or begin anew, should a busy machine have been too slow for them."""
            begin_flows(port, own_port)
            return counts(pair) == all_open

        for _ in range(2):
            wait_until(open_at_once, timeout=PATIENCE)
            assert len(target.peers) >= FLOWS
            began = time.monotonic()
            for path in [last_opened(program) for program in pair.programs]:
                wait_until(lambda path=path: not os.path.exists(path), timeout=PATIENCE)
            assert time.monotonic() - began > UDP_TIMEOUT / 2
            wait_until(lambda: counts(pair) == before, timeout=PATIENCE, what=f"back at {before}")
            memory.append([program.peak_rss() for program in pair.programs])
        for first, second in zip(*memory, strict=True):
            assert second - first < GROWTH[method], memory
