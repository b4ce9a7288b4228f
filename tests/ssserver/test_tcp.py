"""``ServerHandler``: holders of the key are served."""

from __future__ import annotations

import errno
from types import SimpleNamespace

import pytest

from common.acl.rules import AccessRules
from common.errors import ConnectFailed, ConnectTimeout, ResolveFailed, TargetForbidden
from common.net.loop import READ
from common.proto.address import Address
from common.relay.stages import STAGE_CONNECTING, STAGE_DNS, STAGE_DRAIN, STAGE_STREAM
from common.relay.tcprelay import LINGER
from tests.fakes import FakeSocket
from tests.server_world import HANDSHAKE, NAMED, SIP022, TARGET, ServerWorld, streaming

METHODS = ["none", "aes-256-gcm", "chacha20-ietf-poly1305", SIP022]


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
