"""A second, independent reading of SIP004, to send a server what a well-behaved client never would.

salt(32) | seal(length) | seal(payload) | …          aes-256-gcm, nonce +1 after every seal
"""

from __future__ import annotations

import hashlib
import os
import socket

from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

METHOD = "aes-256-gcm"
SIZE = 32  # of key and salt, bytes
TAG = 16


def master_key(password: str) -> bytes:
    """EVP_BytesToKey with MD5, no salt, one round."""
    key = block = b""
    while len(key) < SIZE:
        block = hashlib.md5(block + password.encode()).digest()
        key += block
    return key[:SIZE]


class Direction:
    """One direction of a stream: its key from the salt, and its nonce."""

    def __init__(self, password: str, salt: bytes) -> None:
        kdf = HKDF(algorithm=SHA1(), length=SIZE, salt=salt, info=b"ss-subkey")
        self._aead = AESGCM(kdf.derive(master_key(password)))
        self._count = 0

    def seal(self, data: bytes) -> bytes:
        return self._aead.encrypt(self._nonce(), data, None)

    def open(self, data: bytes) -> bytes:
        return self._aead.decrypt(self._nonce(), data, None)

    def chunk(self, payload: bytes, length: int | None = None) -> bytes:
        """Return one chunk; ``length`` is what it claims, when that is not the truth."""
        claimed = len(payload) if length is None else length
        return self.seal(claimed.to_bytes(2, "big")) + self.seal(payload)

    def _nonce(self) -> bytes:
        self._count += 1
        return (self._count - 1).to_bytes(12, "little")


class Client:
    """The client's end: ``salt`` once, then what ``up.chunk`` makes; ``receive`` opens replies."""

    def __init__(self, password: str) -> None:
        self.salt = os.urandom(SIZE)
        self.up = Direction(password, self.salt)
        self._password = password
        self._down: Direction | None = None

    def flight(self, *payloads: bytes) -> bytes:
        """Return the salt and one chunk per payload."""
        return self.salt + b"".join(self.up.chunk(payload) for payload in payloads)

    def receive(self, sock: socket.socket) -> bytes:
        """Return the payload of the next chunk; EOFError at the end of the stream."""
        if self._down is None:
            self._down = Direction(self._password, _exactly(sock, SIZE))
        length = int.from_bytes(self._down.open(_exactly(sock, 2 + TAG)), "big")
        return self._down.open(_exactly(sock, length + TAG))


def address(host: str, port: int) -> bytes:
    """Return the address header of an IPv4 literal or a name."""
    try:
        return b"\x01" + socket.inet_aton(host) + port.to_bytes(2, "big")
    except OSError:
        return b"\x03" + bytes([len(host)]) + host.encode() + port.to_bytes(2, "big")


def _exactly(sock: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        if not (piece := sock.recv(size - len(data))):
            raise EOFError
        data += piece
    return data
