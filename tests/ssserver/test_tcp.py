"""``ServerHandler``: holders of the key are served, and strangers hear nothing."""

from __future__ import annotations

import errno
import gc
import random
import socket
import weakref
from collections import Counter
from types import SimpleNamespace

import pytest

from common.acl.rules import AccessRules
from common.errors import ConnectFailed, ConnectTimeout, ProtocolError, ResolveFailed, TargetForbidden
from common.net.loop import READ, EventLoop
from common.proto.address import Address
from common.relay.admission import Admission
from common.relay.flow import SPARING_READ, Allowance
from common.relay.listener import TCPRelay
from common.relay.stages import (
    STAGE_CONNECTING,
    STAGE_DESTROYED,
    STAGE_DNS,
    STAGE_DRAIN,
    STAGE_INIT,
    STAGE_STREAM,
)
from common.relay.tcprelay import LINGER
from ssserver.tcp import QUIET_READS, ServerHandler
from tests.fakes import LIMITS, FakeResolver, FakeSocket
from tests.server_world import HANDSHAKE, ServerWorld

TARGET = Address("192.0.2.1", 80)
NAMED = Address("origin.example", 80)
SIP022 = "2022-blake3-aes-128-gcm"
METHODS = ["none", "aes-256-gcm", "chacha20-ietf-poly1305", SIP022]


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)


def streaming(world, payload=b"hello"):
    """A client's codec, its socket, the handler, and the target that was reached."""
    client = world.client(TARGET)
    sock, handler = world.ask(client.first(payload))
    target = world.reach()
    assert target.take() == payload
    return client, sock, handler, target


# -- holders of the key ------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("payload", [b"hello", b""])
def test_a_stream_reaches_its_target(monkeypatch, method, payload):
    """S1 in the small: the first payload comes with the header, and is plain by then."""
    world = ServerWorld(monkeypatch, method=method)
    client = world.client(TARGET)
    sock, handler = world.ask(client.first(payload))
    assert world.dialer.last.addresses == [("192.0.2.1", 80)]
    target = world.reach()
    sock.arrive(client.seal(b" and more"))
    target.arrive(b"answer")
    world.settle()
    assert target.take() == payload + b" and more"
    assert client.open(sock.take()) == b"answer"
    sock.end()
    world.settle()
    assert (target.shut, handler.stage) == (True, STAGE_STREAM)
    target.arrive(b", whole").end()
    world.settle()
    assert client.open(sock.take()) == b", whole"
    world.check_idle()
    assert world.counters["bytes_down"] == 13


@pytest.mark.parametrize("method", ["none", "aes-256-gcm"])
def test_a_stream_may_come_byte_by_byte(monkeypatch, method):
    """R4, W12, W13"""
    world = ServerWorld(monkeypatch, method=method)
    client = world.client(NAMED)
    sock = FakeSocket()
    sock.bite = 1
    sock, _handler = world.ask(client.first(b"hello") + client.seal(b" world"), sock)
    world.resolver.answer("origin.example", "192.0.2.1")
    target = world.reach()
    assert target.take() == b"hello world"


def test_a_2022_stream_may_not_unless_that_is_configured(monkeypatch):
    """SIP022 3.1.3: its head comes with the first read, or the sender is a stranger."""
    for segmented in (False, True):
        world = ServerWorld(monkeypatch, method=SIP022, segmented=segmented)
        sock = FakeSocket()
        sock.bite = 20
        sock, handler = world.ask(world.client(TARGET).first(b"hello"), sock)
        assert (handler.stage == STAGE_CONNECTING) == segmented


def test_nothing_is_read_until_the_target_stands(world):
    """R5"""
    client = world.client(NAMED)
    sock, handler = world.ask(client.first(b"hello"))
    sock.arrive(client.seal(bytes(10_000)))
    for stage in (STAGE_DNS, STAGE_CONNECTING):
        assert handler.stage == stage
        assert world.settle() == 0
        if stage == STAGE_DNS:
            world.resolver.answer("origin.example", "192.0.2.1")
    assert world.reach().take() == b"hello" + bytes(10_000)


