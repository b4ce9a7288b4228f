"""``mutated``: the neighbourhood of an input, a few steps away from it."""

from __future__ import annotations

import random
from collections.abc import Sequence

MAX_STEPS = 6
_NUMBERS = (0, 1, 0x7F, 0x80, 0xFF, 0x3FFF, 0x4000, 0x7FFF, 0x8000, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF)


def mutated(
    data: bytes, rng: random.Random, words: Sequence[bytes], others: Sequence[bytes], max_size: int
) -> bytes:
    """Return ``data`` after some random steps; ``words`` may be put in, and parts of ``others``."""
    out = bytearray(data)
    for _ in range(rng.randint(1, rng.choice((1, 2, MAX_STEPS)))):
        at = rng.randrange(len(out) + 1)
        size = min(rng.choice((1, 1, 2, 4, 8, 32, 200)), len(out) - at)
        match rng.randrange(10):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.randrange(256)
            case 2 if at < len(out):
                out[at] = (out[at] + rng.choice((-1, 1))) % 256
            case 3:
                width = rng.choice((1, 2, 4, 8))
                number = rng.choice(_NUMBERS) % (1 << 8 * width)
                out[at : at + width] = number.to_bytes(width, rng.choice(("big", "little")))
            case 4:
                out[at:at] = rng.randbytes(rng.choice((1, 2, 4, 16)))
            case 5:
                del out[at : at + size]
            case 6:
                part = out[at : at + size] * rng.choice((1, 1, 2, 50))
                place = rng.randrange(len(out) + 1)
                out[place:place] = part
            case 7 if words:
                word = rng.choice(words)
                out[at : at + rng.choice((0, len(word)))] = word
            case 8 if others:
                other = rng.choice(others)
                begin = rng.randrange(len(other) + 1)
                out[at : at + rng.choice((0, size))] = other[begin : begin + rng.choice((4, 40, 4000))]
            case _:
                del out[at:]
    return bytes(out[:max_size])
