"""``TCPRelayHandler`` in DRAIN: last words that arrive, and silence until the deadline."""

from __future__ import annotations

import errno

import pytest

from common.net.loop import READ
from common.relay.flow import SPARING_READ
from common.relay.stages import STAGE_DRAIN
from common.relay.tcprelay import LINGER
from tests.fakes import FakeSocket
from tests.relay_world import LIMITS, World
from tests.toy_relay import HALF_CLOSE, Toy, streaming

# -- conclude --------------------------------------------------------------------------------------


def test_last_words_reach_a_slow_client_that_is_still_sending(world):
    """W35"""
    client, handler = world.connect()
    client.room = 5
    client.arrive(b"bad\n" + bytes(3 * SPARING_READ))
    world.settle()
    assert handler.stage == STAGE_DRAIN
    assert client.arrived == b"", "what it still sends is read and forgotten"
    assert not client.shut
    client.arrive(b"and on")
    while client.sent != b"refused: no such thing\n":
        client.room = 1
        world.settle()
    world.settle()
    assert (client.shut, client.closed) == (True, False)
    client.arrive(b"and on")
    world.settle()
    assert client.arrived == b""
    client.end()
    world.settle()
    world.check_idle()


def test_lingering_ends_after_its_seconds_however_much_comes(world):
    client, _handler = world.connect()
    client.arrive(b"bad")
    world.settle()
    assert client.shut
    for _ in range(4):
        world.pass_time(LINGER / 4 - 0.001)
        client.arrive(b"more")
        world.settle()
        assert not client.closed
    world.pass_time(0.004)
    assert client.closed
    world.check_idle()


def test_last_words_that_nobody_takes_are_given_up(world):
    """The limit is that of a quiet, half-closed stream, and each byte that leaves restarts it."""
    client, handler = world.connect()
    client.room = 0
    world.pass_time(LIMITS.handshake - 1)
    client.arrive(b"bad")
    world.settle()
    world.pass_time(HALF_CLOSE - 1)
    client.room = 1
    world.settle()
    world.pass_time(HALF_CLOSE - 0.01)
    assert handler.stage == STAGE_DRAIN
    world.pass_time(0.01)
    world.check_idle()


def test_a_client_that_ended_gets_its_last_words_and_is_let_go(world):
    client, _handler = world.connect()
    client.room = 4
    client.arrive(b"bad").end()
    world.settle()
    assert not client.closed
    assert world.settle() == 0, "its end is read once"
    client.room = None
    world.settle()
    assert client.take() == b"refused: no such thing\n"
    world.pass_time(LINGER)
    world.check_idle()


@pytest.mark.parametrize("room", [None, 3])
def test_a_client_that_breaks_while_it_is_told_is_let_go(world, room):
    client, _handler = world.connect()
    client.room = room
    client.arrive(b"bad")
    world.settle()
    client.break_off()
    world.settle()
    world.check_idle()


def test_last_words_to_a_client_that_has_gone(world):
    client, handler = world.connect()
    client.break_off(errno.EPIPE)
    handler.conclude(b"sorry")
    world.check_idle()


def test_concluding_without_words_ends_our_side(world):
    client, handler = world.connect()
    handler.conclude()
    assert (client.shut, handler.stage) == (True, STAGE_DRAIN)
    world.pass_time(LINGER)
    world.check_idle()


def test_concluding_with_a_client_that_cannot_be_shut_down(world):
    client, handler = world.connect()
    client.break_off()
    handler.conclude()
    world.check_idle()


def test_a_spurious_event_while_draining_does_nothing(world):
    _client, handler = world.connect()
    handler.conclude()
    handler.local.on_event(READ)
    assert handler.stage == STAGE_DRAIN


def test_last_words_follow_what_is_pending(world):
    client, handler, target = streaming(world)
    client.room = 2
    target.arrive(b"answer")
    world.settle()
    handler.conclude(b" cut")
    client.room = None
    world.settle()
    assert (client.take(), client.shut) == (b"answer cut", True)


# -- draining silently -----------------------------------------------------------------------------


class Silent(Toy):
    def on_protocol_error(self, error):
        if self.stage == STAGE_DRAIN:
            self.destroy()
        else:
            self.drain_silently()


def test_draining_answers_nothing_and_ends_at_the_deadline_from_accept(monkeypatch):
    world = World(monkeypatch, Silent)
    client, handler = world.connect()
    world.pass_time(20)
    client.arrive(b"bad\n" + bytes(100_000))
    world.settle()
    assert handler.stage == STAGE_DRAIN
    for _ in range(3):
        client.arrive(bytes(1000))
        world.pass_time(10)
    assert (client.arrived, client.sent, client.shut) == (b"", b"", False)
    world.pass_time(9.99)
    assert not client.closed
    world.pass_time(0.01)
    assert (client.sent, client.shut) == (b"", False)
    world.check_idle()


@pytest.mark.parametrize("leaving", [FakeSocket.end, FakeSocket.break_off])
def test_draining_ends_when_the_peer_leaves(monkeypatch, leaving):
    world = World(monkeypatch, Silent)
    client, _handler = world.connect()
    client.arrive(b"bad")
    world.settle()
    leaving(client)
    world.settle()
    assert client.sent == b""
    world.check_idle()
