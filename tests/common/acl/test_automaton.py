"""The automaton against Python's ``re``, and its promise: no expression takes long, no cache grows."""

from __future__ import annotations

import random
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.acl import automaton
from common.acl.automaton import Automaton
from common.acl.expressions import parse_expression
from tests.patterns import names, patterns

# Each takes time exponential in the name, or a high power of it, where an expression is tried way by way.
HOSTILE = [
    (r"^([^/]+\.)*google\.(com|net)$", "a." * 126),
    (r"(a+)+$", "a" * 252 + "b"),
    (r"^(a|aa)+$", "a" * 252 + "b"),
    (r"^(.*)*x$", "a" * 253),
    (r"(\w+\-?)+\.com$", "a" * 249 + ".net"),
    (r"^(a?){50}a{50}b$", "a" * 100),
    (r".*.*.*.*.*=x|.*.*.*.*y", "a" * 253),
]


class Counting(Automaton):
    """Counts the moves that had to be worked out, and how many positions that took."""

    moves = positions = 0

    def move(self, state, character):
        self.moves += 1
        return super().move(state, character)

    def _follow(self, positions, before, number):
        reached = super()._follow(positions, before, number)
        self.positions += len(reached or ())
        return reached


def make(*texts):
    return Counting(map(parse_expression, texts))


@given(st.lists(patterns, min_size=1, max_size=3), st.lists(names, min_size=1, max_size=5))
def test_as_re_sees_it(texts, several):
    """Several names through one automaton: what is kept from one must not show in the next."""
    machine = make(*texts)
    for name in several:
        expected = any(re.search(text, name, re.IGNORECASE | re.ASCII) for text in texts)
        assert machine.matches(name) == expected
        assert machine.matches(name) == expected


def test_no_expressions_match_nothing():
    assert not make().matches("")
    assert not make().matches("a.b")


@pytest.mark.parametrize(("text", "name"), HOSTILE)
def test_work_is_bounded_by_the_name_times_the_expression(text, name):
    machine = make(text)
    size = len(machine._masks)
    assert not machine.matches(name)
    assert machine.moves <= len(name)
    assert machine.positions <= 2 * size * (len(name) + 1)


@pytest.mark.parametrize(("text", "name"), HOSTILE)
def test_a_name_seen_before_is_looked_up_only(text, name):
    machine = make(text)
    machine.matches(name)
    moves = machine.moves
    assert not machine.matches(name)
    assert machine.moves == moves


def test_after_a_match_nothing_is_worked_out():
    machine = make("b")
    assert machine.matches("ab" + "c" * 200)
    assert len(machine._states) <= 4
    assert machine._moves <= 4


def test_the_cache_is_bounded_and_right_when_it_begins_anew(monkeypatch):
    monkeypatch.setattr(automaton, "MAX_MOVES", 40)
    machine = make(r"a[ab]{5}\.", r"\.b.{4}a$")
    rng = random.Random(1)
    for _ in range(500):
        name = "".join(rng.choices("ab.", k=rng.randrange(30)))
        expected = bool(re.search(r"a[ab]{5}\.|\.b.{4}a$", name))
        assert machine.matches(name) == expected
        assert machine._moves <= 40
        assert len(machine._states) <= 41
    assert machine.moves > 200


def test_a_name_beyond_ascii_does_no_harm():
    machine = make("a.b", "[^x]c")
    assert not machine.matches("aéb é")
    assert len(machine._states) < 10
