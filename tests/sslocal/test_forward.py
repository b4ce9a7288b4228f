"""``Forward``: absolute-form HTTP over streams. Framing is ``HttpExchange``'s; here is all around it."""

from __future__ import annotations

import pytest

from common.errors import ConnectFailed
from common.net.loop import READ
from common.relay.flow import BULK_READ
from common.relay.stages import STAGE_ADDR, STAGE_DRAIN
from common.relay.tcprelay import LINGER
from sslocal.forward import FORWARD_READ
from tests.fakes import FakeSocket
from tests.forward_world import SWITCHING, UPGRADE, answer, get, idle, post, sent, status
from tests.local_world import HTTP_ACCEPTED, LocalWorld, header
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


# -- one request -----------------------------------------------------------------------------------


@pytest.mark.parametrize("bite", [None, 1])
def test_a_request_leaves_with_the_header_in_one_send(world, bite):
    """H2: one flight, whatever pieces it came in; the origin sees origin-form."""
    client = FakeSocket()
    client.bite = bite
    client, handler, server = world.fetch(get(b"/a?b"), client=client)
    assert server.sends == [header() + sent(b"/a?b")]
    server.bite = bite
    server.arrive(answer(b"hello"))
    world.settle()
    assert client.take() == answer(b"hello")
    assert handler.stage == STAGE_ADDR
    assert world.dialer.dials[0].addresses == [("198.51.100.1", 8388)]


def test_nothing_is_told_before_the_origin_answers(world):
    client, _handler, _server = world.fetch(get())
    assert client.sent == b""


def test_a_body_is_passed_on_as_it_comes(world):
    client, _handler, server = world.fetch(post(b"one", length=9))
    assert server.take().endswith(b"\r\n\r\none")
    client.arrive(b"two")
    world.settle()
    assert server.take() == b"two"
    client.arrive(b"end")
    world.settle()
    server.arrive(answer(b"thanks"))
    world.settle()
    assert (server.take(), client.take()) == (b"end", answer(b"thanks"))


@pytest.mark.parametrize("room", [0, 10])
def test_a_first_flight_that_does_not_fit_holds_the_client_back(world, room):
    """R5: back-pressure, before and after the end of the request."""
    client, handler = world.ask(post(b"one", length=6))
    server = world.reach(FakeSocket(room=room))
    client.arrive(b"two")
    assert world.settle() == 0
    assert not handler.local.events & READ
    server.room = None
    world.settle()
    assert server.take().endswith(b"\r\n\r\nonetwo")
    assert not handler.local.events & READ, "the request is complete"


def test_reads_are_of_a_size_that_h11_likes(world):
    """A hostile origin's tiny chunks must not stop the loop for long; a tunnel reads on in bulk."""
    _client, handler, server = world.fetch(UPGRADE)
    assert (handler.up.limit, handler.down.limit) == (FORWARD_READ, FORWARD_READ)
    server.arrive(SWITCHING)
    world.settle()
    assert (handler.up.limit, handler.down.limit) == (BULK_READ, BULK_READ)


def test_an_answer_waits_for_a_slow_client(world):
    client, handler, server = world.fetch(get())
    client.room = 5
    server.arrive(answer(b"x" * 1000)[:500])
    world.settle()
    assert not handler.remote.events & READ
    server.arrive(answer(b"x" * 1000)[500:])
    assert world.settle() == 0
    client.room = None
    world.settle()
    assert client.take() == answer(b"x" * 1000)


def test_interim_responses_pass(world):
    """H6: Expect: 100-continue"""
    client, handler, server = world.fetch(post(b"", length=3))
    interim = b"HTTP/1.1 100 Continue\r\n\r\n"
    server.arrive(interim)
    world.settle()
    assert status(client.take()) == 100
    client.arrive(b"abc")
    world.settle()
    server.arrive(answer(b"done"))
    world.settle()
    assert client.take() == answer(b"done")
    assert handler.stage == STAGE_ADDR


def test_an_http_1_0_client_is_let_go_after_its_answer(world):
    client, handler, server = world.fetch(b"GET http://origin.example/ HTTP/1.0\r\n\r\n")
    server.arrive(answer(b"hello"))
    world.settle()
    assert client.take().endswith(b"hello")
    assert (client.shut, handler.stage, server.closed) == (True, STAGE_DRAIN, True)
    client.end()
    world.settle()
    world.check_idle()


def test_an_answer_that_ends_with_its_connection(world):
    client, handler, server = world.fetch(get())
    server.arrive(b"HTTP/1.1 200 OK\r\n\r\nuntil the end")
    world.settle()
    server.end()
    world.settle()
    told = client.take()
    assert b"until the end" in told
    assert told.endswith(b"0\r\n\r\n")
    assert (handler.stage, handler.remote) == (STAGE_ADDR, None)
    assert server.closed


def test_an_origin_that_will_not_be_kept_is_let_go(world):
    client, handler, server = world.fetch(get())
    server.arrive(answer(b"hello", b"Connection: close\r\n"))
    world.settle()
    assert client.take().endswith(b"hello")
    assert (handler.stage, server.closed) == (STAGE_ADDR, True)


def test_the_origins_end_waits_for_a_slow_client(world):
    client, _handler, server = world.fetch(get())
    client.room = 3
    server.arrive(b"HTTP/1.1 200 OK\r\n\r\nuntil the end").end()
    world.settle()
    client.room = None
    world.settle()
    assert client.take().endswith(b"0\r\n\r\n")


# -- the next request ------------------------------------------------------------------------------


