"""Faults that only a running configuration knows: a worker killed under load, a broken file on reload."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from pathlib import Path

import pytest

from tests.e2e.clients import open_tunnel, receive_exactly
from tests.faults import LIMIT, NOT_YET, Transfer, measured, nothing_left, seconds_until
from tests.origin import echo, serve, sha256, source
from tests.waiting import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")]

MB = 1024 * 1024
RATE = 8 * MB  # bytes per second of a transfer that shall be under way for a while
WORKERS = 2


def exchange(pair, address):
    with open_tunnel("socks5", pair.local_port, address) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def children(program):
    return [int(pid) for pid in Path(f"/proc/{program.pid}/task/{program.pid}/children").read_text().split()]


def connections(pid, port):
    """How many connections to ``port`` a process has."""
    inodes = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):  # closed since
            inodes.add(os.readlink(link).removeprefix("socket:[").removesuffix("]"))
    lines = [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]
    return sum(fields[2].endswith(f":{port:04X}") and fields[9] in inodes for fields in lines)


class Load:
    """Threads that do one exchange after another, and what became of those that began since ``mark``."""

    def __init__(self, pair, address, threads=4):
        self.done, self.failed = 0, []
        self._pair, self._address = pair, address
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._run, daemon=True) for _ in range(threads)]
        for thread in self._threads:
            thread.start()

    def _run(self):
        while not self._stop.is_set():
            began = time.monotonic()
            try:
                exchange(self._pair, self._address)
            except NOT_YET:
                self.failed.append((began, time.monotonic()))
            else:
                self.done += 1

    def wait_for(self, more):
        until = self.done + more
        wait_until(lambda: self.done >= until, timeout=30.0, what=f"{more} exchanges")

    def stop(self):
        self._stop.set()
        for thread in self._threads:
            thread.join()


def test_a_worker_is_killed_under_load(start_pair):
    """Its own connections end, the other's do not; requests made a moment later find a new one."""
    pair = start_pair(server_config={"workers": WORKERS})
    wait_until(lambda: f"with {WORKERS} workers" in pair.server.log(), what=pair.server.log)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve(echo))
        data = os.urandom(16 * MB)
        origin = stack.enter_context(serve(source(data, RATE)))
        stack.enter_context(nothing_left(*pair.programs))
        transfers = [
            Transfer(stack.enter_context(open_tunnel("socks5", pair.local_port, origin.address)))
            for _ in range(6)
        ]
        load = Load(pair, target.address)
        stack.callback(load.stop)
        for transfer in transfers:
            transfer.wait_for(MB)
        load.wait_for(50)
        before = children(pair.server)
        its_own = connections(before[0], origin.port)
        killed = time.monotonic()
        os.kill(before[0], signal.SIGKILL)
        wait_until(lambda: len(set(children(pair.server)) - set(before)) == 1, what=pair.server.log)
        measured("another worker is there after", time.monotonic() - killed)
        load.wait_for(200)
        load.stop()
        last = max((ended for began, ended in load.failed), default=killed)
        measured("the last request that failed ended after", last - killed)
        assert last - killed < LIMIT
        assert not [began for began, _ in load.failed if began < killed - LIMIT or began > killed + LIMIT]
        for transfer in transfers:
            transfer.wait_for_end()
            assert transfer.is_beginning_of(data)
        assert sum(transfer.received.size < len(data) for transfer in transfers) <= its_own


@pytest.mark.parametrize("workers", [1, WORKERS])
def test_a_broken_file_is_reloaded(start_pair, workers):
    """Nothing changes: what runs goes on, what is new is served, and the log says what is wrong."""
    pair = start_pair(server_config={"workers": workers})
    wait_until(lambda: workers == 1 or f"with {workers} workers" in pair.server.log())
    data = os.urandom(8 * MB)
    path = Path(pair.server.argv[-1])
    good = path.read_text()
    with (
        serve(echo) as target,
        serve(source(data, RATE)) as origin,
        nothing_left(*pair.programs),
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        transfer = Transfer(sock)
        transfer.wait_for(MB)
        path.write_text(good.replace('"method"', '"method" oops'))
        pair.server.signal(signal.SIGHUP)
        wait_until(lambda: "not reloaded" in pair.server.log(), what=pair.server.log)
        assert path.name in pair.server.log()
        measured("back after", seconds_until(lambda: exchange(pair, target.address)))
        path.write_text(good)
        pair.server.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in pair.server.log().replace("not reloaded", ""))
        exchange(pair, target.address)
        transfer.wait_for_end()
        assert transfer.received.digest() == sha256(data)
