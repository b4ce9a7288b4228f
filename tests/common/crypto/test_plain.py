"""``none``: the address, then bytes as they are; in a packet, the address in front of each."""

from __future__ import annotations

import pytest

from common.crypto.plain import PlainClient, PlainClientPackets, PlainServer, PlainServerPackets
from common.errors import BadRequest, ProtocolError, Truncated
from common.proto.address import Address, encode_address
from tests.packets import PEER
from tests.streams import TARGET, Accepting
from tests.wire import every_way

TARGETS = [TARGET, Address("example.com", 80), Address("2001:db8::1", 65535)]


@pytest.mark.parametrize("target", TARGETS)
def test_the_wire_is_address_and_payload(target):
    client = PlainClient(target)
    assert client.first(b"hello") == encode_address(target) + b"hello"
    assert PlainClient(target).first(memoryview(b"")) == encode_address(target)


@pytest.mark.parametrize("target", TARGETS)
def test_accept_in_every_way(target):
    outcome = every_way(lambda: Accepting(PlainServer()), PlainClient(target).first(b""))
    assert (outcome.result, outcome.rest) == (target, b"")


def test_what_follows_is_passed_through():
    data = memoryview(b"data")
    for end in (PlainClient(TARGET), PlainServer()):
        assert end.seal(data) is data
        assert end.open(data) is data
        end.eof()


@pytest.mark.parametrize("target", TARGETS)
def test_an_end_inside_the_address(target):
    wire = encode_address(target)
    for end in range(1, len(wire)):
        server = PlainServer()
        assert server.accept(wire[:end]) is None
        with pytest.raises(Truncated):
            server.eof()
        assert server.accept(wire[end:]) == (target, b"")
        server.eof()


@pytest.mark.parametrize("wire", [b"\x02", b"\x00", b"GET / HTTP/1.1", b"\x03\x00", b"\x05\x01\x00"])
def test_what_is_no_address(wire):
    outcome = every_way(lambda: Accepting(PlainServer()), wire, trailing=b"")
    assert isinstance(outcome.error, ProtocolError)


def test_an_address_without_wire_form():
    with pytest.raises(BadRequest):
        PlainClient(Address("", 80))


@pytest.mark.parametrize("payload", [b"", b"hello", bytes(65_507)])
@pytest.mark.parametrize("target", TARGETS)
def test_packets_both_ways(target, payload):
    client, server = PlainClientPackets(), PlainServerPackets()
    wire = client.seal(target, memoryview(payload))
    assert wire == encode_address(target) + payload
    session, found, got = server.open(memoryview(wire), PEER)
    assert (found, got) == (target, payload)
    assert (session.key, session.user) == (PEER, None)
    assert client.open(session.seal(target, payload)) == (target, payload)
    server.forget(session)
    assert server.open(wire, PEER)[0].key == session.key


@pytest.mark.parametrize("target", TARGETS)
def test_packets_cut_short(target):
    client, server = PlainClientPackets(), PlainServerPackets()
    wire = client.seal(target, b"")
    for end in range(len(wire)):
        with pytest.raises(ProtocolError):
            server.open(wire[:end], PEER)
        with pytest.raises(ProtocolError):
            client.open(wire[:end])


def test_nobody_is_told_apart():
    server = PlainServer()
    server.accept(PlainClient(TARGET).first(b""))
    assert server.user is None
