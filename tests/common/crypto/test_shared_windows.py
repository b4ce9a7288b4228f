"""``SharedWindows``: the windows of ``window``, in several processes, for as long as packets are in time."""

from __future__ import annotations

import fcntl
import functools
import mmap
import os
import random
import tempfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.generations import Shape
from common.crypto.replay import HOLD
from common.crypto.shared_windows import BLOCKS, ENTRY_SIZE, SESSIONS, SharedWindow, SharedWindows
from common.crypto.window import WINDOW_SIZE, SlidingWindow
from tests.vectors import VECTORS
from tests.watched_lock import WatchedLock

NOW = 1_700_000_000.0
LAST_ID = 2**64 - 1
HEADER = 64  # bytes


class Store(WatchedLock):
    """Windows in memory of their own."""

    def __init__(self, capacity: int = 8) -> None:
        super().__init__()
        shape = Shape(capacity, HOLD, ENTRY_SIZE)
        self.memory = mmap.mmap(-1, shape.size)
        self.windows = SharedWindows(shape, self.memory, self.lock, self.unlock, self.on_full)

    def window(self, number: int = 0, scope: int = 0) -> SharedWindow:
        """As another process would have it, too: nothing of it is kept here."""
        return SharedWindow(self.windows, scope, number.to_bytes(8, "big"))

    def take(self, number: int, packet_id: int, now: float = NOW) -> bool:
        taken = self.window(number).take(packet_id, now)
        assert not self.held
        return taken


# -- one window --------------------------------------------------------------------------------------


def test_the_vector():
    """Its window has another size, so what comes out is what the window of one process says."""
    vector = VECTORS["sliding_window"]
    store, other = Store(), SlidingWindow()
    for packet_id, _ in vector["sequence"]:
        assert store.take(0, packet_id) is other.take(packet_id, NOW)


@pytest.mark.parametrize("first", [0, 1, 63, 64, 77, 2**32, LAST_ID])
def test_the_first_id_may_be_any(first):
    store = Store()
    assert store.window().is_fresh(first)
    assert store.take(0, first)
    assert not store.take(0, first)
    if first:
        assert store.take(0, first - 1)
        assert not store.take(0, first - 1)


@pytest.mark.parametrize("last", range(WINDOW_SIZE, WINDOW_SIZE + 70))
def test_the_oldest_id_of_the_window_and_the_one_before_it(last):
    store = Store()
    assert store.take(0, last)
    assert not store.take(0, last - WINDOW_SIZE)
    assert store.take(0, last - WINDOW_SIZE + 1)
    assert not store.take(0, last - WINDOW_SIZE + 1)


ids = st.integers(0, 200) | st.integers(0, 3 * WINDOW_SIZE) | st.integers(0, LAST_ID)
steps = st.integers(1, 130) | st.integers(-WINDOW_SIZE - 70, WINDOW_SIZE + 70)


@given(first=ids, moves=st.lists(steps, max_size=100))
def test_it_agrees_with_the_window_of_one_process(first, moves):
    """Steps around the highest id, ahead and behind."""
    store, other = Store(), SlidingWindow()
    at = highest = first
    for move in [0, *moves]:
        at = min(max(0, highest + move), LAST_ID)
        assert store.take(0, at) is other.take(at, NOW), (at, highest)
        highest = max(highest, at)


@given(packet_ids=st.lists(ids, max_size=60))
def test_it_agrees_whatever_the_order(packet_ids):
    store, other = Store(), SlidingWindow()
    for packet_id in packet_ids:
        assert store.take(0, packet_id) is other.take(packet_id, NOW)


def test_each_session_of_each_server_has_its_own():
    store = Store()
    for number in range(4):
        for scope in range(2):
            assert store.window(number, scope).take(5, NOW)
            assert not store.window(number, scope).take(5, NOW)


# -- time and room -----------------------------------------------------------------------------------


def test_a_session_that_goes_on_is_remembered_for_as_long_as_it_does():
    store = Store()
    now = NOW
    for packet_id in range(1000, 1020):
        assert store.take(1, packet_id, now)
        for old in range(1000, packet_id + 1):
            assert not store.take(1, old, now)
        now += HOLD * 0.9
    assert store.take(1, 999, now)


def test_a_session_is_forgotten_when_none_of_its_packets_is_in_time():
    store = Store()
    store.take(1, 7)
    for second in range(int(HOLD) + 1):
        assert not store.take(1, 7, NOW + second)
    assert store.take(2, 0, NOW + HOLD)
    assert not store.take(1, 7, NOW + HOLD + 1), "the older generation is still asked"
    assert store.take(2, 1, NOW + 2 * HOLD)
    assert store.take(1, 7, NOW + 2 * HOLD)


def test_after_a_long_silence_both_generations_are_old():
    store = Store()
    store.take(1, 7)
    assert store.take(2, 0, NOW + 2 * HOLD)
    assert store.take(1, 7, NOW + 2 * HOLD)


def test_a_clock_set_back_holds_for_longer_and_never_for_less():
    store = Store()
    store.take(1, 7)
    for now in (NOW - 1000, NOW - 1000 + HOLD - 1, NOW - 1000 + HOLD, NOW - 1000 + 2 * HOLD - 1):
        assert not store.take(1, 7, now)


def test_a_replay_does_not_bring_a_session_over():
    """Who only has a recording keeps nothing alive with it, and takes no room."""
    store = Store(capacity=4)
    for number in range(4):
        store.take(number, 7)
    for number in range(4):
        assert not store.take(number, 7, NOW + HOLD)
    assert store.windows._header()[3] == 0, "entries of the newer generation"


