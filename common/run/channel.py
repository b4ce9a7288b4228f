"""``Channel``: what a supervisor and one of its workers tell each other.

    message = one JSON object on a line, over a pair of Unix sockets

    worker ──►  {"ready": …}  {"failed": …, "code": …}  {"drained": …}  {"statistics": {…}}
    worker ◄──  {"ask": "statistics"}

Its end is a message, too: the kernel closes the socket of a process that is gone, in whatever way it
went. So no worker outlives its supervisor.
"""

from __future__ import annotations

import contextlib
import json
import logging
import socket
from collections.abc import Callable
from typing import Any

from common.net.loop import READ, EventLoop

PATIENCE = 2.0  # seconds that a message may wait for the other end to read
_READ_SIZE = 64 * 1024

Message = dict[str, Any]

logger = logging.getLogger("shadowrelay.process")


class Channel:
    """One end. ``on_message`` gets every message; ``on_end`` is called once, when the other end is gone."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        on_message: Callable[[Message], None],
        on_end: Callable[[], None],
    ) -> None:
        self._loop, self._sock = loop, sock
        self._on_message, self._on_end = on_message, on_end
        self._unfinished = b""
        sock.settimeout(PATIENCE)
        loop.watch(sock, READ, 0, self)

    def send(self, message: Message) -> None:
        """Send a message; one that nobody takes is lost."""
        send(self._sock, message)

    def on_event(self, mask: int) -> None:
        if self._sock.fileno() < 0:
            return
        data = b""
        with contextlib.suppress(OSError):
            data = self._sock.recv(_READ_SIZE)
        if not data:
            self.close()
            self._on_end()
            return
        *lines, self._unfinished = (self._unfinished + data).split(b"\n")
        for line in lines:
            self._on_message(json.loads(line))

    def on_fault(self, exc: Exception) -> None:
        logger.error("a message could not be acted on", exc_info=exc)

    def finish(self) -> None:
        """The other process is gone: act on what it still said, and close."""
        while self._sock.fileno() >= 0:
            self.on_event(READ)

    def abandon(self) -> None:
        """Close in a forked process, whose loop is another one."""
        self._sock.close()

    def close(self) -> None:
        """Close. Idempotent."""
        if self._sock.fileno() >= 0:
            self._loop.watch(self._sock, 0, READ, self)
            self._sock.close()


def send(sock: socket.socket, message: Message) -> None:
    """Send a message without a loop."""
    with contextlib.suppress(OSError):
        sock.sendall(json.dumps(message).encode() + b"\n")
