"""What targets share: ways to cut an input, one outcome for all of them, and inputs that are scripts.

A mutated ciphertext gets no further than its tag. So some targets read their input as a script, ``Script``,
of what a holder of the key would say, and seal it with the right key.
"""

from __future__ import annotations

import random
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from common.errors import ProtocolError
from tests.wire import Outcome, deliver

BYTE_WISE = 300  # bytes at each end that come singly; a long middle comes in larger pieces


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Yield two other ways than whole: byte by byte, and at a few places that depend on ``data`` alone."""
    middle = max(BYTE_WISE, len(data) - BYTE_WISE)
    singles = [*range(min(BYTE_WISE, len(data))), *range(BYTE_WISE, middle, 97), *range(middle, len(data))]
    yield cut(data, singles)
    rng = random.Random(zlib.crc32(data))
    yield cut(data, sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(1, 5))))


def cut(data: bytes, places: list[int]) -> list[bytes]:
    """Return the pieces of ``data`` between ``places``, which ascend."""
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]


def same_every_way(make_parser: Callable[[], Any], data: bytes) -> Outcome:
    """Deliver ``data`` whole and in pieces, demand one outcome, and return it."""
    whole = deliver(make_parser(), [data])
    for parts in ways(data):
        other = deliver(make_parser(), parts)
        assert other.result == whole.result
        assert (type(other.error), str(other.error)) == (type(whole.error), str(whole.error))
        assert other.replies == whole.replies
        if whole.error is None:  # past an error nothing is payload any more
            assert other.rest == whole.rest
    return whole


def error_of(call: Callable[..., Any], *args: Any) -> ProtocolError | None:
    """Return the ProtocolError of a call, None for a result; any other exception is a finding."""
    try:
        call(*args)
    except ProtocolError as error:
        return error
    return None


class Script:
    """Reads an input as numbers and texts; past its end all is zero or empty."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def number(self, size: int) -> int:
        return int.from_bytes(self.text(size), "big")

    def text(self, size: int) -> bytes:
        """Return ``size`` bytes, or what there is."""
        start = self._at
        self._at += size
        return self._data[start : self._at]

    def whole(self, size: int) -> bytes:
        """Return ``size`` bytes, with zeros for what there is not."""
        return self.text(size).ljust(size, b"\0")
