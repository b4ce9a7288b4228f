"""Identity headers (SIP023): how a client names its keys to the relays on the way, outermost first.

    in a stream  block i = AES-ECB( identity subkey of key i and salt, hash of key i+1 )
    in a packet  block i = AES-ECB( key i itself, hash of key i+1  XOR  separate header )

One block of 16 bytes for each key of the chain but the last; in a stream between the salt and the
sealed headers, in a packet behind the separate header. ``hash`` is the first 16 bytes of BLAKE3. The
surprise: they authenticate nothing. Who holds key i learns which key comes next; only the last one
opens the rest. What a server sends carries none.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

from common.crypto.xchacha import Buffer

Block = Callable[[Buffer], bytes]

BLOCK_SIZE = 16  # bytes, of AES and of a hash

_IDENTITY_CONTEXT = "shadowsocks 2022 identity subkey"


def block_encryptor(key: bytes) -> Block:
    """Return the AES of one key, block by block. To be kept: making it costs thirty times a block.

    It takes 16 bytes, no more and no less: a part of a block would stay inside and come out in front of
    the next.
    """
    return Cipher(AES(key), ECB()).encryptor().update


def block_decryptor(key: bytes) -> Block:
    """The same, backwards."""
    return Cipher(AES(key), ECB()).decryptor().update


def identity_headers(keys: tuple[bytes, ...], salt: bytes) -> bytes:
    """Return the blocks for a chain ``iPSK, …, uPSK`` and a request's ``salt``; nothing for a single key."""
    return b"".join(
        block_encryptor(identity_subkey(key, salt))(psk_hash(following)) for key, following in pairwise(keys)
    )


def identity_hash(key: bytes, salt: bytes, block: bytes) -> bytes:
    """Return the hash of the key that a stream's first block names to the holder of ``key``."""
    return block_decryptor(identity_subkey(key, salt))(block)


class PacketIdentity:
    """The blocks of a client's packets, for its chain of keys."""

    __slots__ = ("_steps",)

    def __init__(self, keys: tuple[bytes, ...]) -> None:
        self._steps = [(block_encryptor(key), psk_hash(following)) for key, following in pairwise(keys)]

    def headers(self, header: bytes) -> bytes:
        """Return the blocks for a packet's separate header, given as plain text."""
        return b"".join(encrypt(_xor(digest, header)) for encrypt, digest in self._steps)


def packet_hash(decrypt: Block, header: bytes, block: Buffer) -> bytes:
    """Return the hash of the key that a packet's first block names to who can decrypt it."""
    return _xor(decrypt(block), header)


def identity_subkey(psk: bytes, salt: bytes) -> bytes:
    """Return the key of one block in a stream: BLAKE3 key derivation, as long as ``psk``."""
    return blake3(psk + salt, derive_key_context=_IDENTITY_CONTEXT).digest(length=len(psk))


def psk_hash(psk: bytes) -> bytes:
    """Return the 16 bytes that stand for a key in a block."""
    return blake3(psk).digest(length=BLOCK_SIZE)


def _xor(one: bytes, other: bytes) -> bytes:
    return (int.from_bytes(one, "big") ^ int.from_bytes(other, "big")).to_bytes(BLOCK_SIZE, "big")
