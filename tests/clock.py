"""A clock that moves only when told."""

from __future__ import annotations


class FakeClock:
    """Pass it as a clock; ``now`` is what it says."""

    def __init__(self, now: float = 1000.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        self.now += seconds
