"""SIP004 from both sides: the streams and packets that the kit sends to a server or answers a local with.

stream  salt | seal(length u16) | seal(payload) | …     up, the payload begins with the address header
packet  salt | seal(address header | payload)           under a nonce of zeros
"""

from __future__ import annotations

import os

from tests.conformance.wire import (
    TAG,
    Broken,
    Chunks,
    Counting,
    Method,
    master_key,
    split_address,
    ss_subkey,
)

Region = tuple[str, int, int]  # what it is, first byte, byte after the last


def chunk_regions(names: str, start: int, length: int) -> list[Region]:
    """Return the regions of a chunk of ``length`` that begins at ``start``; ``names`` says which chunk."""
    places, regions = (("length", 2), ("length tag", TAG), ("payload", length), ("payload tag", TAG)), []
    for name, size in places:
        regions.append((names + name, start, start + size))
        start += size
    return regions


class Client004:
    """One stream as a client sends it."""

    def __init__(self, method: Method, password: str, *, salt: bytes | None = None) -> None:
        self.method, self._key = method, master_key(method, password)
        self.salt = salt or os.urandom(method.size)
        self._up = Counting(method, ss_subkey(self._key, self.salt))
        self._down: Chunks | None = None
        self._waiting = b""
        self.regions: list[Region] = []
        self.fixed = 0  # bytes that a server may insist on reading at once

    def flight(self, target: bytes, payload: bytes = b"") -> bytes:
        """Return the first bytes for the address header ``target``; ``regions`` then tells what is where."""
        size = self.method.size
        self.regions = [("salt", 0, size), *chunk_regions("", size, len(target) + len(payload))]
        return self.salt + self._up.chunk(target + payload)

    def split_flight(self, target: bytes, payload: bytes, at: int) -> tuple[bytes, bytes]:
        """Return a flight whose address header is cut after ``at`` bytes, each part with its own chunk."""
        first = self.salt + self._up.chunk(target[:at])
        return first, self._up.chunk(target[at:] + payload)

    def seal(self, data: bytes) -> bytes:
        limit = self.method.limit
        return b"".join(self._up.chunk(data[i : i + limit]) for i in range(0, len(data), limit))

    def open(self, data: bytes) -> bytes:
        if self._down is None:
            self._waiting += data
            size = self.method.size
            if len(self._waiting) < size:
                return b""
            salt, data = self._waiting[:size], self._waiting[size:]
            self._down = Chunks(Counting(self.method, ss_subkey(self._key, salt)))
        return self._down.feed(data)


class Server004:
    """One stream as a server answers it."""

    def __init__(self, method: Method, password: str) -> None:
        self.method, self._key = method, master_key(method, password)
        self._up: Chunks | None = None
        self._down: Counting | None = None
        self._waiting = self._plain = b""
        self.salt = self.request_salt = b""
        self.regions: list[Region] = []
        self.fixed = 0

    def accept(self, data: bytes) -> tuple[tuple[str, int], bytes] | None:
        """Return the target and the first payload once both are there."""
        if self._up is None:
            self._waiting += data
            size = self.method.size
            if len(self._waiting) < size:
                return None
            self.request_salt, data = self._waiting[:size], self._waiting[size:]
            self._up = Chunks(Counting(self.method, ss_subkey(self._key, self.request_salt)))
        self._plain += self._up.feed(data)
        return split_address(self._plain)

    def open(self, data: bytes) -> bytes:
        assert self._up is not None
        return self._up.feed(data)

    def seal(self, data: bytes) -> bytes:
        """Return a chunk; before the first stands the salt, and ``regions`` tells of that one."""
        if self._down is not None:
            return self._down.chunk(data)
        self.salt = os.urandom(self.method.size)
        self._down = Counting(self.method, ss_subkey(self._key, self.salt))
        self.regions = [("salt", 0, len(self.salt)), *chunk_regions("", len(self.salt), len(data))]
        return self.salt + self._down.chunk(data)


class Packets004:
    """The datagrams of one client; SIP004 has no sessions."""

    def __init__(self, method: Method, password: str) -> None:
        self.method, self._key = method, master_key(method, password)
        self.regions: list[Region] = []

    def seal(self, target: bytes, payload: bytes) -> bytes:
        salt = os.urandom(self.method.size)
        cipher = Counting(self.method, ss_subkey(self._key, salt))
        packet = salt + cipher.seal(target + payload)
        end = len(packet) - TAG
        self.regions = [("salt", 0, len(salt)), ("body", len(salt), end), ("tag", end, len(packet))]
        return packet

    def open(self, packet: bytes) -> tuple[tuple[str, int], bytes]:
        """Return where a server's datagram says it comes from, and its payload."""
        size = self.method.size
        cipher = Counting(self.method, ss_subkey(self._key, packet[:size]))
        found = split_address(cipher.open(packet[size:]))
        if found is None:
            raise Broken("an address header that is cut short")
        return found
