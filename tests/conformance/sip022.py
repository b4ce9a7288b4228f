"""SIP022 from both sides: streams and packets, with every field that a test may want to be wrong.

    request   salt | seal(0, time u64, length u16) | seal(address, padding u16, padding, payload) | chunks
    response  salt | seal(1, time u64, request salt, length u16) | seal(payload) | chunks
    packet    AES       ECB(session 8, packet 8) | seal(body)
              ChaCha20  nonce 24 | seal(session 8, packet 8, body)
    body      0, time u64, padding u16, padding, address, payload; down 1, and the client's session
              after the time

``Shape`` says how a header differs from what it should be; the time is shifted by whole seconds.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass

from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from tests.conformance.sip004 import Region
from tests.conformance.wire import (
    TAG,
    Broken,
    Chunks,
    Counting,
    Method,
    XChaCha20Poly1305,
    master_key,
    split_address,
)

CONTEXT = "shadowsocks 2022 session subkey"


@dataclass(frozen=True)
class Shape:
    """What is unusual about a header: ``shift`` puts its clock ahead, ``echo`` is the salt it answers."""

    type: int | None = None
    shift: int = 0
    echo: bytes | None = None
    padding: int = 64


USUAL = Shape()


def subkey(key: bytes, salt: bytes) -> bytes:
    return blake3(key + salt, derive_key_context=CONTEXT).digest(length=len(key))


def stamp(shape: Shape, kind: int) -> bytes:
    """Return type and time, 9 bytes."""
    told = kind if shape.type is None else shape.type
    return bytes((told,)) + (int(time.time()) + shape.shift).to_bytes(8, "big")


class Client022:
    """One stream as a client sends it."""

    def __init__(
        self, method: Method, password: str, *, salt: bytes | None = None, shape: Shape = USUAL
    ) -> None:
        self.method, self._key, self._shape = method, master_key(method, password), shape
        self.salt = salt or os.urandom(method.size)
        self._up = Counting(method, subkey(self._key, self.salt))
        self._down: Chunks | None = None
        self._cipher: Counting | None = None
        self._waiting = b""
        self.regions: list[Region] = []
        self.fixed = method.size + 11 + TAG

    def flight(self, target: bytes, payload: bytes = b"") -> bytes:
        """Return the first bytes for the address header ``target``; ``regions`` then tells what is where."""
        padding = self._shape.padding
        variable = target + padding.to_bytes(2, "big") + bytes(padding) + payload
        fixed = stamp(self._shape, 0) + len(variable).to_bytes(2, "big")
        at = self.method.size
        self.regions = [("salt", 0, at)]
        sizes = (("type", 1), ("time", 8), ("length", 2), ("fixed tag", TAG))
        for name, size in (*sizes, ("variable header", len(variable)), ("variable tag", TAG)):
            self.regions.append((name, at, at + size))
            at += size
        return self.salt + self._up.seal(fixed) + self._up.seal(variable)

    def seal(self, data: bytes) -> bytes:
        limit = self.method.limit
        return b"".join(self._up.chunk(data[i : i + limit]) for i in range(0, len(data), limit))

    def open(self, data: bytes) -> bytes:
        if self._down is not None:
            return self._down.feed(data)
        self._waiting += data
        size = self.method.size
        head = size + 9 + size + 2 + TAG
        if len(self._waiting) < head:
            return b""
        if self._cipher is None:
            self._cipher = Counting(self.method, subkey(self._key, self._waiting[:size]))
            plain = self._cipher.open(self._waiting[size:head])
            if plain[0] != 1 or plain[9 : 9 + size] != self.salt:
                raise Broken("a response header that does not belong to this request")
            self._first = int.from_bytes(plain[-2:], "big") + TAG
        if len(self._waiting) < head + self._first:
            return b""
        payload = self._cipher.open(self._waiting[head : head + self._first])
        self._down = Chunks(self._cipher)
        return payload + self._down.feed(self._waiting[head + self._first :])


class Server022:
    """One stream as a server answers it."""

    def __init__(self, method: Method, password: str, *, shape: Shape = USUAL) -> None:
        self.method, self._key, self._shape = method, master_key(method, password), shape
        self._cipher: Counting | None = None
        self._up: Chunks | None = None
        self._down: Counting | None = None
        self._waiting = b""
        self._length = 0
        self.salt = self.request_salt = b""
        self.padding = 0
        self.regions: list[Region] = []
        self.fixed = method.size + 9 + method.size + 2 + TAG

    def accept(self, data: bytes) -> tuple[tuple[str, int], bytes] | None:
        """Return the target and the first payload once both are there; ``padding`` is how much there was."""
        self._waiting += data
        size = self.method.size
        head = size + 11 + TAG
        if len(self._waiting) < head:
            return None
        if self._cipher is None:
            self.request_salt = self._waiting[:size]
            self._cipher = Counting(self.method, subkey(self._key, self.request_salt))
            plain = self._cipher.open(self._waiting[size:head])
            if plain[0] != 0 or abs(int.from_bytes(plain[1:9], "big") - time.time()) > 30:
                raise Broken("a request header of another type or time")
            self._length = int.from_bytes(plain[9:], "big") + TAG
        if len(self._waiting) < head + self._length:
            return None
        found = split_address(self._cipher.open(self._waiting[head : head + self._length]))
        if found is None:
            raise Broken("a variable header that is cut short")
        target, rest = found
        self.padding = int.from_bytes(rest[:2], "big")
        self._up = Chunks(self._cipher)
        more = self._up.feed(self._waiting[head + self._length :])
        return target, rest[2 + self.padding :] + more

    def open(self, data: bytes) -> bytes:
        assert self._up is not None
        return self._up.feed(data)

    def seal(self, data: bytes) -> bytes:
        """Return a chunk; the first is the response header and ``regions`` tells of that one."""
        if self._down is not None:
            return self._down.chunk(data)
        self.salt = os.urandom(self.method.size)
        self._down = Counting(self.method, subkey(self._key, self.salt))
        echo = self.request_salt if self._shape.echo is None else self._shape.echo
        head = stamp(self._shape, 1) + echo + len(data).to_bytes(2, "big")
        at = size = self.method.size
        self.regions = [("salt", 0, at)]
        sizes = (("type", 1), ("time", 8), ("request salt", size), ("length", 2), ("header tag", TAG))
        for name, length in (*sizes, ("payload", len(data)), ("payload tag", TAG)):
            self.regions.append((name, at, at + length))
            at += length
        return self.salt + self._down.seal(head) + self._down.seal(data)


class _Packets:
    """One end of one session: its packets are sealed and the other's are opened."""

    def __init__(self, method: Method, password: str) -> None:
        self.method, self._key = method, master_key(method, password)
        self.session, self._next = os.urandom(8), 0
        self._is_aes = method.aead is AESGCM
        self.regions: list[Region] = []

    def _seal(self, body: bytes, number: int | None) -> bytes:
        if number is None:
            number, self._next = self._next, self._next + 1
        head = self.session + number.to_bytes(8, "big")
        if self._is_aes:
            sealed = AESGCM(subkey(self._key, self.session)).encrypt(head[4:], body, None)
            packet, name = self._block(encrypt=True, data=head) + sealed, "separate header"
        else:
            nonce = os.urandom(24)
            packet, name = nonce + XChaCha20Poly1305(self._key).encrypt(nonce, head + body, None), "nonce"
        start, end = 16 if self._is_aes else 24, len(packet) - TAG
        self.regions = [(name, 0, start), ("body", start, end), ("tag", end, len(packet))]
        return packet

    def _open(self, packet: bytes) -> tuple[bytes, bytes]:
        """Return the session and the body of a packet."""
        try:
            if self._is_aes:
                head = self._block(encrypt=False, data=packet[:16])
                cipher = AESGCM(subkey(self._key, head[:8]))
                return head[:8], cipher.decrypt(head[4:], packet[16:], None)
            plain = XChaCha20Poly1305(self._key).decrypt(packet[:24], packet[24:], None)
        except InvalidTag:
            raise Broken("a tag does not match") from None
        return plain[:8], plain[16:]

    def _block(self, *, encrypt: bool, data: bytes) -> bytes:
        cipher = Cipher(algorithms.AES(self._key), modes.ECB())
        turn = cipher.encryptor() if encrypt else cipher.decryptor()
        return turn.update(data) + turn.finalize()


