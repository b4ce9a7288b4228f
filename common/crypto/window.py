"""``SlidingWindow``: which packet ids of one SIP022 session have been taken, exactly.

    … | too old to tell: refused |◄──── size ids ────►| ahead: taken, and the window moves |
                                                 last ┘

The surprise: asking and taking are two calls. Between them the packet is opened and checked, so one that
fails moves nothing (SIP022 3.2.4). Where another process may have taken it meanwhile, taking is what counts.
"""

from __future__ import annotations

from typing import Protocol

# Packets that can be overtaken: 50 ms of reordering at 20 000 packets a second. Others have 256 to 8128.
WINDOW_SIZE = 1024


class Window(Protocol):
    """Of one session. ``now`` is unix seconds."""

    def is_fresh(self, packet_id: int) -> bool:
        """Whether the id may still be taken; no is certain. Changes nothing."""
        ...

    def take(self, packet_id: int, now: float) -> bool:
        """Take an id; False when it is not fresh."""
        ...


class SlidingWindow:
    """The ids up to the highest taken. The first one of a session may be any."""

    __slots__ = ("_last", "_mask", "_seen", "_size")

    def __init__(self, size: int = WINDOW_SIZE) -> None:
        self._size, self._mask = size, (1 << size) - 1
        self._last = -1
        self._seen = 0  # bit n: the id n below the last one was taken

    def is_fresh(self, packet_id: int) -> bool:
        """Whether the id may still be taken. Changes nothing."""
        age = self._last - packet_id
        return age < 0 or (age < self._size and not self._seen >> age & 1)

    def take(self, packet_id: int, now: float) -> bool:
        """Take an id; False when it is not fresh. ``now`` does not matter."""
        age = self._last - packet_id
        if age >= 0:
            if age >= self._size or self._seen >> age & 1:
                return False
            self._seen |= 1 << age
            return True
        # A leap past all of the window is not shifted: it may be 2**64 wide.
        self._seen = (self._seen << -age | 1) & self._mask if -age < self._size else 1
        self._last = packet_id
        return True
