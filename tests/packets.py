"""What tests of packets share: both ends on a still clock, users with known keys, the part of a relay."""

from __future__ import annotations

import os
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from common.crypto import Cipher, Family, Method
from common.crypto.identity import packet_hash, psk_hash
from tests.streams import clock, password_for

PEER = ("198.51.100.9", 4321)


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def client_end(cipher: Cipher, clock: Any = clock) -> Any:
    """Return a client's end, on the system's generator."""
    return cipher.client_packets(clock=clock, random=os.urandom)


def server_end(cipher: Cipher, clock: Any = clock) -> Any:
    return cipher.server_packets(clock=clock, random=os.urandom)


def pair(cipher: Cipher, clock: Any = clock) -> tuple[Any, Any]:
    return client_end(cipher, clock), server_end(cipher, clock)


def user_password(method: Method, number: int) -> str:
    """A password for one of many users: for SIP022 the key bytes are n, n+1, n+2, …"""
    if method.family is Family.SIP022:
        return b64encode(bytes((number + i) & 0xFF for i in range(method.key_size))).decode()
    return f"example password of user {number}"


def with_users(method: Method, count: int) -> Cipher:
    """A server's cipher with users named u1, u2, …; SIP022 with a key of its own, SIP004 without."""
    users = [(f"u{number}", user_password(method, number)) for number in range(1, count + 1)]
    return Cipher.from_password(
        method.name, password_for(method) if method.family is Family.SIP022 else "", users
    )


def of_user(method: Method, number: int) -> Cipher:
    """The cipher of one of these users' clients."""
    own = user_password(method, number)
    chain = f"{password_for(method)}:{own}" if method.family is Family.SIP022 else own
    return Cipher.from_password(method.name, chain)


def encrypt_block(key: bytes, block: bytes) -> bytes:
    return BlockCipher(AES(key), ECB()).encryptor().update(block)


def decrypt_block(key: bytes, block: bytes) -> bytes:
    return BlockCipher(AES(key), ECB()).decryptor().update(block)


def relayed_packet(wire: bytes, key: bytes, next_key: bytes) -> bytes:
    """What a relay (SIP023) with ``key`` makes of a packet for the holder of ``next_key``."""
    header = decrypt_block(key, wire[:16])
    assert packet_hash(lambda block: decrypt_block(key, block), header, wire[16:32]) == psk_hash(next_key)
    return encrypt_block(next_key, header) + wire[32:]
