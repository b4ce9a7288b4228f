"""``WatchedLock``: the lock of memory that processes share, watched instead of taken."""

from __future__ import annotations


class WatchedLock:
    """``held`` while it would be taken; ``refused`` counts how often there was no room."""

    def __init__(self) -> None:
        self.held = self.refused = 0

    def lock(self) -> None:
        assert not self.held
        self.held = 1

    def unlock(self) -> None:
        assert self.held
        self.held = 0

    def on_full(self) -> None:
        assert not self.held
        self.refused += 1
