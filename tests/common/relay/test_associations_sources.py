"""``Associations``: no network of clients takes more than its part."""

from __future__ import annotations

from collections import Counter

import pytest

from common.net.loop import EventLoop
from common.relay.associations import Associations
from tests.clock import FakeClock
from tests.fakes import FakeSelector


class Flow:
    def __init__(self, name):
        self.name, self.last_active, self.is_closed = name, 0.0, False

    def close(self):
        self.is_closed = True


class World:
    def __init__(self, limit=100, per_source=2):
        self.clock, self.counters = FakeClock(), Counter()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.table = Associations(
            self.loop, limit=limit, timeout=300.0, counters=self.counters, per_source=per_source
        )

    def add(self, name, source):
        self.clock.advance(1)
        self.loop.step(0)
        flow = Flow(name)
        self.table.add(name, flow, source)
        return flow


@pytest.fixture
def world():
    return World()


def test_the_quietest_of_a_source_makes_room_for_its_next(world):
    flows = [world.add(name, source) for name, source in [("x", "other"), ("a", "one"), ("b", "one")]]
    world.clock.advance(1)
    world.loop.step(0)
    world.table.touch("a")
    flows.append(world.add("c", "one"))
    assert [flow.name for flow in flows if flow.is_closed] == ["b"]
    assert world.counters["udp_source_limit"] == 1
    flows.append(world.add("d", "one"))
    assert [flow.name for flow in flows if flow.is_closed] == ["a", "b"]


def test_who_has_no_source_has_no_bound(world):
    flows = [world.add(str(number), None) for number in range(5)]
    assert not any(flow.is_closed for flow in flows)


def test_what_has_gone_is_not_counted(world):
    for name in "abcdef":
        world.add(name, "one")
        world.table.remove(name)
    flows = [world.add("g", "one"), world.add("h", "one")]
    assert not any(flow.is_closed for flow in flows)
    assert world.counters["udp_source_limit"] == 0


def test_a_bound_of_one(world):
    world = World(per_source=1)
    flows = [world.add(name, "one") for name in "abc"]
    assert [flow.is_closed for flow in flows] == [True, True, False]
    assert len(world.table) == 1


def test_the_bound_of_all_counts_as_well():
    world = World(limit=2, per_source=2)
    flows = [world.add(name, source) for name, source in [("a", 1), ("b", 2), ("c", 3), ("d", 3)]]
    assert [flow.is_closed for flow in flows] == [True, True, False, False]


def test_nothing_is_kept_of_sources_that_have_gone(world):
    for number in range(10):
        world.add(number, number % 3)
    world.table.close()
    assert (world.table._keys, world.table._sources) == ({}, {})
