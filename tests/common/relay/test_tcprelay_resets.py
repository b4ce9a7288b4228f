"""``TCPRelayHandler`` and peers that reset: what was said before is delivered."""

from __future__ import annotations

import errno
import socket

import pytest

from common.net.loop import READ
from common.relay.stages import STAGE_DRAIN, STAGE_STREAM
from common.relay.tcprelay import LINGER
from tests.fakes import FakeSocket
from tests.toy_relay import HALF_CLOSE, streaming


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
