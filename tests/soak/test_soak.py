"""What the soak judges by, on figures made for it: each bound holds, and each can be broken."""

from __future__ import annotations

import dataclasses
from collections import Counter

import pytest

from common.crypto.shared_salts import RECENT, TIMED
from common.crypto.shared_windows import SESSIONS
from tests.soak.faults import Faults
from tests.soak.measures import (
    FILTER,
    MEGABYTE,
    MEMORY,
    SALT,
    SHARED,
    Reading,
    filter_of_datagrams,
    filter_of_streams,
    violations,
)
from tests.soak.target import framed
from tests.soak.traffic import CUT, BetweenRequests, Corrupt, Wrong, expect

START = Reading(30_000_000, 0, 9, 1, 0.5, Counter({"timers": 0, "watched": 3, "accepted": 1}))
WARM = dataclasses.replace(START, memory=33_000_000, descriptors=40)


def after(counters: dict[str, int] | None = None, **changes: int) -> Reading:
    return dataclasses.replace(
        START, **{"memory": WARM.memory, **changes}, counters={**START.counters, **(counters or {})}
    )


def found(end: Reading, *, filters: int = 0, shared: int = 0) -> list[str]:
    return violations(START, WARM, end, filters=filters, shared=shared)


def test_all_flat_is_no_violation():
    assert found(after({"accepted": 1_000_000})) == []
    assert found(after(memory=WARM.memory + MEMORY)) == []
    assert found(after(memory=20_000_000)) == []


@pytest.mark.parametrize(
    ("counters", "changes", "said"),
    [
        ({}, {"memory": WARM.memory + MEMORY + 1}, "memory: 2.0 MB more, where 2.0 are allowed"),
        ({}, {"shared": 1}, "shared memory: 0.0 MB, bound 0"),
        ({}, {"descriptors": 10}, "descriptors: 9 before, 10 after"),
        ({}, {"descriptors": 8}, "descriptors: 9 before, 8 after"),
        ({}, {"udp_sockets": 2}, "udp_sockets: 1 before, 2 after"),
        ({"timers": 1}, {}, "timers: 0 before, 1 after"),
        ({"watched": 4}, {}, "watched: 3 before, 4 after"),
        ({"connections": 1}, {}, "connections: 1"),
        ({"handshakes": 2}, {}, "handshakes: 2"),
        ({"connecting": 3}, {}, "connecting: 3"),
    ],
)
def test_whatever_is_left_is_a_violation(counters, changes, said):
    assert found(after(counters, **changes)) == [said]


def test_salts_may_be_remembered_and_no_more():
    grown = after(memory=WARM.memory + MEMORY + 1000 * SALT)
    assert found(grown, filters=1000 * SALT) == []
    assert len(found(grown, filters=999 * SALT)) == 1


def test_a_sip004_filter_remembers_by_number():
    """Its own salts, too, and for UDP both ends do."""
    assert filter_of_streams([(0.0, 100), (5.0, 1100)], is_2022=False) == 2000 * SALT
    assert filter_of_streams([(0.0, 100), (9.0, 10_000_100)], is_2022=False) == FILTER
    assert filter_of_datagrams(100, is_2022=False) == 200 * SALT
    assert filter_of_datagrams(10_000_000, is_2022=False) == FILTER
    assert filter_of_datagrams(100, is_2022=True) == 0


def test_what_workers_share_is_bounded_by_what_they_were_given():
    for is_2022, shapes in {False: (RECENT, RECENT), True: (TIMED, SESSIONS)}.items():
        size = sum(shape.size for shape in shapes)
        assert SHARED[is_2022] - MEGABYTE < size <= SHARED[is_2022]


def test_a_sip022_filter_remembers_what_came_within_its_time():
    marks = [(0.0, 0), (100.0, 1000), (200.0, 5000), (300.0, 5100), (400.0, 5200)]
    assert filter_of_streams(marks, is_2022=True) == 5000 * SALT  # the hundred seconds before count as well
    assert filter_of_streams(marks[:1], is_2022=True) == 0


def test_a_fault_excuses_what_it_may_cut_and_nothing_else(monkeypatch):
    clock = iter((10.0, 20.0, 30.0, 40.0))
    monkeypatch.setattr("time.monotonic", lambda: next(clock))
    faults = Faults([], None, "seed", print)
    with faults._window("one", *CUT):
        assert faults.excuses("one", OSError(), 12.0, 13.0), "it is not over yet"
    with faults._window("", BetweenRequests):
        pass
    cut = ConnectionResetError()
    assert faults.excuses("one", cut, 9.0, 11.0)
    assert faults.excuses("one", Wrong(), 19.0, 99.0)
    assert faults.excuses("two", BetweenRequests(), 31.0, 32.0)
    assert not faults.excuses("one", Corrupt(), 12.0, 13.0), "nothing excuses that"
    assert not faults.excuses("two", cut, 12.0, 13.0), "another pair"
    assert not faults.excuses("one", cut, 21.0, 29.0), "between the two"
    assert not faults.excuses("one", cut, 9.0, 9.9), "before"
    assert not faults.excuses("one", cut, 31.0, 32.0), "a reload cuts nothing"
    assert not faults.excuses("one", BetweenRequests(), 41.0, 42.0), "after"


def test_a_body_in_chunks_is_what_the_other_end_reads():
    assert framed(b"abcde", piece=2) == b"2\r\nab\r\n2\r\ncd\r\n1\r\ne\r\n0\r\n\r\n"


@pytest.mark.parametrize(
    ("got", "due", "failure"),
    [
        (b"ab", b"abc", Wrong),
        (b"", b"abc", Wrong),
        (b"502", b"200", Corrupt),
        (b"x", b"", Corrupt),
        (1, 0, Wrong),
    ],
)
def test_less_than_was_due_is_no_corruption(got, due, failure):
    expect(due, due, "same")
    with pytest.raises(failure):
        expect(got, due, "other")
