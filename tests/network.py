"""A laptop, the world, and a wire between them that can be slow, lossy or cut.

    laptop ══ wire0 ═══ Wire, a thread of the test ═══ wire0 ══ world
    192.168.77.2                                       198.51.100.1   the server
                                                       198.51.100.53  a resolver
                                                       203.0.113.7    targets

Both ends are TUN devices, so every packet is the kernel's own TCP, and what happens to it on its way
is up to the ``Wire``. That is what netem does, without asking for a kernel that was built with it.
"""

from __future__ import annotations

import contextlib
import fcntl
import functools
import heapq
import itertools
import os
import random
import select
import struct
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.e2e.clients import Response, get, open_tunnel
from tests.netns import Namespace, hosts, why_not
from tests.origin import Handler, Origin
from tests.processes import Pair, Program, free_ports, new_password, running, write_config

LAPTOP, OTHER_LAPTOP = "192.168.77.2", "192.168.78.2"
LAPTOPS = "192.168.0.0/16"
SERVER, RESOLVER, TARGET = "198.51.100.1", "198.51.100.53", "203.0.113.7"
DEVICE = "wire0"
MTU = 1500
TUNSETIFF, IFF_TUN, IFF_NO_PI = 0x400454CA, 0x0001, 0x1000
METHOD = "2022-blake3-aes-128-gcm"


class Wire:
    """Carries packets between two TUN devices, both ways alike.

    ``latency`` is seconds one way, ``loss`` the share of packets dropped, 0 to 1, and while ``cut`` is
    set nothing arrives. All three may be changed at any time; what is on its way when the wire is cut
    is lost with it.
    """

    def __init__(self, near: Namespace, far: Namespace) -> None:
        self.latency = self.loss = 0.0
        self.cut = False
        self.dropped = 0
        self._random = random.Random(1)
        self._ends = [_open_tun(near), _open_tun(far)]
        self._reader, self._waker = os.pipe()
        self._thread = threading.Thread(target=self._carry, name="wire", daemon=True)
        self._thread.start()

    def close(self) -> None:
        os.close(self._waker)
        self._thread.join()
        for fd in (*self._ends, self._reader):
            os.close(fd)

    def _carry(self) -> None:
        near, far = self._ends
        other = {near: far, far: near}
        poll = select.poll()
        for fd in (near, far, self._reader):
            poll.register(fd, select.POLLIN)
        under_way: list[tuple[float, int, int, bytes]] = []
        numbers = itertools.count()
        while True:
            wait = max(0.0, under_way[0][0] - time.monotonic()) * 1000 if under_way else None
            for fd, _ in poll.poll(wait):
                if fd == self._reader:
                    return
                for packet in _packets(fd):
                    if self.cut or self._random.random() < self.loss:
                        self.dropped += 1
                    else:
                        due = time.monotonic() + self.latency
                        heapq.heappush(under_way, (due, next(numbers), other[fd], packet))
            while under_way and (self.cut or under_way[0][0] <= time.monotonic()):
                _, _, fd, packet = heapq.heappop(under_way)
                if self.cut:
                    self.dropped += 1
                    continue
                with contextlib.suppress(OSError):  # that end is down
                    os.write(fd, packet)


def _packets(fd: int) -> Iterator[bytes]:
    """What has come in, but no more than a batch, so that the other direction has its turn."""
    with contextlib.suppress(OSError):
        for _ in range(64):
            yield os.read(fd, MTU + 64)


def _open_tun(host: Namespace) -> int:
    with host.entered():
        fd = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    try:
        fcntl.ioctl(fd, TUNSETIFF, struct.pack("16sH", DEVICE.encode(), IFF_TUN | IFF_NO_PI))
    except OSError:
        os.close(fd)
        raise
    return fd


@dataclass(frozen=True)
class Network:
    """The two hosts and what is between them."""

    laptop: Namespace
    world: Namespace
    wire: Wire

    def move(self, address: str, *, away_from: str | None = None) -> None:
        """Give the laptop ``address`` and take its old one, as another network does."""
        if away_from is not None:
            self.laptop.ip("address", "del", f"{away_from}/24", "dev", DEVICE)
        self.laptop.ip("address", "add", f"{address}/24", "dev", DEVICE)
        self.laptop.ip("route", "replace", "default", "dev", DEVICE)

    @contextlib.contextmanager
    def serve(self, handler: Handler, address: str = TARGET) -> Iterator[Origin]:
        """Run an ``Origin`` in the world."""
        with self.world.entered():
            origin = Origin(handler, address)
        try:
            yield origin
        finally:
            origin.close()

    @contextlib.contextmanager
    def tunnel(self, pair: Pair, target: tuple[str, int]) -> Iterator:
        """Yield a SOCKS5 tunnel of a client on the laptop."""
        with contextlib.ExitStack() as stack:
            with self.laptop.entered():
                sock = stack.enter_context(open_tunnel("socks5", pair.local_port, target))
            yield sock

    def get(self, pair: Pair, url: str) -> Response:
        """Fetch ``url`` from the laptop."""
        with self.laptop.entered():
            return get(pair.local_port, url)

    @contextlib.contextmanager
    def pair(
        self,
        folder: Path,
        *,
        local_config: Mapping[str, object] | None = None,
        server_config: Mapping[str, object] | None = None,
    ) -> Iterator[Pair]:
        """Run sslocal on the laptop and ssserver in the world; both must come to a good end."""
        local_port, server_port = free_ports(2)
        both = {"server": SERVER, "server_port": server_port, "method": METHOD}
        both |= {"password": new_password(METHOD), "timeout": 60}
        with (
            self.running(folder, "ssserver", {**both, "forbidden_ip": [], **(server_config or {})}) as server,
            self.running(
                folder, "sslocal", {**both, "local_port": local_port, **(local_config or {})}
            ) as local,
        ):
            yield Pair(local, server, local_port, server_port, METHOD, str(both["password"]))

    @contextlib.contextmanager
    def running(self, folder: Path, module: str, settings: Mapping[str, object]) -> Iterator[Program]:
        """Run one of ours on its host; its log must hold no fault, and it must exit with 0."""
        host = self.laptop if module == "sslocal" else self.world
        number = len(list(folder.glob(f"{module}-*.json")))
        config = write_config(folder / f"{module}-{number}.json", settings)
        argv = host.argv(sys.executable, "-m", module, "-c", str(config))
        with running(Program(argv, config.with_suffix(".log"))) as program:
            program.wait_ready()
            yield program


@functools.cache
def why_no_network() -> str | None:
    """Return why there can be no such network here, or None when there can."""
    reason = why_not()
    if reason is None and not os.path.exists("/dev/net/tun"):
        return "this kernel has no TUN devices"
    return reason


@contextlib.contextmanager
def network_or_skip() -> Iterator[Network]:
    """Make the network, or skip the test and say why; what was made is removed in any case."""
    reason = why_no_network()
    if reason is not None:
        pytest.skip(reason)
    with hosts("laptop", "world") as (laptop, world):
        wire = Wire(laptop, world)
        try:
            for host in (laptop, world):
                host.ip("link", "set", "lo", "up")
                host.ip("link", "set", DEVICE, "up", "mtu", str(MTU), "txqueuelen", "2000")
            for address in (SERVER, RESOLVER, TARGET):
                world.ip("address", "add", f"{address}/32", "dev", "lo")
            world.ip("route", "add", LAPTOPS, "dev", DEVICE, "src", SERVER)
            net = Network(laptop, world, wire)
            net.move(LAPTOP)
            yield net
        finally:
            wire.close()
