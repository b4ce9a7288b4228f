"""``EventLoop``: one ``select``, one dispatch, contained faults, one ``now`` per batch.

What is registered is called: ``key.data`` *is* the object that handles the event, so there is one
lookup from descriptor to code and no table of our own. It implements two methods:

    on_event(mask)   its socket is ready; mask is READ, WRITE or both
    on_fault(exc)    its on_event raised; it alone is to blame and cleans up

Facts about ``selectors`` this file is built on, each pinned by a test: ``modify(s, 0)`` is accepted
and then spins on HUP, and ``register(s, 0)`` raises, so no interest means *unregister*; ``modify``
without data sets data to None, and compares data with ``!=``, so watchers keep identity equality; a
socket closed before it is unregistered blocks its descriptor number; keys of one batch are
snapshots, so a stale event reaches the old object, which must know that it is closed.
"""

from __future__ import annotations

import errno
import logging
import selectors
import sys
import time
from collections.abc import Callable
from typing import Protocol

from common.net.timers import Timer, TimerHeap

if sys.platform == "linux":
    from common.net.epoll import EpollSelector as DefaultSelector
else:
    from selectors import DefaultSelector

READ, WRITE = selectors.EVENT_READ, selectors.EVENT_WRITE

# epoll counts milliseconds in 32 bits and raises beyond them, at 24.8 days; once a day costs nothing.
MAX_WAIT = 24 * 3600.0

SELECT_LIMIT = 1024  # FD_SETSIZE: descriptors from here on are out of range
WINDOWS_SELECT_LIMIT = 512  # FD_SETSIZE as CPython builds it for Windows: sockets at one time

logger = logging.getLogger("shadowrelay.loop")


class Watcher(Protocol):
    """What may be registered with the loop. Must compare by identity."""

    def on_event(self, mask: int) -> None: ...
    def on_fault(self, exc: Exception) -> None: ...


class HasFileno(Protocol):
    def fileno(self) -> int: ...


class EventLoop:
    """A level-triggered loop for one thread.

    ``now`` is monotonic seconds, read once per batch of events: everything within a batch happens
    "at the same time".
    """

    def __init__(
        self,
        clock: Callable[[], float] = time.monotonic,
        selector: selectors.BaseSelector | None = None,
    ) -> None:
        self._selector = selector or DefaultSelector()
        self._is_select = isinstance(self._selector, selectors.SelectSelector)
        self._clock = clock
        self._timers = TimerHeap()
        self._stopping = False
        self.now = clock()

    def watch(self, sock: HasFileno | int, events: int, old: int, watcher: Watcher) -> None:
        """Move the registration of ``sock`` from interest ``old`` to ``events`` (0 = not registered).

        Raises OSError (EMFILE) when ``select()`` has no room for one more: it would fail for all of them.
        """
        if not events:
            self._selector.unregister(sock)
        elif old:
            self._selector.modify(sock, events, watcher)
        else:
            if self._is_select and self._is_full(sock):
                raise OSError(errno.EMFILE, "select() can watch no more")
            self._selector.register(sock, events, watcher)

    def _is_full(self, sock: HasFileno | int) -> bool:
        """Windows' ``select()`` bounds the number of sockets, everybody else's the largest descriptor."""
        if sys.platform == "win32":
            return len(self._selector.get_map()) >= WINDOWS_SELECT_LIMIT
        return (sock if isinstance(sock, int) else sock.fileno()) >= SELECT_LIMIT

    def call_at(self, deadline: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, at ``deadline`` on the loop's clock or just after; never before returning.

        What ``callback`` raises is logged and goes no further: nobody here knows whom it belongs to.
        """
        return self._timers.add(deadline, callback)

    def call_later(self, delay: float, callback: Callable[[], None]) -> Timer:
        """Call ``callback`` once, ``delay`` seconds from ``now``."""
        return self._timers.add(self.now + delay, callback)

    def step(self, timeout: float | None = None) -> None:
        """Wait at most ``timeout`` seconds (None: until something happens), then dispatch what is due."""
        deadline = self._timers.next_deadline()
        if deadline is not None:
            left = min(max(0.0, deadline - self._clock()), MAX_WAIT)
            timeout = left if timeout is None else min(timeout, left)
        events = self._selector.select(timeout)
        self.now = now = self._clock()
        for key, mask in events:
            watcher: Watcher = key.data
            try:
                watcher.on_event(mask)
            except Exception as exc:  # one connection dies, not the process
                self._contain(watcher, exc)
        for timer in self._timers.take_due(now):
            try:
                timer.fire()
            except Exception:
                logger.exception("a timer failed")

    def run(self) -> None:
        """Step until ``stop()``; at once when it was called before."""
        while not self._stopping:
            self.step()
        self._stopping = False

    def stop(self) -> None:
        """Make ``run`` return after the current step. Does not wake a loop that another thread runs."""
        self._stopping = True

    def close(self) -> None:
        """Close the selector; what was registered stays open."""
        self._selector.close()

    def statistics(self) -> dict[str, int]:
        """How many descriptors are registered and how many timers are armed."""
        return {"watched": len(self._selector.get_map() or ()), "timers": len(self._timers)}

    def _contain(self, watcher: Watcher, exc: Exception) -> None:
        try:
            watcher.on_fault(exc)
        except Exception:
            logger.exception("fault handling failed")