def test_a_first_payload_that_does_not_fit_holds_the_client_back(world):
    client = world.client(TARGET)
    sock, handler = world.ask(client.first(b"hello"))
    target = world.reach(FakeSocket(room=2))
    sock.arrive(client.seal(b" world"))
    assert world.settle() == 0
    assert not handler.local.events & READ
    target.room = None
    world.settle()
    assert target.take() == b"hello world"


def test_a_first_payload_that_nobody_takes(world):
    """The target said something and reset: what it said still arrives."""
    client = world.client(TARGET)
    sock, _handler = world.ask(client.first(b"hello"))
    target = FakeSocket().arrive(b"go away")
    target.break_off(errno.EPIPE)
    world.reach(target)
    assert client.open(sock.take()) == b"go away"
    assert sock.shut


def test_the_target_may_speak_first(world):
    client, sock, _handler, target = streaming(world, b"")
    target.arrive(b"220 ready")
    world.settle()
    assert client.open(sock.take()) == b"220 ready"


# -- targets that fail -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "label"),
    [
        (ConnectFailed("refused", errno.ECONNREFUSED), "connect"),
        (ConnectTimeout("silent"), "connect_timeout"),
    ],
)
def test_a_target_that_cannot_be_reached_closes_the_stream(world, error, label):
    """An authentic client may know: the stream ends, with FIN, though it still sends."""
    client = world.client(TARGET)
    sock, handler = world.ask(client.first(b"hello"))
    sock.arrive(client.seal(b"more"))
    world.dialer.last.fail(error)
    world.settle()
    assert (sock.sent, sock.shut, sock.arrived, handler.stage) == (b"", True, b"", STAGE_DRAIN)
    assert world.counters[label] == 1
    world.pass_time(LINGER)
    world.check_idle()


@pytest.mark.parametrize("at_once", [True, False])
def test_a_name_that_does_not_resolve_closes_the_stream(world, at_once):
    if at_once:
        world.resolver.known["origin.example"] = ResolveFailed("no such name")
    sock, handler = world.ask(world.client(NAMED).first(b"hello"))
    if not at_once:
        world.resolver.answer("origin.example", ResolveFailed("no such name"))
    assert (sock.shut, handler.stage, world.counters["resolve"]) == (True, STAGE_DRAIN, 1)


@pytest.mark.parametrize("at_once", [True, False])
def test_forbidden_addresses_are_refused_at_once_and_never_dialled(monkeypatch, at_once):
    """S3, W5: also when it is a name that leads there."""
    world = ServerWorld(monkeypatch, forbidden=("10.0.0.0/8", "::1/128"))
    target = Address("10.0.0.1", 80) if at_once else NAMED
    sock, handler = world.ask(world.client(target).first(b"hello"))
    if not at_once:
        world.resolver.answer("origin.example", "10.0.0.1", "::1")
    assert (sock.shut, handler.stage, world.counters["forbidden"]) == (True, STAGE_DRAIN, 1)
    assert world.dialer.dials == []


def test_of_several_addresses_the_allowed_ones_are_dialled(monkeypatch):
    world = ServerWorld(monkeypatch, forbidden=("10.0.0.0/8",))
    world.ask(world.client(NAMED).first(b"hello"))
    world.resolver.answer("origin.example", "10.0.0.1", "192.0.2.1", "10.0.0.2", "192.0.2.2")
    assert world.dialer.last.addresses == [("192.0.2.1", 80), ("192.0.2.2", 80)]


def test_the_refusal_names_the_address_and_the_setting(monkeypatch):
    world = ServerWorld(monkeypatch, forbidden=("192.0.2.0/24",))
    _sock, handler = world.connect()
    handler.target = TARGET
    with pytest.raises(TargetForbidden, match=r"^192\.0\.2\.1 is forbidden \(see forbidden_ip and acl\)$"):
        handler.on_addresses([TARGET.ip])


def test_port_zero_is_no_target(world):
    sock, handler = world.ask(world.client(Address("192.0.2.1", 0)).first(b"hello"))
    assert (sock.shut, handler.stage, world.counters["connect"]) == (True, STAGE_DRAIN, 1)
    assert (world.dialer.dials, world.resolver.asked) == ([], [])


