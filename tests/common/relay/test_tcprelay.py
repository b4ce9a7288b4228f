"""``TCPRelayHandler``: one connection through all its stages. ``Toy`` is tests/toy_relay.py's."""

from __future__ import annotations

import pytest

from common.errors import HandshakeTimeout
from common.net.loop import READ
from common.relay.stages import (
    STAGE_CONNECTING,
    STAGE_DESTROYED,
    STAGE_DNS,
    STAGE_DRAIN,
    STAGE_INIT,
    STAGE_STREAM,
)
from tests.fakes import FakeSocket
from tests.relay_world import LIMITS, World
from tests.toy_relay import HALF_CLOSE, Toy, streaming

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
    world.pass_time(LIMITS.handshake)
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
