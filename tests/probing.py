"""Many strangers at once: what each sends, how it ends for it, and whether the ends can be told apart.

A ``Probe`` is one connection: the pieces it sends, when, and whether it then ends its side. ``observe``
plays many together, in random order, and returns what each has seen. ``p_value`` says how likely two
groups of times would be if they came from the same distribution (two-sample Kolmogorov-Smirnov).

The surprise: since the order is random, whatever disturbs the machine disturbs every group alike, and the
test stays exact however busy the machine is.
"""

from __future__ import annotations

import bisect
import errno
import heapq
import itertools
import math
import random
import selectors
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass, field

PACE = 0.001  # seconds between two probes: ports that are served in turns would differ in a crowd
RESETS = (errno.ECONNRESET, errno.EPIPE, errno.ENOTCONN)
PATIENCE = 60.0  # seconds until a probe that has not ended fails the test


@dataclass(frozen=True)
class Probe:
    """``labels`` are the groups it belongs to; ``delays`` are seconds from its start, one for each piece."""

    port: int
    pieces: tuple[bytes, ...]
    delays: tuple[float, ...]
    ends: bool
    labels: frozenset[str] = field(default_factory=frozenset)


@dataclass(frozen=True)
class Sight:
    """What one probe has seen: bytes, the kind of end, and seconds from its start to it.

    With ``Probe.ends`` the seconds are counted from the end of its own side.
    """

    probe: Probe
    received: bytes
    kind: str
    seconds: float


def in_pieces(data: bytes, count: int, rng: random.Random) -> tuple[bytes, ...]:
    """Cut ``data`` at random places, into one to ``count`` pieces."""
    cuts = sorted({0, len(data), *(rng.randrange(len(data) + 1) for _ in range(count - 1))})
    return tuple(data[start:end] for start, end in itertools.pairwise(cuts)) or (data,)


def observe(probes: Sequence[Probe], host: str = "127.0.0.1") -> list[Sight]:
    """Start all of them, in random order, and return what they saw when all have ended."""
    with selectors.DefaultSelector() as selector:
        crowd = _Crowd(selector, host)
        try:
            for probe in random.sample(probes, len(probes)):
                crowd.start(probe)
                crowd.collect(PACE)
            given_up = time.monotonic() + PATIENCE
            while selector.get_map():
                assert time.monotonic() < given_up, f"{len(selector.get_map())} probes have not ended"
                crowd.collect(1.0)
        finally:
            for key in list(selector.get_map().values()):
                assert isinstance(key.fileobj, socket.socket)
                key.fileobj.close()
    return crowd.sights


class _Crowd:
    """The probes under way."""

    def __init__(self, selector: selectors.BaseSelector, host: str) -> None:
        self.selector, self.host = selector, host
        self.sights: list[Sight] = []
        self._due: list[tuple[float, int, socket.socket, bytes, bool]] = []
        self._numbers = itertools.count()
        self._began: dict[socket.socket, float] = {}
        self._broken: set[socket.socket] = set()  # it was ``send`` that met the reset

    def start(self, probe: Probe) -> None:
        now = time.monotonic()
        sock = socket.create_connection((self.host, probe.port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sock.setblocking(False)
        self._began[sock] = now
        self.selector.register(sock, selectors.EVENT_READ, probe)
        steps = zip(probe.pieces, probe.delays, strict=True)
        for number, (piece, delay) in enumerate(steps, 1):
            last = probe.ends and number == len(probe.pieces)
            heapq.heappush(self._due, (now + delay, next(self._numbers), sock, piece, last))
        self._send_due()

    def collect(self, wait: float) -> None:
        """Send what is due, and see what has ended, for ``wait`` seconds at most."""
        self._send_due()
        if self._due:
            wait = min(wait, max(0.0, self._due[0][0] - time.monotonic()))
        for key, _ in self.selector.select(wait):
            assert isinstance(key.fileobj, socket.socket)
            self._see(key.fileobj, key.data)

    def _send_due(self) -> None:
        while self._due and self._due[0][0] <= time.monotonic():
            _, _, sock, piece, last = heapq.heappop(self._due)
            if sock.fileno() < 0:
                continue  # it has ended already
            try:
                sock.send(piece)
                if last:
                    self._began[sock] = time.monotonic()
                    sock.shutdown(socket.SHUT_WR)
            except OSError:
                self._broken.add(sock)

    def _see(self, sock: socket.socket, probe: Probe) -> None:
        seconds = time.monotonic() - self._began.pop(sock)
        received = b""
        try:
            received = sock.recv(65536)
            kind = "bytes" if received else "RST" if sock in self._broken else "FIN"
        except ConnectionResetError:
            kind = "RST"
        if kind == "FIN" and not probe.ends:
            kind = f"FIN, then {_after_fin(sock)}"
        self.selector.unregister(sock)
        sock.close()
        self.sights.append(Sight(probe, received, kind, seconds))


def _after_fin(sock: socket.socket) -> str:
    """Tell whether the other end still takes bytes. On loopback it answers before ``send`` returns."""
    try:
        sock.send(b"x")
        code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
    except OSError as exc:
        code = exc.errno or 0
    return "RST" if code in RESETS else "silence"


def p_value(one: Sequence[float], other: Sequence[float]) -> float:
    """Return how likely it is that two samples of one distribution differ as much as these do."""
    first, second = sorted(one), sorted(other)
    if not first or not second:
        return 1.0
    distance = max(
        abs(bisect.bisect_right(first, value) / len(first) - bisect.bisect_right(second, value) / len(second))
        for value in {*first, *second}
    )
    effective = math.sqrt(len(first) * len(second) / (len(first) + len(second)))
    scaled = (effective + 0.12 + 0.11 / effective) * distance
    if scaled < 0.2:
        return 1.0
    terms = (2 * (-1) ** (k - 1) * math.exp(-2 * (k * scaled) ** 2) for k in range(1, 101))
    return min(1.0, max(0.0, sum(terms)))
