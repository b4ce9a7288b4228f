"""``ServerUDP``: encrypted datagrams in, plain datagrams to their targets out, and back.

    client ──► packets.open ──► ServerAssociation ──► Targets ──► target
    client ◄── packets.seal ◄── ServerAssociation ◄── Targets ◄── anybody

One association serves one client *session* (SIP022) or one client address (SIP004). Replies go to
where the last authentic datagram of the session came from.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Hashable

from common.crypto import PacketSession, ServerPackets
from common.errors import ProtocolError
from common.net.loop import EventLoop
from common.net.resolver import Resolver
from common.proto.address import Address
from common.relay.associations import Associations
from common.relay.datagrams import DatagramSocket, SocketAddress
from common.relay.targets import Targets
from ssserver.gate import Gate

logger = logging.getLogger("shadowrelay.ssserver")


class ServerUDP:
    """One listening UDP port of ssserver."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket.socket,
        packets: ServerPackets,
        *,
        associations: Associations,
        resolver: Resolver,
        gate: Gate,
        counters: Counter[str],
        source_of: Callable[[str], Hashable],
    ) -> None:
        self.source_of = source_of
        self.loop, self.packets = loop, packets
        self.associations, self.resolver = associations, resolver
        self.gate, self.counters = gate, counters
        self.socket = DatagramSocket(loop, sock, self._on_datagram, counters)

    def close(self) -> None:
        self.socket.close()

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        if not self.gate.admits(peer[0]):
            raise ProtocolError("this client is not admitted")
        session, target, payload = self.packets.open(data, peer)
        key = (self, session.key)
        association = self.associations.get(key)
        if not isinstance(association, ServerAssociation):
            association = ServerAssociation(self, session, key)
            self.associations.add(key, association, self.source_of(peer[0]), session.user)
            logger.debug("%s:%s (%s) has a UDP session", *peer[:2], session.user or "-")
        association.peer = peer
        if self.gate.refuses(target.host):
            self.counters["forbidden"] += 1
        else:
            association.targets.send(target, payload)


class ServerAssociation:
    """One client session: its targets, and the way back."""

    __slots__ = ("key", "last_active", "peer", "port", "session", "targets")

    def __init__(self, port: ServerUDP, session: PacketSession, key: Hashable) -> None:
        self.port, self.session, self.key = port, session, key
        self.peer: SocketAddress = None  # where the last authentic datagram came from
        self.last_active = 0.0
        self.targets = Targets(
            port.loop,
            resolver=port.resolver,
            is_allowed=port.gate.allows,
            on_reply=self._on_reply,
            counters=port.counters,
            refusals=port.associations.refusals,
            user=session.user,
        )

    def close(self) -> None:
        self.targets.close()
        self.port.packets.forget(self.session)

    def _on_reply(self, source: Address, payload: memoryview | bytes) -> None:
        self.port.associations.touch(self.key)
        self.port.socket.send(self.session.seal(source, payload), self.peer)
