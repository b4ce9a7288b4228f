"""``TCPRelayHandler``: one connection through all its stages, and through all its endings.

``Toy`` is the smallest program on it: the client sends ``host port`` and a newline, bytes are relayed
as they are, and failures are told in plain words.
"""

from __future__ import annotations

import errno
import gc
import logging
import random
import socket
import struct
import weakref
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import (
    BadRequest,
    ConnectFailed,
    ConnectTimeout,
    HandshakeTimeout,
    ResolveFailed,
    TargetForbidden,
)
from common.net.loop import READ, WRITE, EventLoop
from common.proto.address import Address
from common.relay.admission import Admission
from common.relay.containment import contained
from common.relay.flow import SPARING_READ, Allowance
from common.relay.listener import TCPRelay
from common.relay.stages import (
    STAGE_ADDR,
    STAGE_CONNECTING,
    STAGE_DESTROYED,
    STAGE_DNS,
    STAGE_DRAIN,
    STAGE_INIT,
    STAGE_STREAM,
)
from common.relay.tcprelay import LINGER, TCPRelayHandler
from tests.fakes import LIMITS, FakeResolver, FakeSocket, World, ips

HALF_CLOSE = LIMITS.half_close


class Toy(TCPRelayHandler):
    def __init__(self, relay, sock, peer):
        super().__init__(relay, sock, peer)
        self.head = b""
        self.failures = []

    def on_prologue(self, data):
        if self.stage == STAGE_INIT:
            self.advance(STAGE_ADDR)
        self.head += data
        line, newline, rest = self.head.partition(b"\n")
        if line == b"bad":
            raise BadRequest("no such thing")
        if newline:
            self.head = rest
            host, port = line.decode().split()
            self.resolve(Address(host, int(port)))

    def on_addresses(self, addresses):
        if str(addresses[0]).startswith("10."):
            raise TargetForbidden("not there")
        return addresses

    def on_connected(self):
        self.local.write(b"ok\n")
        self.stream(bytes, bytes)
        if self.head:
            self.up.feed(memoryview(self.head))

    def on_failed(self, error):
        self.failures.append(error.with_traceback(None))  # which refers to us
        self.conclude(f"failed: {error}\n".encode())

    def on_protocol_error(self, error):
        self.failures.append(error.with_traceback(None))  # which refers to us
        self.count(error)
        self.conclude(f"refused: {error}\n".encode())


@pytest.fixture
def world(monkeypatch):
    return World(monkeypatch, Toy)


def streaming(world, payload=b"", **kwargs):
    """A client, its handler in STREAM, and the target's socket."""
    client, handler = world.connect(FakeSocket(**kwargs))
    client.arrive(b"192.0.2.1 80\n" + payload)
    world.settle()
    target = world.dialer.last.succeed()
    world.settle()
    assert handler.stage == STAGE_STREAM
    if kwargs.get("room") is None:
        assert client.take() == b"ok\n"
    return client, handler, target


# -- the stages ------------------------------------------------------------------------------------


def test_a_connection_walks_all_stages_byte_by_byte(world):
    """R4"""
    client, handler = world.connect()
    seen = [handler.stage]
    client.bite = 1
    client.arrive(b"example.com 80\nhello")
    world.settle()
    seen.append(handler.stage)
    assert bytes(client.arrived) == b"hello", "what follows the request waits in the kernel"
    world.resolver.answer("example.com", "192.0.2.1", "192.0.2.2")
    seen.append(handler.stage)
    assert world.dialer.last.addresses == [("192.0.2.1", 80), ("192.0.2.2", 80)]
    assert world.dialer.last.options == {"timeout": 10.0, "no_delay": True, "keep_alive": 15.0}
    target = world.dialer.last.succeed()
    seen.append(handler.stage)
    assert (handler.query, handler.dialing) == (None, None)
    world.settle()
    assert (client.take(), target.take()) == (b"ok\n", b"hello")
    target.arrive(b"world")
    world.settle()
    assert client.take() == b"world"
    client.end()
    target.end()
    world.settle()
    seen.append(handler.stage)
    assert seen == [STAGE_INIT, STAGE_DNS, STAGE_CONNECTING, STAGE_STREAM, STAGE_DESTROYED]
    world.check_idle()
    assert world.counters == {"accepted": 1, "bytes_up": 5, "bytes_down": 5}


