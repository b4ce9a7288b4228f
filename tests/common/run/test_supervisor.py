"""``Supervisor``: workers that start, die and are replaced, on a clock and a system of the test's."""

from __future__ import annotations

import contextlib
import itertools
import json
import logging
import signal
import socket

import pytest

from common.errors import ConfigError
from common.net.loop import EventLoop
from common.run.failures import StartFailed
from common.run.supervisor import ANSWER_SECONDS, MAX_DELAY, STEADY_SECONDS, Supervisor
from tests.clock import FakeClock
from tests.pairs import configured, server_entry

BASE = configured((server_entry(),), workers=2)


class Shared:
    def __init__(self) -> None:
        self.listening = ("here",)
        self.closed = 0
        self.paused: set[int] = set()

    def pause(self, worker: int) -> None:
        self.paused.add(worker)

    def resume(self, worker: int) -> None:
        self.paused.discard(worker)

    def close(self) -> None:
        self.closed += 1


class Process:
    """A worker as its supervisor sees it."""

    def __init__(self, pid: int, config, shared, index: int) -> None:
        self.pid, self.config, self.shared, self.index = pid, config, shared, index
        self.signals: list[int] = []
        self.code: int | None = None
        self.ours, self.theirs = socket.socketpair()

    def say(self, **message: object) -> None:
        self.theirs.sendall(json.dumps(message).encode() + b"\n")

    def asked(self) -> bytes:
        with contextlib.suppress(BlockingIOError):
            return self.theirs.recv(1000, socket.MSG_DONTWAIT)
        return b""


