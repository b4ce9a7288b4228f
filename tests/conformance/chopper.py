"""A wire between local and server that cuts: what passes goes on in pieces, each in a segment of its own.

The surprise: the first piece of each direction can be given a least size, since SIP022 lets a receiver
insist on reading the fixed header at once.
"""

from __future__ import annotations

import contextlib
import random
import socket
import threading
from collections.abc import Iterator

from tests.conformance.clients import dial
from tests.conformance.programs import free_port
from tests.conformance.targets import BLOCK


class Chopper:
    """Listens on ``port`` and carries to ``to``; pieces are 1 to ``largest`` bytes long."""

    def __init__(self, to: int, largest: int, first: tuple[int, int]) -> None:
        self.port = free_port()
        self._to, self._largest, self._first = to, largest, first
        self._listener = socket.create_server(("127.0.0.1", self.port), backlog=64)
        self._open: list[socket.socket] = [self._listener]
        self.pieces = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                server = dial(("127.0.0.1", self._to))
                for sock in (client, server):
                    sock.settimeout(60)
                self._open += (client, server)
                for pair, first in zip(((client, server), (server, client)), self._first, strict=True):
                    threading.Thread(target=self._carry, args=(*pair, first), daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket, first: int) -> None:
        rng = random.Random(first)
        with contextlib.suppress(OSError):
            waiting = b""
            while len(waiting) < first:
                data = source.recv(BLOCK)
                if not data:
                    break
                waiting += data
            if waiting:
                sink.sendall(waiting[:first])
                waiting = waiting[first:]
            while data := waiting or source.recv(BLOCK):
                waiting, at = b"", 0
                while at < len(data):
                    size = rng.randint(1, self._largest)
                    sink.sendall(data[at : at + size])
                    at += size
                    self.pieces += 1
            sink.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        for sock in self._open:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()


@contextlib.contextmanager
def chopping(to: int, largest: int, first: tuple[int, int]) -> Iterator[Chopper]:
    """Run a chopper before port ``to``; ``first`` are the least first pieces, up and down."""
    chopper = Chopper(to, largest, first)
    try:
        yield chopper
    finally:
        chopper.close()
