"""``TCPRelayHandler`` between request and stream: lookups and dials, and how they fail."""

from __future__ import annotations

import errno

import pytest

from common.errors import ConnectFailed, ConnectTimeout, ResolveFailed, TargetForbidden
from common.proto.address import Address
from common.relay.stages import STAGE_CONNECTING, STAGE_DESTROYED, STAGE_DNS, STAGE_STREAM
from tests.fakes import ips
from tests.relay_world import World
from tests.toy_relay import Toy


def test_an_answer_from_the_cache_comes_before_resolve_returns(world):
    world.resolver.known["cached.example"] = tuple(ips("192.0.2.9"))
    client, handler = world.connect()
    client.arrive(b"cached.example 80\n")
    world.settle()
    assert (handler.stage, handler.query) == (STAGE_CONNECTING, None)
    assert world.dialer.last.addresses == [("192.0.2.9", 80)]


@pytest.mark.parametrize("at_once", [True, False])
def test_a_name_without_addresses_is_told(world, at_once):
    client, handler = world.connect()
    error = ResolveFailed("no such name")
    if at_once:
        world.resolver.known["nowhere.example"] = error
    client.arrive(b"nowhere.example 80\n")
    world.settle()
    if not at_once:
        world.resolver.answer("nowhere.example", error)
    world.settle()
    assert (client.take(), handler.failures) == (b"failed: no such name\n", [error])
    assert client.shut


@pytest.mark.parametrize("error", [ConnectFailed("refused", errno.ECONNREFUSED), ConnectTimeout("silent")])
def test_a_failed_dial_is_told(world, error):
    client, handler = world.connect()
    client.arrive(b"192.0.2.1 80\n")
    world.settle()
    world.dialer.last.fail(error)
    world.settle()
    assert (client.take(), handler.failures) == (f"failed: {error}\n".encode(), [error])


@pytest.mark.parametrize("at_once", [True, False])
def test_what_a_hook_raises_in_a_callback_is_contained(world, at_once):
    """W5: a forbidden address closes at once, through the failure hook, whoever called back."""
    if at_once:
        world.resolver.known["inside.example"] = tuple(ips("10.0.0.1"))
    client, handler = world.connect()
    client.arrive(b"inside.example 80\n")
    world.settle()
    if not at_once:
        world.resolver.answer("inside.example", "10.0.0.1")
    world.settle()
    assert client.take() == b"failed: not there\n"
    assert [type(error) for error in handler.failures] == [TargetForbidden]


class NextName(Toy):
    """Tries another name when the first one fails."""

    def on_failed(self, error):
        self.failures.append(error.with_traceback(None))  # which refers to us
        if len(self.failures) == 1:
            self.resolve(Address("second.example", 80))
        else:
            self.conclude()


@pytest.mark.parametrize("at_once", [True, False])
def test_the_next_lookup_is_cancelled_like_the_first(monkeypatch, at_once):
    """W20: also when the first failed before ``resolve`` returned, and the second waits."""
    world = World(monkeypatch, NextName)
    if at_once:
        world.resolver.known["first.example"] = ResolveFailed("no such name")
    client, handler = world.connect()
    client.arrive(b"first.example 80\n")
    world.settle()
    if not at_once:
        world.resolver.answer("first.example", ResolveFailed("no such name"))
    assert world.resolver.waiting == ["second.example"]
    handler.destroy()
    assert world.resolver.waiting == []
    world.check_idle()


def test_a_failed_dial_may_go_on_to_another_target(monkeypatch):
    world = World(monkeypatch, NextName)
    client, handler = world.connect()
    client.arrive(b"192.0.2.1 80\n")
    world.settle()
    world.dialer.last.fail(ConnectFailed("refused"))
    assert handler.stage == STAGE_DNS
    world.resolver.answer("second.example", "192.0.2.2")
    target = world.dialer.last.succeed()
    assert handler.stage == STAGE_STREAM
    handler.destroy()
    assert target.closed
    world.check_idle()


def test_a_late_answer_does_not_revive_a_dead_connection(world):
    """W20"""
    client, handler = world.connect()
    client.arrive(b"example.com 80\n")
    world.settle()
    callback = handler._on_resolved
    handler.destroy()
    callback(tuple(ips("192.0.2.1")), None)
    assert (handler.stage, handler.remote, world.dialer.dials) == (STAGE_DESTROYED, None, [])


def test_nothing_is_dialled_for_a_client_that_reset_while_its_name_was_looked_up(world):
    """W20: nobody watches the client meanwhile, so it is asked before the dial."""
    client, _handler = world.connect()
    client.arrive(b"example.com 80\n")
    world.settle()
    client.break_off()
    world.settle()
    world.resolver.answer("example.com", "192.0.2.1")
    assert world.dialer.dials == []
    assert client.closed
    world.check_idle()


def test_a_dial_that_outlives_its_connection_is_cancelled(world):
    client, handler = world.connect()
    client.arrive(b"192.0.2.1 80\n")
    world.settle()
    handler.destroy()
    assert world.dialer.last.cancelled
    world.check_idle()