def test_what_came_with_the_request_is_the_first_payload(world):
    _client, _handler, target = streaming(world, b"hello")
    assert target.take() == b"hello"


def test_illegal_stage_changes_are_bugs(world):
    _client, handler = world.connect()
    for stage in (STAGE_INIT, STAGE_DNS, STAGE_CONNECTING, STAGE_STREAM, STAGE_DESTROYED):
        with pytest.raises(AssertionError, match="illegal stage change 0 -> "):
            handler.advance(stage)
    handler.destroy()
    with pytest.raises(AssertionError):
        handler.advance(STAGE_DRAIN)


@pytest.mark.parametrize("stage", [STAGE_DNS, STAGE_CONNECTING])
def test_nothing_is_read_for_a_target_that_does_not_exist_yet(world, stage):
    """R5, W3: the client's bytes wait in its kernel and then at home."""
    client, handler = world.connect()
    client.arrive(b"example.com 80\n")
    world.settle()
    if stage == STAGE_CONNECTING:
        world.resolver.answer("example.com", "192.0.2.1")
    client.arrive(bytes(1_000_000))
    assert world.settle() == 0
    assert handler.stage == stage
    assert len(client.arrived) == 1_000_000
    assert world.loop.statistics()["watched"] == 1, "the listener alone"


def test_a_spurious_event_in_the_prologue_does_nothing(world):
    _client, handler = world.connect()
    handler.read_prologue()
    assert handler.stage == STAGE_INIT


# -- back-pressure across the stages ---------------------------------------------------------------


def test_handshake_reply_and_stream_share_one_ordered_write_path(world):
    """W4: the reply is still pending when the target's first bytes come."""
    client, handler, target = streaming(world, room=0)
    assert bytes(handler.local.pending) == b"ok\n"
    assert not handler.remote.events & READ, "the target is not read while the reply is pending"
    target.arrive(b"first")
    world.settle()
    assert client.sent == b""
    client.room = 1
    world.settle()
    assert not handler.remote.events & READ
    client.room = None
    world.settle()
    assert client.take() == b"ok\nfirst"
    assert handler.remote.events & READ


def test_first_payload_holds_the_client_back_like_any_other(world):
    client, handler = world.connect()
    client.arrive(b"192.0.2.1 80\nhello")
    world.settle()
    target = world.dialer.last.succeed(FakeSocket(room=2))
    client.arrive(b"more")
    world.settle()
    assert bytes(handler.remote.pending) == b"llo"
    assert not handler.local.events & READ
    target.room = None
    world.settle()
    assert target.take() == b"hellomore"


# -- half-close ------------------------------------------------------------------------------------


def test_the_target_answers_after_the_clients_end(world):
    """R3, W2"""
    client, _handler, target = streaming(world)
    client.arrive(b"request")
    client.end()
    world.settle()
    assert (target.take(), target.shut, client.shut) == (b"request", True, False)
    target.arrive(b"reply" * 20_000)
    target.end()
    world.settle()
    assert client.take() == b"reply" * 20_000
    world.check_idle()


def test_the_client_goes_on_after_the_targets_end(world):
    """R3, mirrored"""
    client, _handler, target = streaming(world)
    target.arrive(b"greeting")
    target.end()
    world.settle()
    assert (client.take(), client.shut, target.shut) == (b"greeting", True, False)
    client.arrive(b"x" * 1_000_000)
    client.end()
    world.settle()
    assert target.take() == b"x" * 1_000_000
    world.check_idle()


@pytest.mark.parametrize("first", ["client", "target"])
def test_an_end_waits_behind_pending_bytes(world, first):
    """R3: half-close with bytes still pending, either way."""
    client, _handler, target = streaming(world)
    source, sink = (client, target) if first == "client" else (target, client)
    sink.room = 3
    source.arrive(b"abcdef")
    source.end()
    world.settle()
    assert (bytes(sink.sent), sink.shut) == (b"abc", False)
    sink.room = None
    world.settle()
    assert (sink.take(), sink.shut) == (b"abcdef", True)
    sink.arrive(b"and back")
    sink.end()
    world.settle()
    assert source.take() == b"and back"
    world.check_idle()


