"""``ServerHandler`` and strangers: they hear nothing until the deadline."""

from __future__ import annotations

import random

import pytest

from common.errors import ProtocolError
from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN
from tests.server_world import HANDSHAKE, SIP022, TARGET, ServerWorld, streaming


def strangers(world, client):
    """What comes from somebody without the key, or with somebody else's stream."""
    flight = client.first(b"hello")
    yield random.Random(5).randbytes(300)
    yield flight[:-1] + bytes([flight[-1] ^ 1])
    yield bytes(len(flight))
    yield b"GET / HTTP/1.1\r\n\r\n" * 10


@pytest.mark.parametrize("method", ["aes-256-gcm", SIP022])
@pytest.mark.parametrize("number", range(4))
def test_strangers_hear_nothing_until_the_deadline(monkeypatch, method, number):
    """S9, W28: no byte, no end, whatever and however much they send; then FIN, as from accept."""
    world = ServerWorld(monkeypatch, method=method)
    sock, handler = world.connect()
    world.pass_time(5)
    sock.arrive(list(strangers(world, world.client(TARGET)))[number])
    world.settle()
    assert handler.stage == STAGE_DRAIN
    for _ in range(4):
        world.pass_time((HANDSHAKE - 6) / 4)
        sock.arrive(bytes(50_000))
        world.settle()
        assert (sock.arrived, sock.sent, sock.shut, sock.closed) == (b"", b"", False, False)
    world.pass_time(0.99)
    assert not sock.closed
    sock.arrive(b"unread to the last")
    world.pass_time(0.01)
    assert (sock.closed, sock.arrived, sock.sent) == (True, b"", b"")
    assert world.dialer.dials == []
    assert world.counters["authentication"] == 1
    world.check_idle()


def test_a_replayed_stream_is_a_strangers(world):
    """S9, W28"""
    flight = world.client(TARGET).first(b"pay 5")
    world.ask(flight)
    sock, handler = world.ask(flight)
    assert (handler.stage, sock.sent) == (STAGE_DRAIN, b"")
    assert len(world.dialer.dials) == 1
    assert world.counters["replay"] == 1


def test_an_authentic_header_that_makes_no_sense_is_a_strangers_too(monkeypatch):
    world = ServerWorld(monkeypatch, method="none")
    sock, handler = world.ask(b"\x09 no such address type")
    assert (handler.stage, sock.sent, sock.shut) == (STAGE_DRAIN, b"", False)


@pytest.mark.parametrize("size", [0, 1, 31, 32, 33, 48, 49])
def test_reactions_do_not_tell_how_many_bytes_were_expected(monkeypatch, size):
    """S9, W28: 49 bytes used to wait and 50 to be closed; now both wait for the same deadline."""
    world = ServerWorld(monkeypatch)
    observed = []
    for total in (size, 50, 51, 300):
        sock, _handler = world.connect()
        start = world.clock.now
        sock.arrive(random.Random(total).randbytes(total))
        world.settle()
        world.pass_time(HANDSHAKE - 0.01)
        assert not sock.closed
        world.pass_time(0.01)
        observed.append((sock.closed, world.clock.now - start, bytes(sock.sent), sock.shut))
    assert len(set(observed)) == 1


@pytest.mark.parametrize("begun", [b"", bytes(40), bytes(300)])
def test_strangers_that_leave_are_let_go(world, begun):
    sock, _handler = world.ask(begun)
    sock.end()
    world.settle()
    assert (sock.sent, sock.shut) == (b"", False)
    world.check_idle()


@pytest.mark.parametrize("begun", [b"", bytes(40), bytes(300)])
def test_strangers_that_reset_are_let_go(world, begun):
    sock, _handler = world.ask(begun)
    sock.break_off()
    world.settle()
    world.check_idle()


def test_an_unfinished_handshake_is_counted_and_a_drained_one_only_once(world):
    """W38"""
    for size in (40, 300, 300):
        world.ask(bytes(size))
    world.pass_time(HANDSHAKE)
    assert world.counters == {"accepted": 3, "authentication": 2, "handshake_timeout": 1}
    world.check_idle()


def test_an_error_out_of_turn_ends_the_connection(world):
    """While it dials no deadline runs, so silence would have no end."""
    sock, handler = world.ask(world.client(TARGET).first(b"hello"))
    handler.on_fault(ProtocolError("out of turn"))
    assert (sock.closed, handler.stage) == (True, STAGE_DESTROYED)
    world.check_idle()


def test_a_bug_while_accepting_a_stream_ends_only_it(world, caplog):
    """R11"""
    _client, sock, _handler, target = streaming(world)
    victim, handler = world.connect()

    def boom(data):
        raise ZeroDivisionError("injected")

    handler.session = type("Session", (), {"accept": staticmethod(boom), "user": None})()
    victim.arrive(b"x")
    world.settle()
    assert victim.closed
    assert "failed on a bug" in caplog.text
    assert len(world.relay.handlers) == 1
    assert not sock.closed
    assert not target.closed
