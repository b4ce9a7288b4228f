"""``TTLCache``: values that expire at a time of their own, and never more than ``limit`` of them.

A value expires at the moment given when it was put in; a hit does not prolong its life, and a miss
leaves nothing behind (W18, W19).
"""

from __future__ import annotations

from typing import Generic, TypeVar

K = TypeVar("K")
V = TypeVar("V")


class TTLCache(Generic[K, V]):
    """A dict with expiry; knows no clock. When full, what was put in first goes first."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._entries: dict[K, tuple[float, V]] = {}

    def __len__(self) -> int:
        """Entries held, expired ones that nobody asked for since included."""
        return len(self._entries)

    def get(self, key: K, now: float) -> V | None:
        """Return the value of ``key``, or None when it has none at ``now``."""
        entry = self._entries.get(key)
        if entry is None:
            return None
        expiry, value = entry
        if expiry <= now:
            del self._entries[key]
            return None
        return value

    def put(self, key: K, value: V, expiry: float) -> None:
        """Keep ``value`` until ``expiry``, in place of what was there."""
        self._entries.pop(key, None)
        if len(self._entries) >= self._limit:
            del self._entries[next(iter(self._entries))]
        self._entries[key] = (expiry, value)
