"""``Admission``: how many connections one process takes, from whom, and who makes room for others.

    accept ──► of a source ──► handshake ──────────► relayed ──► gone
               over its bound:  over the bound:
               reset at once    the oldest is closed

A *handshake* is a connection that has not yet said what it wants, or, at ssserver, not proven that it
may. It costs its sender nothing, so nobody else waits for it: when there are too many, or no room for
another connection, the one that has waited longest is closed. Only its first ``GRACE`` seconds are its
own, since the bytes of an honest client are under way at that time.

The surprise: nothing here looks at what a connection sent. Whoever is refused or closed learns how
busy this process is, and nothing about the protocol it speaks.
"""

from __future__ import annotations

import sys
from collections import Counter
from collections.abc import Callable, Hashable
from socket import AF_INET6, inet_aton, inet_pton
from typing import NamedTuple, Protocol

from common.errors import Overloaded
from common.net.loop import EventLoop
from common.net.timers import Timer
from common.relay.refusals import Refusals

GRACE = 1.0  # seconds that a new connection has to say something before it may have to make room
UNBOUNDED = sys.maxsize


class Bounds(NamedTuple):
    """How much there may be at one time in one process; the prefixes say what counts as one source."""

    handshakes: int = UNBOUNDED
    connecting: int = UNBOUNDED
    per_source: int = UNBOUNDED
    per_user: int = UNBOUNDED
    ipv4_prefix: int = 32
    ipv6_prefix: int = 64


class Pausable(Protocol):
    """A listener."""

    def pause(self) -> None: ...
    def resume(self) -> None: ...


class Connection(Protocol):
    """``last_active`` is when it was accepted, as long as it is a handshake.

    ``source`` and ``user`` are what it is counted under, None for nothing.
    """

    last_active: float
    source: Hashable
    user: str | None

    def give_way(self) -> None:
        """End: somebody else needs the room."""


