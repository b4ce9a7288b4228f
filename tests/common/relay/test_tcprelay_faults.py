"""``TCPRelayHandler`` and bugs: each ends its own connection, and no other."""

from __future__ import annotations

import errno
import logging

import pytest

from common.errors import BadRequest, ConnectFailed
from common.relay.containment import contained
from common.relay.stages import STAGE_DESTROYED
from common.relay.tcprelay import TCPRelayHandler
from tests.fakes import ips
from tests.relay_world import World
from tests.toy_relay import Toy, streaming


@pytest.mark.parametrize("where", ["on_prologue", "on_addresses", "on_connected", "on_flow_end", "on_failed"])
def test_a_bug_ends_only_its_own_connection(world, caplog, where):
    """R11, W24"""
    bystander, _, bystanders_target = streaming(world)
    client, handler = world.connect()
    bug = ZeroDivisionError("injected")

    def boom(*args):
        raise bug

    setattr(handler, where, boom)
    client.arrive(b"192.0.2.1 80\nx").end()
    world.settle()
    if where == "on_failed":
        world.dialer.last.fail(ConnectFailed("refused"))
    elif world.dialer.last.under_way:
        world.dialer.last.succeed()
    world.settle()
    assert handler.stage == STAGE_DESTROYED
    assert [record.exc_info[1] for record in caplog.records] == [bug]
    assert client.closed
    bystander.arrive(b"still")
    bystanders_target.arrive(b"here")
    world.settle()
    assert (bystanders_target.take(), bystander.take()) == (b"still", b"here")
    assert len(world.relay.handlers) == 1


@pytest.mark.parametrize("direction", ["up", "down"])
def test_a_bug_in_a_transform_ends_the_connection(world, caplog, direction):
    client, handler, target = streaming(world)
    bug = ZeroDivisionError("injected")

    def boom(data):
        raise bug

    getattr(handler, direction).transform = boom
    (client if direction == "up" else target).arrive(b"x")
    world.settle()
    assert [record.exc_info[1] for record in caplog.records] == [bug]
    world.check_idle()


@pytest.mark.parametrize("hook", ["on_prologue", "on_connected", "on_failed", "on_protocol_error"])
def test_what_a_subclass_must_say(monkeypatch, caplog, hook):
    """Each of these hooks left out is a bug of the program, and contained like any other."""
    left_out = type("LeftOut", (Toy,), {hook: getattr(TCPRelayHandler, hook)})
    world = World(monkeypatch, left_out)
    client, _handler = world.connect()
    client.arrive(b"bad" if hook == "on_protocol_error" else b"192.0.2.1 80\n")
    world.settle()
    if hook == "on_failed":
        world.dialer.last.fail(ConnectFailed("refused"))
    elif world.dialer.dials:
        world.dialer.last.succeed()
    assert [record.exc_info[0] for record in caplog.records] == [NotImplementedError]
    world.check_idle()


def test_what_a_subclass_may_leave_out(monkeypatch):
    world = World(monkeypatch, TCPRelayHandler)
    client, handler = world.connect()
    assert handler.on_addresses(ips("192.0.2.1")) == ips("192.0.2.1")
    handler.on_prologue_eof()
    assert client.shut


def test_a_bug_in_the_error_hook_itself_ends_the_connection(world, caplog):
    client, handler = world.connect()

    def boom(error):
        raise ZeroDivisionError("injected")

    handler.on_protocol_error = boom
    client.arrive(b"bad")
    world.settle()
    assert "failed on a bug" in caplog.text
    assert client.closed
    handler.__dict__.pop("on_protocol_error")
    world.check_idle()


def test_a_protocol_error_of_a_running_stream_reaches_its_hook(world):
    client, handler, target = streaming(world)

    def bad(data):
        raise BadRequest("garbled")

    handler.down.transform = bad
    target.arrive(b"x")
    world.settle()
    assert client.take() == b"refused: garbled\n"
    assert target.closed


def test_an_error_while_draining_is_not_told_a_second_time(world, caplog):
    client, handler = world.connect()
    client.arrive(b"bad")
    world.settle()
    assert client.take() == b"refused: no such thing\n"
    handler.on_fault(BadRequest("again"))
    assert client.take() == b""
    assert caplog.records == []
    world.check_idle()


def test_faults_after_the_end_are_forgotten(world, caplog):
    _client, handler = world.connect()
    handler.destroy()
    handler.on_fault(ZeroDivisionError())
    assert caplog.records == []


def test_an_error_of_the_system_ends_the_connection_without_a_traceback(world, caplog):
    _client, handler = world.connect()
    handler.on_fault(OSError(errno.ENOSPC, "no room to watch"))
    assert caplog.records == []
    world.check_idle()


def test_contained_callbacks_report_to_their_connection(world, caplog):
    _client, handler = world.connect()

    @contained
    def step(handler, what):
        raise ZeroDivisionError(what)

    step(handler, "injected")
    assert "failed on a bug" in caplog.text
    world.check_idle()


def test_bugs_are_logged_with_their_connection(world, caplog):
    caplog.set_level(logging.ERROR)
    _client, handler = world.connect()
    handler.on_fault(ZeroDivisionError("injected"))
    assert "192.0.2.7:50000" in caplog.text
