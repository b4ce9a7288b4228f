"""The sliding window against the vector, against a model, and at its edges."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.crypto.window import WINDOW_SIZE, SlidingWindow
from tests.vectors import VECTORS

LAST_ID = 2**64 - 1


def offered(window: SlidingWindow, packet_id: int) -> bool:
    if not window.is_fresh(packet_id):
        return False
    return window.take(packet_id, 0.0)


def test_the_vector():
    vector = VECTORS["sliding_window"]
    window = SlidingWindow(vector["window"])
    for packet_id, accepted in vector["sequence"]:
        assert offered(window, packet_id) is bool(accepted), packet_id


@pytest.mark.parametrize("first", [0, 1, 77, 2**32, LAST_ID])
def test_the_first_id_may_be_any(first):
    window = SlidingWindow()
    assert offered(window, first)
    assert not offered(window, first)
    if first:
        assert offered(window, first - 1)


@pytest.mark.parametrize("size", [1, 2, 64, 256, WINDOW_SIZE])
def test_edges(size):
    """The oldest id in the window, the one before it, and leaps of its size, one less and one more."""
    for leap in {1, max(1, size - 1), size, size + 1, 10 * size, 2**63}:
        window = SlidingWindow(size)
        assert offered(window, size)
        assert offered(window, size + leap)
        assert not offered(window, size + leap)
        assert not offered(window, leap)  # exactly one too old
        if leap < size:
            assert not offered(window, size)  # still known
        if leap + 1 < size:
            assert offered(window, leap + 1)  # the oldest there is
            assert not offered(window, leap + 1)


def test_asking_changes_nothing():
    window = SlidingWindow(8)
    window.take(100, 0.0)
    for packet_id in (0, 92, 93, 99, 101, LAST_ID):
        before = window._last, window._seen
        first = window.is_fresh(packet_id)
        assert window.is_fresh(packet_id) is first
        assert (window._last, window._seen) == before


def test_taking_counts_without_asking():
    window = SlidingWindow(8)
    taken = [window.take(packet_id, 0.0) for packet_id in (9, 9, 2, 2, 1, 10, 9)]
    assert taken == [True, False, True, False, False, True, False]


def test_it_does_not_grow():
    window = SlidingWindow(64)
    for packet_id in (*range(1000), *range(2000, 2**40, 2**36), LAST_ID):
        assert offered(window, packet_id)
        assert window._seen < 1 << 64


@given(
    ids=st.lists(st.integers(0, 60) | st.integers(0, LAST_ID), max_size=200),
    size=st.integers(1, 40),
)
def test_against_a_model(ids, size):
    """A set of all that was taken, and the highest."""
    window = SlidingWindow(size)
    taken: set[int] = set()
    for packet_id in ids:
        expected = packet_id not in taken and packet_id > max(taken, default=-1) - size
        assert offered(window, packet_id) is expected
        if expected:
            taken.add(packet_id)