class Tally:
    """How many each one has, whoever that is, up to ``limit``."""

    __slots__ = ("_counts", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._counts: dict[Hashable, int] = {}

    def __len__(self) -> int:
        """How many have any."""
        return len(self._counts)

    def take(self, who: Hashable) -> bool:
        """Count one more; False when ``who`` has as many as it may have."""
        count = self._counts.get(who, 0)
        if count >= self.limit:
            return False
        self._counts[who] = count + 1
        return True

    def give(self, who: Hashable) -> None:
        """Undo one ``take`` that was granted."""
        count = self._counts[who]
        if count > 1:
            self._counts[who] = count - 1
        else:
            del self._counts[who]


class Admission:
    """The connections of one process; its listeners pause at ``limit`` and wake each other.

    ``handshakes`` holds those whose request is not known, in the order they came. Who knows it takes
    the connection out; everything else comes and goes with ``enter`` and ``leave``.
    """

    def __init__(
        self,
        loop: EventLoop,
        limit: int,
        bounds: Bounds = Bounds(),  # noqa: B008 (immutable)
        counters: Counter[str] | None = None,
    ) -> None:
        self.loop, self.limit, self.bounds, self.count = loop, limit, bounds, 0
        self.counters: Counter[str] = Counter() if counters is None else counters
        self.refusals = Refusals(loop, self.counters)
        self.handshakes: dict[Connection, None] = {}
        self._most = bounds.handshakes
        self.connecting: set[Connection] = set()
        self.sources, self.users = Tally(bounds.per_source), Tally(bounds.per_user)
        self._paused: list[Pausable] = []
        self._retry: Timer | None = None
        self._when_empty: Callable[[], None] | None = None

    # -- coming and going ------------------------------------------------------------------------

    @property
    def full(self) -> bool:
        """There is no room, and nobody who would have to make some."""
        return self.count >= self.limit and self._yielding() is None

    def _yielding(self) -> Connection | None:
        """Return the oldest handshake, if it is old enough to be closed for another connection."""
        oldest = next(iter(self.handshakes), None)
        return oldest if oldest is not None and oldest.last_active + GRACE <= self.loop.now else None

    def source_of(self, host: str) -> Hashable:
        """Return what stands for the network of a client at this IP address; None for this machine.

        A front-end here, such as a TLS proxy, brings everybody's connections: they are not counted.
        """
        if ":" in host:
            if "." not in host:
                if host == "::1":
                    return None
                packed = inet_pton(AF_INET6, host.partition("%")[0])
                return ~(int.from_bytes(packed, "big") >> (128 - self.bounds.ipv6_prefix))
            host = host.rpartition(":")[2]  # ::ffff:192.0.2.1, an IPv4 client of a socket for both
        if host.startswith("127."):
            return None
        if self.bounds.ipv4_prefix == 32:
            return host
        return int.from_bytes(inet_aton(host), "big") >> (32 - self.bounds.ipv4_prefix)

    def takes_from(self, source: Hashable, host: str) -> bool:
        """Count one more connection from ``source``; False when it has too many, which is told."""
        if self.sources.take(source):
            return True
        self.refusals.add(
            "source_limit",
            "the network of %s has %d connections, its limit: more are reset",
            host,
            self.sources.limit,
        )
        return False

    def enter(self, connection: Connection) -> None:
        """A connection was accepted; its source, if it has one, is counted already."""
        self.count += 1
        handshakes = self.handshakes
        handshakes[connection] = None
        if len(handshakes) > self._most or self.count > self.limit:
            self._make_room()

    def leave(self, connection: Connection) -> None:
        """A connection has gone: there is room for one again."""
        self.count -= 1
        self.handshakes.pop(connection, None)
        if connection.source is not None:
            self.sources.give(connection.source)
        if connection.user is not None:
            self.users.give(connection.user)
        if self._paused:
            self.wake()
        if self.count == 0 and self._when_empty is not None:
            self._when_empty()

    def _make_room(self) -> None:
        while len(self.handshakes) > self._most or self.count > self.limit:
            oldest = self._yielding()
            if oldest is None:
                break
            self.refusals.add(
                "handshakes_closed",
                "%d connections have not said what they want, of %d: the oldest are closed",
                len(self.handshakes),
                self.count,
            )
            del self.handshakes[oldest]
            oldest.give_way()

    def count_for(self, user: str, connection: Connection) -> None:
        """Count ``connection`` for ``user``, once; for nobody else from now on.

        Raises Overloaded when the user has as many as there may be.
        """
        if user == connection.user:
            return
        if not self.users.take(user):
            reason = f"user {user} has {self.users.limit} connections, the limit: more are refused"
            raise Overloaded(reason, "user_limit")
        if connection.user is not None:
            self.users.give(connection.user)
        connection.user = user

    def check_connecting(self) -> None:
        """Raise Overloaded when no more connections to servers and targets may be under way."""
        if len(self.connecting) >= self.bounds.connecting:
            reason = f"{self.bounds.connecting} connections are being made, the limit: more are refused"
            raise Overloaded(reason, "connecting_limit")

    # -- a full house ----------------------------------------------------------------------------

    def pause(self, relay: Pausable, cause: str) -> None:
        """Take no more connections on ``relay`` until one has left, or has to make room."""
        relay.pause()
        self._paused.append(relay)
        if self.full and self.handshakes and self._retry is None:
            oldest = next(iter(self.handshakes))
            self._retry = self.loop.call_at(oldest.last_active + GRACE, self._resume)
        self.counters["accept_paused"] += 1
        waiting = f"{cause}: new connections wait (%d open, limit %d)"
        self.refusals.warn(cause, waiting, self.count, self.limit)

    def wake(self) -> None:
        """Let the listeners that pause go on, if there is room."""
        if self._paused and not self.full:
            self._resume()

    def _resume(self) -> None:
        if self._retry is not None:
            self._retry.cancel()
            self._retry = None
        paused, self._paused = self._paused, []
        for relay in paused:
            relay.resume()

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        """Call back once no connection is open, which may be now."""
        self._when_empty = callback
        if self.count == 0:
            callback()

    def statistics(self) -> dict[str, int]:
        """What there is now."""
        return {
            "connections": self.count,
            "handshakes": len(self.handshakes),
            "connecting": len(self.connecting),
            "sources": len(self.sources),
        }