def test_both_ends_at_once_with_bytes_pending_both_ways(world):
    client, _handler, target = streaming(world)
    client.room = target.room = 1
    client.arrive(b"up!").end()
    target.arrive(b"down").end()
    world.settle()
    client.room = target.room = None
    world.settle()
    assert (target.take(), client.take()) == (b"up!", b"down")
    world.check_idle()


def test_a_half_closed_stream_ends_when_it_is_quiet(world):
    """The half-close timer restarts on traffic and fires on its second, not before."""
    client, handler, target = streaming(world)
    client.end()
    world.settle()
    world.pass_time(HALF_CLOSE - 1)
    target.arrive(b"still here")
    world.settle()
    world.pass_time(HALF_CLOSE - 0.01)
    assert handler.stage == STAGE_STREAM
    world.pass_time(0.01)
    world.check_idle()


# -- quiet streams ---------------------------------------------------------------------------------


def test_an_open_stream_has_no_idle_limit_unless_one_is_set(world):
    """S5: without the key it stays for ever."""
    _client, handler, _target = streaming(world)
    assert world.loop.statistics()["timers"] == 0
    world.pass_time(1e6)
    assert handler.stage == STAGE_STREAM


def test_the_idle_limit_restarts_on_traffic_and_fires_exactly(monkeypatch):
    """S5"""
    world = World(monkeypatch, Toy, limits=LIMITS._replace(idle=5.0))
    client, handler, target = streaming(world)
    for sock in (client, target):
        world.pass_time(4.9)
        sock.arrive(b"x")
        world.settle()
    world.pass_time(4.99)
    assert handler.stage == STAGE_STREAM
    assert world.loop.statistics()["timers"] == 1, "traffic does not pile up timers"
    world.pass_time(0.01)
    world.check_idle()


def test_bytes_that_trickle_out_keep_a_stream_alive(monkeypatch):
    world = World(monkeypatch, Toy, limits=LIMITS._replace(idle=5.0))
    client, handler, target = streaming(world)
    client.room = 0
    target.arrive(b"slow")
    world.settle()
    for _ in range(3):
        world.pass_time(4)
        client.room = 1
        world.settle()
    assert handler.stage == STAGE_STREAM
    world.pass_time(5)
    world.check_idle()


@pytest.mark.parametrize(("idle", "ends_after"), [(5.0, 5.0), (900.0, HALF_CLOSE)])
def test_a_half_closed_stream_has_the_shorter_of_both_limits(monkeypatch, idle, ends_after):
    world = World(monkeypatch, Toy, limits=LIMITS._replace(idle=idle))
    client, handler, _target = streaming(world)
    client.end()
    world.settle()
    world.pass_time(ends_after - 0.01)
    assert handler.stage == STAGE_STREAM
    world.pass_time(0.01)
    world.check_idle()


# -- resets ----------------------------------------------------------------------------------------


def test_what_the_target_said_before_its_reset_is_delivered(world):
    """R6"""
    client, handler, target = streaming(world)
    client.room = 0
    target.arrive(b"last words")
    target.break_off()
    world.settle()
    client.room = None
    world.settle()
    assert client.take() == b"last words"
    assert client.shut
    assert target.closed
    assert handler.stage == STAGE_DRAIN
    client.end()
    world.settle()
    world.check_idle()


def test_a_failed_send_does_not_lose_what_the_target_had_said(world):
    """The target refused the upload and closed: its answer is still in our kernel."""
    client, handler, target = streaming(world)
    target.arrive(b"413 too large")
    target.break_off(errno.EPIPE)
    client.arrive(b"upload")
    handler.local.on_event(READ)  # the send meets the error before anything is read
    assert handler.up.closed
    world.settle()
    assert client.take() == b"413 too large"


def test_a_client_that_still_sends_to_a_closed_target_gets_the_whole_answer(world):
    """W35: its input is read and forgotten, because closing on it would reset the answer away."""
    client, handler, target = streaming(world)
    target.arrive(b"413 too large")
    target.break_off(errno.EPIPE)
    client.arrive(b"upload")
    handler.local.on_event(READ)
    client.arrive(b"more upload")
    world.settle()
    assert client.take() == b"413 too large"
    assert (handler.stage, client.shut, client.closed) == (STAGE_DRAIN, True, False)
    assert client.arrived == b""
    world.pass_time(LINGER)
    world.check_idle()


