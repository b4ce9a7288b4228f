"""How ssserver rejects: in silence, with FIN or with RST, and the same whatever was sent."""

from __future__ import annotations

import errno
import random

import pytest

from common.acl.rules import AccessRules
from common.relay.admission import GRACE, Bounds
from common.relay.stages import STAGE_CONNECTING, STAGE_DRAIN
from tests.fakes import FakeSocket
from tests.server_world import HANDSHAKE, SIP022, TARGET, ServerWorld

METHODS = ["aes-256-gcm", "chacha20-ietf-poly1305", SIP022]
AT_ONCE = ["reset", "close"]


def noise(size, seed=7):
    return random.Random(seed).randbytes(size)


def seen(sock):
    """What a stranger has seen: bytes, FIN, RST (a close with linger 0), FIN by a close."""
    was_reset = any(option[1] == 13 for option in sock.options)  # SO_LINGER
    return bytes(sock.sent), sock.shut, sock.closed and was_reset, sock.closed and not was_reset


SILENT = (b"", False, False, False)
ENDED = {
    "drain": (b"", False, False, True),
    "close": (b"", True, False, False),
    "reset": (b"", False, True, False),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reject", AT_ONCE)
@pytest.mark.parametrize("size", [1, 15, 16, 42, 43, 49, 50, 51, 300, 2000, 100_000])
def test_any_first_bytes_are_rejected_at_once(monkeypatch, method, reject, size):
    """W28: less than a head is no reason to wait for more, as the wait would tell its size."""
    world = ServerWorld(monkeypatch, method=method, reject=reject)
    sock, _handler = world.ask(noise(size))
    assert seen(sock) == ENDED[reject]
    assert world.counters["authentication"] == 1


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("reject", AT_ONCE)
def test_what_was_recorded_is_rejected_at_once_wherever_it_is_cut(monkeypatch, method, reject):
    """A recording of a stream that was served: its head is authentic, so only its salt tells."""
    world = ServerWorld(monkeypatch, method=method, reject=reject)
    flight = world.client(TARGET).first(b"hello" * 20)
    world.ask(flight)
    world.reach()
    for end in (1, 20, 49, 50, 51, 60, len(flight) - 1, len(flight)):
        assert seen(world.ask(flight[:end])[0]) == ENDED[reject], end
    for place in range(0, len(flight), 7):
        altered = bytearray(flight)
        altered[place] ^= 1
        assert seen(world.ask(bytes(altered))[0]) == ENDED[reject], place
    assert len(world.dialer.dials) == 1


@pytest.mark.parametrize("reject", ["drain", *AT_ONCE])
@pytest.mark.parametrize("size", [0, 10, 300])
def test_the_end_of_a_strangers_side_is_answered_alike(monkeypatch, reject, size):
    world = ServerWorld(monkeypatch, reject=reject)
    sock = FakeSocket()
    sock.arrive(noise(size)).end()
    world.connect(sock)
    world.settle()
    rejected_before = size and reject == "close"
    assert seen(sock)[1:] == (bool(rejected_before), reject == "reset", reject != "reset")
    world.check_idle()


@pytest.mark.parametrize("reject", ["drain", *AT_ONCE])
def test_who_says_nothing_is_ended_at_the_deadline(monkeypatch, reject):
    world = ServerWorld(monkeypatch, reject=reject)
    sock, _handler = world.connect()
    world.pass_time(HANDSHAKE - 0.01)
    assert seen(sock) == SILENT
    world.pass_time(0.01)
    assert seen(sock) == (b"", False, reject == "reset", reject != "reset")
    world.check_idle()


def test_after_fin_input_is_forgotten_until_the_deadline(monkeypatch):
    """Closing would answer further bytes with RST, sooner for those who sent more."""
    world = ServerWorld(monkeypatch, reject="close")
    sock, handler = world.ask(noise(300))
    for _ in range(3):
        sock.arrive(noise(50_000))
        world.pass_time(HANDSHAKE / 4)
        assert (sock.arrived, handler.stage, seen(sock)) == (b"", STAGE_DRAIN, ENDED["close"])
    world.pass_time(HANDSHAKE / 4)
    assert sock.closed
    world.check_idle()


def test_a_stranger_that_reset_before_it_could_be_rejected(monkeypatch):
    world = ServerWorld(monkeypatch, reject="close")
    sock, _handler = world.connect()

    def shutdown(how):
        raise OSError(errno.ENOTCONN, "not connected")

    monkeypatch.setattr(sock, "shutdown", shutdown)
    sock.arrive(noise(300))
    world.settle()
    assert sock.closed
    world.check_idle()


@pytest.mark.parametrize("reject", AT_ONCE)
@pytest.mark.parametrize("method", METHODS)
def test_holders_of_the_key_are_served_in_every_mode(monkeypatch, reject, method):
    world = ServerWorld(monkeypatch, method=method, reject=reject)
    client = world.client(TARGET)
    flight = client.first(b"hello" * 400)
    sock, handler = world.connect()
    sock.arrive(flight[:1400])  # a segment
    world.settle()
    sock.arrive(flight[1400:])
    world.settle()
    assert handler.stage == STAGE_CONNECTING
    target = world.reach()
    target.arrive(b"answer")
    world.settle()
    assert (target.take(), client.open(sock.take())) == (b"hello" * 400, b"answer")


def test_heads_in_pieces_may_be_asked_for_and_tell_their_size(monkeypatch):
    world = ServerWorld(monkeypatch, reject="reset", segmented=True)
    sock = FakeSocket()
    sock.bite = 1
    _sock, handler = world.ask(world.client(TARGET).first(b"hello"), sock)
    assert handler.stage == STAGE_CONNECTING


@pytest.mark.parametrize("reject", ["drain", *AT_ONCE])
def test_who_may_not_come_in_is_no_sooner_rejected_than_others(monkeypatch, reject):
    rules = AccessRules.parse("[reject_all]\n[white_list]\n203.0.113.5\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules, reject=reject)
    sock, _handler = world.connect()
    world.settle()
    assert seen(sock) == SILENT
    sock.arrive(world.client(TARGET).first(b"hello"))
    world.settle()
    assert seen(sock) == (SILENT if reject == "drain" else ENDED[reject])
    assert world.counters == {"accepted": 1, "not_admitted": 1}


# -- too many ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("reject", ["drain", *AT_ONCE])
def test_the_oldest_stranger_goes_first_whatever_it_sent(monkeypatch, reject):
    """Silent, short, or rejected: a flood finds out no sizes."""
    world = ServerWorld(monkeypatch, reject=reject, bounds=Bounds(handshakes=3))
    sizes = [0, 10, 300, 0, 300, 10] if reject == "drain" else [0] * 6
    socks = [world.ask(noise(size))[0] for size in sizes]
    world.pass_time(GRACE)
    socks.append(world.connect()[0])
    gone = [True] * 4 + [False] * 3
    assert [sock.closed for sock in socks] == gone
    assert {seen(sock) for sock in socks[:4]} == {(b"", False, reject == "reset", reject != "reset")}
    assert len(world.admission.handshakes) == 3


def test_whoever_makes_room_has_its_bytes_read_first(monkeypatch):
    """Unread, they would turn FIN into RST."""
    world = ServerWorld(monkeypatch, bounds=Bounds(handshakes=1))
    sock, _handler = world.ask(noise(300))
    world.pass_time(GRACE)
    sock.arrive(b"unread")
    world.connect()
    assert (seen(sock), sock.arrived) == (ENDED["drain"], b"")


def test_holders_of_the_key_make_no_room(monkeypatch):
    world = ServerWorld(monkeypatch, bounds=Bounds(handshakes=1))
    sock, _handler = world.ask(world.client(TARGET).first(b"hello"))
    world.reach()
    world.pass_time(GRACE)
    for _ in range(5):
        world.ask(noise(300))
    assert not sock.closed


@pytest.mark.parametrize("reject", ["drain", *AT_ONCE])
def test_when_the_program_leaves_strangers_end_alike(monkeypatch, reject):
    """A probe that waits while ssserver is stopped or reloaded learns no sizes."""
    world = ServerWorld(monkeypatch, reject=reject)
    asked = [world.ask(noise(size)) for size in ([0, 10, 49, 50, 300] if reject == "drain" else [0] * 3)]
    served, _handler = world.ask(world.client(TARGET).first(b"hello"))
    world.reach()
    for handler in list(world.relay.handlers):
        handler.on_drain()
    assert {seen(sock) for sock, _ in asked} == {(b"", False, reject == "reset", reject != "reset")}
    assert not served.closed


# -- users -------------------------------------------------------------------------------------------


def test_a_user_has_so_many_connections(monkeypatch, caplog):
    world = ServerWorld(monkeypatch, bounds=Bounds(per_user=2), users=("alice", "bob"))
    asked = [
        world.ask(world.client(TARGET, seed, user=name).first(b"hello"))
        for seed, name in enumerate(["alice", "alice", "bob", "alice"])
    ]
    assert [sock.shut for sock, _ in asked] == [False, False, False, True]
    assert len(world.dialer.dials) == 3
    assert (world.counters["user_limit"], world.counters["overloaded"]) == (1, 1)
    assert [record.message for record in caplog.records] == [
        "user alice has 2 connections, the limit: more are refused (1 so far)"
    ]
    for _, handler in asked:
        handler.destroy()
    world.check_idle()
    sock, _handler = world.ask(world.client(TARGET, 9, user="alice").first(b"hello"))
    assert not sock.shut


def test_a_server_without_users_has_nobody_to_count(monkeypatch):
    world = ServerWorld(monkeypatch, bounds=Bounds(per_user=0))
    sock, handler = world.ask(world.client(TARGET).first(b"hello"))
    assert (sock.shut, handler.stage) == (False, STAGE_CONNECTING)
