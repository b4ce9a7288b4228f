"""``RuledLink``: every datagram goes where the rules send its own target."""

from __future__ import annotations

import gc
import weakref

import pytest

from common.acl.rules import AccessRules
from common.proto.address import Address
from sslocal.udp import RuledLink
from tests.fakes import settle
from tests.udp_world import SERVER, Owner, UDPWorld

RULES = AccessRules.parse(
    "[proxy_all]\n"
    "[bypass_list]\n192.168.0.0/16\n||home.example\n"
    "[outbound_block_list]\n||ads.example\n192.168.6.0/24\n",
    "rules",
)
PROXIED, DIRECT = Address("192.0.2.80", 443), Address("192.168.1.1", 53)
NAMED = Address("printer.home.example", 9)


@pytest.fixture
def world(monkeypatch):
    return UDPWorld(monkeypatch, rules=RULES)


def left(world):
    """What has left, by any socket: the first bytes of it, and where to."""
    return [(data[-1:], to) for sock in world.network.opened for data, to in sock.take()]


def test_two_ways_and_none(world):
    owner = Owner(world)
    assert isinstance(owner.link, RuledLink)
    owner.link.send(PROXIED, b"1")
    owner.link.send(DIRECT, b"2")
    owner.link.send(Address("x.ads.example", 1), b"3")
    owner.link.send(Address("192.168.6.1", 1), b"4")
    assert left(world) == [(b"1", tuple(SERVER)), (b"2", tuple(DIRECT))]
    assert world.counters == {"forbidden": 2, "udp_bytes_up": 2}


def test_each_way_is_opened_once_and_when_it_is_needed(world):
    owner = Owner(world)
    for target in (DIRECT, PROXIED):
        assert len(world.network.opened) == (target is PROXIED)
        for _ in range(3):
            owner.link.send(target, b"x")
    assert len(world.network.opened) == 2


def test_both_ways_back(world):
    owner = Owner(world)
    owner.link.send(PROXIED, b"x")
    assert world.sent() == [(PROXIED, b"x")]
    world.reply(PROXIED, b"from afar")
    owner.link.send(DIRECT, b"x")
    world.network.last.arrive(b"from here", tuple(DIRECT))
    settle(world.loop)
    assert owner.replies == [(PROXIED, b"from afar"), (DIRECT, b"from here")]
    assert world.counters == {"udp_bytes_up": 2, "udp_bytes_down": 18}


def test_a_name_that_bypasses_is_resolved_here(world):
    """And what it resolves to may still be blocked."""
    owner = Owner(world)
    owner.link.send(NAMED, b"1")
    owner.link.send(NAMED, b"2")
    world.resolver.answer(NAMED.host, "192.168.6.1", "192.168.1.2")
    assert left(world) == [(b"1", ("192.168.1.2", 9)), (b"2", ("192.168.1.2", 9))]
    owner.link.send(Address("other.home.example", 9), b"3")
    world.resolver.answer("other.home.example", "192.168.6.1")
    assert left(world) == []
    assert world.counters["forbidden"] == 1


def test_without_rules_there_is_one_way(monkeypatch):
    world = UDPWorld(monkeypatch)
    Owner(world).link.send(DIRECT, b"x")
    assert world.sent() == [(DIRECT, b"x")]


@pytest.mark.parametrize("targets", [(), (PROXIED,), (DIRECT,), (NAMED,), (PROXIED, DIRECT, NAMED)])
def test_freed_by_refcount(world, targets):
    """R8"""
    owner = Owner(world)
    for target in targets:
        owner.link.send(target, b"x")
    freed = weakref.ref(owner), weakref.ref(owner.link)
    gc.collect()
    gc.disable()
    try:
        owner.link.close()
        del owner
        assert [ref() for ref in freed] == [None, None]
    finally:
        gc.enable()
    world.check_nothing_left()
