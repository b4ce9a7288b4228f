"""``Forward``: absolute-form HTTP over streams. Framing is ``HttpExchange``'s; here is all around it."""

from __future__ import annotations

import errno
import gc
import logging
import weakref

import pytest

from common.errors import AuthenticationFailed, ConnectFailed
from common.net.loop import READ
from common.relay.flow import BULK_READ
from common.relay.stages import STAGE_ADDR, STAGE_CONNECTING, STAGE_DESTROYED, STAGE_DRAIN, STAGE_STREAM
from common.relay.tcprelay import LINGER
from sslocal.forward import FORWARD_READ
from sslocal.upstreams import Upstreams
from tests.fakes import LIMITS, FakeSocket
from tests.local_world import HTTP_ACCEPTED, LocalWorld, header


def get(path: bytes = b"/", host: bytes = b"origin.example", method: bytes = b"GET") -> bytes:
    return b"%b http://%b%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, host, path, host)


def sent(path: bytes = b"/", host: bytes = b"origin.example", method: bytes = b"GET") -> bytes:
    """The request as the origin should see it."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, path, host)


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        b"POST http://origin.example/ HTTP/1.1\r\nHost: origin.example\r\nContent-Length: %d\r\n\r\n" % size
        + body
    )


def answer(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), extra, body)


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


@pytest.fixture(autouse=True)
def _no_bug_is_logged(caplog):
    yield
    assert [record.message for record in caplog.get_records("call") if record.levelno >= logging.ERROR] == []


@pytest.fixture
def world(monkeypatch):
    return LocalWorld(monkeypatch)


def idle(world):
    """A client whose first request was answered: its handler waits for the next, the stream is parked."""
    client, handler, server = world.fetch(get())
    server.arrive(answer(b"one"))
    world.settle()
    assert client.take() == answer(b"one")
    assert server.take() == header() + sent()
    assert (handler.stage, handler.between_requests) == (STAGE_ADDR, True)
    return client, handler, server


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


# -- parked streams --------------------------------------------------------------------------------


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


# -- switching protocols ---------------------------------------------------------------------------

UPGRADE = (
    b"GET http://origin.example/ws HTTP/1.1\r\nHost: origin.example\r\n"
    b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


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
    assert world.loop.statistics()["timers"] == 0
    world.pass_time(LIMITS.handshake * 10)
    assert handler.stage == STAGE_STREAM


def test_an_upgrade_that_is_declined_is_an_ordinary_answer(world):
    client, handler, server = world.fetch(UPGRADE)
    server.arrive(answer(b"no"))
    world.settle()
    assert client.take() == answer(b"no")
    assert handler.stage == STAGE_ADDR


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


# -- clients that leave ----------------------------------------------------------------------------


def test_a_client_that_resets_during_the_answer_leaves_nothing_behind(world):
    """Its request is complete, so it is not read: only the failing send tells."""
    client, _handler, server = world.fetch(get())
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    client.break_off(errno.EPIPE)
    server.arrive(b"x" * 50)
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_resets_while_its_answer_is_pending(world):
    client, _handler, server = world.fetch(get())
    client.room = 3
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    client.break_off()
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_resets_during_its_upload_is_delivered_as_far_as_it_came(world):
    client, _handler, server = world.fetch(post(b"", length=9))
    server.take()
    server.room = 2
    client.arrive(b"12345")
    world.settle()
    client.break_off()
    world.settle()
    server.room = None
    world.settle()
    assert server.take() == b"12345"
    world.check_idle()


def test_a_client_that_resets_behind_a_complete_request_is_delivered(world):
    """The answer cannot be given any more, and a part of the request is still on its way out."""
    client, _handler, server = world.fetch(post(b"", length=5))
    server.take()
    server.room = 2
    client.arrive(b"12345")
    world.settle()
    client.break_off()
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    server.room = None
    world.settle()
    assert server.take() == b"12345"
    world.check_idle()


def test_a_client_that_resets_with_nothing_pending(world):
    client, _handler, server = world.fetch(post(b"", length=9))
    client.break_off()
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_ends_inside_its_request_is_told_once(world):
    client, _handler, server = world.fetch(post(b"123", length=9))
    client.end()
    world.settle()
    told = client.take()
    assert (status(told), told.count(b"HTTP/1.1")) == (400, 1)
    assert server.closed
    assert world.counters["bad_request"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_client_that_ends_behind_its_request_gets_the_whole_answer(world):
    """T3"""
    client, _handler, server = world.fetch(get())
    client.end()
    world.settle()
    server.arrive(answer(b"hello"))
    world.settle()
    assert (client.take(), client.closed) == (answer(b"hello"), True)
    world.check_idle()


def test_a_client_that_ends_with_its_last_byte_gets_the_whole_answer(world):
    client, _handler, server = world.fetch(post(b"", length=3))
    client.arrive(b"abc").end()
    world.settle()
    server.arrive(answer(b"hello"))
    world.settle()
    assert client.take() == answer(b"hello")
    world.check_idle()


# -- leaving ---------------------------------------------------------------------------------------


def test_draining_ends_idle_clients(world):
    client, handler, server = idle(world)
    handler.on_drain()
    assert (client.shut, client.sent, server.closed) == (True, b"", True)
    handler.on_drain()
    assert handler.stage == STAGE_DRAIN
    world.pass_time(LINGER)
    world.check_idle()


def test_draining_a_client_that_is_being_let_go_anyway(world, caplog):
    client, handler, _server = idle(world)
    world.pass_time(LIMITS.handshake)
    assert handler.stage == STAGE_DRAIN
    handler.on_drain()
    assert caplog.records == []
    assert handler.stage == STAGE_DRAIN
    assert client.shut


def test_draining_lets_a_running_exchange_end_and_takes_no_next_one(world):
    """T8; the client is told, so that it does not send the next one into the end."""
    client, handler, server = world.fetch(get(b"/1"))
    client.arrive(get(b"/2"))
    world.relay.close_listener()
    handler.on_drain()
    server.arrive(answer(b"one"))
    world.settle()
    assert (client.take(), client.shut) == (answer(b"one", b"Connection: close\r\n"), True)
    assert handler.stage == STAGE_DRAIN
    client.end()
    world.settle()
    world.check_idle()


def _answered(world):
    return idle(world)[:2]


def _waiting(world):
    return world.fetch(get())[:2]


def _uploading(world):
    client, handler, server = world.fetch(post(b"", length=9))
    server.room = 0
    client.arrive(b"12345")
    world.settle()
    return client, handler


def _downloading(world):
    client, handler, server = world.fetch(get())
    client.room = 3
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    return client, handler


def _switched(world):
    client, handler, server = world.fetch(UPGRADE)
    server.arrive(SWITCHING)
    world.settle()
    return client, handler


def _retrying(world):
    client, handler, server = idle(world)
    client.arrive(get())
    world.settle()
    server.end()
    world.settle()
    return client, handler


def _third_request(world):
    client, handler, server = idle(world)
    for number in range(2):
        client.arrive(get(b"/%d" % number))
        world.settle()
        server.arrive(answer(b"x") if number == 0 else b"")
        world.settle()
    return client, handler


def _refused(world):
    client, handler, server = world.fetch(get())
    server.end()
    world.settle()
    return client, handler


BEGINNINGS = [
    _answered,
    _waiting,
    _uploading,
    _downloading,
    _switched,
    _retrying,
    _third_request,
    _refused,
]


@pytest.mark.parametrize("ending", ["destroyed", "faulted", "client reset", "server reset"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8: a Forward refers to its handler and the handler to it."""
    client, handler = begin(world)
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        if ending == "destroyed":
            handler.destroy()
        elif ending == "faulted":
            handler.on_fault(OSError())
        elif ending == "client reset":
            client.break_off()
            handler.on_unreadable(handler.local, ConnectionResetError())
        elif handler.remote:
            handler.remote.sock.break_off()
        world.pass_time(LIMITS.handshake)
        world.pass_time(LIMITS.half_close)
        if handler.stage != STAGE_DESTROYED:
            handler.destroy()
        for dial in world.dialer.dials:
            dial.callback = None
        del handler
        world.settle()
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
