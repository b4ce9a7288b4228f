"""Identity headers (SIP023): how a client names its keys to the relays on the way, outermost first.

    header i = AES-ECB( identity subkey of key i, first 16 bytes of BLAKE3(key i+1) )

One 16-byte block for each key of the chain but the last, between the salt and the sealed headers of
a request. The surprise: they authenticate nothing. Who holds key i learns which key comes next; only
the last one opens the stream. Responses carry none.
"""

from __future__ import annotations

from itertools import pairwise

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.algorithms import AES
from cryptography.hazmat.primitives.ciphers.modes import ECB

_IDENTITY_CONTEXT = "shadowsocks 2022 identity subkey"


def identity_headers(keys: tuple[bytes, ...], salt: bytes) -> bytes:
    """Return the blocks for a chain ``iPSK, …, uPSK`` and a request's ``salt``; nothing for a single key."""
    return b"".join(
        Cipher(AES(identity_subkey(key, salt)), ECB()).encryptor().update(psk_hash(following))
        for key, following in pairwise(keys)
    )


def identity_subkey(psk: bytes, salt: bytes) -> bytes:
    """Return the key of one block: BLAKE3 key derivation, as long as ``psk``."""
    return blake3(psk + salt, derive_key_context=_IDENTITY_CONTEXT).digest(length=len(psk))


def psk_hash(psk: bytes) -> bytes:
    """Return the 16 bytes that stand for a key in a block."""
    return blake3(psk).digest(length=16)
