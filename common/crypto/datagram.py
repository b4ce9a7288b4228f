"""Packets: the contract of what seals and opens them, whatever the method, and what all of them hold.

    address | payload            the target's address on the way out, the source's on the way back

There are two ends, ``ClientPackets`` and ``ServerPackets``, made by ``Cipher``. A packet that cannot be
opened raises ProtocolError, or a subclass, and nothing else, and changes nothing. What ``seal`` and
``open`` return is good until the next call of either; whoever keeps it copies it.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Protocol

from common.crypto.xchacha import Buffer
from common.proto.address import Address


class ClientPackets(Protocol):
    """sslocal's end of one association: one client's address, towards one server."""

    def seal(self, target: Address, payload: Buffer) -> memoryview | bytes:
        """Return one packet for the server. Raises BadRequest for a target without wire form."""
        ...

    def open(self, data: Buffer) -> tuple[Address, memoryview | bytes]:
        """Return the source and the payload of one packet."""
        ...


class PacketSession(Protocol):
    """What the packets of one client have in common, as ssserver sees it: where their answers go.

    Objects of equal ``key`` mean the same session: SIP022 a session id, SIP004 and ``none`` the client's
    address (and user). ``user`` is the name of whose key it is; None on a server without users.
    """

    @property
    def key(self) -> Hashable: ...

    @property
    def user(self) -> str | None: ...

    def seal(self, source: Address, payload: Buffer) -> memoryview | bytes:
        """Return one packet for the client; ``source`` is where the payload came from, always an IP."""
        ...


class ServerPackets(Protocol):
    """ssserver's end, for one listening port."""

    def open(self, data: Buffer, peer: Hashable) -> tuple[PacketSession, Address, memoryview | bytes]:
        """Return the session, the target and the payload of one packet from ``peer``, a client's address.

        A ``peer`` that is a tuple begins with the host. The answers of a session go to the ``peer`` of its
        latest packet: a client may move.
        """
        ...

    def forget(self, session: PacketSession) -> None:
        """The relay has let go of a session: it expired, or had to make room."""
        ...
