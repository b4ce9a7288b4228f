"""``Upstreams``: the configured servers, and which of them to try first.

The one that worked last is tried first; a connection that cannot reach it goes on to the next, in
order, and so do the connections after it. When none can be reached the log says so once, and once
more when one can.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from common.crypto import Cipher
from common.errors import UpstreamError
from common.proto.address import Address

logger = logging.getLogger("shadowrelay.upstreams")


class Upstream(NamedTuple):
    """One server: where it is and how it is spoken to."""

    address: Address
    cipher: Cipher


class Upstreams:
    """All servers, in the order of the configuration."""

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)
        self._first = 0
        self._unreachable = False

    def in_turn(self) -> Iterator[Upstream]:
        """Every server once, the preferred one first."""
        first, count = self._first, len(self._upstreams)
        for step in range(count):
            yield self._upstreams[(first + step) % count]

    def report_reached(self, upstream: Upstream) -> None:
        """``upstream`` took a connection: start with it from now on."""
        if self._upstreams[self._first] is not upstream:
            self._first = self._upstreams.index(upstream)
        if self._unreachable:
            self._unreachable = False
            logger.info("server %s is reached again", upstream.address)

    def report_unreachable(self, error: UpstreamError) -> None:
        """All were tried in vain; ``error`` is what the last one met."""
        if not self._unreachable:
            self._unreachable = True
            logger.warning("no server can be reached: %s", error)
