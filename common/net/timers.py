"""``TimerHeap``: deadlines in order, cheap to cancel, cheap to postpone.

    heap of (deadline, number, timer)        equal deadlines fire in the order they were added

A cancelled timer stays in the heap until it surfaces or until the dead outnumber the living, when
the heap is rebuilt: amortised O(1), and no more than twice as many entries as live timers.

Postponing is the caller's: a connection that is touched 20,000 times a second keeps *one* timer and
stores ``last_active``; when the timer fires early it arms itself again for the true deadline. So a
touch costs one store, and every timeout is exact (docs/adr/0005-one-timer-heap.md).

The surprise: what is due is taken out as a batch, so a callback that arms a timer for "now" is
called back in the next batch and cannot hold up the loop.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable

PRUNE_ABOVE = 64  # dead entries up to this number are not worth a rebuild


class Timer:
    """One deadline. ``callback`` is None once it fired or was cancelled."""

    __slots__ = ("callback", "deadline", "heap")

    def __init__(self, heap: TimerHeap, deadline: float, callback: Callable[[], None]) -> None:
        self.heap: TimerHeap | None = heap  # None once the heap has let go of it
        self.deadline = deadline
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Drop the callback (and what it refers to) now. Harmless after firing or a first cancel."""
        if self.callback is not None:
            self.callback = None
            if self.heap is not None:
                self.heap.on_cancelled()

    def fire(self) -> None:
        """Call back, unless cancelled since it came due (the heap's owner calls this, once)."""
        callback, self.callback = self.callback, None
        if callback is not None:
            callback()


class TimerHeap:
    """All timers of one loop; knows no clock, deadlines and ``now`` are passed in."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, Timer]] = []
        self._numbers = itertools.count()
        self._dead = 0

    def __len__(self) -> int:
        """Live timers."""
        return len(self._heap) - self._dead

    def add(self, deadline: float, callback: Callable[[], None]) -> Timer:
        timer = Timer(self, deadline, callback)
        heapq.heappush(self._heap, (deadline, next(self._numbers), timer))
        return timer

    def on_cancelled(self) -> None:
        self._dead += 1
        if self._dead > PRUNE_ABOVE and self._dead * 2 > len(self._heap):
            self._heap = [entry for entry in self._heap if entry[2].callback is not None]
            heapq.heapify(self._heap)
            self._dead = 0

    def next_deadline(self) -> float | None:
        """The earliest live deadline, or None."""
        heap = self._heap
        while heap and heap[0][2].callback is None:
            heapq.heappop(heap)
            self._dead -= 1
        return heap[0][0] if heap else None

    def take_due(self, now: float) -> list[Timer]:
        """Take out every timer whose deadline has come, in order; ``fire()`` each."""
        due: list[Timer] = []
        while (deadline := self.next_deadline()) is not None and deadline <= now:
            timer = heapq.heappop(self._heap)[2]
            timer.heap = None
            due.append(timer)
        return due
