"""``Forward`` and answers that do not come, or come too early."""

from __future__ import annotations

import errno

import pytest

from common.errors import AuthenticationFailed
from common.net.loop import READ
from common.relay.stages import STAGE_DRAIN, STAGE_STREAM
from common.relay.tcprelay import LINGER
from sslocal.upstreams import Upstreams
from tests.fakes import FakeSocket
from tests.forward_world import answer, get, post, status
from tests.local_world import LocalWorld
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


# -- answers that do not come ----------------------------------------------------------------------


def test_a_stream_that_ends_without_an_answer_is_a_502_with_its_causes(world):
    """H7"""
    client, _handler, server = world.fetch(get())
    server.end()
    world.settle()
    told = client.take()
    assert status(told) == 502
    assert Upstreams.closed_without_answer[:30].encode() in told.replace(b"The", b"the")
    assert world.counters["server_closed"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_stream_that_ends_after_the_connect_timeout_is_a_504(world):
    """H7: the server waits as long for the target as we do for the server."""
    client, _handler, server = world.fetch(get())
    world.pass_time(LIMITS.connect)
    server.end()
    world.settle()
    assert status(client.take()) == 504
    assert world.counters["server_stalled"] == 1


def test_a_stream_that_stays_silent_is_a_504_at_the_limit(world):
    client, _handler, _server = world.fetch(get())
    world.pass_time(LIMITS.handshake - 0.01)
    assert client.sent == b""
    world.pass_time(0.01)
    told = client.take()
    assert status(told) == 504
    assert b"no answer within 60 s" in told.lower()


def test_a_stream_that_breaks_without_an_answer_is_a_502(world):
    client, _handler, server = world.fetch(get())
    server.break_off()
    world.settle()
    told = client.take()
    assert status(told) == 502
    assert b"broke" in told


def test_an_answer_that_is_not_http_is_a_502(world):
    client, _handler, server = world.fetch(get())
    server.arrive(b"SSH-2.0-OpenSSH\r\n\r\n")
    world.settle()
    assert status(client.take()) == 502
    assert server.closed


def test_a_stream_that_cannot_be_opened_is_a_502(world):
    client, handler, server = world.fetch(get())

    def refuse(data):
        raise AuthenticationFailed("tag")

    handler.session = type("Session", (), {"open": staticmethod(refuse)})()
    server.arrive(b"garbage")
    world.settle()
    assert status(client.take()) == 502
    assert world.counters["authentication"] == 1


@pytest.mark.parametrize("end", [FakeSocket.end, FakeSocket.break_off])
@pytest.mark.parametrize(
    "part",
    [
        answer(b"x" * 100)[:-50],
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe",
    ],
)
def test_a_truncated_answer_is_cut_for_the_client_too(world, part, end):
    """No second page behind half an answer, and no end that would make it look whole."""
    client, _handler, server = world.fetch(get())
    server.arrive(part)
    end(server)
    world.settle()
    told = client.take()
    assert told.count(b"HTTP/1.1") == 1
    assert not told.endswith(b"0\r\n\r\n")
    assert client.shut
    world.pass_time(LINGER)
    world.check_idle()


def test_an_answer_that_ends_inside_its_head_is_a_502(world):
    client, _handler, server = world.fetch(get())
    server.arrive(b"HTTP/1.1 200 OK\r\nContent-").end()
    world.settle()
    told = client.take()
    assert (status(told), told.count(b"HTTP/1.1")) == (502, 1)


def test_a_stream_that_ends_inside_a_chunk_is_a_502(monkeypatch):
    world = LocalWorld(monkeypatch, method="aes-256-gcm", password="correct horse")
    client, _handler, server = world.fetch(get())
    server.arrive(bytes(40)).end()
    world.settle()
    assert status(client.take()) == 502
    assert world.counters["truncated"] == 1


def test_an_answer_that_has_begun_may_take_its_time(world):
    client, handler, server = world.fetch(get())
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    world.pass_time(LIMITS.handshake * 10)
    assert handler.stage == STAGE_STREAM
    server.arrive(b"x" * 50)
    world.settle()
    assert client.take() == answer(b"x" * 100)


def test_an_upload_may_take_its_time(world):
    client, handler, _server = world.fetch(post(b"", length=3))
    world.pass_time(LIMITS.handshake * 10)
    client.arrive(b"abc")
    world.settle()
    world.pass_time(LIMITS.handshake - 0.01)
    assert handler.stage == STAGE_STREAM, "the answer is due from the request's end on"
    world.pass_time(0.01)
    assert status(client.take()) == 504


@pytest.mark.parametrize("begun", [post(b"", length=3), get()])
def test_an_exchange_that_stops_on_its_way_ends_at_the_idle_limit(monkeypatch, begun):
    world = LocalWorld(monkeypatch, limits=LIMITS._replace(idle=5.0))
    client, _handler, server = world.fetch(begun)
    if begun == get():
        server.arrive(answer(b"x" * 100)[:-50])
        world.settle()
    told = client.take()
    world.pass_time(5)
    assert client.take() == b""
    assert told.count(b"HTTP/1.1") == (begun == get())
    assert world.counters["server_stalled"] == 0
    world.check_idle()


# -- answers that come early -----------------------------------------------------------------------


def test_an_answer_before_the_upload_is_complete_reaches_the_client_that_still_sends(world):
    """W35"""
    client, handler, server = world.fetch(post(b"", length=1_000_000))
    client.arrive(bytes(1000))
    world.settle()
    client.room = 10
    server.arrive(answer(b"too large").replace(b"200 OK", b"413 No"))
    world.settle()
    assert handler.stage == STAGE_DRAIN
    client.arrive(bytes(10_000))
    world.settle()
    assert client.arrived == b""
    client.room = None
    world.settle()
    told = client.take()
    assert (status(told), told[-9:], client.shut) == (413, b"too large", True)
    assert b"connection: close" in told.lower()


def test_an_origin_that_answers_and_refuses_the_upload(world):
    """Its answer is read although sending to it has failed."""
    client, handler, server = world.fetch(post(b"", length=1_000_000))
    server.arrive(answer(b"too large").replace(b"200 OK", b"413 No"))
    server.break_off(errno.EPIPE)
    client.arrive(bytes(1000))
    handler.local.on_event(READ)
    world.settle()
    assert status(client.take()) == 413
