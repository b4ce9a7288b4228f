"""Fronts of clients that ask for nothing, because it is known where they go: ``tunnel`` and ``redir``.

Neither front has a wire of its own. Every byte of the client is payload, and nothing is answered.

The surprise: such a client need not send first (SMTP, SSH), so ``feed(b"")`` already ends in the
Request, and whoever serves the client calls it at once.
"""

from __future__ import annotations

from common.errors import RelayError
from common.proto.address import Address
from common.proto.request import Command, Request


class FixedFront:
    """Implements ``Front`` for one target."""

    __slots__ = ("address", "leftover")

    def __init__(self, address: Address) -> None:
        self.address = address
        self.leftover = b""

    def feed(self, data: bytes) -> Request:
        """Return the Request at once; all of ``data`` is left over."""
        self.leftover = data
        return Request(Command.CONNECT, self.address)

    def outgoing(self) -> bytes:
        return b""

    def accept(self, bound: Address | None = None) -> bytes:
        return b""

    def reject(self, error: RelayError) -> bytes:
        return b""


class RefusedFront:
    """Implements ``Front`` for a client whose target is not known or not allowed."""

    __slots__ = ("error",)

    leftover = b""

    def __init__(self, error: RelayError) -> None:
        self.error = error

    def feed(self, data: bytes) -> Request:
        """Raise the error that this front was made with."""
        raise self.error

    def outgoing(self) -> bytes:
        return b""

    def accept(self, bound: Address | None = None) -> bytes:
        return b""

    def reject(self, error: RelayError) -> bytes:
        return b""
