"""Replay filters: which salts of authenticated streams a server has seen, exactly.

A salt goes in only after its stream has been authenticated, so strangers can neither fill a filter
nor burn a salt they have not captured. Both kinds keep two generations and drop the older one when
the newer is complete: no entry is ever timed or ordered on its own, and nothing is approximate.

SIP004 has no clock, so its filter remembers by number. SIP022 has one, so its filter remembers for
as long as the timestamp beside the salt is believed. Neither survives a restart.
"""

from __future__ import annotations

from typing import Protocol

RECENT_SALTS = 100_000

# A timestamp is believed for 30 s before and after it. Both it and the clock it is compared with are
# cut to whole seconds, which can add one to the 60.
HOLD = 61.0  # seconds


class ReplayFilter(Protocol):
    """Remembers salts. ``now`` is unix seconds from the same clock as the stream's."""

    def add(self, salt: bytes, now: float) -> bool:
        """Remember ``salt``; False when it was remembered already."""
        ...

    def knows(self, salt: bytes) -> bool:
        """Whether ``salt`` is remembered. It may be after its time."""
        ...


class RecentSalts:
    """The last ``capacity`` salts at least, twice that at most (SIP004).

    Memory: up to 2 x 100 000 entries of about 135 bytes, 27 MB after 200 000 salts. What one of two
    filters ``beside`` each other knows, the other one knows, too; but each forgets by its own number.
    """

    __slots__ = ("_capacity", "_generations", "_newer")

    def __init__(self, capacity: int = RECENT_SALTS, beside: RecentSalts | None = None) -> None:
        self._capacity = capacity
        # Newer and older, of one and of the other; where our own begin.
        self._generations: list[set[bytes]] = beside._generations if beside is not None else []
        self._newer = len(self._generations)
        self._generations += [set(), set()]

    def add(self, salt: bytes, now: float) -> bool:
        """Remember ``salt``; False when it was remembered already. ``now`` does not matter."""
        for generation in self._generations:
            if salt in generation:
                return False
        newer = self._generations[self._newer]
        if len(newer) >= self._capacity:
            self._generations[self._newer + 1] = newer
            newer = self._generations[self._newer] = set()
        newer.add(salt)
        return True

    def knows(self, salt: bytes) -> bool:
        """Whether ``salt`` is remembered."""
        return any(salt in generation for generation in self._generations)


class TimedSalts:
    """Every salt of the last ``HOLD`` seconds, and of up to as many before them (SIP022 3.1.4).

    Memory: 2 x ``HOLD`` seconds of authenticated streams at about 125 bytes each, so the rate of
    holders of the key is its only bound: 1000 streams a second come to 15 MB.
    """

    __slots__ = ("_newer", "_older", "_since")

    def __init__(self) -> None:
        self._newer: set[bytes] = set()
        self._older: set[bytes] = set()
        self._since = 0.0  # when the newer generation began

    def add(self, salt: bytes, now: float) -> bool:
        """Remember ``salt`` for ``HOLD`` seconds; False when it was remembered already."""
        age = now - self._since
        if age >= HOLD:
            self._older = self._newer if age < 2 * HOLD else set()
            self._newer, self._since = set(), now
        elif age < 0:
            self._since = now  # the clock was set back: hold what there is for longer, never for less
        if salt in self._newer or salt in self._older:
            return False
        self._newer.add(salt)
        return True

    def knows(self, salt: bytes) -> bool:
        """Whether ``salt`` is remembered, maybe for longer than it need be."""
        return salt in self._newer or salt in self._older
