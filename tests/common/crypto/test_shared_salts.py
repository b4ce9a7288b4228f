"""``SharedSalts``: exact, in one process and in several, for as long as it says, and closed when full."""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import random
import tempfile

import pytest

from common.crypto.generations import Shape
from common.crypto.replay import HOLD, RecentSalts, TimedSalts
from common.crypto.shared_salts import ENTRY_SIZE, RECENT, TIMED, ServerSalts, SharedSalts
from tests.watched_lock import WatchedLock

NOW = 1_700_000_000.0


class Store(WatchedLock):
    """Salts in memory of their own."""

    def __init__(self, capacity: int = 8, hold: float | None = HOLD) -> None:
        super().__init__()
        shape = Shape(capacity, hold, ENTRY_SIZE)
        self.memory = mmap.mmap(-1, shape.size)
        self.salts = SharedSalts(shape, self.memory, self.lock, self.unlock, self.on_full)

    def add(self, salt: bytes, now: float = NOW, scope: int = 0) -> bool:
        added = self.salts.add(scope, salt, now)
        assert not self.held
        return added


def salt(number: int, size: int = 32) -> bytes:
    return number.to_bytes(size, "big")


@pytest.mark.parametrize("size", [16, 24, 32])
def test_a_salt_is_new_once(size):
    store = Store()
    assert store.add(salt(1, size))
    assert not store.add(salt(1, size))
    assert store.add(salt(2, size))


def test_asking_remembers_nothing():
    store = Store(capacity=2, hold=None)
    assert not store.salts.knows(0, salt(1))
    for number in (1, 2, 3):
        assert store.add(salt(number))
    known = [store.salts.knows(0, salt(number)) for number in range(5)]
    assert known == [False, True, True, True, False], "those of the older generation, too"
    assert not store.salts.knows(1, salt(1))
    assert not store.held
    assert (ServerSalts(store.salts, 0).knows(salt(1)), ServerSalts(store.salts, 1).knows(salt(1))) == (
        True,
        False,
    )


def test_servers_do_not_share_salts():
    store = Store()
    first, second = ServerSalts(store.salts, 0), ServerSalts(store.salts, 1)
    assert first.add(salt(1), NOW)
    assert second.add(salt(1), NOW)
    assert not first.add(salt(1), NOW)


def test_a_salt_of_zeros_is_a_salt():
    store = Store()
    assert store.add(bytes(32))
    assert not store.add(bytes(32))


def test_sip022_remembers_for_as_long_as_timestamps_are_believed():
    store = Store(capacity=64)
    assert store.add(salt(0))
    for second in range(int(HOLD) + 1):
        assert not store.add(salt(0), NOW + second)
    assert store.add(salt(1), NOW + HOLD)
    assert not store.add(salt(0), NOW + HOLD + 1), "the older generation is still asked"
    assert store.add(salt(2), NOW + 2 * HOLD + 1)
    assert store.add(salt(0), NOW + 2 * HOLD + 2)
    assert not store.add(salt(1), NOW + 2 * HOLD + 2)


def test_after_a_long_silence_both_generations_are_old():
    store = Store()
    store.add(salt(0))
    assert store.add(salt(1), NOW + 2 * HOLD)
    assert store.add(salt(0), NOW + 2 * HOLD)


def test_a_clock_set_back_holds_for_longer_and_never_for_less():
    store = Store(capacity=64)
    store.add(salt(0))
    for now in (NOW - 1000, NOW - 1000 + HOLD - 1, NOW - 1000 + HOLD, NOW - 1000 + 2 * HOLD - 1):
        assert not store.add(salt(0), now)


def test_sip022_refuses_rather_than_forgets():
    """Nothing is forgotten before its time, so what finds no room is not let in."""
    store = Store(capacity=8)
    assert all(store.add(salt(number)) for number in range(8))
    assert not store.add(salt(8))
    assert store.refused == 1
    assert not any(store.add(salt(number)) for number in range(8))
    assert store.refused == 1, "a replay is a replay"
    assert store.add(salt(8), NOW + HOLD)
    assert not any(store.add(salt(number), NOW + HOLD) for number in range(8))


def test_sip004_remembers_by_number():
    store = Store(capacity=8, hold=None)
    assert all(store.add(salt(number)) for number in range(16))
    assert not any(store.add(salt(number)) for number in range(16))
    assert store.add(salt(16))
    assert not any(store.add(salt(number)) for number in range(8, 17))
    assert store.add(salt(0)), "twice the capacity ago"
    assert store.refused == 0


