"""``Associations``: the UDP flows of one process, bounded in number and in time.

UDP has no end, so an association ends when it has been quiet for ``timeout`` seconds (RFC 4787
section 4.3), or when there are ``limit`` of them and a new one comes: then the quietest goes. They
are kept in the order of their last use, so the first is always the next to expire, and one timer
serves them all.

A source, the network of a client, has ``per_source`` of them: then the quietest of its own goes. It
is looked for among all it has, so a datagram of an association that stands costs nothing more.
"""

from __future__ import annotations

import sys
from collections import Counter, OrderedDict
from collections.abc import Hashable
from typing import Protocol

from common.net.loop import EventLoop
from common.net.timers import Timer


class Association(Protocol):
    """One client's UDP flow."""

    last_active: float

    def close(self) -> None:
        """Release its sockets. Called once, by the table, for whatever reason it ends."""


class Associations:
    """All of one process, whatever their kind; keys say which."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        limit: int,
        timeout: float,
        counters: Counter[str],
        per_source: int = sys.maxsize,
    ) -> None:
        self.loop, self.limit, self.timeout, self.counters = loop, limit, timeout, counters
        self.per_source = per_source
        self._table: OrderedDict[Hashable, Association] = OrderedDict()
        self._keys: dict[Hashable, set[Hashable]] = {}  # of each source
        self._sources: dict[Hashable, Hashable] = {}  # key → source, where there is one
        self._timer: Timer | None = None

    def __len__(self) -> int:
        return len(self._table)

    def get(self, key: Hashable) -> Association | None:
        """Return the association of ``key`` and count this as a use of it."""
        association = self._table.get(key)
        if association is not None:
            self.touch(key)
        return association

    def touch(self, key: Hashable) -> None:
        """A datagram went through, in either direction."""
        self._table.move_to_end(key)
        self._table[key].last_active = self.loop.now

    def add(self, key: Hashable, association: Association, source: Hashable = None) -> None:
        """Keep ``association``; the quietest makes room for it if there is none.

        ``source`` is what it is counted under, None for nothing.
        """
        if source is not None:
            self._add_to(source, key)
        if len(self._table) >= self.limit:
            self.counters["udp_evicted"] += 1
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
            if key in self._sources:
                self._remove_from(self._sources.pop(key), key)
            association.close()
        if not self._table and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def close(self) -> None:
        """End all of them."""
        for key in list(self._table):
            self.remove(key)

    def _add_to(self, source: Hashable, key: Hashable) -> None:
        keys = self._keys.get(source, ())
        if len(keys) >= self.per_source:
            self.counters["udp_source_limit"] += 1
            self.remove(min(keys, key=lambda each: self._table[each].last_active))
        self._keys.setdefault(source, set()).add(key)
        self._sources[key] = source

    def _remove_from(self, source: Hashable, key: Hashable) -> None:
        keys = self._keys[source]
        keys.remove(key)
        if not keys:
            del self._keys[source]

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
