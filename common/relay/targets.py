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
from common.relay.refusals import Refusals

MAX_ROUTES = 64  # targets of which the checked address is remembered
ROUTE_SECONDS = 60.0
MAX_WAITING = 16  # datagrams that wait for names

IsAllowed = Callable[[Address, IPAddress], bool]
OnReply = Callable[[Address, memoryview | bytes], None]

logger = logging.getLogger("shadowrelay.udp")


class Route(NamedTuple):
    """By which socket and where to the datagrams of one target go, until when on the loop's clock."""

    outlet: DatagramSocket
    address: SocketAddress
    until: float


class Targets:
    """The sockets and the checked addresses of one client's targets.

    ``is_allowed(target, ip)`` judges each address of a target; of those it allows the first is used
    that this host has a route to. The bytes of ``user`` are counted apart as well.
    """

    __slots__ = (
        "_down",
        "_queries",
        "_routes",
        "_sockets",
        "_up",
        "_waiting",
        "counters",
        "is_allowed",
        "loop",
        "on_reply",
        "refusals",
        "resolver",
    )

    def __init__(
        self,
        loop: EventLoop,
        *,
        resolver: Resolver,
        is_allowed: IsAllowed,
        on_reply: OnReply,
        counters: Counter[str],
        refusals: Refusals,
        user: str | None = None,
    ) -> None:
        self.loop, self.resolver, self.is_allowed = loop, resolver, is_allowed
        self.on_reply, self.counters, self.refusals = on_reply, counters, refusals
        self._up, self._down = _names("udp_bytes_up", user), _names("udp_bytes_down", user)
        self._sockets: dict[int, DatagramSocket] = {}
        self._routes: dict[Address, Route] = {}
        self._queries: set[Query] = set()
        self._waiting = 0

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send one datagram, now or when its name is resolved; it may be dropped, as UDP is."""
        route = self._routes.get(target)
        if route is None or route.until <= self.loop.now:
            self._find_route(target, payload)
        elif route.outlet.send(payload, route.address):
            for name in self._up:
                self.counters[name] += len(payload)

    def close(self) -> None:
        """Close the sockets and wait for no name any more. The owner is let go: freed by refcount."""
        self.on_reply = nowhere
        for query in self._queries:
            query.cancel()
        self._queries.clear()
        for sock in self._sockets.values():
            sock.close()
        self._sockets.clear()

    def _find_route(self, target: Address, payload: memoryview | bytes) -> None:
        if target.port == 0 or self._waiting >= MAX_WAITING:
            self.counters["udp_dropped"] += 1
            return
        self._waiting += 1
        mine: list[Query] = []
        query = self.resolver.resolve(target.host, partial(self._on_resolved, target, bytes(payload), mine))
        if query is not None:
            mine.append(query)
            self._queries.add(query)

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
        try:
            outlet = self._sockets.get(family) or self._open_socket(family)
        except OSError as exc:
            self.counters["udp_dropped"] += 1
            self.refusals.add_socket(exc)
            return
        route = Route(outlet, (str(ip), target.port), self.loop.now + ROUTE_SECONDS)
        self._routes[target] = route
        self.send(target, payload)

    def _open_socket(self, family: int) -> DatagramSocket:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        outlet = self._sockets[family] = DatagramSocket(self.loop, sock, self._on_datagram, self.counters)
        return outlet

    def _on_datagram(self, data: memoryview, source: SocketAddress) -> None:
        for name in self._down:
            self.counters[name] += len(data)
        self.on_reply(Address(source[0], source[1]), data)


def _names(name: str, user: str | None) -> tuple[str, ...]:
    """Return what the counters for one way are called: everybody's, and the user's own."""
    return (name,) if user is None else (name, f"{name}[{user}]")


def nowhere(source: Address, payload: memoryview | bytes) -> None:
    """What becomes of a reply to somebody who has gone."""
