"""The event loop: dispatch, containment, timers, and the facts about ``selectors`` it is built on."""

from __future__ import annotations

import logging
import math
import os
import selectors
import socket
import struct
import threading

import pytest

from common.net.loop import MAX_WAIT, READ, WRITE, EventLoop
from tests.clock import FakeClock
from tests.driving import drive, settle

NO_LINGER = struct.pack("ii", 1, 0)


class Watcher:
    """Records what the loop tells it; ``act`` is what it does on an event."""

    def __init__(self, act=lambda watcher: None):
        self.act = act
        self.events: list[int] = []
        self.faults: list[Exception] = []

    def on_event(self, mask):
        self.events.append(mask)
        self.act(self)

    def on_fault(self, exc):
        self.faults.append(exc)


class RecordingSelector(selectors.SelectSelector):
    """Never waits; remembers how long it was asked to."""

    def __init__(self):
        super().__init__()
        self.timeouts: list[float | None] = []

    def select(self, timeout=None):
        self.timeouts.append(timeout)
        return super().select(0)


# -- dispatch -----------------------------------------------------------------------------------------


def test_readiness_reaches_the_watcher_with_its_mask(loop, pair):
    a, b = pair()
    watcher = Watcher()
    loop.watch(a, READ, 0, watcher)
    loop.step(0)
    assert watcher.events == []
    b.send(b"x")
    loop.step(0)
    assert watcher.events == [READ]
    loop.watch(a, READ | WRITE, READ, watcher)
    loop.step(0)
    assert watcher.events == [READ, READ | WRITE]
    loop.watch(a, 0, READ | WRITE, watcher)
    loop.step(0)
    assert watcher.events == [READ, READ | WRITE]
    assert loop.statistics() == {"watched": 0, "timers": 0}


def test_a_bare_descriptor_can_be_watched(loop, pair):
    a, b = pair()
    watcher = Watcher()
    loop.watch(a.fileno(), READ, 0, watcher)
    b.send(b"x")
    loop.step(0)
    assert watcher.events == [READ]
    loop.watch(a.fileno(), 0, READ, watcher)


def test_a_fault_ends_one_watcher_and_no_other(loop, pair):
    """R11: whatever on_event raises goes to on_fault of the same object."""

    def fail(watcher):
        raise ZeroDivisionError("injected")

    bad, good = Watcher(fail), Watcher()
    for watcher in (bad, good):
        a, b = pair()
        loop.watch(a, READ, 0, watcher)
        b.send(b"x")
    loop.step(0)
    assert [type(exc) for exc in bad.faults] == [ZeroDivisionError]
    assert good.events == [READ]
    assert good.faults == []


class WorseWatcher(Watcher):
    def on_fault(self, exc):
        raise KeyError("fault in the fault handler")


class PoorWatcher:
    """Lacks on_fault."""

    def on_event(self, mask):
        raise ZeroDivisionError


@pytest.mark.parametrize(
    "make", [lambda: WorseWatcher(lambda watcher: 1 / 0), PoorWatcher], ids=["raises", "missing"]
)
def test_a_failing_fault_handler_is_logged_and_goes_no_further(loop, pair, caplog, make):
    """R11."""
    a, b = pair()
    loop.watch(a, READ, 0, make())
    b.send(b"x")
    with caplog.at_level(logging.ERROR):
        loop.step(0)
    assert [record.message for record in caplog.records] == ["fault handling failed"]


def test_what_ends_a_process_is_not_contained(loop, pair):
    def interrupt(watcher):
        raise KeyboardInterrupt

    a, b = pair()
    watcher = Watcher(interrupt)
    loop.watch(a, READ, 0, watcher)
    b.send(b"x")
    with pytest.raises(KeyboardInterrupt):
        loop.step(0)
    assert watcher.faults == []


def test_a_stale_event_after_descriptor_reuse_reaches_the_old_watcher(loop, pair):
    """R10: two events in one batch; the first destroys the second's socket and its number is reused."""
    ends = {name: pair() for name in ("first", "second")}
    log: list[str] = []
    newcomer = Watcher()
    replacement: list[socket.socket] = []

    class Side(Watcher):
        def __init__(self, name, other):
            super().__init__()
            self.name, self.other, self.closed = name, other, False

        def on_event(self, mask):
            if self.closed:
                log.append(f"stale event on {self.name}, ignored")
                return
            log.append(f"{self.name} destroys {self.other}")
            victim = sides[self.other]
            sock = ends[self.other][0]
            number = sock.fileno()
            loop.watch(sock, 0, READ, victim)
            sock.close()
            victim.closed = True
            new, _ = pair()
            if new.fileno() != number:  # make sure that the number is used again
                os.dup2(new.fileno(), number)
                new.close()
                new = socket.socket(fileno=number)
            replacement.append(new)
            loop.watch(new, READ, 0, newcomer)

    sides = {"first": Side("first", "second"), "second": Side("second", "first")}
    for name, side in sides.items():
        loop.watch(ends[name][0], READ, 0, side)
        ends[name][1].send(b"x")
    loop.step(0)
    assert len(log) == 2
    assert log[0].split()[1] == "destroys"
    assert log[1] == f"stale event on {log[0].split()[2]}, ignored"
    assert newcomer.events == []
    settle(loop, 2)
    assert newcomer.events == []
    loop.watch(replacement[0], 0, READ, newcomer)
    replacement[0].close()


def test_a_paused_socket_whose_peer_resets_does_not_spin(loop, link):
    """No interest means unregistered, so HUP cannot be reported over and over."""
    client, server = link
    watcher = Watcher()
    loop.watch(server, READ, 0, watcher)
    loop.watch(server, 0, READ, watcher)
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, NO_LINGER)
    client.close()
    steps = 0
    ended: list[bool] = []
    loop.call_later(0.1, lambda: ended.append(True))
    while not ended:
        loop.step()
        steps += 1
    assert steps <= 3
    assert watcher.events == []


