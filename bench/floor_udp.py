"""``floor`` for datagrams: the sockets, hops and keys of an echo, and nothing else.

    client ──► local ──► salt | seal(address | payload) ──► server ──► target, and back

What cannot be sent or opened is lost, and no socket is ever closed.
"""

from __future__ import annotations

import functools
import os
import socket
from collections.abc import Callable
from typing import Any

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

SALT_SIZE = 32
BATCH = 64  # datagrams for each event
NONCE = bytes(12)
PREFIX = bytes(3)  # before the address in a SOCKS5 datagram
ADDRESS_SIZE = 7

_RX = memoryview(bytearray(2048))
_SHA1 = hashes.SHA1()

Watch = Callable[[socket.socket, Callable[[], None]], None]


def associate(key: bytes, server: tuple[str, int], watch: Watch) -> bytes:
    """Return SOCKS5's reply with the address of a new association."""
    near, far = new_socket(), new_socket()
    near.bind(("127.0.0.1", 0))
    client: Any = None

    def up(data: memoryview, peer: Any) -> None:
        nonlocal client
        client = peer
        far.sendto(seal(key, data[len(PREFIX) :]), server)

    def down(data: memoryview, peer: Any) -> None:
        near.sendto(PREFIX + open_packet(key, data), client)

    watch(near, reading(near, up))
    watch(far, reading(far, down))
    host, port = near.getsockname()
    return b"\x05\x00\x00\x01" + socket.inet_aton(host) + port.to_bytes(2, "big")


def serve(key: bytes, address: tuple[str, int], watch: Watch) -> None:
    """Serve packets at ``address``, one socket for all targets of a client."""
    port = new_socket()
    port.bind(address)
    outlets: dict[Any, socket.socket] = {}

    def up(data: memoryview, peer: Any) -> None:
        plain = open_packet(key, data)
        outlet = outlets.get(peer) or open_outlet(peer)
        outlet.sendto(plain[ADDRESS_SIZE:], target(plain[:ADDRESS_SIZE]))

    def open_outlet(client: Any) -> socket.socket:
        outlet = outlets[client] = new_socket()

        def down(data: memoryview, peer: Any) -> None:
            port.sendto(seal(key, header(peer) + data), client)

        watch(outlet, reading(outlet, down))
        return outlet

    watch(port, reading(port, up))


def new_socket() -> socket.socket:
    return socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)


def reading(sock: socket.socket, on_datagram: Callable[[memoryview, Any], None]) -> Callable[[], None]:
    """Return what handles an event of ``sock``."""
    receive = sock.recvfrom_into

    def on_readable() -> None:
        try:
            for _ in range(BATCH):
                size, peer = receive(_RX)
                on_datagram(_RX[:size], peer)
        except (OSError, InvalidTag):
            pass  # mostly: there is none left

    return on_readable


def seal(key: bytes, plain: bytes | memoryview) -> bytes:
    salt = os.urandom(SALT_SIZE)
    return salt + cipher(key, salt).encrypt(NONCE, plain, None)


def open_packet(key: bytes, packet: memoryview) -> bytes:
    return cipher(key, bytes(packet[:SALT_SIZE])).decrypt(NONCE, packet[SALT_SIZE:], None)


def cipher(key: bytes, salt: bytes) -> AESGCM:
    return AESGCM(HKDF(_SHA1, len(key), salt, b"ss-subkey").derive(key))


@functools.lru_cache
def target(address: bytes) -> tuple[str, int]:
    return socket.inet_ntoa(address[1:5]), int.from_bytes(address[5:], "big")


@functools.lru_cache
def header(source: tuple[str, int]) -> bytes:
    return b"\x01" + socket.inet_aton(source[0]) + source[1].to_bytes(2, "big")
