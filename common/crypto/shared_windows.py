"""``SharedWindows``: the sliding windows of SIP022 sessions for several processes, exact across all of them.

    entry       scope u64 | session id | the highest id taken, u64 | 17 words of bits      see ``generations``
    word n      the ids of one block of 64: 64 n to 64 n + 63 at first, then 17 blocks further, and so on

A session that goes on is copied to the newer generation once in its time; one that does not is forgotten
with the older, when none of its packets is in time any more. What is left of the older has its place kept
in the newer. So when there is no room, new sessions are refused, and never one that runs.

The surprise: what is written here may be cut short, when its writer is killed. So the highest id is written
before the bits that it makes obsolete are cleared: they may be too many afterwards, never too few.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from common.crypto.generations import Generations, Shape
from common.crypto.replay import HOLD
from common.crypto.window import WINDOW_SIZE

_KEY = struct.Struct("=Q8s")
_LAST, _BITS = 2, 3  # where they begin, in words
_BLOCK = 64  # ids
BLOCKS = WINDOW_SIZE // _BLOCK + 1  # one is not complete yet
_WORDS = _BITS + BLOCKS
ENTRY_SIZE = 8 * _WORDS

# Those of HOLD seconds and of the same time before: 65,536 new ones in each, 1,000 a second, less those
# that run. 46 MB at the most.
SESSIONS = Shape(1 << 17, HOLD, ENTRY_SIZE)


class SharedWindows(Generations):
    """The windows of all servers of one program. Arguments are those of ``Generations``."""

    __slots__ = ("_words",)

    def __init__(
        self,
        shape: Shape,
        memory: mmap.mmap,
        lock: Callable[[], object],
        unlock: Callable[[], object],
        on_full: Callable[[], None],
    ) -> None:
        super().__init__(shape, _KEY.size, memory, lock, unlock, on_full)
        self._words = tuple(generation.entries.cast("Q") for generation in self._generations)

    def take(self, key: bytes, packet_id: int, now: float) -> bool:
        """Take ``packet_id`` of the session ``key``; False when it is not fresh, or there is no room.

        ``now`` is unix seconds.
        """
        place = hash(key) & self._mask
        self._lock()
        try:
            which, since, first, count, old_first, old_count = self._in_time(now)
            at = self._seek(which, first, key, place)
            if at < 0:
                return _take(self._words[which], ~at * _WORDS, packet_id)
            old = self._seek(1 - which, old_first, key, place) if old_count else 0
            if old < 0:
                # Taken where it is, so that a replay moves nothing.
                if not _take(self._words[1 - which], ~old * _WORDS, packet_id):
                    return False
                self._copy(1 - which, ~old, which, count)
            elif count + old_count < self._capacity:
                self._begin(which, count, key, packet_id)
            else:
                at = -1
            if at >= 0:
                self._write_header(which, since, first, count + 1, old_first, old_count)
                self._generations[which].numbers[at] = first + count
                if old < 0:  # one less to come: said last, or whoever dies here would make it two
                    self._write_header(which, since, first, count + 1, old_first, old_count - 1)
                return True
        finally:
            self._unlock()
        self._on_full()
        return False

    def _begin(self, which: int, number: int, key: bytes, packet_id: int) -> None:
        start = number * ENTRY_SIZE
        entries, words = self._generations[which].entries, self._words[which]
        entries[start : start + ENTRY_SIZE] = key + bytes(ENTRY_SIZE - len(key))
        base = number * _WORDS
        words[base + _LAST] = packet_id
        words[base + _BITS + packet_id // _BLOCK % BLOCKS] = 1 << packet_id % _BLOCK

    def _copy(self, old_which: int, old_number: int, which: int, number: int) -> None:
        old, new = old_number * ENTRY_SIZE, number * ENTRY_SIZE
        entries = self._generations[old_which].entries[old : old + ENTRY_SIZE]
        self._generations[which].entries[new : new + ENTRY_SIZE] = entries


def _take(words: memoryview, base: int, packet_id: int) -> bool:
    """Take an id in the window of the entry that begins at word ``base``."""
    block, bit = packet_id // _BLOCK, 1 << packet_id % _BLOCK
    at = base + _BITS + block % BLOCKS
    last = words[base + _LAST]
    if packet_id > last:
        words[base + _LAST] = packet_id
        ahead = last // _BLOCK + 1
        for each in range(ahead, min(block + 1, ahead + BLOCKS)):
            words[base + _BITS + each % BLOCKS] = 0
    elif last - packet_id >= WINDOW_SIZE or words[at] & bit:
        return False
    words[at] |= bit
    return True


class SharedWindow:
    """The ``Window`` of one session of the server that ``scope`` stands for."""

    __slots__ = ("_key", "_windows")

    def __init__(self, windows: SharedWindows, scope: int, session_id: bytes) -> None:
        self._windows, self._key = windows, _KEY.pack(scope, session_id)

    def is_fresh(self, packet_id: int) -> bool:
        """Always: to ask would cost as much as to take."""
        return True

    def take(self, packet_id: int, now: float) -> bool:
        """See ``window.Window``."""
        return self._windows.take(self._key, packet_id, now)
