"""``Request`` and ``Front``: the one event every local protocol ends in, and the parser that ends in it.

A front is one client's handshake, sans-IO. HTTP, SOCKS4 and SOCKS5 differ in everything but this:

    feed(bytes) ─► None          unfinished: send outgoing(), read more
                ─► Request       send outgoing(), go to the address, then accept() or reject()
                ─► ProtocolError send outgoing() and then reject(error), and close

The surprise: a refusal inside a negotiation (SOCKS5 ``05 FF``, a failed sub-negotiation) leaves by
``outgoing()``, and ``reject()`` then has nothing to add. Whoever sends both never answers twice.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from typing import NamedTuple, Protocol

from common.errors import RelayError
from common.proto.address import Address

# (user, password) → are they right? Bytes that are not UTF-8 arrive as surrogate escapes (PEP 383);
# the comparison, in constant time, is the callable's.
Auth = Callable[[str, str], bool]


class Command(enum.IntEnum):
    """What a client asks for. The numbers are ours, not those of any wire."""

    CONNECT = 1  # a tunnel: SOCKS CONNECT, HTTP CONNECT
    FORWARD = 2  # HTTP messages to one origin: absolute-form requests
    UDP_ASSOCIATE = 3  # a UDP relay that lives as long as this connection


class Request(NamedTuple):
    """A client's wish. ``username`` is the one that was authenticated, None where none had to be."""

    command: Command
    address: Address
    username: str | None = None


class Front(Protocol):
    """The server's half of one client's handshake. It holds a bounded number of bytes until it is done.

    After ``feed`` returned a Request or raised, it is not called again. ``accept`` and ``reject``
    answer the request once between them: the second answer, whichever it is, is b"".
    """

    @property
    def leftover(self) -> bytes:
        """What the client sent past its request: the first payload. b"" until there is a Request."""

    def feed(self, data: bytes) -> Request | None:
        """Take what the client sent, in pieces of any size; return its Request once complete.

        Raises ProtocolError (BadRequest, Unsupported, CredentialsRequired …) and nothing else.
        """

    def outgoing(self) -> bytes:
        """Take the replies that are due now, in order (b"" mostly); call after every feed, failed or not."""

    def accept(self, bound: Address | None = None) -> bytes:
        """Return the reply for "connected". ``bound`` is our own address towards the target, if known."""

    def reject(self, error: RelayError) -> bytes:
        """Return the reply for a failure (``errors.reply_for``); b"" where the protocol has none."""
