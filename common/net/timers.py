"""``TimerHeap``: deadlines in order, cheap to cancel, cheap to postpone.

A cancelled timer stays in the heap until it surfaces or until the dead outnumber the living, when
the heap is rebuilt: amortised O(1), and no more than twice as many entries as live timers.

Postponing is the caller's: a connection that is touched 20,000 times a second keeps *one* timer and
stores ``last_active``; when the timer fires early it arms itself again for the true deadline. So a
touch costs one store, and every timeout is exact (docs/adr/0005-one-timer-heap.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Callable

PRUNE_ABOVE = 64  # dead entries below this number are not worth a rebuild


class Timer:
    """One deadline. ``callback`` is None once it fired or was cancelled."""

    __slots__ = ("callback", "deadline", "heap")

    def __init__(self, heap: TimerHeap, deadline: float, callback: Callable[[], None]) -> None:
        self.heap, self.deadline = heap, deadline
        self.callback: Callable[[], None] | None = callback

    def __lt__(self, other: Timer) -> bool:
        return self.deadline < other.deadline

    def cancel(self) -> None:
        """Drop the callback (and what it refers to) now. Harmless after firing or a first cancel."""
        if self.callback is not None:
            self.callback = None
            self.heap.on_cancelled()


class TimerHeap:
    """All timers of one loop; knows no clock, deadlines and ``now`` are passed in."""

    def __init__(self) -> None:
        self._heap: list[Timer] = []
        self._dead = 0

    def __len__(self) -> int:
        """Live timers."""
        return len(self._heap) - self._dead

    def add(self, deadline: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, deadline, callback)
        heapq.heappush(self._heap, timer)
        return timer

    def on_cancelled(self) -> None:
        self._dead += 1
        if self._dead > PRUNE_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [timer for timer in self._heap if timer.callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def next_deadline(self) -> float | None:
        """The earliest live deadline, or None."""
        heap = self._heap
        while heap and heap[0].callback is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0].deadline if heap else None

    def pop_due(self, now: float) -> Callable[[], None] | None:
        """Take the earliest callback whose deadline has come, or None."""
        deadline = self.next_deadline()
        if deadline is None or deadline > now:
            return None
        timer = heapq.heappop(self._heap)
        callback, timer.callback = timer.callback, None
        return callback
