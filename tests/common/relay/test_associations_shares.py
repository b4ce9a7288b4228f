"""``Associations``: no network of clients takes more than its part, and no user."""

from __future__ import annotations

from collections import Counter

import pytest

from common.net.loop import EventLoop
from common.relay.associations import Associations
from common.relay.refusals import QUIET_SECONDS
from tests.clock import FakeClock
from tests.fakes import FakeSelector

TELLS = {
    "source": "a network has 2 UDP associations, the limit: its quietest makes room (1 so far)",
    "user": "user one has 2 UDP associations, the limit: its quietest makes room (1 so far)",
}
of_each = pytest.mark.parametrize("kind", TELLS)


class Flow:
    def __init__(self, name):
        self.name, self.last_active, self.is_closed = name, 0.0, False

    def close(self):
        self.is_closed = True


class World:
    def __init__(self, **bounds):
        self.clock, self.counters = FakeClock(), Counter()
        self.loop = EventLoop(self.clock, FakeSelector())
        bounds = {"limit": 100, "per_source": 2, "per_user": 2, **bounds}
        self.table = Associations(self.loop, timeout=300.0, counters=self.counters, **bounds)

    def add(self, name, **whose):
        self.clock.advance(1)
        self.loop.step(0)
        flow = Flow(name)
        self.table.add(name, flow, **whose)
        return flow


@pytest.fixture
def world():
    return World()


def closed(flows):
    return [flow.name for flow in flows if flow.is_closed]


@of_each
def test_the_quietest_of_one_makes_room_for_its_next(world, kind):
    flows = [world.add(name, **{kind: who}) for name, who in [("x", "other"), ("a", "one"), ("b", "one")]]
    world.clock.advance(1)
    world.loop.step(0)
    world.table.touch("a")
    flows.append(world.add("c", **{kind: "one"}))
    assert closed(flows) == ["b"]
    assert world.counters == {"udp_associations": 4, f"udp_{kind}_limit": 1}
    flows.append(world.add("d", **{kind: "one"}))
    assert closed(flows) == ["a", "b"]


@of_each
def test_that_is_told_now_and_then(world, caplog, kind):
    for number in range(5):
        world.add(number, **{kind: "one"})
    assert [record.message for record in caplog.records] == [TELLS[kind]]
    world.clock.advance(QUIET_SECONDS)
    world.add("later", **{kind: "one"})
    assert len(caplog.records) == 2
    assert world.counters[f"udp_{kind}_limit"] == 4


def test_a_full_table_is_told_now_and_then(caplog):
    world = World(limit=2)
    for number in range(5):
        world.add(number)
    assert [record.message for record in caplog.records] == [
        "there are 2 UDP associations, the limit: the quietest makes room (1 so far)"
    ]


def test_who_is_nobody_has_no_bound(world):
    assert closed([world.add(str(number), source=None, user=None) for number in range(5)]) == []


@of_each
def test_what_has_gone_is_not_counted(world, kind):
    for name in "abcdef":
        world.add(name, **{kind: "one"})
        world.table.remove(name)
    assert closed([world.add("g", **{kind: "one"}), world.add("h", **{kind: "one"})]) == []
    assert world.counters[f"udp_{kind}_limit"] == 0


@of_each
def test_a_bound_of_one(kind):
    world = World(per_source=1, per_user=1)
    assert closed([world.add(name, **{kind: "one"}) for name in "abc"]) == ["a", "b"]
    assert len(world.table) == 1


@of_each
def test_the_bound_of_all_counts_as_well(kind):
    world = World(limit=2)
    flows = [world.add(name, **{kind: str(who)}) for name, who in [("a", 1), ("b", 2), ("c", 3), ("d", 3)]]
    assert closed(flows) == ["a", "b"]


def test_a_user_is_one_whatever_networks_it_comes_from():
    """And a network is one, whoever its users are: each bound ends one of its own."""
    world = World(per_source=2, per_user=2)
    flows = [
        world.add("a", source="here", user="alice"),
        world.add("b", source="there", user="alice"),
        world.add("c", source="here", user="bob"),
        world.add("d", source="elsewhere", user="alice"),
    ]
    assert closed(flows) == ["a"]
    flows.append(world.add("e", source="here", user="bob"))
    assert closed(flows) == ["a"], "the first from here has gone already"
    flows.append(world.add("f", source="here", user="alice"))
    assert closed(flows) == ["a", "b", "c"]


def test_nothing_is_kept_of_those_that_have_gone(world):
    for number in range(10):
        world.add(number, source=number % 3, user=f"user {number % 2}")
    world.table.close()
    for shares in (world.table.sources, world.table.users):
        assert (shares._keys, shares._owners) == ({}, {})
