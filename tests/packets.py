"""What tests of packets share: both ends on a still clock, users with known keys, the part of a relay."""

from __future__ import annotations

import os
import struct
from base64 import b64encode
from typing import Any

from cryptography.hazmat.primitives.ciphers import Cipher as BlockCipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from common.crypto import METHODS, Cipher, Family, Method, ReplayMemory
from common.crypto.identity import packet_hash, psk_hash
from common.crypto.methods import keys_from_password
from common.crypto.ss2022_packet import Form, new_form
from common.proto.address import encode_address
from tests.streams import NOW, TARGET, clock, password_for

PEER = ("198.51.100.9", 4321)
ADDRESS = encode_address(TARGET)
SESSION = b"session!"  # an id


class Clock:
    """A clock that a test sets."""

    def __init__(self, now: float) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def client_end(cipher: Cipher, clock: Any = clock) -> Any:
    """Return a client's end, on the system's generator."""
    return cipher.client_packets(clock=clock, random=os.urandom)


def server_end(cipher: Cipher, clock: Any = clock, memory: ReplayMemory | None = None) -> Any:
    return cipher.server_packets(clock=clock, random=os.urandom, memory=memory or cipher.replay_memory())


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


def own_form(name: str) -> Form:
    """The form of packets for the key of ``cipher_for``."""
    method = METHODS[name]
    return new_form(method, keys_from_password(method, password_for(method)))


def request(
    name: str,
    packet_id: int = 0,
    *,
    session: bytes = SESSION,
    kind: int = 0,
    time: int = int(NOW),
    padding_size: int = 0,
    rest: bytes = ADDRESS + b"hello",
) -> bytes:
    """A SIP022 request written out; ``rest`` is all behind the padding length."""
    form = own_form(name)
    body = struct.pack(">BQH", kind, time, padding_size) + rest
    header = session + packet_id.to_bytes(8, "big")
    return form.seal(form.session(session), header, body, os.urandom)


def response(
    name: str,
    client: Any,
    packet_id: int = 0,
    *,
    session: bytes = SESSION,
    kind: int = 1,
    time: int = int(NOW),
    answers: bytes | None = None,
) -> bytes:
    """A SIP022 response written out; it answers the client's session, or another."""
    form = own_form(name)
    answers = client._sender.session_id if answers is None else answers
    body = struct.pack(">BQ8sH", kind, time, answers, 0) + ADDRESS + b"hello"
    header = session + packet_id.to_bytes(8, "big")
    return form.seal(form.session(session), header, body, os.urandom)
