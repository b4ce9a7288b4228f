"""``LocalHandler``: CONNECT and SOCKS clients, the header that waits, and the stream."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest

from common.errors import AuthenticationFailed
from common.net.loop import READ
from common.relay.stages import STAGE_ADDR, STAGE_CONNECTING, STAGE_DESTROYED, STAGE_STREAM
from sslocal.tcp import HEADER_HOLD
from tests.fakes import FakeSocket
from tests.local_world import (
    FRONTS,
    HTTP,
    SERVER,
    SOCKS,
    SOCKS_ACCEPTED,
    SOCKS_GREETING,
    TARGET,
    LocalWorld,
    header,
    socks_request,
)
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


# -- from request to stream ------------------------------------------------------------------------


@pytest.mark.parametrize("bite", [None, 1])
@pytest.mark.parametrize("front", FRONTS)
def test_every_front_ends_in_the_same_stream(world, front, bite):
    """M1 in the small, K2, W11: one port, three protocols, in any pieces."""
    request, replies = FRONTS[front]
    client = FakeSocket()
    client.bite = bite
    client, _handler, server = world.fetch(request, client=client)
    assert world.dialer.last.addresses == [(SERVER.host, SERVER.port)]
    assert client.take() == replies
    client.bite = None
    client.arrive(b"ping")
    world.settle()
    assert server.take() == header() + b"ping"
    server.arrive(b"pong")
    world.settle()
    assert client.take() == b"pong"
    client.end()
    server.end()
    world.settle()
    world.check_idle()


def test_success_is_told_when_the_stream_stands_and_not_before(world):
    """W27"""
    client, handler = world.ask(SOCKS)
    assert handler.stage == STAGE_CONNECTING
    assert client.take() == b"\x05\x00", "the method choice alone"
    world.reach()
    assert client.take() == SOCKS_ACCEPTED


def test_replies_of_the_handshake_go_the_one_way_of_all_bytes(world):
    """W4: the method choice is still pending when the stream stands and the server speaks."""
    client, _handler = world.ask(SOCKS_GREETING, client=FakeSocket(room=0))
    client.arrive(socks_request(TARGET) + b"hello")
    world.settle()
    server = world.reach()
    assert server.take() == header() + b"hello"
    server.arrive(b"world")
    world.settle()
    client.room = 3
    world.settle()
    client.room = None
    world.settle()
    assert client.take() == b"\x05\x00" + SOCKS_ACCEPTED + b"world"


def test_a_client_that_cannot_be_told_is_let_go(world):
    client, _handler = world.ask(SOCKS)
    client.break_off(errno.EPIPE)
    server = world.reach()
    assert (server.sent, server.closed) == (b"", True)
    world.check_idle()


# -- the header waits for the first payload ----------------------------------------------------------


def test_header_and_first_payload_leave_in_one_send(world):
    """W37"""
    client, _handler, server = world.fetch(HTTP)
    world.pass_time(HEADER_HOLD - 0.001)
    assert server.sends == []
    client.arrive(b"hello")
    world.settle()
    client.arrive(b"again")
    world.settle()
    world.pass_time(HEADER_HOLD)
    assert server.sends == [header() + b"hello", b"again"]
    assert world.loop.statistics()["timers"] == 0


@pytest.mark.parametrize("front", FRONTS)
def test_payload_behind_the_request_leaves_with_the_header(world, front):
    """K2"""
    _client, handler, server = world.fetch(FRONTS[front][0] + b"hello")
    assert server.sends == [header() + b"hello"]
    assert handler.up.total == 5
    world.pass_time(HEADER_HOLD)
    assert server.sends == [header() + b"hello"]


def test_a_silent_clients_header_goes_alone_after_its_time(world):
    """The client waits for the target to speak first: 50 ms, on the loop's clock."""
    client, _handler, server = world.fetch(SOCKS)
    world.pass_time(HEADER_HOLD - 0.001)
    assert server.sends == []
    world.pass_time(0.001)
    assert server.sends == [header()]
    server.arrive(b"220 ready")
    world.settle()
    client.take()
    client.arrive(b"EHLO")
    world.settle()
    assert server.sends == [header(), b"EHLO"]


def test_a_header_that_does_not_fit_holds_the_client_back(world):
    client, handler, server = world.fetch(SOCKS)
    server.room = 4
    world.pass_time(HEADER_HOLD)
    client.arrive(b"hello")
    assert world.settle() == 0
    assert not handler.local.events & READ
    server.room = None
    world.settle()
    assert server.take() == header() + b"hello"


@pytest.mark.parametrize("room", [None, 4])
def test_a_client_that_ends_before_it_sent_anything(world, room):
    """The header still goes first, and then the end."""
    client, _handler, server = world.fetch(SOCKS)
    server.room = room
    client.end()
    world.settle()
    assert server.shut == (room is None)
    server.room = None
    world.settle()
    assert (server.take(), server.shut) == (header(), True)
    assert world.loop.statistics()["timers"] == 1, "the half-close limit, and no header"
    client.take()
    server.arrive(b"whole answer").end()
    world.settle()
    assert client.take() == b"whole answer"
    world.check_idle()