# -- timers -------------------------------------------------------------------------------------------


def test_timers_fire_in_order_and_see_their_moment(clocked, clock):
    fired: list[tuple[str, float]] = []
    clocked.call_later(2, lambda: fired.append(("later", clocked.now)))
    clocked.call_at(clock.now + 1, lambda: fired.append(("sooner", clocked.now)))
    clocked.step(0)
    assert fired == []
    clock.advance(1)
    clocked.step(0)
    clock.advance(5)
    clocked.step(0)
    assert fired == [("sooner", 1001.0), ("later", 1006.0)]
    assert clocked.statistics()["timers"] == 0


def test_now_stands_still_within_a_batch(pair):
    reads: list[float] = []

    def clock():
        reads.append(float(len(reads)))
        return reads[-1]

    loop = EventLoop(clock=clock)
    seen: list[float] = []
    ends = [pair() for _ in range(3)]
    for a, b in ends:
        loop.watch(a, READ, 0, Watcher(lambda watcher: seen.append(loop.now)))
        b.send(b"x")
    before = len(reads)
    loop.step(0)
    assert len(reads) == before + 1
    assert seen == [loop.now] * 3
    loop.close()


def test_a_timer_that_arms_itself_for_now_does_not_hang_the_step(clocked, pair):
    fired: list[int] = []

    def again():
        fired.append(1)
        clocked.call_later(0, again)

    again()
    a, b = pair()
    watcher = Watcher()
    clocked.watch(a, READ, 0, watcher)
    b.send(b"x")
    for _ in range(5):
        clocked.step()
    assert len(fired) == 6
    assert watcher.events == [READ] * 5


def test_events_are_dispatched_before_timers(clocked, pair):
    order: list[str] = []
    a, b = pair()
    clocked.watch(a, READ, 0, Watcher(lambda watcher: order.append("event")))
    b.send(b"x")
    clocked.call_later(0, lambda: order.append("timer"))
    clocked.step(0)
    assert order == ["event", "timer"]


def test_a_failing_timer_is_logged_and_the_next_one_fires(clocked, caplog):
    """R11."""
    fired: list[str] = []
    clocked.call_later(0, lambda: 1 / 0)
    clocked.call_later(0, lambda: fired.append("next"))
    with caplog.at_level(logging.ERROR):
        clocked.step(0)
    assert fired == ["next"]
    assert [record.message for record in caplog.records] == ["a timer failed"]


def test_select_waits_for_the_earliest_deadline_and_for_ever_without_one(clock):
    """H11: an idle process does not wake."""
    selector = RecordingSelector()
    loop = EventLoop(clock=clock, selector=selector)
    loop.step()
    first = loop.call_later(3, lambda: None)
    loop.call_later(7, lambda: None)
    loop.step()
    loop.step(1.5)
    loop.step(30)
    first.cancel()
    loop.step()
    clock.advance(100)
    loop.step()
    loop.step()
    assert selector.timeouts == [None, 3.0, 1.5, 3.0, 7.0, 0.0, None]
    loop.close()


@pytest.mark.parametrize("delay", [math.inf, 1e12, 40 * 24 * 3600.0])
def test_a_deadline_beyond_what_epoll_can_count(clock, delay):
    selector = RecordingSelector()
    loop = EventLoop(clock=clock, selector=selector)
    loop.call_later(delay, lambda: None)
    loop.step()
    assert selector.timeouts == [MAX_WAIT]
    loop.close()


def test_the_platforms_selector_takes_the_longest_wait(loop, pair):
    a, b = pair()
    watcher = Watcher()
    loop.watch(a, READ, 0, watcher)
    loop.call_later(math.inf, lambda: None)
    b.send(b"x")
    loop.step()
    assert watcher.events == [READ]


def test_real_timers_are_not_early_and_hardly_late(loop):
    """W25: monotonic, to the millisecond rather than to ten seconds."""
    fired: list[float] = []
    start = loop.now
    for delay in (0.03, 0.01, 0.02):
        loop.call_later(delay, lambda delay=delay: fired.append(loop.now - start - delay))
    drive(loop, lambda: len(fired) == 3)
    assert all(0 <= late < 0.2 for late in fired)


# -- running ------------------------------------------------------------------------------------------


def test_run_ends_after_the_step_in_which_stop_was_called(clocked, pair):
    order: list[str] = []
    a, b = pair()
    clocked.watch(a, READ, 0, Watcher(lambda watcher: (clocked.stop(), order.append("event"))))
    clocked.call_later(0, lambda: order.append("timer of the same step"))
    b.send(b"x")
    clocked.run()
    assert order == ["event", "timer of the same step"]


def test_stop_before_run_is_not_lost(clocked):
    clocked.stop()
    clocked.run()
    clocked.call_later(0, clocked.stop)
    clocked.run()
    assert clocked.statistics()["timers"] == 0


def test_run_wakes_up_for_what_another_thread_sends(loop, pair):
    a, b = pair()
    loop.watch(a, READ, 0, Watcher(lambda watcher: loop.stop()))
    thread = threading.Thread(target=b.send, args=(b"x",))
    loop.call_later(0.01, thread.start)
    loop.run()
    thread.join()


def test_statistics_of_a_closed_loop():
    loop = EventLoop(clock=FakeClock())
    loop.call_later(1, lambda: None)
    loop.close()
    assert loop.statistics() == {"watched": 0, "timers": 1}