class World:
    """A supervisor, and the system it believes in."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(clock=self.clock)
        self.processes: list[Process] = []
        self.shared: list[Shared] = [Shared()]
        self.next: object = BASE
        self.ready: list[str] = []
        self.supervisor = Supervisor(self.loop, self, self.share, self.load, self.ready.append)
        self.supervisor.begin(BASE, self.shared[0])

    # -- the system --------------------------------------------------------------------------

    def start(self, config, shared, index):
        process = Process(100 + len(self.processes), config, shared, index)
        self.processes.append(process)
        return process.pid, process.ours

    def kill(self, pid: int, number: int) -> None:
        self.processes[pid - 100].signals.append(number)

    def reap(self, pid: int) -> int | None:
        return self.processes[pid - 100].code

    def share(self, config, predecessor):
        assert predecessor is self.shared[-1]
        if isinstance(self.next, OSError):
            raise self.next
        self.shared.append(Shared())
        return self.shared[-1]

    def load(self):
        if isinstance(self.next, ConfigError):
            raise self.next
        return BASE if isinstance(self.next, OSError) else self.next

    # -- what happens ------------------------------------------------------------------------

    def settle(self) -> None:
        for _ in range(10):
            self.loop.step(0)

    def all_ready(self) -> None:
        for process in self.processes:
            if process.code is None:
                process.say(ready="listening")
        self.settle()

    def die(self, process: Process, code: int = -9) -> None:
        process.code = code
        process.theirs.close()
        self.supervisor.on_child()
        self.settle()

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        self.settle()

    def stopping(self) -> bool:
        return self.loop._stopping

    def close(self) -> None:
        for process in self.processes:
            process.ours.close()
            process.theirs.close()
        self.loop.close()


@pytest.fixture
def world(caplog):
    caplog.set_level(logging.INFO)
    with contextlib.closing(World()) as world:
        yield world


@pytest.fixture
def running(world):
    world.all_ready()
    return world


# -- starting ----------------------------------------------------------------------------------------


def test_it_is_ready_when_the_last_worker_is(world):
    first, second = world.processes
    assert (first.index, second.index) == (0, 1)
    first.say(ready="listening")
    world.settle()
    assert world.ready == []
    second.say(ready="listening")
    world.settle()
    assert world.ready == ["listening on here with 2 workers"]


@pytest.mark.parametrize(
    ("message", "failure"),
    [
        ({"failed": ["no"], "code": 1}, StartFailed("no")),
        ({"failed": ["line 1", "line 2"], "code": 2}, ConfigError(["line 1", "line 2"])),
        (None, StartFailed("worker 1 (process 100) was ended by SIGKILL before it listened")),
    ],
)
def test_a_worker_that_cannot_start_ends_the_program(world, message, failure):
    first, second = world.processes
    if message is not None:
        first.say(**message)
    world.die(first)
    assert second.signals == [signal.SIGTERM]
    assert not world.stopping()
    world.die(second, -15)
    assert world.stopping()
    assert type(world.supervisor.failure) is type(failure)
    assert str(world.supervisor.failure) == str(failure)
    assert world.ready == []


# -- deaths ------------------------------------------------------------------------------------------


def test_s7_a_worker_that_dies_is_replaced_within_a_second(running, caplog):
    running.die(running.processes[1])
    assert "worker 2 (process 101) was ended by SIGKILL; another one starts in 0.1 s" in caplog.text
    running.pass_time(0.2)
    assert [process.index for process in running.processes] == [0, 1, 1]
    assert running.shared[0].paused == set(), "clients wait in its queue"


def test_one_that_dies_again_and_again_is_replaced_later_and_later(running):
    delays = []
    for _ in range(12):
        running.die(running.processes[-1], 1)
        count, delay = len(running.processes), 0.0
        while len(running.processes) == count:
            running.pass_time(0.05)
            delay += 0.05
        delays.append(delay)
    assert delays[0] < 0.3
    assert all(early <= late for early, late in itertools.pairwise(delays))
    assert MAX_DELAY <= delays[-1] < MAX_DELAY + 1


def test_while_it_waits_others_get_its_connections(running):
    running.die(running.processes[1])
    running.pass_time(0.2)
    running.die(running.processes[2])
    assert running.shared[0].paused == {1}
    running.pass_time(1)
    assert running.shared[0].paused == set()


def test_one_that_has_lived_for_a_while_did_not_die_of_its_start(running, caplog):
    for _ in range(3):
        running.pass_time(STEADY_SECONDS)
        running.die(running.processes[-1])
        running.pass_time(0.2)
    assert caplog.text.count("another one starts in 0.1 s") == 3


def test_why_a_replacement_cannot_start_is_logged_and_it_is_tried_again(running, caplog):
    running.die(running.processes[1])
    running.pass_time(0.2)
    running.processes[2].say(failed=["rules.acl: no such file"], code=2)
    running.die(running.processes[2], 2)
    assert "rules.acl: no such file; another one starts in 0.2 s" in caplog.text
    assert running.supervisor.failure is None
    running.pass_time(1)
    assert len(running.processes) == 4


# -- stopping and draining -----------------------------------------------------------------------------


def test_stopping_ends_with_the_last_of_them(running):
    running.supervisor.stop()
    for process in running.processes:
        assert process.signals == [signal.SIGTERM]
        assert not running.stopping()
        running.die(process, 0)
    assert running.stopping()
    running.pass_time(60)
    assert len(running.processes) == 2, "nobody is replaced any more"


def test_draining_gives_up_the_sockets_first(running):
    running.supervisor.drain()
    assert running.shared[0].closed == 1
    assert [process.signals for process in running.processes] == [[signal.SIGQUIT]] * 2
    running.supervisor.reload()
    assert len(running.processes) == 2
    running.supervisor.drain()
    assert running.processes[0].signals[-1] == signal.SIGTERM


def test_a_replacement_that_was_due_does_not_start_into_a_drain(running):
    running.die(running.processes[0])
    running.supervisor.drain()
    running.pass_time(10)
    assert len(running.processes) == 2
    running.die(running.processes[1], 0)
    assert running.stopping()


# -- reloading -----------------------------------------------------------------------------------------


def reload(world, **changes) -> list[Process]:
    world.next = BASE._replace(**changes)
    count = len(world.processes)
    world.supervisor.reload()
    return world.processes[count:]


@pytest.mark.parametrize("says_so", [True, False])
def test_old_workers_drain_when_all_new_ones_listen(running, caplog, says_so):
    old = list(running.processes)
    first, second = reload(running, timeout=5)
    assert (first.config.timeout, first.shared) == (5, running.shared[1])
    first.say(ready="")
    running.settle()
    assert [process.signals for process in old] == [[signal.SIGHUP]] * 2
    second.say(ready="")
    running.settle()
    assert [process.signals for process in old] == [[signal.SIGHUP, signal.SIGQUIT]] * 2
    assert running.shared[0].closed
    old[0].say(drained=True)
    running.settle()
    assert "reloaded" not in caplog.text, "the other one may still accept, by the old configuration"
    if says_so:
        old[1].say(drained=True)
    else:
        running.die(old[1], -9)
    running.settle()
    assert "reloaded test: listening on here with 2 workers" in caplog.text
    for process in old if says_so else old[:1]:
        running.die(process, 0)
    running.pass_time(60)
    assert len(running.processes) == 4
    assert len(running.supervisor.generations) == 1


def test_graceful_timeout_ends_an_old_generation(running):
    old = running.processes[0]
    reload(running, graceful_timeout=30.0)
    running.all_ready()
    running.pass_time(29)
    assert old.signals[-1] == signal.SIGQUIT
    running.pass_time(2)
    assert old.signals[-1] == signal.SIGTERM


def test_a_new_generation_that_cannot_start_changes_nothing(running, caplog):
    old = list(running.processes)
    first, second = reload(running)
    first.say(failed=["no room"], code=1)
    running.die(first, 1)
    assert second.signals == [signal.SIGTERM]
    assert "not reloaded, nothing changed: no room" in caplog.text
    running.die(second, -15)
    assert running.shared[1].closed
    assert running.supervisor.failure is None
    assert [process.signals for process in old] == [[signal.SIGHUP]] * 2
    assert len(running.supervisor.generations) == 1


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        (ConfigError(["line 1: no", "line 2: no"]), "2 problems, nothing changed"),
        (OSError(98, "taken", "here:80"), "nothing changed: cannot listen on here:80"),
    ],
)
def test_what_cannot_be_used_changes_nothing(running, caplog, fault, sentence):
    running.next = fault
    running.supervisor.reload()
    assert len(running.processes) == 2
    assert sentence in caplog.text


def test_a_reload_after_one_that_failed_builds_on_what_serves(running):
    first, second = reload(running)
    running.die(first, 1)
    running.share = lambda config, predecessor: running.shared.append(predecessor) or Shared()
    running.supervisor._share = running.share
    assert len(reload(running)) == 2
    assert running.shared[-1] is running.shared[0], "not the failed one, which is still ending"
    assert second.signals


def test_one_reload_at_a_time(running, caplog):
    reload(running)
    assert reload(running) == []
    assert "not reloaded: the last reload is not over yet" in caplog.text


def test_a_worker_that_dies_during_a_reload_is_replaced(running):
    reload(running)
    running.die(running.processes[0])
    running.pass_time(0.2)
    assert running.processes[-1].shared is running.shared[0]


# -- counters ------------------------------------------------------------------------------------------


def test_counters_are_asked_for_and_summed(running, caplog):
    running.supervisor.show()
    assert [process.asked() for process in running.processes] == [b'{"ask": "statistics"}\n'] * 2
    for process in running.processes:
        assert "statistics:" not in caplog.text
        process.say(statistics={"accepted": 2, "connections": 1})
        running.settle()
    assert "statistics: accepted=4 connections=2" in caplog.text


def test_what_the_dead_counted_counts_on(running, caplog):
    running.processes[0].say(statistics={"accepted": 5, "connections": 3})
    running.die(running.processes[0], 0)
    assert running.supervisor.statistics() == {"accepted": 5}


def test_one_that_does_not_answer_is_named(running, caplog):
    running.supervisor.show()
    running.processes[0].say(statistics={"accepted": 2})
    running.settle()
    running.pass_time(ANSWER_SECONDS + 1)
    assert "worker 2 (process 101) did not tell their counters" in caplog.text
    assert "statistics: accepted=2" in caplog.text


def test_one_that_dies_before_it_answers_is_not_waited_for(running, caplog):
    running.supervisor.show()
    running.processes[0].say(statistics={"accepted": 2})
    running.settle()
    running.die(running.processes[1])
    assert "statistics: accepted=2" in caplog.text