@pytest.mark.parametrize("hold", [HOLD, None])
def test_it_agrees_with_the_filters_of_one_process(hold):
    """Random salts over many generations, some of them again and again."""
    rng = random.Random(11)
    store = Store(capacity=64, hold=hold)
    other = TimedSalts() if hold else RecentSalts(64)
    now = NOW
    for _ in range(5_000):
        now += rng.random() * 4
        one = salt(rng.randrange(400))
        assert store.add(one, now) is other.add(one, now)
    assert store.refused == 0


def test_tables_beside_each_other_know_the_same_and_forget_by_their_own_number():
    streams, packets = Store(capacity=8, hold=None), Store(capacity=16, hold=None)
    streams.salts.beside, packets.salts.beside = packets.salts, streams.salts
    assert streams.add(salt(0))
    assert not packets.add(salt(0))
    assert packets.add(salt(0), scope=1)
    for number in range(1, 100):
        assert packets.add(salt(number))
        assert not streams.add(salt(number))
        assert streams.salts.knows(0, salt(number))
        assert packets.salts.knows(0, salt(0))
    assert not streams.add(salt(0))
    assert streams.add(salt(1)), "a hundred packets ago"


def test_it_agrees_with_two_filters_of_one_process():
    rng = random.Random(12)
    stores = Store(capacity=64, hold=None), Store(capacity=64, hold=None)
    stores[0].salts.beside, stores[1].salts.beside = stores[1].salts, stores[0].salts
    first = RecentSalts(64)
    others = first, RecentSalts(64, beside=first)
    for _ in range(5_000):
        which, one = rng.randrange(2), salt(rng.randrange(600))
        assert stores[which].add(one) is others[which].add(one, NOW)


class Dying:
    """An index whose writer is killed before it writes."""

    def __init__(self, numbers: memoryview) -> None:
        self._numbers = numbers

    def __getitem__(self, at: int) -> int:
        return self._numbers[at]

    def __setitem__(self, at: int, number: int) -> None:
        raise KeyboardInterrupt


def die(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("place", ["count", "index"])
@pytest.mark.parametrize("hold", [HOLD, None])
def test_a_writer_that_died_leaves_nothing_wrong(hold, place, monkeypatch):
    """Killed before the count or before the index: its own salt is lost with its stream."""
    store = Store(capacity=8, hold=hold)
    for number in range(4):
        store.add(salt(number))
    whole = store.salts._generations
    with monkeypatch.context() as patch:
        if place == "count":
            patch.setattr(SharedSalts, "_write_header", die)
        else:
            store.salts._generations = tuple(each._replace(numbers=Dying(each.numbers)) for each in whole)
        with pytest.raises(KeyboardInterrupt):
            store.add(salt(4))
    assert not store.held
    store.salts._generations = whole
    assert store.add(salt(4))
    assert store.add(salt(5))
    assert not any(store.add(salt(number)) for number in (0, 1, 2, 3, 5))
    assert not store.add(salt(4))
    later = NOW + HOLD
    assert all(store.add(salt(number), later) for number in range(6, 12))
    assert not any(store.add(salt(number), later) for number in range(12))


def test_salts_chosen_to_look_alike_do_not_crowd():
    """The place of a salt is not read off the salt: a holder of a key cannot make looking slow."""
    store = Store(capacity=1024)
    for number in range(1024):
        store.add(salt(number << 64))
    index = store.salts._generations[1].numbers
    runs = bytes(1 if number else 0 for number in index).split(b"\0")
    assert max(map(len, runs)) < 128


def test_processes_see_each_others_salts():
    with tempfile.TemporaryFile() as file:
        lock, unlock = (
            functools.partial(fcntl.lockf, file.fileno(), kind) for kind in (fcntl.LOCK_EX, fcntl.LOCK_UN)
        )
        shape = Shape(1 << 12, None, ENTRY_SIZE)
        salts = SharedSalts(shape, mmap.mmap(-1, shape.size), lock, unlock, lambda: None)
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                added = sum(salts.add(0, salt(number), NOW) for number in range(1000))
                os._exit(min(added * 250 // 1000, 250))
            children.append(pid)
        shares = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert 245 <= sum(shares) <= 250, shares  # each salt was new to exactly one of them; rounded down


def test_the_bounds_that_are_stated():
    assert (TIMED.capacity, TIMED.size // 1_000_000) == (1_048_576, 109)
    assert (RECENT.capacity, RECENT.size // 1_000_000) == (262_144, 27)
