"""``ServerUDP`` and what is not ours: it leaves no trace."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.acl.rules import AccessRules
from common.crypto import METHODS, Cipher
from tests.server_udp_world import SIP004, SIP022, TARGET, ServerWorld


@pytest.fixture
def world(monkeypatch):
    return ServerWorld(monkeypatch)


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
def test_what_does_not_open_leaves_no_trace(monkeypatch, method):
    """K4, S9: no answer, no association, no lookup, and the session that it spoiled goes on."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    packet = client.sealed(b"good")
    bent = bytearray(packet)
    bent[len(bent) // 2] ^= 1
    strange = Cipher.from_password("none", "").client_packets(clock=world.unix_time, random=os.urandom)
    wrong = [b"", b"\x00", bytes(2), bytes(3), packet[:-1], packet + b"\x00", bytes(bent), bytes(60)]
    for data in (*wrong, bytes(strange.seal(TARGET, b"plain"))):
        client.send_raw(data)
    assert (len(world.associations), world.network.opened, world.resolver.asked) == (0, [], [])
    assert world.port.sent == []
    assert world.counters == {"udp_dropped": 9}
    world.check_nothing_left()
    client.send_raw(packet)
    assert world.left() == [(b"good", tuple(TARGET))]
    client.send_raw(packet)
    assert world.left() == []
    assert world.counters["udp_dropped"] == 10


@pytest.mark.parametrize(
    "inside",
    [
        b"",
        b"\x01",
        b"\x02\x00\x00\x00\x00\x00\x00",
        b"\x03\x00\x00\x35",
        b"\x03\xffshort\x00\x35",
        b"\x04" * 18,
    ],
)
def test_an_authentic_packet_without_a_target_leaves_no_trace(monkeypatch, inside):
    """K4: with the key and without sense."""
    world = ServerWorld(monkeypatch, "none")
    world.client().send_raw(inside)
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()


@pytest.mark.parametrize("method", ["none", SIP004, SIP022, "2022-blake3-chacha20-poly1305"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.binary(max_size=120))
def test_any_datagram_is_relayed_or_dropped(method, data, monkeypatch):
    """K4: ``none`` relays what happens to be a packet; nothing else passes."""
    world = ServerWorld(monkeypatch, method)
    world.client().send_raw(data)
    if len(world.associations) == 0:
        assert world.counters == {"udp_dropped": 1}
        world.check_nothing_left()
    else:
        assert method == "none"
    world.stop()


@pytest.mark.parametrize("method", [name for name in METHODS if name != "none"])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(data=st.data())
def test_any_change_to_a_real_packet_is_noticed(method, data, monkeypatch):
    """K4: cut anywhere, or with any byte changed."""
    world = ServerWorld(monkeypatch, method)
    client = world.client()
    packet = bytearray(client.sealed(b"hello"))
    place = data.draw(st.integers(0, len(packet) - 1))
    if data.draw(st.booleans()):
        del packet[place:]
    else:
        packet[place] ^= data.draw(st.integers(1, 255))
    client.send_raw(bytes(packet))
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()


def test_clients_that_are_not_admitted_are_not_heard(monkeypatch):
    rules = AccessRules.parse("[reject_all]\n[white_list]\n198.51.100.0/24\n", "rules")
    world = ServerWorld(monkeypatch, rules=rules)
    world.client(("203.0.113.1", 1)).send(b"x")
    assert world.counters == {"udp_dropped": 1}
    world.check_nothing_left()
    world.client().send(b"x")
    assert world.left() == [(b"x", tuple(TARGET))]
