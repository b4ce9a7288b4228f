"""UDP on fakes: sockets whose network is the test, and what stands in for the module that makes them."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable
from typing import Any

from common.net.loop import READ
from tests.fakes import FakeSocket, os_error


class FakeDatagramSocket:
    """An unconnected, non-blocking UDP socket for a ``FakeSelector``.

    ``queue`` holds datagrams with their senders, and errors to raise instead; ``sent`` holds what left,
    with where to; ``error`` is an errno that every ``sendto`` fails with.
    """

    def __init__(self, family: int = socket.AF_INET, name: tuple[Any, ...] = ("127.0.0.1", 1080)) -> None:
        self.number = next(FakeSocket._numbers)
        self.family, self.name = family, name
        self.queue: deque[tuple[bytes, Any] | OSError] = deque()
        self.sent: list[tuple[bytes, Any]] = []
        self.error: int | None = None
        self.closed = False
        self.blocking = True

    # -- the network -----------------------------------------------------------------------------

    def arrive(self, data: bytes, peer: Any) -> None:
        self.queue.append((data, peer))

    def take(self) -> list[tuple[bytes, Any]]:
        """What was sent since the last call."""
        sent, self.sent = self.sent, []
        return sent

    @property
    def ready(self) -> int:
        return READ if self.queue else 0

    # -- the socket ------------------------------------------------------------------------------

    def fileno(self) -> int:
        return -1 if self.closed else self.number

    def getsockname(self) -> tuple[Any, ...]:
        return self.name

    def setblocking(self, flag: bool) -> None:
        self.blocking = flag

    def recvfrom_into(self, buffer: memoryview) -> tuple[int, Any]:
        assert not self.closed, "read after it was closed"
        if not self.queue:
            raise BlockingIOError
        first = self.queue.popleft()
        if isinstance(first, OSError):
            raise first
        data, peer = first
        buffer[: len(data)] = data
        return len(data), peer

    def sendto(self, data: bytes | memoryview, peer: Any) -> int:
        assert not self.closed, "sent after it was closed"
        if self.error is not None:
            raise os_error(self.error)
        assert peer is not None
        self.sent.append((bytes(data), peer))
        return len(data)

    def close(self) -> None:
        self.closed = True


class Network:
    """Stands in for the module ``socket`` where UDP sockets are opened. ``opened`` are all, in order."""

    AF_INET, AF_INET6, SOCK_DGRAM = socket.AF_INET, socket.AF_INET6, socket.SOCK_DGRAM

    def __init__(self) -> None:
        self.opened: list[FakeDatagramSocket] = []
        self.error: int | None = None  # errno of the next attempts

    def socket(self, family: int, kind: int) -> FakeDatagramSocket:
        assert kind == socket.SOCK_DGRAM
        if self.error is not None:
            raise os_error(self.error)
        name = ("0.0.0.0" if family == socket.AF_INET else "::", 20_000 + len(self.opened))
        self.opened.append(FakeDatagramSocket(family, name))
        return self.opened[-1]

    @property
    def open(self) -> list[FakeDatagramSocket]:
        return [sock for sock in self.opened if not sock.closed]

    @property
    def last(self) -> FakeDatagramSocket:
        return self.opened[-1]


def recorder(replies: list[tuple[Any, bytes]]) -> Callable[[Any, Any], None]:
    """An ``on_reply`` that keeps copies."""

    def on_reply(source: Any, payload: Any) -> None:
        replies.append((source, bytes(payload)))

    return on_reply
