"""``Associations``: how many, how long, and what is left of them."""

from __future__ import annotations

import gc
import weakref
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.net.loop import EventLoop
from common.relay.associations import Associations
from tests.clock import FakeClock
from tests.fakes import FakeSelector, settle

TIMEOUT = 300.0


class Flow:
    """An association that tells ``closed`` when it was."""

    def __init__(self, closed: list[Flow]) -> None:
        self.last_active = 0.0
        self.closed = closed

    def close(self) -> None:
        self.closed.append(self)


class World:
    def __init__(self, limit: int = 4, timeout: float = TIMEOUT) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.counters: Counter[str] = Counter()
        self.table = Associations(self.loop, limit=limit, timeout=timeout, counters=self.counters)
        self.closed: list[Flow] = []

    def add(self, key: object) -> Flow:
        flow = Flow(self.closed)
        self.table.add(key, flow)
        return flow

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.loop)

    @property
    def timers(self) -> int:
        return self.loop.statistics()["timers"]


@pytest.fixture
def world():
    return World()


# -- keeping -----------------------------------------------------------------------------------------


def test_what_was_added_is_found(world):
    flow = world.add("a")
    assert world.table.get("a") is flow
    assert world.table.get("b") is None
    assert len(world.table) == 1
    assert world.counters == {"udp_associations": 1}


def test_what_was_removed_is_closed_once(world):
    flow = world.add("a")
    world.table.remove("a")
    world.table.remove("a")
    assert world.closed == [flow]
    assert world.table.get("a") is None


def test_the_end_of_all(world):
    flows = [world.add(key) for key in range(3)]
    world.table.close()
    world.table.close()
    assert world.closed == flows
    assert (len(world.table), world.timers) == (0, 0)


def test_it_can_go_on_after_the_end(world):
    world.add("a")
    world.table.close()
    world.add("b")
    world.pass_time(TIMEOUT)
    assert (len(world.table), world.timers) == (0, 0)


def test_closing_one_may_end_another(world):
    """As a SOCKS client's handler does with its own, and at the end of all."""

    class Leader(Flow):
        def close(self) -> None:
            super().close()
            world.table.remove("follower")

    leader = Leader(world.closed)
    world.table.add("leader", leader)
    follower = world.add("follower")
    world.table.close()
    assert world.closed == [leader, follower]


# -- how many ----------------------------------------------------------------------------------------


def test_the_quietest_makes_room(world):
    """Not the oldest: the one whose last datagram is longest ago, in either direction."""
    flows = [world.add(key) for key in range(4)]
    world.pass_time(1)
    world.table.touch(0)
    world.table.get(1)
    world.add("new")
    assert world.closed == [flows[2]]
    world.add("newer")
    assert world.closed == [flows[2], flows[3]]
    assert len(world.table) == 4
    assert world.counters == {"udp_associations": 6, "udp_evicted": 2}


def test_the_new_one_is_not_the_quietest():
    world = World(limit=1)
    first, second = world.add("a"), world.add("b")
    assert world.closed == [first]
    assert world.table.get("b") is second


def test_a_flood_never_holds_more_than_the_limit():
    world = World(limit=50)
    for key in range(5_000):
        world.add(key)
        assert len(world.table) <= 50
    assert world.timers == 1
    assert world.counters["udp_evicted"] == 4_950


# -- how long ----------------------------------------------------------------------------------------


def test_quiet_ones_end_exactly_at_the_timeout(world):
    flow = world.add("a")
    world.pass_time(TIMEOUT - 0.001)
    assert world.closed == []
    world.pass_time(0.001)
    assert world.closed == [flow]
    assert world.counters["udp_expired"] == 1
    assert world.timers == 0


def test_every_use_counts_from_its_own_time(world):
    for how in (world.table.touch, world.table.get):
        world.add("a")
        world.pass_time(TIMEOUT - 1)
        how("a")
        world.pass_time(TIMEOUT - 0.001)
        assert len(world.table) == 1
        world.pass_time(0.001)
        assert len(world.table) == 0


def test_one_timer_serves_all(world):
    for key in range(4):
        world.add(key)
        world.pass_time(10)
        assert world.timers == 1
    world.pass_time(TIMEOUT - 40)
    assert (len(world.table), world.timers) == (3, 1)
    for left in (2, 1, 0):
        world.pass_time(10)
        assert (len(world.table), world.timers) == (left, min(left, 1))


def test_a_busy_one_costs_a_wake_up_per_timeout_and_not_one_per_datagram(world):
    fired = []
    expire = world.table._expire
    world.table._expire = lambda: (fired.append(world.clock.now), expire())
    world.add("a")
    for _ in range(10_000):
        world.pass_time(0.1)
        world.table.touch("a")
    assert len(fired) == 3
    assert world.timers == 1


def test_when_the_last_one_leaves_nobody_is_woken(world):
    world.add("a")
    world.add("b")
    world.table.remove("a")
    assert world.timers == 1
    world.table.remove("b")
    assert world.timers == 0


def test_10000_leave_no_timer_and_no_memory():
    """Freed by refcount: nothing is left for the gc."""
    world = World(limit=20_000)
    gc.collect()
    gc.disable()
    try:
        freed = []
        for key in range(10_000):
            freed.append(weakref.ref(world.add(key)))
        world.pass_time(TIMEOUT)
        assert len(world.closed) == 10_000
        world.closed.clear()
        assert (len(world.table), world.timers) == (0, 0)
        assert {ref() for ref in freed} == {None}
    finally:
        gc.enable()
    assert world.counters == {"udp_associations": 10_000, "udp_expired": 10_000}


KEYS = st.integers(0, 7)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from(["use", "remove"]), KEYS),
        st.tuples(st.just("wait"), st.sampled_from([0.0, 1.0, 4.0, 5.0, 9.0, 10.0, 11.0])),
    ),
    max_size=60,
)


@given(STEPS, st.integers(1, 5))
def test_it_is_a_table_by_last_use(steps, limit):
    """Against the plainest way to say it: a list, oldest use first."""
    world = World(limit=limit, timeout=10.0)
    model: list[tuple[int, float]] = []
    for step, value in steps:
        if step == "wait":
            world.pass_time(value)
            model = [(key, used) for key, used in model if used + 10.0 > world.clock.now]
        else:
            known = [key for key, _ in model]
            model = [(key, used) for key, used in model if key != value]
            if step == "remove":
                world.table.remove(value)
            else:
                if world.table.get(value) is None:
                    assert value not in known
                    world.add(value)
                model = [*model, (value, world.clock.now)][-limit:]
        assert list(world.table._table) == [key for key, _ in model]
        assert world.timers == min(len(model), 1)
