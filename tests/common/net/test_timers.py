"""T7: the timer heap against a model, in order, without leftovers, and in O(log n)."""

from __future__ import annotations

import gc
import math
import random
import weakref

import pytest

from common.net.timers import PRUNE_ABOVE, Timer, TimerHeap


def fire_due(heap: TimerHeap, now: float) -> int:
    due = heap.take_due(now)
    for timer in due:
        timer.fire()
    return len(due)


@pytest.mark.parametrize("seed", range(3))
def test_ten_thousand_random_starts_and_cancels_against_a_model(seed):
    """T7: order is right, none fires early, twice or after cancel, and the heap stays small."""
    rnd = random.Random(seed)
    heap = TimerHeap()
    live: dict[int, tuple[float, Timer]] = {}
    fired: list[int] = []
    now = 0.0
    for number in range(10_000):
        deadline = now + rnd.choice((0.0, 1.0, rnd.uniform(0, 50)))
        live[number] = deadline, heap.add(deadline, lambda number=number: fired.append(number))
        for _ in range(rnd.choice((0, 1, 1))):
            victim = rnd.choice(list(live)[-50:]) if live else None
            if victim is not None:
                live.pop(victim)[1].cancel()
        if rnd.random() < 0.3:
            now += rnd.uniform(0, 1)
            fired.clear()
            fire_due(heap, now)
            expected = sorted((at, number) for number, (at, _) in live.items() if at <= now)
            assert fired == [number for _, number in expected]
            for done in fired:
                del live[done]
        assert len(heap) == len(live)
        assert len(heap._heap) <= max(2 * len(live), len(live) + PRUNE_ABOVE + 1)
        assert heap.next_deadline() == min((at for at, _ in live.values()), default=None)
    fired.clear()
    fire_due(heap, math.inf)
    assert sorted(fired) == sorted(live)
    assert len(heap) == 0
    assert heap.next_deadline() is None


def test_equal_deadlines_fire_in_the_order_they_were_added():
    heap = TimerHeap()
    fired: list[int] = []
    for number in range(100):
        heap.add(5.0, lambda number=number: fired.append(number))
    fire_due(heap, 5.0)
    assert fired == list(range(100))


def test_a_deadline_is_due_at_its_moment_and_not_before():
    heap = TimerHeap()
    fired: list[str] = []
    heap.add(5.0, lambda: fired.append("x"))
    assert fire_due(heap, math.nextafter(5.0, 0)) == 0
    assert fire_due(heap, 5.0) == 1
    assert fire_due(heap, 5.0) == 0
    assert fired == ["x"]


def test_what_a_callback_arms_for_now_waits_for_the_next_batch():
    heap = TimerHeap()
    fired: list[int] = []

    def again():
        fired.append(len(fired))
        heap.add(0.0, again)

    heap.add(0.0, again)
    assert fire_due(heap, 1.0) == 1
    assert fire_due(heap, 1.0) == 1
    assert fired == [0, 1]
    assert len(heap) == 1


def test_a_timer_cancelled_by_another_of_the_same_batch_does_not_fire():
    heap = TimerHeap()
    fired: list[str] = []
    heap.add(1.0, lambda: second.cancel())
    second = heap.add(2.0, lambda: fired.append("second"))
    heap.add(3.0, lambda: fired.append("third"))
    fire_due(heap, 5.0)
    assert fired == ["third"]
    assert len(heap) == 0


def test_cancel_is_harmless_when_repeated_and_after_firing():
    heap = TimerHeap()
    timer = heap.add(1.0, lambda: None)
    other = heap.add(9.0, lambda: None)
    timer.cancel()
    timer.cancel()
    assert len(heap) == 1
    fire_due(heap, 9.0)
    other.cancel()
    assert len(heap) == 0
    assert heap.next_deadline() is None


def test_cancel_and_firing_let_go_of_the_callback():
    class Owner:
        def on_time(self):
            pass

    gc.disable()
    try:
        heap = TimerHeap()
        cancelled, fired = Owner(), Owner()
        references = weakref.ref(cancelled), weakref.ref(fired)
        handle = heap.add(5.0, cancelled.on_time)
        kept = heap.add(1.0, fired.on_time)
        handle.cancel()
        fire_due(heap, 1.0)
        del cancelled, fired
        assert [reference() for reference in references] == [None, None]
        assert kept.callback is None
    finally:
        gc.enable()


def test_the_dead_never_outnumber_the_living_by_much():
    heap = TimerHeap()
    keep = [heap.add(1e6 + number, lambda: None) for number in range(1000)]
    for number in range(100_000):
        heap.add(float(number), lambda: None).cancel()
        assert len(heap._heap) <= 2 * len(keep) + 2
    assert len(heap) == len(keep)
    assert heap.next_deadline() == 1e6


class Counted(float):
    """A deadline that counts how often it is compared."""

    comparisons = 0

    def __lt__(self, other):
        Counted.comparisons += 1
        return float.__lt__(self, other)

    def __eq__(self, other):
        return float.__eq__(self, other)

    __hash__ = float.__hash__


def test_adding_and_firing_cost_a_logarithm():
    """T7: O(log n) comparisons for each of 10,000 timers."""
    rnd = random.Random(1)
    heap = TimerHeap()
    Counted.comparisons = 0
    for _ in range(10_000):
        heap.add(Counted(rnd.random()), lambda: None)
    while heap.next_deadline() is not None:
        fire_due(heap, heap.next_deadline())
    assert Counted.comparisons < 10_000 * 3 * math.log2(10_000)
