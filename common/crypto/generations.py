"""``Generations``: what several processes remember together, in memory that they share and never clear.

    memory      header | generation | generation
    generation  index, twice as many u64 as there may be entries | entries in the order they came
    entry       key | whatever is remembered of it

The memory is guarded by a lock that the kernel frees when its holder dies. One generation takes what is
new, the other one is what was full, or old enough, before. The index is a hash table of numbers: every
entry has one, they only ever grow, and a number below the first of its generation is a free slot. So a
generation is emptied by counting on, and nothing is cleared or moved. An entry is written first, then
counted, then put into the index: whoever is killed in between leaves one that nobody finds.

Where a key is looked for is decided by ``hash``, which is keyed anew in every program: who chooses keys
cannot make them meet.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Callable
from typing import NamedTuple

# Which generation is the newer; when it began, seconds; its first number and how many entries it has; the
# same of the older one.
_HEADER = struct.Struct("=QdQQQQ")
_HEADER_SIZE = 64
_NUMBER_SIZE = 8

Header = tuple[int, float, int, int, int, int]


class Shape(NamedTuple):
    """How many entries a generation takes, a power of two; its seconds, None: it lasts until it is full;
    and the bytes of an entry."""

    capacity: int
    hold: float | None
    entry_size: int

    @property
    def size(self) -> int:
        """Bytes of memory for both generations. Only pages that are used count."""
        return _HEADER_SIZE + 2 * self.capacity * (2 * _NUMBER_SIZE + self.entry_size)


class _Generation(NamedTuple):
    numbers: memoryview  # the index
    entries: memoryview


class Generations:
    """In ``memory``, which is zero at first; keys have ``key_size`` bytes.

    ``lock`` and ``unlock`` guard it between processes. ``on_full`` is called for everything that is refused
    for want of room.
    """

    __slots__ = (
        "_capacity",
        "_entry_size",
        "_generations",
        "_hold",
        "_key_size",
        "_lock",
        "_mask",
        "_memory",
        "_on_full",
        "_unlock",
    )

    def __init__(
        self,
        shape: Shape,
        key_size: int,
        memory: mmap.mmap,
        lock: Callable[[], object],
        unlock: Callable[[], object],
        on_full: Callable[[], None],
    ) -> None:
        self._capacity, self._hold, self._entry_size = shape
        self._key_size = key_size
        self._mask = 2 * self._capacity - 1
        self._memory = memoryview(memory)
        self._lock, self._unlock, self._on_full = lock, unlock, on_full
        index_size, entries_size = 2 * self._capacity * _NUMBER_SIZE, self._capacity * self._entry_size
        generations, begin = [], _HEADER_SIZE
        for _ in range(2):
            end = begin + index_size + entries_size
            index = self._memory[begin : begin + index_size].cast("Q")
            generations.append(_Generation(index, self._memory[begin + index_size : end]))
            begin = end
        self._generations = tuple(generations)
        self._write_header(0, 0.0, 1, 0, 1, 0)  # a zero in the index is below every number

    # -- with the lock held ----------------------------------------------------------------------

    def _header(self) -> Header:
        found: Header = _HEADER.unpack_from(self._memory)
        return found

    def _write_header(
        self, which: int, since: float, first: int, count: int, old_first: int, old_count: int
    ) -> None:
        _HEADER.pack_into(self._memory, 0, which, since, first, count, old_first, old_count)

    def _in_time(self, now: float) -> Header:
        """Return the header, after beginning a new generation if it is time for one."""
        header: Header = _HEADER.unpack_from(self._memory)
        if self._hold is None:
            return header
        which, since, first, count, old_first, old_count = header
        age = now - since
        if age >= self._hold:
            return self._turn(now, kept=count if age < 2 * self._hold else 0)
        if age < 0:  # the clock was set back: hold what there is for longer, never for less
            header = which, now, first, count, old_first, old_count
            self._write_header(*header)
        return header

    def _turn(self, now: float, kept: int) -> Header:
        """Begin a new generation; ``kept`` entries of the last one count on."""
        which, _, first, count, _, _ = self._header()
        header = 1 - which, now, first + count, 0, first, kept
        self._write_header(*header)
        return header

    def _seek(self, which: int, first: int, key: bytes, place: int) -> int:
        """Return the free slot of the index where ``key`` would be put; when it is there already, which
        entry it is, inverted: below zero.

        The index is never more than half full, so there is a free slot to end at.
        """
        numbers, entries = self._generations[which]
        while (number := numbers[place]) >= first:
            offset = (number - first) * self._entry_size
            if entries[offset : offset + self._key_size] == key:
                return ~(number - first)
            place = place + 1 & self._mask
        return place