def test_a_client_that_ended_before_the_server_was_reached(world):
    client, _handler = world.ask(SOCKS)
    client.end()
    server = world.reach()
    assert (server.take(), server.shut) == (header(), True)


def test_a_header_that_nobody_takes(world):
    """The server reset the stream before the header: nothing is written twice, nothing hangs."""
    client, handler, server = world.fetch(SOCKS)
    client.end()
    server.break_off()
    handler.local.on_event(READ)
    world.settle()
    assert server.sends == []
    world.check_idle()


def test_a_header_for_a_server_that_has_ended_and_broken(world):
    """Nothing can come any more, and now nothing can go: that is an end, and no bug."""
    client, _handler, server = world.fetch(SOCKS)
    server.end()
    world.settle()
    server.break_off()
    client.end()
    world.settle()
    assert server.sends == []
    world.check_idle()


def test_a_server_that_leaves_before_the_header_was_due(world):
    client, _handler, server = world.fetch(SOCKS)
    client.take()
    server.end()
    world.settle()
    assert client.shut
    world.pass_time(HEADER_HOLD)
    client.end()
    world.settle()
    world.check_idle()


# -- a running stream ----------------------------------------------------------------------------------


def test_a_stream_that_breaks_its_protocol_is_ended_without_words(world):
    """The client was told success; anything more would look like the target's."""
    client, handler, server = world.fetch(HTTP + b"hello")
    client.take()

    def refuse(data):
        raise AuthenticationFailed("tag")

    server.arrive(b"good")
    world.settle()
    handler.down.transform = refuse
    server.arrive(b"bad")
    world.settle()
    assert (client.take(), client.shut, server.closed) == (b"good", True, True)
    assert world.counters["authentication"] == 1
    client.end()
    world.settle()
    world.check_idle()


def test_a_server_that_ends_inside_a_chunk(monkeypatch):
    world = LocalWorld(monkeypatch, method="aes-256-gcm", password="correct horse")
    client, _handler, server = world.fetch(HTTP + b"hello")
    client.take()
    server.arrive(bytes(40)).end()
    world.settle()
    assert (client.sent, client.shut) == (b"", True)
    assert world.counters["truncated"] == 1


def test_a_server_that_leaves_without_an_answer_ends_the_stream(world):
    client, _handler, server = world.fetch(HTTP + b"hello")
    client.take()
    server.end()
    world.settle()
    assert (client.sent, client.shut) == (b"", True)
    client.end()
    world.settle()
    world.check_idle()


def test_what_the_server_said_before_a_reset_is_delivered(world):
    """R6"""
    client, _handler, server = world.fetch(HTTP + b"hello")
    client.take()
    client.room = 1
    server.arrive(b"last words")
    server.break_off()
    world.settle()
    client.room = None
    world.settle()
    assert (client.take(), client.shut, server.closed) == (b"last words", True, True)


def test_a_clients_upload_survives_its_reset(world):
    client, _handler, server = world.fetch(HTTP + b"hello")
    server.room = 2
    client.arrive(b"important")
    world.settle()
    client.break_off()
    world.settle()
    server.room = None
    world.settle()
    assert server.take() == header() + b"helloimportant"
    world.check_idle()


def test_idle_streams_end_at_their_limit(monkeypatch):
    """S5"""
    world = LocalWorld(monkeypatch, limits=LIMITS._replace(idle=5.0))
    client, handler, server = world.fetch(HTTP + b"hello")
    for sock in (client, server):
        world.pass_time(4.5)
        sock.arrive(b"x")
        world.settle()
    world.pass_time(4.99)
    assert handler.stage == STAGE_STREAM
    world.pass_time(0.01)
    world.check_idle()


# -- leaving -------------------------------------------------------------------------------------------


def test_draining_waits_for_requests_and_streams(world):
    _client, asking = world.ask(b"CONNECT a")
    _client, dialling = world.ask(SOCKS)
    _client, streaming, _server = world.fetch(SOCKS)
    _client, silent = world.ask(b"")
    for handler in (asking, dialling, streaming, silent):
        handler.on_drain()
    assert [asking.stage, dialling.stage, streaming.stage, silent.stage] == [
        STAGE_ADDR,
        STAGE_CONNECTING,
        STAGE_STREAM,
        STAGE_DESTROYED,
    ]


@pytest.mark.parametrize("moment", ["asking", "dialling", "held", "streaming", "told"])
def test_freed_without_the_gc(world, moment):
    """R8: also while the header waits."""
    client, handler = world.ask({"asking": SOCKS[:5], "told": b"\x16"}.get(moment, SOCKS))
    if moment in ("held", "streaming"):
        world.reach()
    if moment == "streaming":
        client.arrive(b"x")
        world.settle()
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        handler.destroy()
        del handler
        world.settle()
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
