"""``Direct``: the way to a target that bypasses the servers, with the manners of ``Upstreams``."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from common.crypto import ClientStream
from common.errors import UpstreamError
from common.proto.address import Address
from sslocal.upstreams import Candidate


class DirectStream:
    """Payload is the wire, and there is no header."""

    __slots__ = ()

    def first(self, payload: bytes | bytearray | memoryview) -> bytes:
        """Return ``payload``."""
        return bytes(payload)

    def seal(self, data: memoryview) -> memoryview | bytes:
        """Return ``data``."""
        return data

    def open(self, data: memoryview) -> memoryview | bytes:
        """Return ``data``."""
        return data

    def eof(self) -> None:
        """Without framing any end is a clean one."""


class Target(NamedTuple):
    """A target as a candidate to dial."""

    address: Address

    @property
    def description(self) -> str:
        return f"the target {self.address}"

    def client_stream(
        self, address: Address, *, clock: Callable[[], float], random: Callable[[int], bytes]
    ) -> ClientStream:
        return DirectStream()


class Direct:
    """The one candidate is the target itself, and nobody needs to know how it went."""

    closed_without_answer = "the target closed the connection before it answered"

    def __init__(self, target: Address) -> None:
        self._target = Target(target)

    def in_turn(self) -> Iterator[Candidate]:
        """The target."""
        yield self._target

    def report_reached(self, candidate: Candidate) -> None:
        """See ``Upstreams``."""

    def report_unreachable(self, error: UpstreamError) -> None:
        """See ``Upstreams``."""
