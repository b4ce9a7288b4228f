"""Both ends at once: a LocalApp and a ServerApp in one process, over loopback, driven step by step.

No threads and no second process: what the test does not do itself happens inside ``step``. With one
loop the two apps even share a batch of events and the codecs' scratch buffers, which is the harder
case; with two they are as apart as in two processes.

``Peer`` is what a client or an origin is here: a non-blocking socket with something to say.
"""

from __future__ import annotations

import contextlib
import errno
import resource
import selectors
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

from common.app import RelayApp
from common.config.schema import Config, Local, Server
from common.config.schema import Secret as ConfiguredSecret
from common.net.loop import EventLoop
from common.proto.address import Address, encode_address
from sslocal import LocalApp
from ssserver import ServerApp

AnyApp = TypeVar("AnyApp", bound=RelayApp)

LOOPBACK = Address("127.0.0.1", 0)
LIMIT = 20.0  # seconds of real time until a test that is stuck fails
STEP = 0.001  # seconds a step waits for the kernel, which moves loopback bytes by itself

PASSWORDS = {
    "2022-blake3-aes-128-gcm": "AAAAAAAAAAAAAAAAAAAAAA==",
    "2022-blake3-aes-256-gcm": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
    "2022-blake3-chacha20-poly1305": "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
}


def server_entry(address: Address = LOOPBACK, method: str = "aes-256-gcm") -> Server:
    return Server(address, method, ConfiguredSecret(PASSWORDS.get(method, "correct horse")))


