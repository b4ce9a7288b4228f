"""``ServerUDP``: encrypted datagrams in, plain datagrams to their targets out, and back.

    client ──► packets.open ──► Association ──► socket of the target's family ──► target
    client ◄── packets.seal ◄── Association ◄── anything that reaches that socket

One association serves one client *session* (SIP022) or one client address (SIP004), with one
unconnected socket per address family, so every target sees the same source port and anybody may
answer it (endpoint-independent mapping, RFC 4787 section 4.1). Replies go to where the last
authentic datagram of the session came from.

Every datagram's own target is resolved and held against ``forbidden_ip``, and what is sent to is the
address that was checked.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial

from common.crypto import PacketSession, ServerPackets
from common.errors import UpstreamError
from common.net.loop import EventLoop
from common.net.resolver import Query, Resolver
from common.proto.address import Address, IPAddress
from common.relay.associations import Associations
from common.relay.datagrams import DatagramSocket, SocketAddress

MAX_ROUTES = 64  # targets an association remembers the checked address of
ROUTE_SECONDS = 60.0
MAX_WAITING = 16  # datagrams of an association that wait for names

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
        is_forbidden: Callable[[IPAddress], bool],
        counters: Counter[str],
    ) -> None:
        self.loop, self.packets = loop, packets
        self.associations, self.resolver = associations, resolver
        self.is_forbidden, self.counters = is_forbidden, counters
        self.socket = DatagramSocket(loop, sock, self._on_datagram, counters)

    def close(self) -> None:
        self.socket.close()

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        session, target, payload = self.packets.open(data, peer)
        key = (self, session.key)
        association = self.associations.get(key)
        if not isinstance(association, ServerAssociation):
            association = ServerAssociation(self, session, key)
            self.associations.add(key, association)
            logger.debug("%s has a UDP session", peer)
        association.peer = peer
        association.send(target, payload)


class ServerAssociation:
    """One client session: its sockets towards targets, and the way back."""

    __slots__ = (
        "_queries",
        "_routes",
        "_sockets",
        "_waiting",
        "key",
        "last_active",
        "peer",
        "port",
        "session",
    )

    def __init__(self, port: ServerUDP, session: PacketSession, key: Hashable) -> None:
        self.port, self.session, self.key = port, session, key
        self.peer: SocketAddress = None  # where the last authentic datagram came from
        self.last_active = 0.0
        self._sockets: dict[int, DatagramSocket] = {}
        self._routes: dict[Address, tuple[IPAddress, float]] = {}
        self._queries: set[Query] = set()
        self._waiting = 0

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send one datagram to ``target``, after its name is resolved if it has to be."""
        route = self._routes.get(target)
        if route is not None and route[1] > self.port.loop.now:
            self._send_to(route[0], target.port, payload)
            return
        if target.port == 0 or self._waiting >= MAX_WAITING:
            self.port.counters["udp_dropped"] += 1
            return
        self._waiting += 1
        holder: list[Query] = []
        query = self.port.resolver.resolve(
            target.host, partial(self._on_resolved, target, bytes(payload), holder)
        )
        if query is not None:
            holder.append(query)
            self._queries.add(query)

    def close(self) -> None:
        for query in self._queries:
            query.cancel()
        self._queries.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()
        self.port.packets.forget(self.session)

    def _on_resolved(
        self,
        target: Address,
        payload: bytes,
        holder: list[Query],
        addresses: tuple[IPAddress, ...],
        error: UpstreamError | None,
    ) -> None:
        self._waiting -= 1
        self._queries.difference_update(holder)
        allowed = [ip for ip in addresses if not self.port.is_forbidden(ip)]
        if not allowed:
            self.port.counters["udp_dropped" if error is not None else "forbidden"] += 1
            logger.debug("%s cannot send to %s: %s", self.peer, target, error or "it is forbidden")
            return
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        self._routes[target] = (allowed[0], self.port.loop.now + ROUTE_SECONDS)
        self._send_to(allowed[0], target.port, payload)

    def _send_to(self, ip: IPAddress, port: int, payload: memoryview | bytes) -> None:
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        outlet = self._sockets.get(family)
        if outlet is None:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError as exc:
                self.port.counters["udp_dropped"] += 1
                logger.debug("no socket for %s: %s", self.peer, exc)
                return
            outlet = self._sockets[family] = DatagramSocket(
                self.port.loop, sock, self._on_reply, self.port.counters
            )
        if outlet.send(payload, (str(ip), port)):
            self.port.counters["udp_bytes_up"] += len(payload)

    def _on_reply(self, data: memoryview, source: SocketAddress) -> None:
        self.port.associations.touch(self.key)
        if self.port.socket.send(self.session.seal(Address(source[0], source[1]), data), self.peer):
            self.port.counters["udp_bytes_down"] += len(data)
