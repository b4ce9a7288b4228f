"""``Associations``: the UDP flows of one process, bounded in number and in time.

UDP has no end, so an association ends when it has been quiet for ``timeout`` seconds (RFC 4787
section 4.3), or when there are ``limit`` of them and a new one comes: then the quietest goes. They
are kept in the order of their last use, so the first is always the next to expire, and one timer
serves them all.

A source, the network of a client, has ``per_source`` of them, and a user ``per_user``: then the quietest
of its own goes. It is looked for among all it has, so a datagram of an association that stands costs
nothing more.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Collection, Hashable
from typing import Protocol

from common.net.loop import EventLoop
from common.net.timers import Timer
from common.relay.refusals import Refusals


class Association(Protocol):
    """One client's UDP flow."""

    last_active: float

    def close(self) -> None:
        """Release its sockets. Called once, by the table, for whatever reason it ends."""


class Shares:
    """Which keys of a table each one has, whoever that is, up to ``limit``."""

    __slots__ = ("_keys", "_owners", "limit")

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._keys: dict[Hashable, dict[Hashable, None]] = {}  # in the order they came
        self._owners: dict[Hashable, Hashable] = {}  # of the keys that have one

    def of(self, who: Hashable) -> Collection[Hashable]:
        return self._keys.get(who, ())

    def add(self, who: Hashable, key: Hashable) -> None:
        self._keys.setdefault(who, {})[key] = None
        self._owners[key] = who

    def remove(self, key: Hashable) -> None:
        """Forget ``key``, if anybody has it."""
        who = self._owners.pop(key, None)
        if who is not None:
            keys = self._keys[who]
            del keys[key]
            if not keys:
                del self._keys[who]


class Associations:
    """All of one process, whatever their kind; keys say which. ``called`` is what the log says they are."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        limit: int,
        timeout: float,
        counters: Counter[str],
        per_source: int = sys.maxsize,
        per_user: int = sys.maxsize,
        called: str = "UDP associations",
    ) -> None:
        self.loop, self.limit, self.timeout, self.counters = loop, limit, timeout, counters
        self.sources, self.users = Shares(per_source), Shares(per_user)
        self._called, self.refusals = called, Refusals(loop, counters)
        self._table: OrderedDict[Hashable, Association] = OrderedDict()
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: Hashable) -> Association | None:
        """Return the association of ``key`` and count this as a use of it."""
        association = self._table.get(key)
        if association is not None:
            self._table.move_to_end(key)
            association.last_active = self.loop.now
        return association

    def touch(self, key: Hashable) -> None:
        """A datagram went through, in either direction."""
        self._table.move_to_end(key)
        self._table[key].last_active = self.loop.now

    def add(
        self, key: Hashable, association: Association, source: Hashable = None, user: str | None = None
    ) -> None:
        """Keep ``association``; the quietest makes room for it if there is none.

        ``source`` and ``user`` are what it is counted under, None for nothing.
        """
        if source is not None:
            self._count(self.sources, source, key, "udp_source_limit", "a network")
        if user is not None:
            self._count(self.users, user, key, "udp_user_limit", f"user {user}")
        if len(self._table) >= self.limit:
            sentence = "there are %d %s, the limit: the quietest makes room"
            self.refusals.add("udp_evicted", sentence, self.limit, self._called)
            self.remove(next(iter(self._table)))
        self.counters["udp_associations"] += 1
        association.last_active = self.loop.now
        self._table[key] = association
        if self._timer is None:
            self._timer = self.loop.call_later(self.timeout, self._expire)

    def remove(self, key: Hashable) -> None:
        """End the association of ``key``, if there is one."""
        association = self._table.pop(key, None)
        if association is not None:
            self.sources.remove(key)
            self.users.remove(key)
            association.close()
        if not self._table and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End all of them."""
        for key in list(self._table):
            self.remove(key)

    def _count(self, shares: Shares, who: Hashable, key: Hashable, label: str, whose: str) -> None:
        keys = shares.of(who)
        if len(keys) >= shares.limit:
            sentence = "%s has %d %s, the limit: its quietest makes room"
            self.refusals.add(label, sentence, whose, shares.limit, self._called)
            self.remove(min(keys, key=lambda each: self._table[each].last_active))
        shares.add(who, key)

    def _expire(self) -> None:
        self._timer = None
        while self._table:
            key, association = next(iter(self._table.items()))
            deadline = association.last_active + self.timeout
            if deadline > self.loop.now:
                self._timer = self.loop.call_at(deadline, self._expire)
                return
            self.counters["udp_expired"] += 1
            self.remove(key)
