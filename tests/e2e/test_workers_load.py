"""A worker killed under load, and a sslocal that is reloaded with clients of every kind."""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
import threading

import pytest

from tests.e2e.clients import open_tunnel, receive_exactly
from tests.e2e.test_workers import children, wait_workers
from tests.e2e.udp_clients import associate
from tests.origin import echo, serve
from tests.processes import write_config
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

CLIENTS = 6


def test_a_worker_killed_under_load_costs_its_own_connections_and_no_others(start_pair):
    """Each client asks over and over; the death of a worker is seen by those on it, once each."""
    pair = start_pair(server_config={"workers": 2})
    victim = wait_workers(pair.server, 2)[0]
    served, failures, done = [0] * CLIENTS, [0] * CLIENTS, threading.Event()

    def ask(number: int, target: tuple[str, int]) -> None:
        while not done.is_set():
            try:
                with open_tunnel("socks5", pair.local_port, target) as sock:
                    sock.sendall(b"hello")
                    assert receive_exactly(sock, 5) == b"hello"
                served[number] += 1
            except (OSError, EOFError, AssertionError):
                failures[number] += 1

    with serve(echo) as origin:
        threads = [threading.Thread(target=ask, args=(n, origin.address)) for n in range(CLIENTS)]
        for thread in threads:
            thread.start()
        try:
            wait_until(lambda: min(served) > 10)
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in children(pair.server) and len(children(pair.server)) == 2)
            before = list(served)
            wait_until(lambda: all(now > then + 20 for now, then in zip(served, before, strict=True)))
        finally:
            done.set()
            for thread in threads:
                thread.join(30)
    assert max(failures) <= 1, failures


@pytest.mark.parametrize("workers", [1, 2])
def test_a_local_is_reloaded_under_its_clients(start_pair, tmp_path, workers):
    """TCP tunnels, SOCKS5 UDP and a Unix socket: what stands goes on, and what is new is served."""
    path = str(tmp_path / "front")
    locals_ = [{"local": f"unix:{path}"}]
    pair = start_pair(local_config={"workers": workers, "locals": locals_})
    (config,) = tmp_path.glob("local-*.json")

    def reload() -> None:
        before = pair.local.log().count("reloaded")
        pair.local.signal(signal.SIGHUP)
        wait_until(lambda: pair.local.log().count("reloaded") > before, what=pair.local.log)

    with (
        serve(echo) as origin,
        serve_datagrams(mirror) as target,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
        associate(pair.local_port) as client,
    ):
        first = client.ask(target.address, b"from where?")
        for _ in range(3):
            reload()
            sock.sendall(b"still")
            assert receive_exactly(sock, 5) == b"still"
            assert client.ask(target.address, b"from where?") == first
            with open_tunnel("connect", pair.local_port, origin.address) as new:
                new.sendall(b"new")
                assert receive_exactly(new, 3) == b"new"
            with socket.socket(socket.AF_UNIX) as unix:
                unix.connect(path)
                unix.sendall(b"\x05\x01\x00")
                assert receive_exactly(unix, 2) == b"\x05\x00"
        settings = json.loads(config.read_text())
        write_config(config, {**settings, "locals": None})
        reload()
        wait_until(lambda: not os.path.exists(path), what="the file of a socket that is wanted no more")
