"""``ServerLink``: one client's way to a server, there and back."""

from __future__ import annotations

import gc
import weakref

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.crypto import METHODS
from common.errors import BadRequest, ResolveFailed
from common.proto.address import Address
from sslocal.udp import LOOK_SECONDS, ServerLink
from tests.fakes import settle
from tests.udp_world import NAMED, SERVER, Owner, UDPWorld

TARGET = Address("192.0.2.80", 443)
OTHER = Address("origin.example", 53)
SOURCE = Address("192.0.2.80", 443)
ADDRESSES = ("198.51.100.1", "198.51.100.2")


@pytest.fixture
def world(monkeypatch):
    return UDPWorld(monkeypatch)


# -- there and back ----------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("payload", [b"", b"hello", bytes(1200), bytes(60_000)])
def test_there_and_back(monkeypatch, method, payload):
    """W34: empty datagrams, too, either way."""
    world = UDPWorld(monkeypatch, method=method)
    owner = Owner(world)
    owner.link.send(TARGET, memoryview(payload))
    assert world.sent() == [(TARGET, payload)]
    world.reply(SOURCE, payload)
    assert owner.replies == [(SOURCE, payload)]
    assert world.counters == {"udp_bytes_up": len(payload), "udp_bytes_down": len(payload)}
    owner.link.close()
    world.check_nothing_left()


def test_all_targets_see_one_source_port(world):
    """K3: one socket, one session, whatever the target; names are the server's to resolve."""
    owner = Owner(world)
    for target in (TARGET, OTHER, Address("2001:db8::1", 1)):
        owner.link.send(target, b"x")
    assert [target for target, _ in world.sent()] == [TARGET, OTHER, Address("2001:db8::1", 1)]
    assert len(world.network.opened) == 1
    assert world.resolver.asked == [SERVER.host]


def test_replies_carry_the_real_source(world):
    """K3: from whoever it was, asked or not."""
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    world.sent()
    sources = [Address("203.0.113.9", 1), Address("2001:db8::9", 2)]
    for source in sources:
        world.reply(source, b"y")
    assert owner.replies == [(source, b"y") for source in sources]


def test_the_server_is_the_preferred_one(monkeypatch):
    world = UDPWorld(monkeypatch, servers=(Address("192.0.2.1", 1), Address("192.0.2.2", 2)))
    Owner(world).link.send(TARGET, b"x")
    assert [to for _, to in world.network.last.sent] == [("192.0.2.1", 1)]


# -- who may answer ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stranger", [("198.51.100.1", 8389), ("198.51.100.2", 8388), ("203.0.113.1", 53)])
def test_only_the_server_is_heard(world, stranger):
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    world.sent()
    world.reply(SOURCE, b"forged", server=stranger)
    assert owner.replies == []
    assert world.counters["udp_dropped"] == 1
    world.reply(SOURCE, b"real")
    assert owner.replies == [(SOURCE, b"real")]


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_what_does_not_open_is_dropped_without_a_trace(monkeypatch, method):
    """Cut, bent, doubled, or nothing at all; and the session goes on."""
    world = UDPWorld(monkeypatch, method=method)
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    world.sent()
    world.reply(SOURCE, b"first")
    link = world.network.last
    packet = bytes(world._sessions[link].seal(SOURCE, b"second"))
    bent = bytearray(packet)
    bent[-1] ^= 1
    for data in (b"", b"\x00", packet[:-1], packet[1:], bytes(bent), bytes(len(packet))):
        link.arrive(data, tuple(SERVER))
    link.arrive(packet, tuple(SERVER))
    link.arrive(packet, tuple(SERVER))
    settle(world.loop)
    assert owner.replies == [(SOURCE, b"first"), (SOURCE, b"second")]
    assert world.counters["udp_dropped"] == 7


@pytest.mark.parametrize("method", ["none", "aes-256-gcm", "2022-blake3-aes-128-gcm"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=200))
def test_anything_from_the_server_is_a_datagram_or_dropped(method, data, monkeypatch):
    """K4: no exception but the dropping one reaches the loop."""
    world = UDPWorld(monkeypatch, method=method)
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    world.network.last.arrive(data, tuple(SERVER))
    world.loop.step(0)
    assert len(owner.replies) + world.counters["udp_dropped"] == 1
    owner.link.close()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_change_to_a_real_reply_is_noticed(method, data, monkeypatch):
    """K4: cut anywhere, or with any byte changed; the whole one is still welcome."""
    world = UDPWorld(monkeypatch, method=method)
    owner = Owner(world)
    owner.link.send(TARGET, b"x")
    world.sent()
    link = world.network.last
    packet = bytearray(world._sessions[link].seal(SOURCE, b"hello"))
    whole = bytes(packet)
    place = data.draw(st.integers(0, len(packet) - 1))
    if data.draw(st.booleans()):
        del packet[place:]
    else:
        packet[place] ^= data.draw(st.integers(1, 255))
    for each in (bytes(packet), whole):
        link.arrive(each, tuple(SERVER))
    settle(world.loop)
    assert owner.replies == [(SOURCE, b"hello")]
    assert world.counters["udp_dropped"] == 1
    owner.link.close()


def test_a_target_without_a_wire_form_is_the_senders_fault(named):
    """Nothing has happened: no packet, no lookup, no socket."""
    owner = Owner(named)
    for _ in range(2):
        with pytest.raises(BadRequest):
            owner.link.send(Address("é..b", 53), b"x")
    assert named.resolver.asked == []
    owner.link.send(TARGET, b"x")
    named.resolver.answer(NAMED.host, SERVER.host)
    assert named.sent() == [(TARGET, b"x")]


# -- the end -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["new", "waiting", "failed", "open", "answered", "asking again"])
def test_freed_by_refcount(named, moment):
    """R8: the link, and who owns it."""
    owner = Owner(named)
    if moment != "new":
        owner.link.send(TARGET, b"x")
    if moment == "failed":
        named.resolver.answer(NAMED.host, ResolveFailed("no such name"))
    elif moment not in ("new", "waiting"):
        named.resolver.answer(NAMED.host, ADDRESSES[0])
        named.sent()
    if moment == "answered":
        named.reply(SOURCE, b"y")
    elif moment == "asking again":
        named.pass_time(LOOK_SECONDS)
        owner.link.send(TARGET, b"x")
    freed = weakref.ref(owner), weakref.ref(owner.link)
    assert isinstance(owner.link, ServerLink)
    gc.collect()
    gc.disable()
    try:
        owner.link.close()
        owner.link.close()
        del owner
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()
    named.check_nothing_left()
