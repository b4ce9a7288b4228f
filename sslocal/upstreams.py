"""``Upstreams``: the configured servers, and which of them to try first.

The one that worked last is tried first; a connection that cannot reach it goes on to the next, in
order, and so do the connections after it. When none can be reached the log says so once, and once
more when one can.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, Protocol

from common.crypto import Cipher, ClientStream
from common.errors import UpstreamError
from common.proto.address import Address

logger = logging.getLogger("shadowrelay.upstreams")


class Candidate(Protocol):
    """Something to dial, and the stream to speak over it once it stands."""

    @property
    def address(self) -> Address: ...

    @property
    def description(self) -> str:
        """What it is, for a sentence about its failure."""

    def client_stream(
        self, address: Address, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> ClientStream: ...


class Way(Protocol):
    """A way to targets: ``Upstreams``, or ``Direct`` for one target."""

    @property
    def closed_without_answer(self) -> str:
        """What it may mean when the stream ends with no answer to a request."""

    def in_turn(self) -> Iterator[Candidate]: ...
    def report_reached(self, candidate: Candidate) -> None: ...
    def report_unreachable(self, error: UpstreamError) -> None: ...


class Upstream(NamedTuple):
    """One server: where it is and how it is spoken to."""

    address: Address
    cipher: Cipher

    @property
    def description(self) -> str:
        return f"the server {self.address}"

    def client_stream(
        self, address: Address, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> ClientStream:
        return self.cipher.client_stream(address, clock=clock, random=random)


class Upstreams:
    """All servers, in the order of the configuration."""

    closed_without_answer = (
        "the server closed the stream before the target answered: "
        "the target refused, its name does not resolve, it is forbidden there, or the key is wrong"
    )

    def __init__(self, upstreams: Sequence[Upstream]) -> None:
        self._upstreams = tuple(upstreams)  # in turn
        self._unreachable = False

    def in_turn(self) -> Iterator[Upstream]:
        """Every server once, the preferred one first."""
        return iter(self._upstreams)

    def report_reached(self, candidate: Candidate) -> None:
        """``candidate`` took a connection: start with it from now on."""
        if candidate is not self._upstreams[0]:
            place = next(n for n, upstream in enumerate(self._upstreams) if upstream is candidate)
            self._upstreams = self._upstreams[place:] + self._upstreams[:place]
        if self._unreachable:
            self._unreachable = False
            logger.info("server %s is reached again", candidate.address)

    def report_unreachable(self, error: UpstreamError) -> None:
        """All were tried in vain; ``error`` is what the last one met."""
        if not self._unreachable:
            self._unreachable = True
            logger.warning("no server can be reached: %s", error)
