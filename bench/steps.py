"""What a connection and an exchange cost, µs within the steps of the loops, client and target not counted.

    python -m bench.steps [ROUNDS]

Both ends of ours, and both ends of ``floor``, live in this one process and are stepped by hand, so that
nothing else runs while a step is timed, and a step serves 40 connections. That repeats within one per
cent where a benchmark of processes moves by five, and tells a change of two microseconds. What it does
not tell is what other programs on the same processors do to the caches: the same steps of a relay that
runs beside its client cost about a third more.

Printed are the least and the lower quartile of all rounds.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import socket
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Protocol

from common.proto.address import Address
from sslocal import LocalApp
from ssserver import ServerApp
from tests.pairs import configured, server_entry, started

COUNT = 40  # connections at once
LOOPBACK = "127.0.0.1"
PING, PONG = b"p" * 100, b"q" * 100

Times = defaultdict[str, float]  # seconds, by what they were spent on


class Pair(Protocol):
    """``front`` is where clients connect to."""

    front: tuple[str, int]

    def step_local(self) -> None: ...
    def step_server(self) -> None: ...


class Ours:
    def __init__(self) -> None:
        self.server = started(lambda: ServerApp(configured((server_entry(),))))
        (port,) = (address.port for address in self.server.listening if isinstance(address, Address))
        entry = server_entry(Address(LOOPBACK, port))
        self.local = started(lambda: LocalApp(configured((entry,))))
        for app in (self.server, self.local):
            app.load()
        (port,) = (address.port for address in self.local.listening if isinstance(address, Address))
        self.front = (LOOPBACK, port)

    def step_local(self) -> None:
        self.local.loop.step(0)

    def step_server(self) -> None:
        self.server.loop.step(0)


class Floor:
    def __init__(self) -> None:
        self._local, self._server = _floor("local"), _floor("server")
        key = os.urandom(32)
        server = self._server.listen((LOOPBACK, 0), functools.partial(self._server.Server, key))
        way = functools.partial(self._local.Local, key, server.getsockname())
        self.front = self._local.listen((LOOPBACK, 0), way).getsockname()

    def step_local(self) -> None:
        self._local.step(0)

    def step_server(self) -> None:
        self._server.step(0)


def _floor(name: str) -> ModuleType:
    """Return a floor with a loop of its own: its state is its module's."""
    spec = importlib.util.spec_from_file_location(f"bench.floor_{name}", Path(__file__).parent / "floor.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class Round:
    """``COUNT`` connections through ``pair`` at once, a few exchanges on each, and their ends."""

    EXCHANGES = 3

    def __init__(self, pair: Pair, target: socket.socket) -> None:
        self.pair, self.target = pair, target
        self.clients: list[socket.socket] = []
        self.targets: list[socket.socket] = []
        self.times: Times = defaultdict(float)

    def run(self) -> Times:
        """Return the seconds each end spent on a connection with its first exchange, and on a later one."""
        self._connect()
        self._exchange("connection")
        for _ in range(self.EXCHANGES):
            self._exchange("exchange")
        self._end()
        share = {"connection": COUNT, "exchange": COUNT * self.EXCHANGES}
        return defaultdict(float, {key: self.times[key] / share[key.split()[0]] for key in self.times})

    def _connect(self) -> None:
        host, port = self.target.getsockname()
        request = b"\x05\x01\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big")
        for _ in range(COUNT):
            self.clients.append(socket.create_connection(self.pair.front))
            self.clients[-1].setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._time("connection local", self.pair.step_local)
        for line, answer_size in ((b"\x05\x01\x00", 2), (request, 10)):
            for client in self.clients:
                client.send(line)
            self._time("connection local", self.pair.step_local)
            for client in self.clients:
                assert len(client.recv(100)) == answer_size
        self._time("connection server", self.pair.step_server)

    def _exchange(self, what: str) -> None:
        for client in self.clients:
            client.send(PING)
        self._time(f"{what} local", self.pair.step_local)
        self._time(f"{what} server", self.pair.step_server)
        if not self.targets:
            self.targets = [self.target.accept()[0] for _ in range(COUNT)]
        for target in self.targets:
            assert target.recv(200) == PING
            target.send(PONG)
        self._time(f"{what} server", self.pair.step_server)
        self._time(f"{what} local", self.pair.step_local)
        for client in self.clients:
            assert client.recv(200) == PONG

    def _end(self) -> None:
        for client in self.clients:
            client.close()
        for _ in range(2):
            self._time("connection local", self.pair.step_local)
            self._time("connection server", self.pair.step_server)
            while self.targets:
                target = self.targets.pop()
                assert target.recv(1) == b""
                target.close()
        self._time("connection server", self.pair.step_server)
        self._time("connection local", self.pair.step_local)

    def _time(self, key: str, step: Callable[[], None]) -> None:
        started_at = time.perf_counter()
        step()
        self.times[key] += time.perf_counter() - started_at


def main() -> None:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 60
    pairs: dict[str, Pair] = {"shadowrelay": Ours(), "floor": Floor()}
    figures: dict[str, dict[str, list[float]]] = {name: defaultdict(list) for name in pairs}
    with socket.create_server((LOOPBACK, 0), backlog=COUNT * 2) as target:
        for _ in range(rounds):
            for name, pair in pairs.items():
                for key, seconds in Round(pair, target).run().items():
                    figures[name][key].append(seconds * 1e6)
    print(f"{'µs, least and lower quartile':<30}" + "".join(f"{name:>18}" for name in figures))
    for key in sorted(figures["floor"]):
        cells = (sorted(of[key]) for of in figures.values())
        print(f"{key:<30}" + "".join(f"{cell[0]:>10.1f}{cell[len(cell) // 4]:>8.1f}" for cell in cells))


if __name__ == "__main__":
    main()
