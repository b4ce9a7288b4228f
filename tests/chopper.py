"""``Chopper``: a TCP proxy that re-cuts what passes through it, to prove that boundaries mean nothing.

The surprise: pieces sent without a pause are joined again by the kernel of a receiver that is not quick
enough. ``strict`` says for how many bytes of each direction the next piece waits until the receiver has
read the one before (Linux).
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from tests.origin import BLOCK, Origin
from tests.waiting import wait_until

Cut = Callable[[memoryview], Iterable[memoryview]]


def whole(data: memoryview) -> Iterable[memoryview]:
    """No cut: pieces as they were read."""
    return (data,)


def byte_by_byte(data: memoryview) -> Iterable[memoryview]:
    return (data[i : i + 1] for i in range(len(data)))


def in_random_pieces(seed: int, largest: int = 4096) -> Cut:
    """Pieces of 1 to ``largest`` bytes, small ones as likely as big ones, the same for one seed."""
    dice = random.Random(seed)

    def cut(data: memoryview) -> Iterator[memoryview]:
        start = 0
        while start < len(data):
            size = min(largest, int(2 ** dice.uniform(0, largest.bit_length())))
            yield data[start : start + size]
            start += size

    return cut


def unread_by_peer(sock: socket.socket) -> int:
    """Bytes in the receive queue of the other end of ``sock``; 0 when that is closed (IPv4, Linux)."""
    ours, theirs = sock.getsockname()[1], sock.getpeername()[1]
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        _, local, remote, _, queues = line.split()[:5]
        if int(local[-4:], 16) == theirs and int(remote[-4:], 16) == ours:
            return int(queues.partition(":")[2], 16)
    return 0


class Chopper:
    """Listens on a free port, passes each connection to ``target`` through ``cut``.

    ``captured`` holds, per connection, every byte the client sent, and ``first_reads`` what its
    first segment brought.
    """

    def __init__(self, target: tuple[str, int], cut: Cut = whole, strict: int = 0) -> None:
        self.target = target
        self.cut = cut
        self.strict = strict
        self.captured: list[bytearray] = []
        self.first_reads: list[bytes] = []
        self._origin = Origin(self._relay)
        self.port = self._origin.port

    @property
    def live(self) -> int:
        return self._origin.live

    def close(self) -> None:
        self._origin.close()

    def _relay(self, client: socket.socket) -> None:
        record = bytearray()
        self.captured.append(record)
        with socket.create_connection(self.target) as server:
            for sock in (client, server):
                sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            down = threading.Thread(target=self._copy, args=(server, client, None), daemon=True)
            down.start()
            self._copy(client, server, record)
            down.join()

    def _copy(self, source: socket.socket, sink: socket.socket, record: bytearray | None) -> None:
        buffer = memoryview(bytearray(BLOCK))
        strict = self.strict
        try:
            while count := source.recv_into(buffer):
                if record is not None:
                    if not record:
                        self.first_reads.append(bytes(buffer[:count]))
                    record += buffer[:count]
                for piece in self.cut(buffer[:count]):
                    sink.sendall(piece)
                    if strict > 0:
                        strict -= len(piece)
                        wait_until(lambda: not unread_by_peer(sink))
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            for sock in (source, sink):
                with contextlib.suppress(OSError):
                    sock.shutdown(socket.SHUT_RDWR)


@contextlib.contextmanager
def chopper(target: tuple[str, int], cut: Cut = whole, strict: int = 0) -> Iterator[Chopper]:
    """Run a ``Chopper`` for the length of a ``with`` block."""
    proxy = Chopper(target, cut, strict)
    try:
        yield proxy
    finally:
        proxy.close()
