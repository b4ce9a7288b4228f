"""``Targets``: plain datagrams to any number of targets, for one client.

    send(target, payload) ──► name resolved ──► allowed? ──► socket of its family ──► target
    on_reply(source, payload) ◄──────────────── anything that reaches those sockets ◄──

There is one unconnected socket per address family, so every target sees the same source port and
anybody may answer it (endpoint-independent mapping, RFC 4787 section 4.1). Every target is resolved
and held against the rules by itself, and what is sent to is the address that was checked.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from common.errors import UpstreamError
from common.net.loop import EventLoop
from common.net.resolver import Query, Resolver
from common.net.sockets import first_reachable
from common.proto.address import Address, IPAddress
from common.relay.datagrams import DatagramSocket, SocketAddress

MAX_ROUTES = 64  # targets of which the checked address is remembered
ROUTE_SECONDS = 60.0
MAX_WAITING = 16  # datagrams that wait for names

IsAllowed = Callable[[Address, IPAddress], bool]
OnReply = Callable[[Address, memoryview | bytes], None]

logger = logging.getLogger("shadowrelay.udp")


class Route(NamedTuple):
    """Where the datagrams of one target go, until when on the loop's clock."""

    family: int
    address: SocketAddress
    until: float


class Targets:
    """The sockets and the checked addresses of one client's targets.

    ``is_allowed(target, ip)`` judges each address of a target; of those it allows the first is used
    that this host has a route to. The bytes of ``user`` are counted apart as well.
    """

    __slots__ = (
        "_queries",
        "_routes",
        "_sockets",
        "_waiting",
        "counters",
        "is_allowed",
        "loop",
        "on_reply",
        "resolver",
        "user",
    )

    def __init__(
        self,
        loop: EventLoop,
        *,
        resolver: Resolver,
        is_allowed: IsAllowed,
        on_reply: OnReply,
        counters: Counter[str],
        user: str | None = None,
    ) -> None:
        self.loop, self.resolver, self.is_allowed = loop, resolver, is_allowed
        self.on_reply, self.counters, self.user = on_reply, counters, user
        self._sockets: dict[int, DatagramSocket] = {}
        self._routes: dict[Address, Route] = {}
        self._queries: set[Query] = set()
        self._waiting = 0

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send one datagram, now or when its name is resolved; it may be dropped, as UDP is."""
        route = self._routes.get(target)
        if route is not None and route.until > self.loop.now:
            self._send_by(route, payload)
            return
        if target.port == 0 or self._waiting >= MAX_WAITING:
            self.counters["udp_dropped"] += 1
            return
        self._waiting += 1
        mine: list[Query] = []
        query = self.resolver.resolve(target.host, partial(self._on_resolved, target, bytes(payload), mine))
        if query is not None:
            mine.append(query)
            self._queries.add(query)

    def close(self) -> None:
        """Close the sockets and wait for no name any more. The owner is let go: freed by refcount."""
        self.on_reply = nowhere
        for query in self._queries:
            query.cancel()
        self._queries.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _on_resolved(
        self,
        target: Address,
        payload: bytes,
        mine: list[Query],
        addresses: tuple[IPAddress, ...],
        error: UpstreamError | None,
    ) -> None:
        self._waiting -= 1
        self._queries.difference_update(mine)
        allowed = [ip for ip in addresses if self.is_allowed(target, ip)]
        if not allowed:
            self.counters["udp_dropped" if error is not None else "forbidden"] += 1
            logger.debug("datagram to %s dropped: %s", target, error or "it is forbidden")
            return
        if len(self._routes) >= MAX_ROUTES:
            self._routes.clear()
        ip = first_reachable(allowed)
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        route = Route(family, (str(ip), target.port), self.loop.now + ROUTE_SECONDS)
        self._routes[target] = route
        self._send_by(route, payload)

    def _send_by(self, route: Route, payload: memoryview | bytes) -> None:
        family = route.family
        outlet = self._sockets.get(family)
        if outlet is None:
            try:
                sock = socket.socket(family, socket.SOCK_DGRAM)
            except OSError as exc:
                self.counters["udp_dropped"] += 1
                logger.debug("no socket for UDP: %s", exc)
                return
            outlet = self._sockets[family] = DatagramSocket(self.loop, sock, self._on_datagram, self.counters)
        if outlet.send(payload, route.address):
            self._count("udp_bytes_up", len(payload))

    def _on_datagram(self, data: memoryview, source: SocketAddress) -> None:
        self._count("udp_bytes_down", len(data))
        self.on_reply(Address(source[0], source[1]), data)

    def _count(self, name: str, size: int) -> None:
        self.counters[name] += size
        if self.user is not None:
            self.counters[f"{name}[{self.user}]"] += size


def nowhere(source: Address, payload: memoryview | bytes) -> None:
    """What becomes of a reply to somebody who has gone."""
