"""Drive an ``EventLoop`` from a test, without sleeping and without hanging."""

from __future__ import annotations

import time
from collections.abc import Callable

from common.net.loop import EventLoop
from tests.clock import FakeClock


def drive(loop: EventLoop, until: Callable[[], object], limit: float = 10.0) -> None:
    """Step until ``until()`` is true; fail after ``limit`` seconds of real time."""
    deadline = time.monotonic() + limit
    while not until():
        assert time.monotonic() < deadline, f"not within {limit:g} s"
        loop.step(0.05)


def settle(loop: EventLoop, steps: int = 20) -> None:
    """Let everything happen that is ready by now."""
    for _ in range(steps):
        loop.step(0)


def pass_time(loop: EventLoop, clock: FakeClock, seconds: float) -> None:
    """Let ``seconds`` pass on the loop's clock, and let everything happen that is due or ready then."""
    clock.advance(seconds)
    settle(loop)
