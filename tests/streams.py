"""What tests of stream ciphers share: a scripted generator, ciphers with known keys, ways to feed.

Nothing here is a second implementation: expected bytes come from the vectors, or from the bare AEAD in
the test that needs them.
"""

from __future__ import annotations

import os
from base64 import b64encode
from collections.abc import Callable, Iterable
from typing import Any

from common.crypto import METHODS, Cipher, Method
from common.crypto.aead import poison
from common.proto.address import Address

NOW = 1_700_000_000.0  # the time of the vectors
TARGET = Address("192.0.2.7", 443)
METHOD_NAMES = tuple(METHODS)
AEAD_NAMES = tuple(name for name in METHODS if name != "none")


class Script:
    """A ``random`` that hands out these bytes in order, and insists on the sizes asked for."""

    def __init__(self, *parts: bytes) -> None:
        self.parts = list(parts)

    def __call__(self, size: int) -> bytes:
        assert self.parts, f"{size} random bytes too many"
        part = self.parts.pop(0)
        assert len(part) == size
        return part


class Filter:
    """A replay filter that tells what it was asked: ``seen`` holds the salts in order."""

    def __init__(self) -> None:
        self.seen: list[bytes] = []

    def add(self, salt: bytes, now: float) -> bool:
        assert now == NOW
        self.seen.append(salt)
        return salt not in self.seen[:-1]

    def knows(self, salt: bytes) -> bool:
        return salt in self.seen


class Accepting:
    """A server's end as a parser, for ``every_way``: done with the target; the payload is left over."""

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        self.leftover = b""

    def feed(self, data: bytes) -> Address | None:
        found = self.stream.accept(data)
        if found is None:
            return None
        address, self.leftover = found
        return address


def clock() -> float:
    return NOW


def password_for(method: Method) -> str:
    """A password that any test of the method may use: the key bytes are 0, 1, 2, …"""
    return b64encode(bytes(range(method.key_size))).decode()


def cipher_for(name: str) -> Cipher:
    return Cipher.from_password(name, password_for(METHODS[name]))


def pair(cipher: Cipher, salts: Any = None, segmented: bool = True) -> tuple[Any, Any]:
    """Return a client's and a server's end of one stream, on the system's generator and a still clock."""
    client = cipher.client_stream(TARGET, clock=clock, random=os.urandom)
    server = cipher.server_stream(
        clock=clock, random=os.urandom, salts=salts or cipher.replay_memory().streams, segmented=segmented
    )
    return client, server


def copied(codec: Callable[[Any], Any], pieces: Iterable[bytes]) -> bytes:
    """Feed a codec piece by piece, the way a relay does: copy, then forget. The scratch never survives."""
    out = b""
    for piece in pieces:
        out += bytes(codec(memoryview(piece)))
        poison()
    return out
