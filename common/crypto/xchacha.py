"""XChaCha20-Poly1305 (draft-irtf-cfrg-xchacha), which ``cryptography`` lacks.

    subkey = HChaCha20(key, nonce[:16])          nonce of 24 bytes
    ChaCha20-Poly1305(subkey, 4 zero bytes || nonce[16:])

HChaCha20 is the ChaCha20 block function without its last step, the addition of the input. So the
library's own block, with the input subtracted again, gives it without a round written in Python.

The surprise: a stream's counter stands in the *first* bytes of the nonce, inside HChaCha20's part, so
every seal and open needs a new subkey, and nothing can be kept between them.
"""

from __future__ import annotations

import struct

from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20

Buffer = bytes | bytearray | memoryview

KEY_SIZE, NONCE_SIZE = 32, 24  # bytes

_BLOCK = bytes(64)
_WORDS = struct.Struct("<4I32x4I")  # the first and the last row of the block
_ROW = struct.Struct("<4I")
_KEY = struct.Struct("<8I")
_CONSTANTS = _ROW.unpack(b"expand 32-byte k")


def hchacha20(key: bytes, nonce: bytes) -> bytes:
    """Return the 32-byte subkey for a 32-byte ``key`` and a 16-byte ``nonce`` (section 2.2)."""
    block = Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(_BLOCK)
    added = _CONSTANTS + _ROW.unpack(nonce)
    return _KEY.pack(
        *((word - old) & 0xFFFFFFFF for word, old in zip(_WORDS.unpack(block), added, strict=True))
    )


class XChaCha20Poly1305:
    """The AEAD of one 32-byte key, with the methods of ``cryptography``'s own; nonces are 24 bytes."""

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_SIZE:
            raise ValueError(f"XChaCha20-Poly1305 key must be {KEY_SIZE} bytes, got {len(key)}")
        self._key = key

    def encrypt(self, nonce: bytes, data: Buffer, associated_data: None, /) -> bytes:
        return self._inner(nonce).encrypt(_inner_nonce(nonce), data, associated_data)

    def decrypt(self, nonce: bytes, data: Buffer, associated_data: None, /) -> bytes:
        return self._inner(nonce).decrypt(_inner_nonce(nonce), data, associated_data)

    def encrypt_into(self, nonce: bytes, data: Buffer, associated_data: None, buf: memoryview, /) -> int:
        return self._inner(nonce).encrypt_into(_inner_nonce(nonce), data, associated_data, buf)

    def decrypt_into(self, nonce: bytes, data: Buffer, associated_data: None, buf: memoryview, /) -> int:
        return self._inner(nonce).decrypt_into(_inner_nonce(nonce), data, associated_data, buf)

    def _inner(self, nonce: bytes) -> ChaCha20Poly1305:
        return ChaCha20Poly1305(hchacha20(self._key, nonce[:16]))


def _inner_nonce(nonce: bytes) -> bytes:
    return b"\0\0\0\0" + nonce[16:]