def test_a_target_that_takes_nothing_more_and_says_nothing_is_given_up(world):
    """One direction is over, so the half-close limit holds for the other."""
    client, handler, target = streaming(world)
    target.shut = True  # it refuses what we send, and that is all we ever hear of it
    client.arrive(b"x")
    world.settle()
    assert (handler.up.closed, handler.down.closed) == (True, False)
    world.pass_time(HALF_CLOSE - 0.01)
    assert handler.stage == STAGE_STREAM
    world.pass_time(0.01)
    world.check_idle()


def test_a_client_that_resets_with_upload_pending_is_still_delivered(world):
    client, _handler, target = streaming(world)
    target.room = 3
    client.arrive(b"important")
    world.settle()
    target.arrive(b"nobody will hear this")
    client.break_off()
    target.room = 1
    world.settle()
    assert not target.closed
    target.room = None
    world.settle()
    assert target.take() == b"important"
    assert (client.closed, target.closed) == (True, True)
    world.check_idle()


def test_a_reset_that_a_send_meets_first_still_delivers_the_upload(world):
    client, handler, target = streaming(world)
    target.room = 3
    client.arrive(b"important")
    world.settle()
    client.arrive(b" and more")
    client.break_off()
    target.arrive(b"x")
    handler.remote.on_event(READ)
    target.room = None
    world.settle()
    assert target.take() == b"important and more"
    world.check_idle()


def test_a_delivery_that_nobody_takes_ends_with_the_half_close_limit(world):
    client, handler, target = streaming(world)
    target.room = 0
    client.arrive(b"important")
    world.settle()
    handler.on_unreadable(handler.local, ConnectionResetError())
    world.pass_time(HALF_CLOSE)
    world.check_idle()


def test_a_delivery_whose_target_breaks_too_ends_at_once(world, caplog):
    """Both ends are gone: nobody is left to tell."""
    client, handler, target = streaming(world)
    target.room = 0
    client.arrive(b"important")
    world.settle()
    handler.on_unreadable(handler.local, ConnectionResetError())
    target.break_off()
    world.settle()
    world.check_idle()
    assert caplog.records == []


def test_a_client_that_resets_an_empty_stream_ends_it(world):
    """W20: as a reset, since an end of stream would say that the client still wants an answer."""
    client, _handler, target = streaming(world)
    client.break_off()
    world.settle()
    assert target.closed
    assert (socket.SOL_SOCKET, socket.SO_LINGER) in [option[:2] for option in target.options]
    world.check_idle()


@pytest.mark.parametrize("victim", ["client", "target"])
def test_a_peer_that_takes_nothing_after_its_end_is_done(world, victim):
    """The peer ended its side, then refuses what we send: nothing can come or go any more."""
    client, _handler, target = streaming(world)
    sock, other = (client, target) if victim == "client" else (target, client)
    sock.end()
    world.settle()
    sock.break_off(errno.EPIPE)
    other.arrive(b"too late")
    world.settle()
    other.end()
    world.settle()
    world.check_idle()


def test_a_shutdown_that_fails_is_a_send_that_fails(world):
    client, handler, target = streaming(world)
    target.arrive(b"bye")
    target.break_off()
    client.end()
    handler.local.on_event(READ)  # the end is passed on before the target's last words are read
    world.settle()
    assert client.take() == b"bye"
    world.check_idle()


def test_a_reset_in_the_prologue_ends_the_connection(world):
    client, _handler = world.connect()
    client.arrive(b"exam")
    client.break_off()
    world.settle()
    world.check_idle()


def test_a_client_that_leaves_in_the_prologue_is_let_go(world):
    client, _handler = world.connect()
    client.arrive(b"exam")
    client.end()
    world.settle()
    assert client.shut
    world.check_idle()


def test_a_reply_that_cannot_be_sent_ends_the_connection(world):
    client, _handler = world.connect()
    client.arrive(b"192.0.2.1 80\n")
    world.settle()
    client.break_off()
    target = FakeSocket()
    world.dialer.last.succeed(target)
    world.settle()
    assert (client.closed, target.closed) == (True, True)
    world.check_idle()


# -- lookups and dials -----------------------------------------------------------------------------


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