def configured(servers: tuple[Server, ...], **options: Any) -> Config:
    """A configuration on loopback that leaves the limits of this process as they are."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    options = {"forbidden_ip": (), "nofile": soft, **options}
    local = Local(options.pop("local", LOOPBACK), auth=options.pop("auth", ()))
    return Config(source="test", servers=servers, **{"locals": (local,), **options})


def started(make: Callable[[], AnyApp]) -> AnyApp:
    """A running app; another is made when UDP cannot have the port that TCP was given for port 0."""
    for _ in range(50):  # somebody else may have most of them
        app = make()
        try:
            app.start()
        except OSError as exc:
            if exc.errno != errno.EADDRINUSE:
                raise
        else:
            return app
    raise AssertionError("no port is free for TCP and UDP")


@contextlib.contextmanager
def making(app_class: type[AnyApp]) -> Iterator[Callable[..., AnyApp]]:
    """Start apps, each from servers and further options of its configuration; stopped at the end."""
    apps: list[AnyApp] = []

    def make(*servers: Server, **options: Any) -> AnyApp:
        apps.append(app_class(configured(servers or (server_entry(),), **options)))
        apps[-1].start()
        return apps[-1]

    yield make
    for app in apps:
        app.stop()
        app.loop.close()


class Peer:
    """A non-blocking socket: ``say`` queues bytes, ``poke`` moves what can be moved, ``heard`` is what came.

    ``bite`` is the most it reads at once, and ``mute`` keeps it from reading at all.
    """

    def __init__(self, sock: socket.socket) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.left = b""
        self.heard = bytearray()
        self.ending = self.ended = self.broken = False
        self.bite = 65536
        self.mute = False

    def say(self, data: bytes) -> Peer:
        self.left += data
        return self

    def end(self) -> Peer:
        """End our side once everything is said."""
        self.ending = True
        return self

    def reset(self) -> None:
        """Leave with RST."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    @property
    def gone(self) -> bool:
        """The other side has ended, or broken, the connection."""
        return self.ended or self.broken

    def poke(self) -> None:
        if self.sock.fileno() < 0:
            return
        try:
            self._write()
            self._read()
        except (BrokenPipeError, ConnectionResetError):
            self.broken = True

    def _write(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.left:
                self.left = self.left[self.sock.send(self.left) :]
        if self.ending and not self.left:
            self.ending = False
            self.sock.shutdown(socket.SHUT_WR)

    def _read(self) -> None:
        if self.ended or self.mute:
            return
        with contextlib.suppress(BlockingIOError):
            data = self.sock.recv(self.bite)
            self.heard += data
            self.ended = not data


class AppPair:
    """A running pair; ``dial`` makes clients, ``accept`` takes what reached the target."""

    def __init__(
        self,
        *,
        method: str = "aes-256-gcm",
        loops: int = 1,
        selector: Callable[[], selectors.BaseSelector] | None = None,
        buffers: int | None = None,
        local: dict[str, Any] | None = None,
        server: dict[str, Any] | None = None,
    ) -> None:
        self.loops = [EventLoop(selector=selector and selector()) for _ in range(loops)]
        self.buffers = buffers
        entry = server_entry(method=method)
        self.server = started(lambda: ServerApp(configured((entry,), **(server or {})), self.loops[-1]))
        upstream = server_entry(self.server.listening[0], method)
        self.local = started(lambda: LocalApp(configured((upstream,), **(local or {})), self.loops[0]))
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.target = Address(*self.listener.getsockname())
        self.peers: list[Peer] = []
        if buffers:
            listeners = [relay.sock for app in (self.local, self.server) for relay in app._relays]
            for sock in (*listeners, self.listener):
                set_buffers(sock, buffers)
        self.idle = [loop.statistics() for loop in self.loops]

    def step(self) -> None:
        for peer in self.peers:
            peer.poke()
        for loop in self.loops:
            loop.step(STEP)

    def drive(self, until: Callable[[], object]) -> None:
        """Step until ``until()`` is true."""
        deadline = time.monotonic() + LIMIT
        while not until():
            assert time.monotonic() < deadline, "nothing happens any more"
            self.step()

    def dial(self, front: Address | None = None) -> Peer:
        """A client of the local front, or of another one, connected."""
        sock = socket.socket()
        if self.buffers:
            set_buffers(sock, self.buffers)
        sock.connect(front or self.local.listening[0])
        return self._peer(sock)

    def tunnel(self, front: str, target: Address | None = None) -> Peer:
        """A client that has asked, in one of three protocols, and whose request was answered."""
        client = self.dial()
        request, reply = asking(front, target or self.target)
        client.say(request)
        self.drive(lambda: len(client.heard) >= len(reply) or client.gone)
        assert bytes(client.heard) == reply
        client.heard.clear()
        return client

    def accept(self) -> Peer:
        """The next connection that reaches the target."""
        found: list[socket.socket] = []

        def arrived() -> bool:
            with contextlib.suppress(BlockingIOError):
                found.append(self.listener.accept()[0])
            return bool(found)

        self.drive(arrived)
        return self._peer(found[0])

    def check_idle(self) -> None:
        """Nothing is left of any connection, in either app (R8)."""
        self.drive(lambda: not self.handlers)
        assert [loop.statistics() for loop in self.loops] == self.idle
        for app in (self.local, self.server):
            assert app.statistics()["connections"] == 0
            assert app._allowance.held == 0

    @property
    def handlers(self) -> list[Any]:
        return [
            handler
            for app in (self.local, self.server)
            for relay in app._relays
            for handler in relay.handlers
        ]

    def close(self) -> None:
        self.local.stop()
        self.server.stop()
        self.listener.close()
        for peer in self.peers:
            peer.sock.close()
        for loop in self.loops:
            loop.close()

    def _peer(self, sock: socket.socket) -> Peer:
        self.peers.append(Peer(sock))
        return self.peers[-1]


def asking(front: str, target: Address) -> tuple[bytes, bytes]:
    """A whole request for a tunnel, and the whole reply to it."""
    if front == "socks5":
        reply = b"\x05\x00\x05\x00\x00\x01\0\0\0\0\0\0"
        return b"\x05\x01\x00\x05\x01\x00" + encode_address(target), reply
    if front == "socks4":
        request = b"\x04\x01%b%b\x00" % (target.port.to_bytes(2, "big"), socket.inet_aton(target.host))
        return request, b"\x00\x5a" + bytes(6)
    request = f"CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n".encode()
    return request, b"HTTP/1.1 200 Connection established\r\n\r\n"


def set_buffers(sock: socket.socket, size: int) -> None:
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, size)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, size)


@contextlib.contextmanager
def running_pair(**options: Any) -> Iterator[AppPair]:
    pair = AppPair(**options)
    try:
        yield pair
    finally:
        pair.close()