# -- streams that break ------------------------------------------------------------------------------


def test_a_stream_that_is_tampered_with_ends(world):
    client, sock, handler, target = streaming(world)
    target.arrive(b"answer")
    world.settle()
    sock.arrive(bytes(100))
    world.settle()
    assert client.open(sock.take()) == b"answer"
    assert (sock.shut, target.closed, handler.stage) == (True, True, STAGE_DRAIN)
    assert target.sent == b""
    assert world.counters["authentication"] == 1


def test_a_stream_that_ends_inside_a_chunk_does_not_end_like_a_whole_one(world):
    client, sock, _handler, target = streaming(world)
    sock.arrive(client.seal(b"whole") + client.seal(b"half")[:-1]).end()
    world.settle()
    assert target.take() == b"whole"
    assert target.closed
    assert world.counters["truncated"] == 1
    world.check_idle()


def test_what_the_target_said_before_its_reset_is_delivered(world):
    """R6"""
    client, sock, _handler, target = streaming(world)
    sock.room = 10
    target.arrive(b"last words")
    target.break_off()
    world.settle()
    sock.room = None
    world.settle()
    assert client.open(sock.take()) == b"last words"
    assert sock.shut


def test_the_whole_answer_reaches_a_client_that_still_sends(world):
    """W35: the target answered, and closed without reading all of the request."""
    client, sock, handler, target = streaming(world)
    target.arrive(b"413 too large")
    target.break_off(errno.EPIPE)
    sock.arrive(client.seal(b"upload"))
    handler.local.on_event(READ)
    sock.arrive(client.seal(b"more"))
    world.settle()
    assert client.open(sock.take()) == b"413 too large"
    assert (sock.shut, sock.closed, sock.arrived) == (True, False, b"")
    sock.end()
    world.settle()
    world.check_idle()


def test_an_upload_survives_the_clients_reset(world):
    client, sock, _handler, target = streaming(world)
    target.room = 3
    sock.arrive(client.seal(b"important"))
    world.settle()
    sock.break_off()
    world.settle()
    target.room = None
    world.settle()
    assert target.take() == b"important"
    world.check_idle()


# -- strangers ---------------------------------------------------------------------------------------


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


# -- access rules and users --------------------------------------------------------------------------


