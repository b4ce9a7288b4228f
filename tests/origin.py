"""Targets for the relay to reach: threaded servers on loopback, each with one way of behaving.

``serve(handler)`` runs ``handler(sock)`` in a thread for every connection it accepts; the handlers
that tests share are made by the functions below, and ``tests/http_origin.py`` adds a web site.

The surprise: an origin ends by shutting its live sockets down, so a handler blocked in ``recv`` or
``send`` returns with an OSError or an empty read, and the thread is always joined.
"""

from __future__ import annotations

import contextlib
import hashlib
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator

Handler = Callable[[socket.socket], None]
BLOCK = 64 * 1024


class Origin:
    """A listening target. ``accepted`` counts its connections since the start."""

    def __init__(
        self,
        handler: Handler,
        host: str = "127.0.0.1",
        *,
        buffers: int | None = None,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        """Listen on a free port of ``host``. ``buffers`` sets SO_SNDBUF and SO_RCVBUF, in bytes."""
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._listener = socket.socket(family, socket.SOCK_STREAM)
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if buffers is not None:
            set_buffers(self._listener, buffers)
        self._listener.bind((host, 0))
        self._listener.listen(1024)
        self._handler = handler
        self._tls = tls
        self._threads: list[threading.Thread] = []
        self._live: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = False
        self.accepted = 0
        self.host = host
        self.port: int = self._listener.getsockname()[1]
        self._start(self._accept)

    @property
    def address(self) -> tuple[str, int]:
        return self.host, self.port

    @property
    def authority(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    @property
    def live(self) -> int:
        """How many of its connections have a handler running."""
        with self._lock:
            return len(self._live)

    def close(self) -> None:
        """Stop accepting, end every live connection, wait for the threads."""
        with self._lock:
            self._closing = True
            live = list(self._live)
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        for sock in live:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    def _start(self, run: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=run, args=args, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            with self._lock:
                if self._closing:
                    sock.close()
                    return
                self._live.add(sock)
                self.accepted += 1
            self._start(self._run, sock)

    def _run(self, raw: socket.socket) -> None:
        sock = raw
        try:
            if self._tls is not None:
                sock = self._tls.wrap_socket(raw, server_side=True)
            self._handler(sock)
        except (OSError, EOFError):
            pass  # the other end, or close(), ended it
        finally:
            with self._lock:
                self._live.discard(raw)
            sock.close()
            raw.close()


@contextlib.contextmanager
def serve(
    handler: Handler,
    host: str = "127.0.0.1",
    *,
    buffers: int | None = None,
    tls: ssl.SSLContext | None = None,
) -> Iterator[Origin]:
    """Run an ``Origin`` for the length of a ``with`` block."""
    origin = Origin(handler, host, buffers=buffers, tls=tls)
    try:
        yield origin
    finally:
        origin.close()


def set_buffers(sock: socket.socket, size: int) -> None:
    """Ask the kernel for send and receive buffers of ``size`` bytes (it doubles and floors them)."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


class Pace:
    """Holds a loop to ``rate`` bytes per second; None lets it run."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._start = time.monotonic()
        self._done = 0

    def moved(self, count: int) -> None:
        """Account for ``count`` bytes, and wait until they were due."""
        if self._rate is None:
            return
        self._done += count
        early = self._start + self._done / self._rate - time.monotonic()
        if early > 0:
            time.sleep(early)


class Received:
    """What one reader has read so far: ``size`` and ``digest()``.

    ``ended`` is set at EOF, or earlier when ``expected`` bytes are there.
    """

    def __init__(self, expected: int | None = None) -> None:
        self.expected = expected
        self.size = 0
        self.ended = threading.Event()
        self._hash = hashlib.sha256()

    def add(self, data: bytes | memoryview) -> None:
        self._hash.update(data)
        self.size += len(data)
        if self.size == self.expected:
            self.ended.set()

    def digest(self) -> str:
        return self._hash.hexdigest()


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def read_to_end(sock: socket.socket, into: Received, rate: float | None = None) -> None:
    """Read until EOF, no faster than ``rate`` bytes per second."""
    pace = Pace(rate)
    buffer = memoryview(bytearray(BLOCK))
    while count := sock.recv_into(buffer):
        into.add(buffer[:count])
        pace.moved(count)
    into.ended.set()


def send_paced(sock: socket.socket, data: bytes, rate: float | None = None) -> None:
    """Send all of ``data``, no faster than ``rate`` bytes per second."""
    pace = Pace(rate)
    view = memoryview(data)
    for start in range(0, len(view), BLOCK):
        sock.sendall(view[start : start + BLOCK])
        pace.moved(BLOCK)


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()


# -- handlers ------------------------------------------------------------------------------


def echo(sock: socket.socket) -> None:
    """Send back what comes, and EOF after EOF."""
    buffer = memoryview(bytearray(BLOCK))
    while count := sock.recv_into(buffer):
        sock.sendall(buffer[:count])
    sock.shutdown(socket.SHUT_WR)


def discard(sock: socket.socket) -> None:
    """Read to the end and say nothing."""
    read_to_end(sock, Received())


def flood(sock: socket.socket) -> None:
    """Send for as long as the peer takes it."""
    block = bytes(BLOCK)
    while True:
        sock.sendall(block)


def source(data: bytes, rate: float | None = None) -> Handler:
    """Send ``data`` at once, then EOF, then read to the end."""

    def handler(sock: socket.socket) -> None:
        send_paced(sock, data, rate)
        sock.shutdown(socket.SHUT_WR)
        discard(sock)

    return handler


def sink(received: Received, rate: float | None = None) -> Handler:
    """Read to the end no faster than ``rate``, then send the digest."""

    def handler(sock: socket.socket) -> None:
        read_to_end(sock, received, rate)
        sock.sendall(received.digest().encode())

    return handler


def duplex(data: bytes, received: Received, rate: float | None = None) -> Handler:
    """Send ``data`` and read, both at once, reading no faster than ``rate``; end after the peer."""

    def handler(sock: socket.socket) -> None:
        def send() -> None:
            with contextlib.suppress(OSError):
                sock.sendall(data)

        sender = threading.Thread(target=send, daemon=True)
        sender.start()
        try:
            read_to_end(sock, received, rate)
        finally:
            sender.join()

    return handler


def reply_after_end(received: Received, reply: bytes) -> Handler:
    """Read to EOF first, then send ``reply``."""

    def handler(sock: socket.socket) -> None:
        read_to_end(sock, received)
        sock.sendall(reply)

    return handler


def half_close_first(first: bytes, received: Received) -> Handler:
    """Send ``first`` and EOF at once, then read to the end."""

    def handler(sock: socket.socket) -> None:
        sock.sendall(first)
        sock.shutdown(socket.SHUT_WR)
        read_to_end(sock, received)

    return handler


def reset_after(data: bytes, go: threading.Event) -> Handler:
    """Send ``data``, wait for ``go``, then reset the connection."""

    def handler(sock: socket.socket) -> None:
        sock.sendall(data)
        go.wait(10.0)
        reset(sock)

    return handler


# -- addresses that do not work ------------------------------------------------------------


@contextlib.contextmanager
def refused_port(host: str = "127.0.0.1") -> Iterator[int]:
    """Hold a port that refuses connections: bound, never listening."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as sock:
        sock.bind((host, 0))
        yield sock.getsockname()[1]


@contextlib.contextmanager
def black_hole() -> Iterator[int]:
    """Hold a port whose accept queue is full: a connect neither succeeds nor fails (Linux)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.bind(("127.0.0.1", 0))
        listener.listen(0)
        address = listener.getsockname()
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex(address)
        yield address[1]
