"""Replay filters: exact, and no larger than they say."""

from __future__ import annotations

import random

import pytest

from common.crypto.replay import HOLD, RECENT_SALTS, RecentSalts, TimedSalts

NOW = 1_700_000_000.0


def salt(number: int) -> bytes:
    return number.to_bytes(32, "big")


@pytest.mark.parametrize("make", [RecentSalts, TimedSalts])
def test_a_salt_is_new_once(make):
    seen = make()
    assert seen.add(salt(1), NOW)
    assert not seen.add(salt(1), NOW)
    assert seen.add(salt(2), NOW)
    assert not seen.add(salt(1), NOW + 1)
    assert not seen.add(salt(2), NOW + 60)


@pytest.mark.parametrize("make", [RecentSalts, TimedSalts])
def test_asking_remembers_nothing(make):
    seen = make()
    assert not seen.knows(salt(1))
    assert seen.add(salt(1), NOW)
    assert seen.knows(salt(1))
    assert not seen.knows(salt(2))


def test_an_older_generation_is_known_too():
    seen = RecentSalts(2)
    for number in range(3):
        seen.add(salt(number), NOW)
    assert all(seen.knows(salt(number)) for number in range(3))


@pytest.mark.parametrize("make", [RecentSalts, TimedSalts])
def test_the_whole_salt_counts(make):
    """W28: exact, so salts that differ in one bit are two."""
    seen = make()
    assert seen.add(salt(0), NOW)
    assert all(seen.add(salt(1 << bit), NOW) for bit in range(256))


def test_recent_salts_never_forget_the_last_ones():
    seen = RecentSalts(capacity=10)
    for number in range(100):
        assert seen.add(salt(number), NOW)
        for old in range(max(0, number - 9), number + 1):
            assert not seen.add(salt(old), NOW)


def test_recent_salts_hold_twice_the_capacity_at_most():
    seen = RecentSalts(capacity=10)
    for number in range(100):
        seen.add(salt(number), NOW)
    assert sum(not seen.add(salt(number), NOW) for number in range(80)) == 0
    assert RECENT_SALTS == 100_000


def test_filters_beside_each_other_know_the_same_and_forget_by_their_own_number():
    """A busy UDP port does not make a server forget its streams."""
    streams = RecentSalts(capacity=10)
    packets = RecentSalts(capacity=10, beside=streams)
    assert streams.add(salt(0), NOW)
    assert not packets.add(salt(0), NOW)
    for number in range(1, 100):
        assert packets.add(salt(number), NOW)
        assert not streams.add(salt(number), NOW)
        assert streams.knows(salt(number)), "as it would be asked by a stream"
    assert packets.knows(salt(0))
    assert not streams.add(salt(0), NOW)
    assert streams.add(salt(1), NOW), "a hundred packets ago"


def test_recent_salts_do_not_care_for_the_time():
    seen = RecentSalts()
    assert seen.add(salt(1), NOW)
    assert not seen.add(salt(1), NOW + 10**9)
    assert not seen.add(salt(1), 0)


def test_timed_salts_are_held_long_enough_wherever_they_fall():
    """A timestamp 30 s ahead, cut to whole seconds, is believed for almost 61 s (SIP022 3.1.4)."""
    assert HOLD >= 61
    rng = random.Random(1)
    for _ in range(200):
        seen, now, added = TimedSalts(), NOW, {}
        for number in range(30):
            now += rng.choice((0.01, 1, 20, 40, 59.9, 60.99))
            assert seen.add(salt(number), now)
            added[number] = now
            for old, when in added.items():
                if now - when < 61:
                    assert not seen.add(salt(old), now)


def test_timed_salts_are_held_long_enough_under_load():
    """Four a second, so that some come just before the generations change."""
    seen = TimedSalts()
    for quarter in range(4 * 300):
        assert seen.add(salt(quarter), NOW + quarter / 4)
        assert quarter < 243 or not seen.add(salt(quarter - 243), NOW + quarter / 4)


def test_timed_salts_are_let_go():
    seen = TimedSalts()
    for number in range(10_000):
        assert seen.add(salt(number), NOW + number)  # one a second
        assert len(seen._newer) + len(seen._older) <= 2 * HOLD + 1
    assert seen.add(salt(0), NOW + 10_000)


def test_timed_salts_after_a_pause():
    seen = TimedSalts()
    seen.add(salt(1), NOW)
    assert seen.add(salt(2), NOW + 2 * HOLD)
    assert len(seen._newer) + len(seen._older) == 1
    assert seen.add(salt(1), NOW + 2 * HOLD)


def test_a_clock_set_back_shortens_nothing():
    seen = TimedSalts()
    assert seen.add(salt(1), NOW)
    assert seen.add(salt(2), NOW - 1000)
    for later in (0, 30, 60):
        assert not seen.add(salt(1), NOW - 1000 + later)
        assert not seen.add(salt(2), NOW - 1000 + later)
    for later in (70, 140, 210):  # and it is not held until the old time comes again
        seen.add(salt(100 + later), NOW - 1000 + later)
    assert seen.add(salt(1), NOW - 1000 + 211)