def _unpadded(data: bytes) -> tuple[tuple[str, int], bytes]:
    """Return address and payload of what begins with a padding length."""
    found = split_address(data[2 + int.from_bytes(data[:2], "big") :])
    if found is None:
        raise Broken("an address header that is cut short")
    return found


def _padding(shape: Shape) -> bytes:
    return shape.padding.to_bytes(2, "big") + bytes(shape.padding)


class Packets022(_Packets):
    """The datagrams of one client session."""

    def seal(
        self, target: bytes, payload: bytes, *, shape: Shape = USUAL, number: int | None = None
    ) -> bytes:
        """Return one packet; its id is ``number``, or the next in order."""
        return self._seal(stamp(shape, 0) + _padding(shape) + target + payload, number)

    def open(self, packet: bytes) -> tuple[tuple[str, int], bytes]:
        """Return where a server's datagram says it comes from, and its payload."""
        _, body = self._open(packet)
        if body[0] != 1 or body[9:17] != self.session:
            raise Broken("a packet that is not for this session")
        return _unpadded(body[17:])


class Answers022(_Packets):
    """The datagrams of a server's session to the client that it heard from last."""

    client = bytes(8)

    def open(self, packet: bytes) -> tuple[tuple[str, int], bytes]:
        """Return where a client's datagram is to go, and its payload."""
        session, body = self._open(packet)
        if body[0] != 0:
            raise Broken("a packet that is not a client's")
        self.client = session
        return _unpadded(body[9:])

    def seal(
        self, source: bytes, payload: bytes, *, shape: Shape = USUAL, number: int | None = None
    ) -> bytes:
        """Return one packet that says it comes from ``source``."""
        told = self.client if shape.echo is None else shape.echo
        return self._seal(stamp(shape, 1) + told + _padding(shape) + source + payload, number)
