"""The streams and packets of ``none``: no encryption, no salt, no replay filter; for tests, or under a
plugin that encrypts.

    request  = address | payload
    response = payload
    packet   = address | payload        either way
"""

from __future__ import annotations

from collections.abc import Hashable

from common.crypto.datagram import PacketSession
from common.crypto.xchacha import Buffer
from common.errors import Truncated
from common.proto.address import Address, address_header, encode_address, parse_address, split_datagram


class PlainStream:
    """What both ends share: payload is the wire."""

    __slots__ = ()

    def seal(self, data: memoryview) -> memoryview | bytes:
        """Return ``data`` itself."""
        return data

    def open(self, data: memoryview) -> memoryview | bytes:
        """Return ``data`` itself."""
        return data

    def eof(self) -> None:
        """Without framing any end is a clean one."""


class PlainClient(PlainStream):
    """sslocal's end."""

    __slots__ = ("_header",)

    def __init__(self, address: Address) -> None:
        self._header = encode_address(address)

    def first(self, payload: Buffer) -> bytes:
        """Return the address and ``payload``."""
        return self._header + payload


class PlainServer(PlainStream):
    """ssserver's end."""

    __slots__ = ("_early",)
    user: str | None = None  # without keys nobody is told apart

    def __init__(self) -> None:
        self._early = b""  # less than an address

    def accept(self, data: Buffer) -> tuple[Address, bytes] | None:
        """Return the target and the first payload once the address is complete; None for "need more".

        Raises ProtocolError for an address that is none.
        """
        early = self._early + data
        found = parse_address(early)
        if found is None:
            self._early = early
            return None
        self._early = b""
        address, used = found
        return address, early[used:]

    def eof(self) -> None:
        """Raises Truncated inside the address."""
        if self._early:
            raise Truncated("stream ended inside its address")


class PlainClientPackets:
    """sslocal's end."""

    __slots__ = ()

    def seal(self, target: Address, payload: Buffer) -> bytes:
        """See ``datagram.ClientPackets``."""
        return address_header(target) + payload

    def open(self, data: Buffer) -> tuple[Address, bytes]:
        """See ``datagram.ClientPackets``."""
        return split_datagram(bytes(data))


class PlainServerPackets:
    """ssserver's end."""

    __slots__ = ()

    def open(self, data: Buffer, peer: Hashable) -> tuple[PlainSession, Address, bytes]:
        """See ``datagram.ServerPackets``."""
        target, payload = split_datagram(bytes(data))
        return PlainSession(peer), target, payload

    def forget(self, session: PacketSession) -> None:
        """Nothing is kept."""


class PlainSession:
    """A client's address."""

    __slots__ = ("key",)
    user: str | None = None

    def __init__(self, peer: Hashable) -> None:
        self.key = peer

    def seal(self, source: Address, payload: Buffer) -> bytes:
        """See ``datagram.PacketSession``."""
        return address_header(source) + payload
