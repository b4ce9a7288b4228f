"""XChaCha20-Poly1305 against the draft's vectors and a ChaCha20 written out."""

from __future__ import annotations

import struct

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto.xchacha import XChaCha20Poly1305, hchacha20


def test_hchacha20_vector():
    """draft-irtf-cfrg-xchacha-03, section 2.2.1."""
    key = bytes(range(32))
    nonce = bytes.fromhex("000000090000004a0000000031415927")
    assert hchacha20(key, nonce) == bytes.fromhex(
        "82413b4227b27bfed30e42508a877d73a0f9e4d58a74a853c12ec41326d3ecdc"
    )


def test_aead_vector():
    """draft-irtf-cfrg-xchacha-03, appendix A.3.1."""
    aead = XChaCha20Poly1305(bytes(range(0x80, 0xA0)))
    nonce = bytes(range(0x40, 0x58))
    associated = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
    plain = (
        b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
        b"sunscreen would be it."
    )
    sealed = bytes.fromhex(
        "bd6d179d3e83d43b9576579493c0e939572a1700252bfaccbed2902c21396cbb731c7f1b0b4aa6440bf3a82f4eda7e39"
        "ae64c6708c54c216cb96b72e1213b4522f8c9ba40db5d945b11b69b982c1bb9e3f3fac2bc369488f76b2383565d3fff9"
        "21f9664c97637da9768812f615c68b13b52ec0875924c1c7987947deafd8780acf49"
    )
    assert aead.encrypt(nonce, plain, associated) == sealed  # type: ignore[arg-type]
    assert aead.decrypt(nonce, sealed, associated) == plain  # type: ignore[arg-type]


def written_out(key: bytes, nonce: bytes) -> bytes:
    """HChaCha20 as section 2.2 defines it: twenty rounds, first and last row, no addition."""
    state = [
        *struct.unpack("<4I", b"expand 32-byte k"),
        *struct.unpack("<8I", key),
        *struct.unpack("<4I", nonce),
    ]

    def add_rotate(a: int, b: int, c: int, bits: int) -> None:
        state[a] = (state[a] + state[b]) & 0xFFFFFFFF
        mixed = state[c] ^ state[a]
        state[c] = (mixed << bits | mixed >> 32 - bits) & 0xFFFFFFFF

    for number in range(80):
        column, diagonal = number % 8 % 4, number % 8 // 4
        a, b, c, d = (4 * row + (column + row * diagonal) % 4 for row in range(4))
        add_rotate(a, b, d, 16)
        add_rotate(c, d, b, 12)
        add_rotate(a, b, d, 8)
        add_rotate(c, d, b, 7)
    return struct.pack("<8I", *state[:4], *state[12:])


@settings(max_examples=50, deadline=None)
@given(key=st.binary(min_size=32, max_size=32), nonce=st.binary(min_size=16, max_size=16))
def test_hchacha20_is_as_defined(key, nonce):
    assert hchacha20(key, nonce) == written_out(key, nonce)


@pytest.mark.parametrize("counter", [b"\xff\xff\xff\xff", b"\xff\xff\xff\x7f", b"\0\0\0\0"])
def test_hchacha20_where_a_block_counter_would_wrap(counter):
    """The nonce's first word is no counter here, whatever the library makes of it."""
    key, nonce = bytes(range(32)), counter + bytes(12)
    assert hchacha20(key, nonce) == written_out(key, nonce)


@settings(max_examples=25, deadline=None)
@given(data=st.binary(max_size=200), nonce=st.binary(min_size=24, max_size=24))
def test_into_gives_the_same(data, nonce):
    aead = XChaCha20Poly1305(bytes(range(32)))
    sealed = aead.encrypt(nonce, data, None)
    room = memoryview(bytearray(len(sealed)))
    assert aead.encrypt_into(nonce, data, None, room) == len(sealed)
    assert bytes(room) == sealed
    room = memoryview(bytearray(len(data)))
    assert aead.decrypt_into(nonce, memoryview(sealed), None, room) == len(data)
    assert bytes(room) == data == aead.decrypt(nonce, sealed, None)


def test_a_flipped_bit_anywhere_is_refused():
    aead, nonce = XChaCha20Poly1305(bytes(32)), bytes(24)
    sealed = bytearray(aead.encrypt(nonce, b"payload", None))
    for place in range(8 * len(sealed)):
        sealed[place // 8] ^= 1 << place % 8
        with pytest.raises(InvalidTag):
            aead.decrypt(nonce, sealed, None)
        with pytest.raises(InvalidTag):
            aead.decrypt_into(nonce, sealed, None, memoryview(bytearray(7)))
        sealed[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize("size", [0, 16, 31, 33])
def test_a_key_is_32_bytes(size):
    with pytest.raises(ValueError, match="must be 32 bytes"):
        XChaCha20Poly1305(bytes(size))
