"""``Succession``: one app after the other, and none of their connections lost by it."""

from __future__ import annotations

import logging

import pytest

from common.app import RelayApp
from common.errors import ConfigError
from common.net.loop import EventLoop
from common.run.succession import GAUGES, MAX_RETIRED, Succession, shown
from tests.clock import FakeClock
from tests.pairs import configured, server_entry

BASE = configured((server_entry(),))


class App:
    """Retires when it is told that its last connection has ended."""

    fault: BaseException | None = None

    def __init__(self, config, loop) -> None:
        self.config, self.listening = config, (f"port {config.timeout:g}",)
        self.inherited = self.done = None
        self.started = self.stopped = 0
        self.count = 1

    def inherit(self, predecessor) -> None:
        self.inherited = predecessor

    def start(self) -> None:
        if self.fault is not None:
            raise self.fault
        self.started += 1

    def retire(self, done) -> None:
        self.done = done

    def stop(self) -> None:
        self.stopped += 1

    def statistics(self):
        return {"served": 1, "connections": self.count, "watched": 9}


class World:
    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(clock=self.clock)
        self.apps: list[App] = []
        self.next = BASE
        self.fault: BaseException | None = None
        self.succession = Succession(self.make, BASE, self.loop, self.load)
        self.succession.app.start()

    def make(self, config, loop) -> App:
        self.apps.append(App(config, loop))
        self.apps[-1].fault = self.fault
        return self.apps[-1]

    def load(self):
        if isinstance(self.next, BaseException):
            raise self.next
        return self.next

    def reload(self, **changes) -> App:
        self.next = BASE._replace(**changes)
        self.succession.reload()
        return self.succession.app

    def stopping(self) -> bool:
        return self.loop._stopping

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.loop.step(0)


@pytest.fixture
def world(caplog):
    caplog.set_level(logging.INFO)
    world = World()
    yield world
    world.loop.close()


def test_a_good_file_is_served_by_a_new_app_while_the_old_one_finishes(world, caplog):
    (old,) = world.apps
    new = world.reload(timeout=5)
    assert (new.inherited, new.started, old.stopped) == (old, 1, 0)
    assert "reloaded test: listening on port 5" in caplog.text
    old.done()
    old.done()
    assert (old.stopped, new.stopped) == (1, 0)


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ConfigError(["line 1: no", "line 2: no"]), "2 problems, nothing changed"),
        (ConfigError(["line 1: no"], ["line 2: odd"]), "line 2: odd"),
        (OSError(98, "taken", "here:80"), "cannot listen on here:80"),
        (ValueError("a bug"), "not reloaded, nothing changed"),
    ],
)
def test_what_cannot_be_used_changes_nothing(world, caplog, fault, sentence):
    (old,) = world.apps
    if isinstance(fault, ConfigError):
        world.next = fault
        world.succession.reload()
    else:
        world.fault = fault
        assert world.reload(timeout=5) is old
        assert world.apps[1].stopped == 1
    assert world.succession.app is old
    assert (old.stopped, old.done) == (0, None)
    assert sentence in caplog.text
    assert all(problem in caplog.text for problem in getattr(fault, "problems", ()))


def test_graceful_timeout_ends_what_is_left(world):
    (old,) = world.apps
    new = world.reload(graceful_timeout=30.0)
    world.pass_time(29)
    assert old.stopped == 0
    world.pass_time(2)
    assert (old.stopped, new.stopped) == (1, 0)


def test_by_default_connections_end_by_themselves(world):
    (old,) = world.apps
    world.reload()
    world.pass_time(10**6)
    assert old.stopped == 0


def test_there_are_only_so_many_of_them(world):
    for _ in range(MAX_RETIRED + 2):
        world.reload()
    assert [app.stopped for app in world.apps] == [1, 1] + [0] * (MAX_RETIRED + 1)


def test_a_drain_waits_for_all_of_them(world):
    (old,) = world.apps
    new = world.reload()
    world.succession.drain()
    world.succession.reload()
    assert len(world.apps) == 2, "too late"
    new.done()
    assert not world.stopping()
    old.done()
    assert world.stopping()


def test_a_second_drain_does_not_wait(world):
    world.succession.drain()
    assert not world.stopping()
    world.succession.drain()
    assert world.stopping()


def test_stopping_ends_all_of_them(world):
    (old,) = world.apps
    new = world.reload()
    world.succession.stop()
    assert (old.stopped, new.stopped) == (1, 1)


def test_statistics_are_those_of_all_and_one_loop(world):
    (old,) = world.apps
    world.reload()
    assert world.succession.statistics() == {"served": 2, "connections": 2, "watched": 0, "timers": 0}
    old.done()
    assert world.succession.statistics() == {"served": 2, "connections": 1, "watched": 0, "timers": 0}
    assert shown({"b": 2, "a": 1}) == "statistics: a=1 b=2"


def test_what_is_no_counter_is_known():
    app = RelayApp(BASE)
    assert set(app.statistics()) == GAUGES
    app.stop()
    app.loop.close()


def test_what_only_a_start_can_change_stays(world, caplog):
    world.reload(workers=4, user="nobody", timeout=7)
    assert world.succession.config == BASE._replace(timeout=7)
    assert "needs a restart to change, stays as it was: workers, user" in caplog.text


def test_warnings_of_the_file_are_logged(world, caplog):
    world.reload(warnings=("line 3: odd",))
    assert "line 3: odd" in caplog.text


def test_without_a_file_there_is_nothing_to_reload(world):
    succession = Succession(world.make, BASE, world.loop, None)
    assert not succession.can_reload
    succession.reload()
    assert len(world.apps) == 2