def test_when_there_is_no_room_new_sessions_are_refused_and_none_that_runs():
    store = Store(capacity=4)
    assert all(store.take(number, 0) for number in range(4))
    assert not store.take(4, 0)
    assert store.refused == 1
    assert all(store.take(number, 1) for number in range(4))
    assert not any(store.take(number, 1) for number in range(4))
    later = NOW + HOLD
    assert not store.take(4, 0, later), "the place of those that may still come over"
    assert all(store.take(number, 2, later) for number in range(4))
    assert store.refused == 2
    later += HOLD
    assert all(store.take(number, 3, later) for number in range(2))
    assert not store.take(4, 0, later)
    later += HOLD
    assert store.take(4, 0, later), "two have not come for a whole time"
    assert store.take(5, 0, later)
    assert not store.take(6, 0, later)
    assert all(store.take(number, 4, later) for number in range(2))


def test_who_has_come_over_leaves_no_place_empty():
    store = Store(capacity=4)
    assert all(store.take(number, 0) for number in range(2))
    assert all(store.take(number, 1, NOW + HOLD) for number in range(4))
    assert not store.take(4, 0, NOW + HOLD)


def test_it_agrees_with_windows_of_one_process_over_many_generations():
    rng = random.Random(11)
    store = Store(capacity=64)
    others = [SlidingWindow() for _ in range(20)]
    now = NOW
    for _ in range(5_000):
        now += rng.random()
        number = int(rng.expovariate(0.2)) % 8  # some are silent for long, none for longer than HOLD
        packet_id = max(0, others[number]._last + rng.randrange(-80, 80))
        assert store.take(number, packet_id, now) is others[number].take(packet_id, now)
        for quiet in range(8):
            if rng.random() < 0.05:
                ahead = others[quiet]._last + 1
                assert store.take(quiet, ahead, now) is others[quiet].take(ahead, now)
    assert store.refused == 0


# -- deaths, and several processes -------------------------------------------------------------------


class Dying:
    """Words of memory whose writer is killed after some writes."""

    def __init__(self, words: memoryview, writes: int) -> None:
        self._words, self._writes = words, writes

    def __getitem__(self, at: int) -> int:
        return self._words[at]

    def __setitem__(self, at: int, value: int) -> None:
        if not self._writes:
            raise KeyboardInterrupt
        self._writes -= 1
        self._words[at] = value


def die(*arguments: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("leap", [1, 63, 64, 65, 500, WINDOW_SIZE - 1, WINDOW_SIZE, 10 * WINDOW_SIZE])
@pytest.mark.parametrize("writes", range(BLOCKS + 2))
def test_what_was_taken_stays_so_wherever_a_writer_dies(leap, writes):
    store = Store()
    taken = [packet_id for packet_id in range(3000, 3000 + WINDOW_SIZE) if packet_id % 3]
    for packet_id in taken:
        store.take(0, packet_id)
    whole = store.windows._words
    store.windows._words = tuple(Dying(words, writes) for words in whole)
    try:
        store.take(0, taken[-1] + leap)
    except KeyboardInterrupt:
        assert not store.held
    store.windows._words = whole
    assert not any(store.take(0, packet_id) for packet_id in taken)
    following = taken[-1] + leap + 20 * WINDOW_SIZE
    assert store.take(0, following), "and it goes on"
    assert store.take(0, following - 1)


@pytest.mark.parametrize("later", [0, HOLD], ids=["at its beginning", "when it came over"])
@pytest.mark.parametrize("place", ["count", "index"])
def test_a_session_whose_writer_died_before_it_was_in_the_index(later, place, monkeypatch):
    store = Store()
    store.take(0, 5)
    if later:
        store.take(1, 60)
    now = NOW + later
    store.take(2, 5, now)
    whole = store.windows._generations
    with monkeypatch.context() as patch:
        if place == "count":
            patch.setattr(SharedWindows, "_write_header", die)
        else:
            dying = tuple(each._replace(numbers=Dying(each.numbers, 0)) for each in whole)
            store.windows._generations = dying
        with pytest.raises(KeyboardInterrupt):
            store.take(1, 70, now)
    assert not store.held
    store.windows._generations = whole
    assert store.take(1, 71, now)
    assert store.take(3, 9, now)
    assert not store.take(1, 71, now)
    assert not store.take(3, 9, now)
    assert not (later and store.take(1, 60, now))
    assert not store.take(0, 5, now)


def test_what_another_left_in_memory_is_nothing_of_a_new_session():
    """Killed before it was counted, or of a generation that is over."""
    store = Store()
    header = bytes(store.memory[:HEADER])
    store.take(1, 70)
    store.memory[:HEADER] = header
    assert store.take(2, 140)
    assert not store.take(2, 140)
    assert store.take(2, 70)


def test_processes_take_each_id_once():
    with tempfile.TemporaryFile() as file:
        lock, unlock = (
            functools.partial(fcntl.lockf, file.fileno(), kind) for kind in (fcntl.LOCK_EX, fcntl.LOCK_UN)
        )
        shape = Shape(64, HOLD, ENTRY_SIZE)
        windows = SharedWindows(shape, mmap.mmap(-1, shape.size), lock, unlock, lambda: None)
        children = []
        for _ in range(3):
            pid = os.fork()
            if pid == 0:
                window = SharedWindow(windows, 0, b"session!")
                os._exit(sum(window.take(packet_id, NOW) for packet_id in range(1000)) // 4)
            children.append(pid)
        shares = [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in children]
    assert 247 <= sum(shares) <= 250, shares  # each was fresh to exactly one of them; rounded down


def test_the_bounds_that_are_stated():
    assert (SESSIONS.capacity // 2, SESSIONS.size // 1_000_000) == (65_536, 46)
    assert WINDOW_SIZE == (BLOCKS - 1) * 64
