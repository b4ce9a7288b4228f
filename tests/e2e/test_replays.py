"""Datagrams recorded on the way and sent again, as anybody could, when the worker that took them is gone.

What is refused gives no sign but a counter, and the lack of one at the target. So another datagram goes
behind each replay, takes the same way, and is answered.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.clients import TIMEOUT
from tests.e2e.test_workers import children, statistics, wait_workers
from tests.e2e.udp_clients import Association, associate
from tests.processes import Pair, free_port
from tests.udp_targets import DatagramTarget, Nat, mirror, nat, serve_datagrams
from tests.waiting import wait_until

METHODS = ("aes-256-gcm", "2022-blake3-aes-256-gcm", "2022-blake3-chacha20-poly1305")

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


class World:
    """A pair with somebody between its halves who records, and a target."""

    def __init__(self, pair: Pair, way: Nat, target: DatagramTarget, client: Association) -> None:
        self.pair, self.way, self.target, self.client = pair, way, target, client

    def works(self) -> bool:
        return self.client.works(self.target.address)

    def check_replays(self) -> None:
        """None of what was recorded has an effect, and all of it is counted; the client goes on."""
        recorded = [*self.way.sent, *self.way.answered]
        received, dropped = self.target.received, statistics(self.pair.server).get("udp_dropped", 0)
        for data in recorded:
            self.way.replay(data)
        assert self.works()
        assert self.target.received == received + 1
        assert statistics(self.pair.server)["udp_dropped"] == dropped + len(recorded)


@pytest.fixture
def start(start_pair) -> Iterator[Callable[..., World]]:
    with contextlib.ExitStack() as stack:

        def start(method: str, workers: int) -> World:
            port = free_port()
            way = stack.enter_context(nat(port))
            pair = start_pair(
                method=method,
                server_port=port,
                dial_port=way.port,
                server_config={"workers": workers},
            )
            target = stack.enter_context(serve_datagrams(mirror))
            client = stack.enter_context(associate(pair.local_port, timeout=TIMEOUT))
            return World(pair, way, target, client)

        yield start


@pytest.mark.parametrize("method", METHODS)
def test_s9_a_workers_death_forgets_no_datagram(start, method):
    world = start(method, workers=2)
    owner, _ = sorted(wait_workers(world.pair.server, 2))
    assert all(world.works() for _ in range(5))
    os.kill(owner, signal.SIGKILL)
    wait_until(lambda: owner not in children(world.pair.server) and len(children(world.pair.server)) == 2)
    wait_until(lambda: world.pair.server.log().count("listening on") == 4)  # one is the supervisor's
    world.check_replays()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("method", METHODS)
def test_s9_a_reload_forgets_no_datagram(start, method, workers):
    world = start(method, workers)
    server = world.pair.server
    if workers > 1:
        wait_workers(server, workers)
    assert all(world.works() for _ in range(5))
    server.signal(signal.SIGHUP)
    wait_until(lambda: " reloaded " in server.log(), what=server.log)
    world.check_replays()