def test_a_client_that_may_not_come_in_is_drained_whatever_it_knows(monkeypatch):
    """The right key changes nothing, and the deadline is a stranger's."""
    rules = AccessRules.parse("[reject_all]\n[white_list]\n203.0.113.5\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    sock, handler = world.ask(world.client(TARGET).first(b"hello"))
    assert (handler.stage, sock.sent, world.dialer.dials) == (STAGE_DRAIN, b"", [])
    assert world.counters["not_admitted"] == 1
    world.pass_time(HANDSHAKE - 0.01)
    assert not sock.closed
    world.pass_time(0.01)
    world.check_idle()


def test_a_target_that_the_rules_block_is_not_even_resolved(monkeypatch):
    """S3"""
    rules = AccessRules.parse("[outbound_block_list]\n|origin.example\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    sock, handler = world.ask(world.client(NAMED).first(b"hello"))
    assert (handler.stage, sock.shut, world.resolver.asked) == (STAGE_DRAIN, True, [])
    assert world.counters["forbidden"] == 1


def test_bytes_are_counted_for_their_user(world):
    _client, sock, handler, target = streaming(world)
    handler.session = SimpleNamespace(
        user="alice", open=handler.session.open, seal=handler.session.seal, eof=handler.session.eof
    )
    target.arrive(b"0123456789")
    world.settle()
    sock.end()
    target.end()
    world.settle()
    world.check_idle()
    assert world.counters["bytes_down[alice]"] == world.counters["bytes_down"] == 10
    assert world.counters["bytes_up[alice]"] == world.counters["bytes_up"]


# -- closing quietly -----------------------------------------------------------------------------------


def test_closing_quietly_does_not_read_for_ever(world):
    sock, handler = world.connect()
    sock.arrive(bytes((QUIET_READS + 2) * SPARING_READ))
    handler.close_quietly()
    assert len(sock.arrived) == 2 * SPARING_READ
    assert sock.closed


@pytest.mark.parametrize("gone", [FakeSocket.end, FakeSocket.break_off])
def test_closing_quietly_a_peer_that_has_gone(world, gone):
    sock, handler = world.connect()
    gone(sock)
    handler.close_quietly()
    world.check_idle()


class RealServer:
    """A relay of ``ServerHandler`` on loopback, to see what the kernel makes of it."""

    def __init__(self, monkeypatch):
        self.loop = EventLoop()
        service = ServerWorld(monkeypatch).service
        monkeypatch.undo()  # no fakes below: the real dialer is back
        self.relay = TCPRelay(
            self.loop,
            socket.create_server(("127.0.0.1", 0)),
            lambda *args: ServerHandler(*args, service=service),
            resolver=FakeResolver(),
            limits=LIMITS,
            admission=Admission(self.loop, 10),
            allowance=Allowance(),
            counters=Counter(),
        )

    def connect(self):
        client = socket.create_connection(self.relay.sock.getsockname())
        self.loop.step(1)
        (handler,) = self.relay.handlers
        return client, handler

    def close(self):
        self.relay.close()
        self.loop.close()


@pytest.mark.parametrize("unread", [1, 60_000])
def test_quiet_is_a_fin_even_with_unread_bytes(monkeypatch, unread):
    """W28, W35: an RST would tell that, and how much, was not read."""
    server = RealServer(monkeypatch)
    client, handler = server.connect()
    with client:
        client.sendall(bytes(unread))
        handler.close_quietly()
        client.settimeout(5)
        assert client.recv(1) == b""
    server.close()


# -- leaving -------------------------------------------------------------------------------------------


def test_draining_the_program_waits_for_streams_and_not_for_the_silent(world):
    """S6: nor for strangers, of whom there is always one."""
    _client, _sock, running, _target = streaming(world)
    _sock, asking = world.ask(bytes(40))
    _sock, stranger = world.ask(bytes(300))
    refused, told = world.ask(world.client(Address("192.0.2.1", 0), seed=2).first(b"hello"))
    unread, silent = world.connect()
    unread.arrive(b"too late")
    handlers = [silent, running, asking, stranger, told]
    for handler in handlers:
        handler.on_drain()
    assert [handler.stage for handler in handlers] == [
        STAGE_DESTROYED,
        STAGE_STREAM,
        STAGE_DESTROYED,
        STAGE_DESTROYED,
        STAGE_DRAIN,
    ]
    assert unread.arrived == b"", "emptied, so that it ended in FIN"
    assert not refused.closed


def test_a_connection_that_says_nothing_is_in_no_stage_but_the_first(world):
    _sock, handler = world.connect()
    assert handler.stage == STAGE_INIT


BEGINNINGS = {
    "silent": lambda world: world.connect(),
    "asking": lambda world: world.ask(bytes(40)),
    "stranger": lambda world: world.ask(bytes(300)),
    "looking up": lambda world: world.ask(world.client(NAMED).first(b"hello")),
    "dialling": lambda world: world.ask(world.client(TARGET).first(b"hello")),
    "refused": lambda world: world.ask(world.client(Address("192.0.2.1", 0)).first(b"hello")),
    "streaming": lambda world: streaming(world)[1:3],
}


@pytest.mark.parametrize("ending", ["destroyed", "quiet", "faulted", "left", "out of time"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8"""
    sock, handler = BEGINNINGS[begin](world)
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        if ending == "destroyed":
            handler.destroy()
        elif ending == "quiet":
            handler.close_quietly()
        elif ending == "faulted":
            handler.on_fault(OSError())
        elif ending == "left":
            sock.break_off()
        world.pass_time(HANDSHAKE)
        world.pass_time(LINGER)
        if begin in ("looking up", "dialling", "streaming"):
            handler.destroy()  # what waits here has its limit elsewhere, or none
        assert handler.stage == STAGE_DESTROYED
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
