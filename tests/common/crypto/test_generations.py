"""``Generations``: the memory that ``test_shared_salts`` and ``test_shared_windows`` fill."""

from __future__ import annotations

import mmap

import pytest

from common.crypto.generations import Generations, Shape

KEY = 8


@pytest.mark.parametrize("entry_size", [8, 36, 160])
def test_all_of_the_memory_is_used_and_nothing_of_it_twice(entry_size):
    shape = Shape(16, None, entry_size)
    memory = mmap.mmap(-1, shape.size)
    store = Generations(shape, KEY, memory, int, int, list)
    before = bytes(memory)
    for number, part in enumerate([part for generation in store._generations for part in generation], 1):
        part.cast("B")[:] = bytes([number]) * part.nbytes
    header = 64
    assert memory[:header] == before[:header]
    index, entries = 16 * 2 * 8, 16 * entry_size
    assert memory[header:] == b"\1" * index + b"\2" * entries + b"\3" * index + b"\4" * entries


def test_what_is_there_is_told_by_its_place_inverted():
    """So the very first entry is below zero, too."""
    shape = Shape(4, None, KEY)
    store = Generations(shape, KEY, mmap.mmap(-1, shape.size), int, int, list)
    which, _, first, _, _, _ = store._header()
    keys = [bytes([number]) * KEY for number in range(3)]
    for number, key in enumerate(keys):
        at = store._seek(which, first, key, 5)
        assert at == 5 + number
        store._generations[which].entries[number * KEY : (number + 1) * KEY] = key
        store._generations[which].numbers[at] = first + number
    assert [store._seek(which, first, key, 5) for key in keys] == [-1, -2, -3]
