"""Datagrams that nobody would send, near the good ones and far from them: one source for all tests."""

from __future__ import annotations

import random
from collections.abc import Sequence

LARGEST = 2000  # bytes of random datagrams: beyond what a network carries in one piece


def strange_datagram(rng: random.Random, good: Sequence[bytes]) -> bytes:
    """Random bytes, or a good datagram cut, grown, flipped or crossed with another; never a good one."""
    example, other = bytearray(rng.choice(good)), rng.choice(good)
    match rng.randrange(6):
        case 0:
            return rng.randbytes(rng.randrange(LARGEST + 1))
        case 1:
            return rng.randbytes(len(example))
        case 2:
            return bytes(example[: rng.randrange(len(example))])
        case 3:
            return bytes(example) + rng.randbytes(rng.randrange(1, 40))
        case 4:
            example[rng.randrange(len(example))] ^= 1 << rng.randrange(8)
            return bytes(example)
    cut = rng.randrange(1, len(example))
    crossed = bytes(example[:cut]) + other[cut:]
    return crossed if crossed not in good else b""  # two may agree in their last byte


def strange_socks5_datagram(rng: random.Random, good: bytes) -> bytes:
    """The same for SOCKS5 (RFC 1928 section 7), where a payload may be anything and RSV does not matter."""
    reserved = rng.randbytes(2)
    match rng.randrange(5):
        case 0:
            return (reserved + b"\0" + good[3:10])[: rng.randrange(10)]
        case 1:
            kind = rng.choice([number for number in range(256) if number not in (1, 3, 4)])
            return reserved + bytes([0, kind]) + rng.randbytes(rng.randrange(LARGEST))
        case 2:
            return reserved + b"\0\4" + rng.randbytes(rng.randrange(18))
        case 3:
            size = rng.randrange(256)
            return reserved + bytes([0, 3, size]) + rng.randbytes(rng.randrange(size + 2))
    fragment = bytes([rng.randrange(1, 256)])
    return reserved + fragment + strange_datagram(rng, [good])[3:]
