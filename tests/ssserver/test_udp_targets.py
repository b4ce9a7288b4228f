"""``ServerUDP`` and targets: forbidden ones, names, and what the kernel refuses."""

from __future__ import annotations

import errno

import pytest

from common.acl.rules import AccessRules
from common.errors import ResolveFailed
from common.proto.address import Address
from common.relay.targets import MAX_WAITING, ROUTE_SECONDS
from tests.server_udp_world import FORBIDDEN, MOVED, NAMED, TARGET, TIMEOUT, ServerWorld


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)


# -- what is forbidden -------------------------------------------------------------------------------


@pytest.mark.parametrize("host", ["10.0.0.1", "127.0.0.1", "::1", "::ffff:10.0.0.1"])
def test_every_datagrams_own_target_is_checked(monkeypatch, host):
    """S3, W7: the second one, too, of an association that had an allowed target."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    for number in range(3):
        client.send(b"fine")
        client.send(b"not fine", Address(host, 53))
        assert world.left() == [(b"fine", tuple(TARGET))]
        assert world.counters["forbidden"] == number + 1
    assert world.counters["udp_bytes_up"] == 12, "what is forbidden has not been sent"


def test_names_are_checked_by_what_they_resolve_to(monkeypatch):
    """S3, W7: and what was checked is what is sent to."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    client.send(b"1", NAMED)
    world.resolver.answer(NAMED.host, "10.0.0.1", "192.0.2.99")
    assert world.left() == [(b"1", ("192.0.2.99", 53))]
    client.send(b"2", Address("inside.example", 53))
    world.resolver.answer("inside.example", "10.0.0.1", "::1")
    assert world.left() == []
    assert world.counters["forbidden"] == 1


def test_a_name_that_changes_its_mind_is_checked_again(monkeypatch):
    """W7: rebinding. A checked address serves a minute; then the name is resolved and judged anew."""
    world = ServerWorld(monkeypatch, forbidden=FORBIDDEN)
    client = world.client()
    client.send(b"1", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    world.pass_time(ROUTE_SECONDS - 0.01)
    client.send(b"2", NAMED)
    assert world.left() == [(b"1", ("192.0.2.99", 53)), (b"2", ("192.0.2.99", 53))]
    assert len(world.resolver.asked) == 1
    world.pass_time(0.01)
    client.send(b"3", NAMED)
    world.resolver.answer(NAMED.host, "127.0.0.1")
    assert world.left() == []
    assert world.counters["forbidden"] == 1


def test_names_that_the_rules_refuse_are_not_resolved(monkeypatch):
    rules = AccessRules.parse("[outbound_block_list]\n||ads.example\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    world.client().send(b"x", Address("x.ads.example", 53))
    assert world.resolver.asked == []
    assert world.counters["forbidden"] == 1


def test_port_0_is_no_target(world):
    world.client().send(b"x", Address("192.0.2.1", 0))
    assert (world.network.opened, world.resolver.asked) == ([], [])
    assert world.counters["udp_dropped"] == 1


# -- names -------------------------------------------------------------------------------------------


def test_a_slow_name_holds_nobody_up(world):
    """W23"""
    client, other = world.client(), world.client(MOVED)
    client.send(b"slow", NAMED)
    client.send(b"quick")
    other.send(b"other")
    assert world.left() == [(b"quick", tuple(TARGET)), (b"other", tuple(TARGET))]
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert world.left() == [(b"slow", ("192.0.2.99", 53))]


def test_few_datagrams_wait_and_nobody_else_s(world):
    client, other = world.client(), world.client(MOVED)
    for _ in range(MAX_WAITING + 3):
        client.send(b"x", NAMED)
    assert world.counters["udp_dropped"] == 3
    other.send(b"y", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert len(world.left()) == MAX_WAITING + 1


def test_a_name_without_an_address(world):
    client = world.client()
    client.send(b"x", NAMED)
    world.resolver.answer(NAMED.host, ResolveFailed("no such name"))
    assert world.counters["udp_dropped"] == 1
    client.send(b"x", NAMED)
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert world.left() == [(b"x", ("192.0.2.99", 53))]


@pytest.mark.parametrize("ending", ["expired", "evicted", "stopped"])
def test_nobody_waits_for_an_association_that_ended(monkeypatch, ending):
    """W20: a late answer brings nothing back."""
    world = ServerWorld(monkeypatch, limit=1)
    world.client().send(b"x", NAMED)
    if ending == "expired":
        world.pass_time(TIMEOUT)
    elif ending == "evicted":
        world.client(MOVED).send(b"y")
    else:
        world.stop()
    world.resolver.answer(NAMED.host, "192.0.2.99")
    assert [payload for payload, _ in world.left()] == ([b"y"] if ending == "evicted" else [])


# -- what the kernel refuses -------------------------------------------------------------------------


def test_no_descriptor_for_a_session(world):
    client = world.client()
    world.network.error = errno.EMFILE
    client.send(b"lost")
    assert world.counters["udp_dropped"] == 1
    world.network.error = None
    client.send(b"sent")
    assert world.left() == [(b"sent", tuple(TARGET))]


def test_what_cannot_be_sent_is_not_counted_as_sent(world):
    client = world.client()
    client.send(b"x")
    world.network.last.error = errno.ENETUNREACH
    client.send(b"lost")
    world.network.last.error = None
    world.port.error = errno.ENOBUFS
    world.answer(b"lost, too")
    world.port.error = None
    world.answer(b"y")
    assert client.received() == [(TARGET, b"y")]
    assert world.counters["udp_bytes_up"] == 1
    assert world.counters["udp_errors"] == 2


def test_a_source_without_a_wire_form_is_dropped(world):
    client = world.client()
    client.send(b"x")
    world.answer(b"y", ("fe80::1%eth0", 9, 0, 2))
    assert client.received() == []
    assert world.counters["udp_dropped"] == 1
