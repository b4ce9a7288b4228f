"""What both protocol families share: methods, keys, address headers and AEADs, for the kit's own codec.

Written from the published texts (SIP004, SIP007, SIP022, RFC 8439, draft-irtf-cfrg-xchacha) and from nothing
else, so that a program is not tested against its own code. It is small rather than fast: the kit seals
little itself, bulk data goes through the pair under test.

The surprise: ``XChaCha20Poly1305`` is made of HChaCha20 in plain Python, which no library here offers.
"""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import secrets
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM, ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

TAG = 16
WORDS = struct.Struct("<16I")
SIGMA = struct.unpack("<4I", b"expand 32-byte k")
QUARTERS = (
    *((0, 4, 8, 12), (1, 5, 9, 13), (2, 6, 10, 14), (3, 7, 11, 15)),
    *((0, 5, 10, 15), (1, 6, 11, 12), (2, 7, 8, 13), (3, 4, 9, 14)),
)


class Broken(Exception):
    """Bytes that are not what the protocol allows here."""


class AEAD(Protocol):
    def encrypt(self, nonce: bytes, data: bytes, associated_data: None) -> bytes: ...
    def decrypt(self, nonce: bytes, data: bytes, associated_data: None) -> bytes: ...


def _rotated(word: int, by: int) -> int:
    return (word << by | word >> (32 - by)) & 0xFFFFFFFF


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return 32 bytes made of a key of 32 and a nonce of 16."""
    x = [*SIGMA, *struct.unpack("<8I", key), *struct.unpack("<4I", nonce)]
    for _ in range(10):
        for a, b, c, d in QUARTERS:
            for first, other, third, by in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
                x[first] = (x[first] + x[other]) & 0xFFFFFFFF
                x[third] = _rotated(x[third] ^ x[first], by)
    return struct.pack("<8I", *x[:4], *x[12:])


class XChaCha20Poly1305:
    """The AEAD with nonces of 24 bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def _inner(self, nonce: bytes) -> tuple[ChaCha20Poly1305, bytes]:
        return ChaCha20Poly1305(hchacha20(self._key, nonce[:16])), bytes(4) + nonce[16:]

    def encrypt(self, nonce: bytes, data: bytes, associated_data: None) -> bytes:
        inner, short = self._inner(nonce)
        return inner.encrypt(short, data, None)

    def decrypt(self, nonce: bytes, data: bytes, associated_data: None) -> bytes:
        inner, short = self._inner(nonce)
        return inner.decrypt(short, data, None)


@dataclass(frozen=True)
class Method:
    """One cipher as configured; salts are as long as keys, ``limit`` is the longest payload of a chunk."""

    name: str
    size: int
    nonce: int
    aead: Callable[[bytes], AEAD]
    is_2022: bool = False

    @property
    def limit(self) -> int:
        return 0xFFFF if self.is_2022 else 0x3FFF


METHODS = {
    method.name: method
    for method in (
        Method("aes-128-gcm", 16, 12, AESGCM),
        Method("aes-192-gcm", 24, 12, AESGCM),
        Method("aes-256-gcm", 32, 12, AESGCM),
        Method("chacha20-ietf-poly1305", 32, 12, ChaCha20Poly1305),
        Method("xchacha20-ietf-poly1305", 32, 24, XChaCha20Poly1305),
        Method("2022-blake3-aes-128-gcm", 16, 12, AESGCM, True),
        Method("2022-blake3-aes-256-gcm", 32, 12, AESGCM, True),
        Method("2022-blake3-chacha20-poly1305", 32, 12, ChaCha20Poly1305, True),
    )
}


def new_password(method: Method) -> str:
    """Return fresh key material in the form a configuration wants."""
    return base64.b64encode(os.urandom(method.size)).decode() if method.is_2022 else secrets.token_urlsafe(18)


def master_key(method: Method, password: str) -> bytes:
    """Return what all keys are made of: the decoded PSK, or OpenSSL's EVP_BytesToKey of the password."""
    if method.is_2022:
        return base64.b64decode(password)
    made = last = b""
    while len(made) < method.size:
        last = hashlib.md5(last + password.encode()).digest()
        made += last
    return made[: method.size]


def ss_subkey(key: bytes, salt: bytes) -> bytes:
    """Return the key of one SIP004 stream direction or packet."""
    return HKDF(hashes.SHA1(), len(key), salt, b"ss-subkey").derive(key)


class Counting:
    """An AEAD under a nonce that counts up from zero, little endian, with every use."""

    def __init__(self, method: Method, key: bytes) -> None:
        self._aead, self._size, self._count = method.aead(key), method.nonce, 0

    def _nonce(self) -> bytes:
        nonce = self._count.to_bytes(self._size, "little")
        self._count += 1
        return nonce

    def seal(self, data: bytes) -> bytes:
        return self._aead.encrypt(self._nonce(), data, None)

    def open(self, data: bytes) -> bytes:
        try:
            return self._aead.decrypt(self._nonce(), data, None)
        except InvalidTag:
            raise Broken("a tag does not match") from None

    def chunk(self, data: bytes) -> bytes:
        """Return one sealed chunk: its length, then ``data``."""
        return self.seal(len(data).to_bytes(2, "big")) + self.seal(data)


class Chunks:
    """The receiving end of chunks: bytes in, payload out."""

    def __init__(self, counting: Counting) -> None:
        self._counting, self._rest, self._length = counting, b"", None

    def feed(self, data: bytes) -> bytes:
        self._rest += data
        opened = b""
        while True:
            size = 2 + TAG if self._length is None else self._length + TAG
            if len(self._rest) < size:
                return opened
            part, self._rest = self._rest[:size], self._rest[size:]
            plain = self._counting.open(part)
            if self._length is None:
                self._length = int.from_bytes(plain, "big")
            else:
                opened, self._length = opened + plain, None


def address(host: str, port: int) -> bytes:
    """Return the address header of a host name or an IP address."""
    try:
        ip = ipaddress.ip_address(host)
    except ValueError:
        name = host.encode()
        return bytes((3, len(name))) + name + port.to_bytes(2, "big")
    return bytes((1 if ip.version == 4 else 4,)) + ip.packed + port.to_bytes(2, "big")


def split_address(data: bytes) -> tuple[tuple[str, int], bytes] | None:
    """Return host, port and what follows the header; None when it is not complete yet."""
    if len(data) < 2:
        return None
    size = {1: 4, 3: 1 + data[1], 4: 16}.get(data[0])
    if size is None:
        raise Broken(f"address type {data[0]}")
    if len(data) < 3 + size:
        return None
    packed, port = data[1 : 1 + size], int.from_bytes(data[1 + size : 3 + size], "big")
    host = packed[1:].decode() if data[0] == 3 else str(ipaddress.ip_address(packed))
    return (host, port), data[3 + size :]
