"""``SharedSalts``: a replay filter for several processes, exact across all of them.

    memory      header | generation | generation
    generation  index, twice as many u64 as there may be salts | salts in the order they came
    salt        scope u32 | salt, padded to 32 bytes

The memory is shared between processes and guarded by a lock that the kernel frees when its holder dies.
One generation takes what is new, the other one is what was full, or old enough, before. The index is a
hash table of numbers: every salt has one, they only ever grow, and a number below the first of its
generation is a free slot. So a generation is emptied by counting on, and nothing is cleared or moved.

Where a salt is looked for is decided by ``hash``, which is keyed anew in every program: who chooses salts
cannot make them meet. A ``scope`` stands for one server, so equal salts of two servers are two salts.

The surprise: SIP022 asks for every salt of the last minute. So when there is no room left before the
minute is over, salts are refused, not forgotten.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

from common.crypto.replay import HOLD

# Which generation is the newer; when it began, seconds; its first number and how many salts it has; the
# same of the older one.
_HEADER = struct.Struct("=QdQQQQ")
_HEADER_SIZE = 64
_SALT = struct.Struct("=I32s")
_NUMBER_SIZE = 8

_Header = tuple[int, float, int, int, int, int]


class Shape(NamedTuple):
    """How many salts a generation takes, a power of two, and its seconds; None: it lasts until it is full."""

    capacity: int
    hold: float | None

    @property
    def size(self) -> int:
        """Bytes of memory for both generations. Only pages that are used count."""
        return _HEADER_SIZE + 2 * self.capacity * (2 * _NUMBER_SIZE + _SALT.size)


TIMED = Shape(1 << 20, HOLD)  # SIP022: 17,000 a second for HOLD seconds; 109 MB at the most
RECENT = Shape(1 << 18, None)  # SIP004: the last 262,144 at least, twice that at most; 27 MB


class _Generation(NamedTuple):
    numbers: memoryview  # the index
    salts: memoryview


class SharedSalts:
    """The salts of all servers of one program in ``memory``, which is zero at first.

    ``lock`` and ``unlock`` guard it between processes. ``on_full`` is called for every salt refused for
    want of room.
    """

    __slots__ = ("_capacity", "_generations", "_hold", "_lock", "_mask", "_memory", "_on_full", "_unlock")

    def __init__(
        self,
        shape: Shape,
        memory: mmap.mmap,
        lock: Callable[[], object],
        unlock: Callable[[], object],
        on_full: Callable[[], None],
    ) -> None:
        self._capacity, self._hold = shape
        self._mask = 2 * self._capacity - 1
        self._memory = memoryview(memory)
        self._lock, self._unlock, self._on_full = lock, unlock, on_full
        index_size, salts_size = 2 * self._capacity * _NUMBER_SIZE, self._capacity * _SALT.size
        generations, begin = [], _HEADER_SIZE
        for _ in range(2):
            end = begin + index_size + salts_size
            index = self._memory[begin : begin + index_size].cast("Q")
            generations.append(_Generation(index, self._memory[begin + index_size : end]))
            begin = end
        self._generations = tuple(generations)
        _HEADER.pack_into(self._memory, 0, 0, 0.0, 1, 0, 1, 0)  # a zero in the index is below every number

    def add(self, scope: int, salt: bytes, now: float) -> bool:
        """Remember ``salt`` of ``scope``; False when it was remembered already, or there is no room.

        ``now`` is unix seconds.
        """
        entry = _SALT.pack(scope, salt)
        place = hash(entry) & self._mask
        self._lock()
        try:
            which, since, first, count, old_first, old_count = self._in_time(now)
            if old_count and self._seek(1 - which, old_first, entry, place) < 0:
                return False
            at = self._seek(which, first, entry, place)
            if at < 0:
                return False
            if count == self._capacity and self._hold is None:
                which, since, first, count, old_first, old_count = self._turn(now, kept=count)
                at = self._seek(which, first, entry, place)
            if count < self._capacity:
                newer = self._generations[which]
                offset = count * _SALT.size
                newer.salts[offset : offset + _SALT.size] = entry
                newer.numbers[at] = first + count
                _HEADER.pack_into(self._memory, 0, which, since, first, count + 1, old_first, old_count)
                return True
        finally:
            self._unlock()
        self._on_full()
        return False

    def knows(self, scope: int, salt: bytes) -> bool:
        """Whether ``salt`` of ``scope`` is remembered. It may be after its time."""
        entry = _SALT.pack(scope, salt)
        place = hash(entry) & self._mask
        self._lock()
        try:
            which, _, first, count, old_first, old_count = _HEADER.unpack_from(self._memory)
            return bool(
                (old_count and self._seek(1 - which, old_first, entry, place) < 0)
                or (count and self._seek(which, first, entry, place) < 0)
            )
        finally:
            self._unlock()

    def _in_time(self, now: float) -> _Header:
        """Return the header, after beginning a new generation if it is time for one."""
        header: _Header = _HEADER.unpack_from(self._memory)
        if self._hold is None:
            return header
        which, since, first, count, old_first, old_count = header
        age = now - since
        if age >= self._hold:
            return self._turn(now, kept=count if age < 2 * self._hold else 0)
        if age < 0:  # the clock was set back: hold what there is for longer, never for less
            header = which, now, first, count, old_first, old_count
            _HEADER.pack_into(self._memory, 0, *header)
        return header

    def _turn(self, now: float, kept: int) -> _Header:
        """Begin a new generation; ``kept`` salts of the last one count on."""
        which, _, first, count, _, _ = _HEADER.unpack_from(self._memory)
        # One number is left out: somebody may have died between writing it and counting it.
        header = 1 - which, now, first + count + 1, 0, first, kept
        _HEADER.pack_into(self._memory, 0, *header)
        return header

    def _seek(self, which: int, first: int, entry: bytes, place: int) -> int:
        """Return the free slot of the index where ``entry`` would be put; -1: it is there already.

        The index is never more than half full, so there is a free slot to end at.
        """
        numbers, salts = self._generations[which]
        while (number := numbers[place]) >= first:
            offset = (number - first) * _SALT.size
            if salts[offset : offset + _SALT.size] == entry:
                return -1
            place = place + 1 & self._mask
        return place


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
