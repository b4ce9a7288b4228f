"""``Expectant``: what is called when, and how many timers it takes."""

from __future__ import annotations

import pytest

from common.net.loop import EventLoop
from common.relay.expectant import Expectant
from tests.clock import FakeClock
from tests.fakes import FakeSelector, settle

LIMIT = 30.0


class Waiting(Expectant):
    """Notes what was called, and what failed."""

    limit = LIMIT

    def __init__(self, loop):
        super().__init__(loop)
        self.called = []
        self.faults = []

    def first(self):
        self.called.append("first")

    def second(self):
        self.called.append("second")

    def fail(self):
        raise ZeroDivisionError

    def quiet_limit(self):
        return self.limit

    def on_quiet(self):
        self.called.append("quiet")

    def on_fault(self, exc):
        self.faults.append(exc)


@pytest.fixture
def clock():
    return FakeClock()


@pytest.fixture
def waiting(clock):
    return Waiting(EventLoop(clock, FakeSelector()))


@pytest.fixture
def pass_time(waiting, clock):
    def pass_time(seconds):
        clock.advance(seconds)
        settle(waiting.loop)

    return pass_time


def timers(waiting):
    return waiting.loop.statistics()["timers"]


def test_what_is_due_is_called_once_and_on_time(waiting, pass_time):
    waiting.expect(waiting.loop.now + 5, waiting.first)
    pass_time(4.999)
    assert waiting.called == []
    pass_time(0.001)
    pass_time(100)
    assert (waiting.called, timers(waiting)) == (["first"], 0)


@pytest.mark.parametrize(("sooner", "later"), [(5, 8), (8, 5)])
def test_the_next_expectation_takes_the_place_of_the_last(waiting, pass_time, sooner, later):
    waiting.expect(waiting.loop.now + sooner, waiting.first)
    waiting.expect(waiting.loop.now + later, waiting.second)
    assert timers(waiting) == 1
    pass_time(later - 0.001)
    assert waiting.called == []
    pass_time(0.001)
    pass_time(100)
    assert (waiting.called, timers(waiting)) == (["second"], 0)


def test_one_timer_serves_a_deadline_that_moves_on(waiting, pass_time):
    for _ in range(1000):
        waiting.expect(waiting.loop.now + 10, waiting.first)
        assert timers(waiting) == 1
        pass_time(1)
    assert waiting.called == []
    pass_time(9)
    assert waiting.called == ["first"]


def test_nothing_is_expected_any_more(waiting, pass_time):
    waiting.expect(waiting.loop.now + 5, waiting.first)
    waiting.expect_nothing()
    pass_time(10)
    assert (waiting.called, timers(waiting)) == ([], 0)


def test_something_is_expected_after_nothing(waiting, pass_time):
    waiting.expect(waiting.loop.now + 5, waiting.first)
    waiting.expect_nothing()
    waiting.expect(waiting.loop.now + 3, waiting.second)
    pass_time(3)
    assert waiting.called == ["second"]


def test_the_end_keeps_no_timer(waiting, pass_time):
    waiting.expect_no_more()
    waiting.expect(waiting.loop.now + 5, waiting.first)
    waiting.expect_no_more()
    assert timers(waiting) == 0
    pass_time(10)
    assert waiting.called == []


def test_what_is_due_may_expect_again(waiting, pass_time):
    def again():
        waiting.expect(waiting.loop.now + 1, waiting.second)

    waiting.expect(waiting.loop.now + 1, again)
    pass_time(1)
    assert waiting.called == []
    pass_time(1)
    assert waiting.called == ["second"]


def test_a_failure_is_its_own(waiting, pass_time):
    waiting.expect(waiting.loop.now + 1, waiting.fail)
    pass_time(1)
    assert [type(exc) for exc in waiting.faults] == [ZeroDivisionError]


# -- silence -----------------------------------------------------------------------------------------


def test_quiet_is_counted_from_the_last_byte(waiting, pass_time):
    waiting.watch_quiet()
    pass_time(LIMIT - 1)
    waiting.last_active = waiting.loop.now
    pass_time(LIMIT - 0.001)
    assert (waiting.called, timers(waiting)) == ([], 1)
    pass_time(0.001)
    assert (waiting.called, timers(waiting)) == (["quiet"], 0)


def test_the_limit_may_change_meanwhile(waiting, pass_time):
    waiting.watch_quiet()
    waiting.limit = None
    pass_time(LIMIT)
    assert (waiting.called, timers(waiting)) == ([], 0)
    waiting.limit = LIMIT * 3
    waiting.watch_quiet()
    pass_time(LIMIT)
    assert waiting.called == []
    waiting.limit = LIMIT
    waiting.watch_quiet()
    pass_time(0)
    assert waiting.called == ["quiet"]
