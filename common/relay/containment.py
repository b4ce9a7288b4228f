"""``contained``: what a callback raises is the fault of one connection, and ends only that."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, Protocol


class Faulty(Protocol):
    """Whoever decides what follows when it fails."""

    def on_fault(self, exc: Exception) -> None: ...


def contained(step: Callable[..., None]) -> Callable[..., None]:
    """Guard an entry that the loop does not dispatch to a side: a callback of a timer, resolver or dial.

    What it raises is the connection's fault alone, as if it had come through ``Side.on_event``.
    """

    @functools.wraps(step)
    def guarded(self: Faulty, *args: Any) -> None:
        try:
            step(self, *args)
        except Exception as exc:
            self.on_fault(exc)

    return guarded
