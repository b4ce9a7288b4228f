"""``Upstreams``: the configured servers, and which of them to try first.

The one that worked last is tried first; a connection that cannot reach it goes on to the next, in
order, and so do the connections after it.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.crypto import Cipher
from common.proto.address import Address


class Upstream(NamedTuple):
    """One server: where it is and how it is spoken to."""

    address: Address
    cipher: Cipher


class Upstreams:
    """All servers, in the order of the configuration."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)
        self._first = 0

    def in_turn(self) -> Iterator[Upstream]:
        """Every server once, the preferred one first."""
        first, count = self._first, len(self._upstreams)
        for step in range(count):
            yield self._upstreams[(first + step) % count]

    def report_reached(self, upstream: Upstream) -> None:
        """``upstream`` took a connection: start with it from now on."""
        if self._upstreams[self._first] is not upstream:
            self._first = self._upstreams.index(upstream)
