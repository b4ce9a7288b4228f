"""``Forward`` and 101: an exchange that becomes a tunnel."""

from __future__ import annotations

import pytest

from common.net.loop import READ
from common.relay.stages import STAGE_ADDR, STAGE_STREAM
from tests.forward_world import SWITCHING, UPGRADE, answer
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


def test_after_a_101_the_stream_is_a_tunnel(world):
    """H16"""
    client, handler, server = world.fetch(UPGRADE)
    server.take()
    server.arrive(SWITCHING)
    world.settle()
    assert client.take().lower() == SWITCHING.lower()
    client.arrive(b"up")
    server.arrive(b"down")
    world.settle()
    assert (server.take(), client.take()) == (b"up", b"down")
    assert handler.forward is None
    client.end()
    world.settle()
    assert server.shut
    server.arrive(b"tail").end()
    world.settle()
    assert client.take() == b"tail"
    world.check_idle()


def test_bytes_around_the_101_begin_the_tunnel_both_ways(world):
    client, _handler, server = world.fetch(UPGRADE + b"eager ")
    server.take()
    client.arrive(b"client")
    world.settle()
    server.arrive(SWITCHING + b"eager server")
    world.settle()
    assert client.take().endswith(b"\r\n\r\neager server")
    assert server.take() == b"eager client"


def test_switching_needs_room_like_everything_else(world):
    client, handler, server = world.fetch(UPGRADE + b"eager")
    server.take()
    server.room = client.room = 1
    server.arrive(SWITCHING + b"server")
    world.settle()
    assert not handler.local.events & READ
    assert not handler.remote.events & READ
    server.room = client.room = None
    world.settle()
    assert client.take().endswith(b"server")
    assert server.take() == b"eager"


def test_a_tunnel_after_a_101_is_not_timed_as_an_answer(world):
    _client, handler, server = world.fetch(UPGRADE)
    server.arrive(SWITCHING)
    world.settle()
    world.pass_time(LIMITS.handshake * 10)
    assert world.loop.statistics()["timers"] == 0
    assert handler.stage == STAGE_STREAM


def test_an_upgrade_that_is_declined_is_an_ordinary_answer(world):
    client, handler, server = world.fetch(UPGRADE)
    server.arrive(answer(b"no"))
    world.settle()
    assert client.take() == answer(b"no")
    assert handler.stage == STAGE_ADDR
