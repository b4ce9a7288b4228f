"""``SharedSalts``: a replay filter for several processes, exact across all of them.

    entry       scope u32 | salt, padded to 32 bytes        see ``generations``

A ``scope`` stands for one server, so equal salts of two servers are two salts.

The surprise: SIP022 asks for every salt of the last minute. So when there is no room left before the
minute is over, salts are refused, not forgotten.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable

from common.crypto.generations import Generations, Shape
from common.crypto.replay import HOLD

_SALT = struct.Struct("=I32s")
ENTRY_SIZE = _SALT.size  # bytes

TIMED = Shape(1 << 20, HOLD, ENTRY_SIZE)  # SIP022: 17,000 a second for HOLD seconds; 109 MB at the most
RECENT = Shape(1 << 18, None, ENTRY_SIZE)  # SIP004: the last 262,144 at least, twice that at most; 27 MB


class SharedSalts(Generations):
    """The salts of all servers of one program. Arguments are those of ``Generations``.

    What ``beside`` knows, if there is one, is known here; it has the same lock.
    """

    __slots__ = ("beside",)

    def __init__(
        self,
        shape: Shape,
        memory: mmap.mmap,
        lock: Callable[[], object],
        unlock: Callable[[], object],
        on_full: Callable[[], None],
    ) -> None:
        super().__init__(shape, ENTRY_SIZE, memory, lock, unlock, on_full)
        self.beside: SharedSalts | None = None

    def add(self, scope: int, salt: bytes, now: float) -> bool:
        """Remember ``salt`` of ``scope``; False when it was remembered already, or there is no room.

        ``now`` is unix seconds.
        """
        entry = _SALT.pack(scope, salt)
        digest = hash(entry)
        place = digest & self._mask
        self._lock()
        try:
            which, since, first, count, old_first, old_count = self._in_time(now)
            if old_count and self._seek(1 - which, old_first, entry, place) < 0:
                return False
            at = self._seek(which, first, entry, place)
            if at < 0 or (self.beside is not None and self.beside._holds(entry, digest)):
                return False
            if count == self._capacity and self._hold is None:
                which, since, first, count, old_first, old_count = self._turn(now, kept=count)
                at = self._seek(which, first, entry, place)
            if count < self._capacity:
                newer = self._generations[which]
                offset = count * ENTRY_SIZE
                newer.entries[offset : offset + ENTRY_SIZE] = entry
                self._write_header(which, since, first, count + 1, old_first, old_count)
                newer.numbers[at] = first + count
                return True
        finally:
            self._unlock()
        self._on_full()
        return False

    def knows(self, scope: int, salt: bytes) -> bool:
        """Whether ``salt`` of ``scope`` is remembered. It may be after its time."""
        entry = _SALT.pack(scope, salt)
        digest = hash(entry)
        self._lock()
        try:
            return self._holds(entry, digest) or (
                self.beside is not None and self.beside._holds(entry, digest)
            )
        finally:
            self._unlock()

    def _holds(self, entry: bytes, digest: int) -> bool:
        place = digest & self._mask
        which, _, first, count, old_first, old_count = self._header()
        return bool(
            (old_count and self._seek(1 - which, old_first, entry, place) < 0)
            or (count and self._seek(which, first, entry, place) < 0)
        )


class ServerSalts:
    """The ``ReplayFilter`` of one server: its scope within what is shared."""

    __slots__ = ("_salts", "_scope")

    def __init__(self, salts: SharedSalts, scope: int) -> None:
        self._salts, self._scope = salts, scope

    def add(self, salt: bytes, now: float) -> bool:
        """See ``replay.ReplayFilter``."""
        return self._salts.add(self._scope, salt, now)

    def knows(self, salt: bytes) -> bool:
        """See ``replay.ReplayFilter``."""
        return self._salts.knows(self._scope, salt)