def test_the_next_request_to_the_same_origin_takes_the_same_stream(world):
    """H5, T4"""
    client, _handler, server = idle(world)
    for number in range(20):
        client.arrive(get(b"/%d" % number))
        world.settle()
        assert server.take() == sent(b"/%d" % number)
        server.arrive(answer(b"%d" % number))
        world.settle()
        assert client.take() == answer(b"%d" % number)
        world.pass_time(LIMITS.handshake - 1)
    assert len(world.dialer.dials) == 1
    assert world.loop.statistics()["timers"] == 1


def test_the_next_request_to_another_origin_takes_a_fresh_stream(world):
    """H5"""
    client, _handler, server = idle(world)
    client.arrive(get(host=b"other.example"))
    world.settle()
    assert server.closed
    other = world.reach()
    assert other.take() == header("other.example") + sent(host=b"other.example")
    other.arrive(answer(b"two"))
    world.settle()
    assert client.take() == answer(b"two")


@pytest.mark.parametrize("second", [b"origin.example", b"other.example"])
def test_pipelined_requests_are_answered_in_order(world, second):
    """H3"""
    client, _handler, server = world.fetch(get(b"/1") + get(b"/2", second) + get(b"/3", second))
    assert server.take() == header() + sent(b"/1")
    server.arrive(answer(b"one"))
    world.settle()
    if second != b"origin.example":
        assert server.closed
        server = world.reach()
        assert server.take() == header("other.example") + sent(b"/2", second)
    else:
        assert server.take() == sent(b"/2")
    server.arrive(answer(b"two"))
    world.settle()
    assert server.take() == sent(b"/3", second)
    server.arrive(answer(b"three"))
    world.settle()
    assert client.take() == answer(b"one") + answer(b"two") + answer(b"three")


def test_a_bad_request_behind_a_good_one_is_told_behind_its_answer(world):
    client, _handler, server = world.fetch(get(b"/1") + b"BOGUS\r\n\r\n")
    server.arrive(answer(b"one"))
    world.settle()
    told = client.take()
    assert told.startswith(answer(b"one"))
    assert status(told.removeprefix(answer(b"one"))) == 400
    assert (client.shut, server.closed) == (True, True)


def test_pipelined_requests_wait_in_the_kernel(world):
    client, _handler, server = world.fetch(get(b"/1"))
    client.arrive(get(b"/2"))
    assert world.settle() == 0
    assert bytes(client.arrived) == get(b"/2")
    server.arrive(answer(b"one"))
    world.settle()
    assert server.take() == header() + sent(b"/1") + sent(b"/2")


def test_a_pipelining_client_that_does_not_read_is_not_read_for(world):
    """W3: the second answer stays with the server until the first has left."""
    client, handler, server = world.fetch(get(b"/1") + get(b"/2"))
    client.room = 4
    server.arrive(answer(b"one"))
    world.settle()
    server.arrive(answer(b"two"))
    assert world.settle() == 0
    assert not handler.remote.events & READ
    client.room = None
    world.settle()
    assert client.take() == answer(b"one") + answer(b"two")


def test_a_request_left_unfinished_is_told_at_the_deadline(world):
    """W38: the clock of a next request runs from the answer of the one before."""
    client, _handler, _server = idle(world)
    client.arrive(get()[:10])
    world.settle()
    world.pass_time(LIMITS.handshake)
    assert status(client.take()) == 408
    world.pass_time(LINGER)
    world.check_idle()


def test_an_idle_client_is_let_go_without_words(world):
    client, _handler, server = idle(world)
    world.pass_time(LIMITS.handshake - 0.01)
    assert not client.shut
    world.pass_time(0.01)
    assert (client.sent, client.shut, server.closed) == (b"", True, True)
    world.pass_time(LINGER)
    world.check_idle()


@pytest.mark.parametrize("idle_limit", [None, 900.0])
def test_only_one_timer_runs_between_requests(monkeypatch, idle_limit):
    """The one that waited for the answer is gone, and does not strike later."""
    world = LocalWorld(monkeypatch, limits=LIMITS._replace(idle=idle_limit))
    client, handler, server = world.fetch(get())
    world.pass_time(LIMITS.handshake - 1)
    server.arrive(answer(b"one"))
    world.settle()
    assert world.loop.statistics()["timers"] == 1
    world.pass_time(LIMITS.handshake - 1)
    assert handler.stage == STAGE_ADDR
    assert not client.shut


def test_a_bad_next_request_is_told_and_ends_both(world):
    client, _handler, server = idle(world)
    client.arrive(b"BOGUS\r\n\r\n")
    world.settle()
    assert status(client.take()) == 400
    assert (client.shut, server.closed) == (True, True)


def test_a_client_that_leaves_between_requests(world):
    client, _handler, server = idle(world)
    client.end()
    world.settle()
    assert server.closed
    world.check_idle()


@pytest.mark.parametrize("early", [b"", b"hello"])
def test_connect_on_a_kept_connection_is_a_tunnel_of_its_own(world, early):
    """RFC 9110 allows it: the parked stream goes, and the old exchange is not begun again."""
    client, _handler, server = idle(world)
    client.arrive(b"CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n" + early)
    world.settle()
    assert server.closed
    tunnel = world.reach()
    assert client.take() == HTTP_ACCEPTED
    client.arrive(b" tls")
    world.settle()
    assert tunnel.take() == header("other.example", 443) + early + b" tls"
    tunnel.arrive(b"hello back").end()
    world.settle()
    assert (client.take(), client.shut) == (b"hello back", True)
    client.end()
    world.settle()
    world.check_idle()


def test_a_failed_dial_for_a_next_request_is_told_once(world):
    client, _handler, _server = idle(world)
    client.arrive(get(host=b"other.example"))
    world.settle()
    world.dialer.last.fail(ConnectFailed("refused"))
    world.settle()
    told = client.take()
    assert (status(told), told.count(b"HTTP/1.1")) == (502, 1)
    assert world.counters["connect"] == 1
