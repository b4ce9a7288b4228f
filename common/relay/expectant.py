"""``Expectant``: one deadline at a time, and one timer for all of them in turn.

A connection expects a request, then its first payload, then an end to its silence. Each deadline takes
the place of the one before, and mostly it is the later one. So the timer stays where it is, fires too
early, and is armed again for what is expected then: a connection that comes and goes arms one timer, and
traffic only has to store ``last_active``.
"""

from __future__ import annotations

from collections.abc import Callable

from common.net.loop import EventLoop
from common.net.timers import Timer
from common.relay.containment import contained


class Expectant:
    """Whoever waits for something on a loop. What ``due`` raises is its own fault (``contained``)."""

    __slots__ = ("_deadline", "_due", "_timer", "last_active", "loop")

    def __init__(self, loop: EventLoop) -> None:
        self.loop = loop
        self.last_active = loop.now
        self._deadline = 0.0
        self._due: Callable[[], None] | None = None
        self._timer: Timer | None = None

    # -- what a subclass decides -----------------------------------------------------------------

    def quiet_limit(self) -> float | None:
        """How many seconds it may be quiet, as things are now; None: for ever."""
        raise NotImplementedError

    def on_quiet(self) -> None:
        """No byte has moved for as long as it may be quiet."""
        raise NotImplementedError

    def on_fault(self, exc: Exception) -> None:
        """What was due has failed."""
        raise NotImplementedError

    # -- deadlines -------------------------------------------------------------------------------

    def expect(self, deadline: float, due: Callable[[], None]) -> None:
        """Have ``due`` called at ``deadline`` on the loop's clock, and nothing that was expected before."""
        self._deadline, self._due = deadline, due
        timer = self._timer
        if timer is None:
            self._timer = self.loop.call_at(deadline, self._on_timer)
        elif timer.deadline > deadline:
            timer.cancel()
            self._timer = self.loop.call_at(deadline, self._on_timer)

    def expect_nothing(self) -> None:
        """Call nobody."""
        self._due = None

    def expect_no_more(self) -> None:
        """Call nobody, and keep no timer: this is the end."""
        timer, self._timer, self._due = self._timer, None, None
        if timer is not None:
            timer.cancel()

    @contained
    def _on_timer(self) -> None:
        self._timer, due = None, self._due
        if due is None:
            return
        if self._deadline > self.loop.now:
            self._timer = self.loop.call_at(self._deadline, self._on_timer)
            return
        self._due = None
        due()

    # -- silence ---------------------------------------------------------------------------------

    def watch_quiet(self) -> None:
        """Have ``on_quiet`` called when it has been quiet for too long; again whenever that may change."""
        limit = self.quiet_limit()
        if limit is None:
            self.expect_nothing()
        else:
            self.expect(self.last_active + limit, self._on_quiet)

    def _on_quiet(self) -> None:
        limit = self.quiet_limit()
        if limit is not None and self.last_active + limit <= self.loop.now:
            self.on_quiet()
        else:
            self.watch_quiet()