# -- the handshake's deadline ----------------------------------------------------------------------


def test_a_silent_client_is_told_at_the_deadline(world):
    """W38: on its second, measured from accept and not from the last byte."""
    client, handler = world.connect()
    world.pass_time(59)
    client.arrive(b"exam")
    world.settle()
    world.pass_time(0.99)
    assert handler.failures == []
    world.pass_time(0.01)
    assert client.take() == b"refused: the request did not arrive in time\n"
    assert [type(error) for error in handler.failures] == [HandshakeTimeout]
    assert world.counters["handshake_timeout"] == 1


def test_the_deadline_ends_with_the_prologue(world):
    client, handler = world.connect()
    client.arrive(b"example.com 80\n")
    world.settle()
    world.pass_time(600)  # the resolver and the dialer have limits of their own
    assert handler.stage == STAGE_DNS
    assert world.loop.statistics()["timers"] == 0


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


# -- faults ----------------------------------------------------------------------------------------


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
    assert handler.handshake_seconds() == LIMITS.handshake
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


# -- endings: everything is given back (R8) --------------------------------------------------------


def _nothing(world, client, handler):
    pass


def _prologue(world, client, handler):
    client.arrive(b"exam")


def _looking_up(world, client, handler):
    client.arrive(b"example.com 80\n")


def _dialling(world, client, handler):
    client.arrive(b"192.0.2.1 80\n")


def _streaming(world, client, handler):
    _dialling(world, client, handler)
    world.settle()
    world.dialer.last.succeed()
    client.arrive(b"x")


def _half_closed(world, client, handler):
    _streaming(world, client, handler)
    client.end()


def _stalled_both_ways(world, client, handler):
    _streaming(world, client, handler)
    world.settle()
    client.room = 0
    handler.remote.sock.room = 0
    handler.remote.sock.arrive(b"down")
    client.arrive(b"up")


def _concluding(world, client, handler):
    client.room = 1
    client.arrive(b"bad")


def _lingering(world, client, handler):
    client.arrive(b"bad")


BEGINNINGS = [
    _nothing,
    _prologue,
    _looking_up,
    _dialling,
    _streaming,
    _half_closed,
    _stalled_both_ways,
    _concluding,
    _lingering,
]

