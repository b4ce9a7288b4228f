"""``Forward`` and streams that are parked: those that go stale, and requests that met one."""

from __future__ import annotations

import errno

import pytest

from common.errors import ConnectFailed
from common.net.loop import READ
from common.relay.stages import STAGE_ADDR, STAGE_CONNECTING
from common.relay.tcprelay import LINGER
from tests.fakes import FakeSocket
from tests.forward_world import answer, get, idle, post, sent, status
from tests.local_world import header
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


@pytest.mark.parametrize("leave", [FakeSocket.end, FakeSocket.break_off, lambda sock: sock.arrive(b"?")])
def test_a_parked_stream_that_ends_or_speaks_is_dropped(world, leave):
    """Between requests it has nothing to say; the client stays and gets a fresh one."""
    client, handler, server = idle(world)
    leave(server)
    world.settle()
    assert (server.closed, client.closed, client.shut) == (True, False, False)
    client.arrive(get(b"/2"))
    world.settle()
    assert handler.stage == STAGE_CONNECTING
    fresh = world.reach()
    assert fresh.take() == header() + sent(b"/2")


def test_a_parked_stream_is_watched_though_the_answer_is_still_leaving(world):
    client, _handler, server = world.fetch(get())
    client.room = 4
    server.arrive(answer(b"one"))
    world.settle()
    server.end()
    world.settle()
    assert server.closed
    client.room = None
    world.settle()
    assert client.take() == answer(b"one")


def test_a_parked_stream_that_breaks_while_the_request_is_still_leaving(world):
    """The origin answered before it took the whole request; the client loses nothing by its reset."""
    client, handler, server = world.fetch(post(b"x", length=9))
    server.room = 2
    client.arrive(b"12345678")
    world.settle()
    server.arrive(answer(b"early"))
    world.settle()
    assert client.take() == answer(b"early")
    assert handler.stage == STAGE_ADDR
    server.break_off(errno.EPIPE)
    handler.remote.want(handler.remote.events & ~READ)  # the write meets it first
    world.settle()
    assert (server.closed, client.closed) == (True, False)
    client.arrive(get(b"/2"))
    world.settle()
    assert world.reach().take() == header() + sent(b"/2")


@pytest.mark.parametrize("stale", [FakeSocket.end, FakeSocket.break_off])
def test_a_request_that_met_a_stale_stream_goes_once_more_on_a_fresh_one(world, stale):
    """RFC 9110 section 9.2.2: nothing was answered, and the request may be repeated."""
    client, handler, server = idle(world)
    client.arrive(get(b"/2"))
    world.settle()
    assert server.take() == sent(b"/2")
    stale(server)
    world.settle()
    assert client.sent == b""
    assert (handler.up, handler.down) == (None, None)
    fresh = world.reach()
    assert fresh.take() == header() + sent(b"/2")
    fresh.end()
    world.settle()
    assert status(client.take()) == 502, "but only once"
    assert len(world.dialer.dials) == 2


def test_a_stale_stream_that_refuses_the_request_is_stale_all_the_same(world):
    client, handler, server = idle(world)
    handler.remote.want(0)
    server.break_off(errno.EPIPE)  # not noticed yet when the request goes out
    client.arrive(get(b"/2"))
    world.settle()
    fresh = world.reach()
    fresh.arrive(answer(b"two"))
    world.settle()
    assert (fresh.take(), client.take()) == (header() + sent(b"/2"), answer(b"two"))


def test_a_stale_stream_that_is_silent_is_tried_again_at_the_limit(world):
    client, _handler, server = idle(world)
    client.arrive(get(b"/2"))
    world.settle()
    world.pass_time(LIMITS.handshake)
    assert server.closed
    world.reach().arrive(answer(b"two"))
    world.settle()
    assert client.take() == answer(b"two")


def test_what_cannot_be_repeated_is_not(world):
    client, _handler, server = idle(world)
    client.arrive(post(b"pay 5"))
    world.settle()
    server.end()
    world.settle()
    assert status(client.take()) == 502
    assert len(world.dialer.dials) == 1


def test_a_retry_that_cannot_be_dialled_is_told_once(world):
    client, _handler, server = idle(world)
    client.arrive(get(b"/2"))
    world.settle()
    server.end()
    world.settle()
    world.dialer.last.fail(ConnectFailed("refused"))
    world.settle()
    told = client.take()
    assert (status(told), told.count(b"HTTP/1.1")) == (502, 1)
    world.pass_time(LINGER)
    world.check_idle()


def test_a_retry_that_raises_ends_the_connection(world, monkeypatch, caplog):
    """The stream is closed by then, in whose event it happens: the fault is not lost with it."""
    client, handler, server = idle(world)
    client.arrive(get(b"/2"))
    world.settle()

    def boom():
        raise ZeroDivisionError("injected")

    handler.service.upstreams.in_turn = boom
    server.end()
    world.settle()
    assert "failed on a bug" in caplog.text
    caplog.clear()
    assert client.closed
    world.check_idle()
