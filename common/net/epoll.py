"""``EpollSelector``: the selector of the loop on Linux, made for one kind of use.

``selectors.EpollSelector`` serves everybody: it looks a registration up two or three times for each
change, and makes a mapping, a slice of the timeout and an exception path for things that this loop
never does. Here a descriptor is an index into one dict, and what is looked up is looked up once. It
takes a third less time (docs/adr/0016-a-selector-of-our-own.md); elsewhere the standard library's serve.
"""

from __future__ import annotations

import functools
import math
import select
import selectors
from collections.abc import Mapping
from selectors import EVENT_READ, EVENT_WRITE, SelectorKey
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from common.net.loop import HasFileno

IN, OUT = select.EPOLLIN, select.EPOLLOUT

# Interest by mask: none, READ, WRITE, both. A mask of 0 would still report HUP.
_INTEREST = (0, IN, OUT, IN | OUT)

_new_key = functools.partial(tuple.__new__, SelectorKey)  # without the price of naming its fields

# What the kernel reports, as a mask. An error or a hang-up is both: whoever reads or writes finds out.
_MASKS = {IN: EVENT_READ, OUT: EVENT_WRITE, IN | OUT: EVENT_READ | EVENT_WRITE}

MAX_EVENTS = 256  # per call; the kernel keeps the others for the next, in turn


class EpollSelector(selectors.BaseSelector):
    """Level-triggered ``epoll``. The keys are ``SelectorKey``s, as everywhere."""

    def __init__(self) -> None:
        self._epoll = select.epoll()
        self._keys: dict[int, SelectorKey] = {}

    def fileno(self) -> int:
        return self._epoll.fileno()

    def register(self, fileobj: HasFileno | int, events: int, data: Any = None) -> SelectorKey:
        """Begin to watch. Raises ValueError for no events, KeyError or OSError when it is watched."""
        if not 0 < events < 4:
            raise ValueError(f"invalid events: {events!r}")
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        if fd in self._keys:
            raise KeyError(f"{fileobj!r} is registered")
        self._epoll.register(fd, _INTEREST[events])
        key = self._keys[fd] = _new_key((fileobj, fd, events, data))
        return key

    def unregister(self, fileobj: HasFileno | int) -> SelectorKey:
        """Watch no longer. Raises KeyError when it was not watched."""
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        key = self._keys.pop(fd)
        self._epoll.unregister(fd)
        return key

    def modify(self, fileobj: HasFileno | int, events: int, data: Any = None) -> SelectorKey:
        """Watch for something else, in one step. Raises ValueError and KeyError as the two above."""
        if not 0 < events < 4:
            raise ValueError(f"invalid events: {events!r}")
        fd = fileobj if isinstance(fileobj, int) else fileobj.fileno()
        old = self._keys[fd]
        if old.events != events:
            self._epoll.modify(fd, _INTEREST[events])
        key = self._keys[fd] = _new_key((fileobj, fd, events, data))
        return key

    def select(self, timeout: float | None = None) -> list[tuple[SelectorKey, int]]:
        """Wait ``timeout`` seconds, rounded up to milliseconds, or for ever; return keys and masks."""
        if timeout is not None:
            timeout = math.ceil(timeout * 1000) / 1000 if timeout > 0 else 0
        keys = self._keys
        ready = []
        for fd, events in self._epoll.poll(timeout, MAX_EVENTS):
            key = keys.get(fd)
            if key is not None:
                ready.append((key, key.events & (_MASKS.get(events) or _mask_of(events))))
        return ready

    def close(self) -> None:
        self._epoll.close()
        self._keys.clear()

    def get_map(self) -> Mapping[HasFileno | int, SelectorKey]:
        return dict(self._keys.items())


def _mask_of(events: int) -> int:
    """As the standard library has it: anything but OUT can be read, anything but IN can be written."""
    return (EVENT_READ if events & ~OUT else 0) | (EVENT_WRITE if events & ~IN else 0)