ENDINGS = {
    "destroyed": lambda world, client, handler: handler.destroy(),
    "faulted": lambda world, client, handler: handler.on_fault(OSError()),
    "reset": lambda world, client, handler: handler.on_unreadable(handler.local, ConnectionResetError()),
    "concluded": lambda world, client, handler: handler.stage != STAGE_DRAIN and handler.conclude(b"bye"),
    "out of time": lambda world, client, handler: None,
    "relay closed": lambda world, client, handler: world.relay.close(),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8: freed by refcount, sockets closed, timers, queries and dials cancelled, counts right."""
    client, handler = world.connect()
    begin(world, client, handler)
    world.settle()
    target = handler.remote.sock if handler.remote else None
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        ENDINGS[ending](world, client, handler)
        for _ in range(4):
            world.pass_time(HALF_CLOSE)
            for query in world.resolver.queries:
                if ending == "out of time" and query.callback:
                    world.resolver.answer(query.name, ResolveFailed("no answer"))
            if ending == "out of time" and world.dialer.dials and world.dialer.last.under_way:
                world.dialer.last.fail(ConnectTimeout("no answer"))
            if ending == "out of time" and handler.stage == STAGE_STREAM and not handler.up.closed:
                handler.destroy()  # it would live for ever
        assert (handler.stage, handler.remote, handler.up, handler.down) == (
            STAGE_DESTROYED,
            None,
            None,
            None,
        )
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
    assert client.closed
    assert target is None or target.closed


def test_destroy_is_idempotent_and_counts_once(world):
    _client, handler, _target = streaming(world)
    handler.destroy()
    handler.destroy()
    assert world.admission.count == 0
    world.check_idle()


def test_destroying_inside_ones_own_event_is_safe(world, caplog):
    """R10: both sides of a connection are ready in one batch, and the first event ends it."""
    client, handler, target = streaming(world)

    def last(data):
        handler.destroy()
        return b"never sent"

    handler.up.transform = handler.down.transform = last
    client.arrive(b"x")
    target.arrive(b"y")
    world.settle()
    assert (client.sent, target.sent, caplog.records) == (b"", b"", [])
    world.check_idle()


def test_bytes_are_counted_when_a_stream_ends(world):
    client, handler, target = streaming(world, b"12345")
    client.arrive(b"678")
    target.arrive(b"0123456789")
    world.settle()
    handler.destroy()
    assert world.counters == {"accepted": 1, "bytes_up": 8, "bytes_down": 10}


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_draining_the_program_ends_what_has_not_begun(world, begin):
    client, handler = world.connect()
    begin(world, client, handler)
    world.settle()
    handler.on_drain()
    assert (handler.stage == STAGE_DESTROYED) == (begin is _nothing)


# -- R7 for whole connections ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_interleaving_with_any_end_keeps_what_was_said(data):
    """R7 with ends and resets: each end receives a prefix in order, and all of it unless that end broke."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, Toy)
        client, handler, target = streaming(world)
        noise = random.Random(data.draw(st.integers(0, 99)))
        said = {client: b"", target: b""}
        for _ in range(data.draw(st.integers(1, 25))):
            sock = data.draw(st.sampled_from([client, target]))
            action = data.draw(
                st.sampled_from(["say", "say", "room", "room", "step", "step", "end", "break"])
            )
            if action == "say" and not (sock.ended or sock.dead or sock.error):
                piece = noise.randbytes(data.draw(st.integers(1, 200)))
                said[sock] += piece
                sock.arrive(piece)
            elif action == "room":
                sock.room = data.draw(st.none() | st.integers(0, 150))
            elif action == "end":
                sock.end()
            elif action == "break" and not sock.dead:
                sock.break_off()
            world.loop.step(0)
            if handler.stage == STAGE_STREAM:
                for flow in (handler.up, handler.down):
                    assert not (flow.sink.pending is not None and flow.source.events & READ)
                    assert flow.sink.closed or bool(flow.sink.events & WRITE) == (
                        flow.sink.pending is not None
                    )
        broken = {sock: sock.dead or sock.error is not None for sock in (client, target)}
        for sock in (client, target):
            sock.room = None
            sock.end()
        world.settle()
        world.pass_time(LINGER)
        world.check_idle()
        for source, sink in ((client, target), (target, client)):
            assert said[source].startswith(bytes(sink.sent))
            if not any(broken.values()):
                assert bytes(sink.sent) == said[source]
                assert sink.shut or sink.closed


# -- the same on real sockets ----------------------------------------------------------------------


@pytest.fixture
def real():
    """A relay of toys on loopback, and a way to connect to it."""
    loop = EventLoop()
    listener = socket.create_server(("127.0.0.1", 0))
    relay = TCPRelay(
        loop,
        listener,
        Toy,
        resolver=FakeResolver(),
        limits=LIMITS,
        admission=Admission(loop, 100),
        allowance=Allowance(),
        counters=Counter(),
    )
    clients = []

    def connect():
        client = socket.create_connection(listener.getsockname())
        clients.append(client)
        client.setblocking(False)
        while not relay.handlers:
            loop.step(1)
        return client, next(iter(relay.handlers))

    yield loop, connect
    relay.close()
    for client in clients:
        client.close()
    loop.close()


def test_last_words_survive_unread_input_in_the_kernel(real):
    """W35 with a kernel that would send RST: the client is told everything, then sees the end."""
    loop, connect = real
    client, handler = connect()
    client.send(bytes(60_000))
    handler.conclude(b"w" * 200_000)
    got = b""
    while True:
        loop.step(0)
        try:
            piece = client.recv(4096)
        except BlockingIOError:
            client.send(b"still sending")
            continue
        if not piece:
            break
        got += piece
    assert got == b"w" * 200_000
    assert handler.stage == STAGE_DRAIN


def test_a_real_reset_in_the_prologue_ends_the_connection(real):
    loop, connect = real
    client, handler = connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    loop.step(1)
    assert handler.stage == STAGE_DESTROYED


def test_bugs_are_logged_with_their_connection(world, caplog):
    caplog.set_level(logging.ERROR)
    _client, handler = world.connect()
    handler.on_fault(ZeroDivisionError("injected"))
    assert "192.0.2.7:50000" in caplog.text
