"""``floor``: the least that a relay in CPython can be, to show how much is left to gain.

    python -m bench.floor local CONFIG
    python -m bench.floor server CONFIG

It speaks SOCKS5 and aes-256-gcm over a bare epoll loop, and makes the system calls and the library calls
that cannot be left out. It has no timeout, limit, log, check, half-close or name, and whatever fails closes
both sides. A read must be one chunk and a send must be taken whole, as they are with exchanges and
connections of the load generator. Nobody should relay through it.
"""

from __future__ import annotations

import functools
import json
import os
import select
import socket
import sys
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from bench import floor_udp
from common.crypto.methods import evp_bytes_to_key

READ = 2048  # bytes
UDP_ASSOCIATE = b"\x03"
SALT_SIZE = 32
GREETING, CONNECTED = b"\x05\x00", b"\x05\x00\x00\x01" + bytes(6)

Code = Callable[[bytes], bytes]

_poll = select.epoll()
_on_readable: dict[int, Callable[[], None]] = {}


def watch(sock: socket.socket, on_readable: Callable[[], None]) -> None:
    _on_readable[sock.fileno()] = on_readable
    _poll.register(sock.fileno(), select.EPOLLIN)


def dial(address: tuple[str, int]) -> socket.socket:
    """Loopback answers at once."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.connect_ex(address)
    return sock


def sealer(key: bytes, salt: bytes) -> Code:
    encrypt = AESGCM(HKDF(hashes.SHA1(), 32, salt, b"ss-subkey").derive(key)).encrypt
    count = 0

    def seal(data: bytes) -> bytes:
        nonlocal count
        first, count = count, count + 2
        length = encrypt(first.to_bytes(12, "little"), len(data).to_bytes(2, "big"), None)
        return length + encrypt((first + 1).to_bytes(12, "little"), data, None)

    return seal


def opener(key: bytes, salt: bytes) -> Code:
    decrypt = AESGCM(HKDF(hashes.SHA1(), 32, salt, b"ss-subkey").derive(key)).decrypt
    count = 0

    def open_chunk(data: bytes) -> bytes:
        nonlocal count
        first, count = count, count + 2
        decrypt(first.to_bytes(12, "little"), data[:18], None)
        return decrypt((first + 1).to_bytes(12, "little"), data[18:], None)

    return open_chunk


class Connection:
    """A client's socket, the one that leads on, and what is done to the bytes each way."""

    __slots__ = ("client", "down", "key", "remote", "up")

    def __init__(self, key: bytes, client: socket.socket) -> None:
        self.key, self.client = key, client
        self.remote = client  # until there is one
        self.up: Code
        self.down: Code

    def go(self, client: Callable[[], None], remote: Callable[[], None]) -> None:
        _on_readable[self.client.fileno()] = client
        watch(self.remote, remote)

    def pump_up(self) -> None:
        data = self.client.recv(READ)
        if data:
            self.remote.send(self.up(data))
        else:
            self.close()

    def pump_down(self) -> None:
        data = self.remote.recv(READ)
        if data:
            self.client.send(self.down(data))
        else:
            self.close()

    def close(self) -> None:
        for sock in (self.client, self.remote):
            _on_readable.pop(sock.fileno(), None)
            sock.close()


class Local(Connection):
    __slots__ = ("server", "target")

    def __init__(self, key: bytes, server: tuple[str, int], client: socket.socket) -> None:
        super().__init__(key, client)
        self.server, self.target = server, b""
        watch(client, self.on_greeting)

    def on_greeting(self) -> None:
        self.client.recv(READ)
        self.client.send(GREETING)
        _on_readable[self.client.fileno()] = self.on_request

    def on_request(self) -> None:
        request = self.client.recv(READ)
        if request[1:2] == UDP_ASSOCIATE:
            self.client.send(floor_udp.associate(self.key, self.server, watch))
            _on_readable[self.client.fileno()] = self.close
            return
        self.target = request[3:]
        self.remote = dial(self.server)
        self.client.send(CONNECTED)
        self.go(self.on_first, self.on_answer)

    def on_first(self) -> None:
        salt = os.urandom(SALT_SIZE)
        self.up = sealer(self.key, salt)
        self.remote.send(salt + self.up(self.target + self.client.recv(READ)))
        _on_readable[self.client.fileno()] = self.pump_up

    def on_answer(self) -> None:
        data = self.remote.recv(READ)
        self.down = opener(self.key, data[:SALT_SIZE])
        self.client.send(self.down(data[SALT_SIZE:]))
        _on_readable[self.remote.fileno()] = self.pump_down


class Server(Connection):
    __slots__ = ()

    def __init__(self, key: bytes, client: socket.socket) -> None:
        super().__init__(key, client)
        watch(client, self.on_first)

    def on_first(self) -> None:
        data = self.client.recv(READ)
        self.up = opener(self.key, data[:SALT_SIZE])
        plain = self.up(data[SALT_SIZE:])
        self.remote = dial((socket.inet_ntoa(plain[1:5]), int.from_bytes(plain[5:7], "big")))
        self.remote.send(plain[7:])
        self.go(self.pump_up, self.on_answer)

    def on_answer(self) -> None:
        data = self.remote.recv(READ)
        salt = os.urandom(SALT_SIZE)
        self.down = sealer(self.key, salt)
        self.client.send(salt + self.down(data))
        _on_readable[self.remote.fileno()] = self.pump_down


def listen(address: tuple[str, int], new: Callable[[socket.socket], Connection]) -> socket.socket:
    listener = socket.create_server(address, backlog=1024)
    listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    listener.setblocking(False)

    def accept() -> None:
        try:
            while True:
                new(listener.accept()[0]).client.setblocking(False)
        except BlockingIOError:
            pass

    watch(listener, accept)
    return listener


def step(timeout: float | None = None) -> None:
    for fd, _ in _poll.poll(timeout):
        on_readable = _on_readable.get(fd)
        if on_readable is not None:  # else it was closed in this batch
            try:
                on_readable()
            except (OSError, InvalidTag):
                on_readable.__self__.close()  # type: ignore[attr-defined]


def main() -> None:
    role, path = sys.argv[1:]
    with open(path) as file:
        config = json.load(file)
    key = evp_bytes_to_key(config["password"].encode(), 32)
    server = (config["server"], config["server_port"])
    new: Callable[[socket.socket], Connection] = functools.partial(Server, key)
    address = server
    if role == "local":
        new, address = functools.partial(Local, key, server), (config["local_address"], config["local_port"])
    else:
        floor_udp.serve(key, server, watch)
    listen(address, new)
    while True:
        step()


if __name__ == "__main__":
    main()
