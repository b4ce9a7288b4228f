"""``Refusals``: what was refused is counted always; what was refused for a limit is told now and then.

Whoever meets a limit may do so a thousand times a second, and a log that says it as often is one more
thing to run out of.
"""

from __future__ import annotations

import logging
from collections import Counter

from common.errors import Overloaded, RelayError, reply_for
from common.net.loop import EventLoop
from common.net.sockets import CAPACITY_ERRNOS

QUIET_SECONDS = 30.0  # at most one warning about the same thing in this time

logger = logging.getLogger("shadowrelay.relay")


class Refusals:
    """Those of one part of the program. ``counters`` are everybody's."""

    __slots__ = ("_counters", "_loop", "_quiet_until")

    def __init__(self, loop: EventLoop, counters: Counter[str]) -> None:
        self._loop, self._counters = loop, counters
        self._quiet_until: dict[str, float] = {}

    def count(self, error: RelayError) -> str:
        """Count ``error`` under its label and return the label; a limit that it tells of has its own, too."""
        label = reply_for(error).label
        self._counters[label] += 1
        if isinstance(error, Overloaded):
            self.add(error.limit, "%s", error)
        return label

    def add(self, label: str, sentence: str, *values: object) -> None:
        """Count a refusal under ``label``, and say so now and then, with the number so far."""
        self._counters[label] += 1
        self.warn(label, f"{sentence} (%d so far)", *values, self._counters[label])

    def add_socket(self, exc: OSError) -> None:
        """A UDP socket could not be opened: count and tell it, if for want of descriptors or memory."""
        if exc.errno in CAPACITY_ERRNOS:
            self.add("descriptor_limit", "no socket for UDP: %s", exc.strerror)
        else:
            logger.debug("no socket for UDP: %s", exc)

    def warn(self, kind: str, sentence: str, *values: object) -> None:
        """Log a warning, but of each kind only one in ``QUIET_SECONDS``."""
        if self._loop.now >= self._quiet_until.get(kind, 0.0):
            self._quiet_until[kind] = self._loop.now + QUIET_SECONDS
            logger.warning(sentence, *values)
