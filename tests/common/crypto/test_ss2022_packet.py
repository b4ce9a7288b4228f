"""The two forms of SIP022 packets and their bodies, step by step, against the vectors."""

from __future__ import annotations

import os
import struct
from itertools import pairwise

import pytest
from cryptography.exceptions import InvalidTag
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto import METHODS, Family
from common.crypto.methods import keys_from_password, session_subkey
from common.crypto.ss2022_packet import (
    MAX_PACKET_ID,
    MAX_PADDED_SIZE,
    Sender,
    new_form,
    parse_request,
    parse_response,
    request_body,
    response_body,
)
from common.errors import AuthenticationFailed, ProtocolError, ReplayDetected
from common.proto.address import Address, encode_address
from tests.packets import relayed_packet
from tests.streams import NOW, TARGET, Script, password_for
from tests.vectors import VECTORS, unhex

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP022]
ADDRESS = encode_address(TARGET)
SESSION = b"session!"
OTHER = b"another!"


def vector_id(vector):
    return "-".join(vector[key] for key in ("method", "chain", "case"))


def form_of(name):
    method = METHODS[name]
    return new_form(method, keys_from_password(method, password_for(method)))


@pytest.mark.parametrize("vector", VECTORS["sip022_udp"], ids=vector_id)
class TestVectors:
    def chain(self, vector):
        return (*map(unhex, vector["ipsks"]), unhex(vector["upsk"]))

    def header(self, vector, side):
        """The header in the clear, and what the form may draw."""
        part = vector[side]
        if "separate_header_plain" in part:
            return unhex(part["separate_header_plain"]), Script()
        return unhex(part["plain"])[:16], Script(unhex(part["nonce"]))

    def body(self, vector, side):
        padding, payload = unhex(vector["padding"]), unhex(vector["payload"])
        host = vector["target_host"] if side == "request" else "127.0.0.1"
        datagram = encode_address(Address(host, vector["target_port"])) + payload
        if side == "request":
            return request_body(vector["timestamp"], padding, datagram)
        return response_body(vector["timestamp"], unhex(vector["client_session_id"]), padding, datagram)

    @pytest.mark.parametrize("side", ["request", "response"])
    def test_sealing(self, vector, side):
        method, body = METHODS[vector["method"]], self.body(vector, side)
        assert body.hex() == vector[side]["body_plain"]
        chain = self.chain(vector)
        form = new_form(method, chain if side == "request" else chain[-1:])
        header, random = self.header(vector, side)
        assert int.from_bytes(header[8:], "big") == vector["packet_id"]
        if method.has_identity:
            assert session_subkey(chain[-1], header[:8]) == unhex(vector[side]["session_subkey"])
        wire = form.seal(form.session(header[:8]), header, body, random)
        assert wire.hex() == vector[side]["wire"]
        assert len(wire) == len(body) + form.overhead
        assert random.parts == []

    def test_opening_a_response(self, vector):
        """With the user's own key, whatever the chain."""
        form = new_form(METHODS[vector["method"]], self.chain(vector))
        header, rest = form.split(memoryview(unhex(vector["response"]["wire"])))
        assert header == self.header(vector, "response")[0]
        body = form.open(form.session(header[:8]), header, rest)
        assert body.hex() == vector["response"]["body_plain"]
        source, payload = parse_response(body, NOW, unhex(vector["client_session_id"]))
        assert source == Address("127.0.0.1", vector["target_port"])
        assert payload == unhex(vector["payload"])

    def test_opening_a_request(self, vector):
        """As it is behind the relays, each of which took its identity header off."""
        chain, wire = self.chain(vector), unhex(vector["request"]["wire"])
        for key, following in pairwise(chain):
            wire = relayed_packet(wire, key, following)
        form = new_form(METHODS[vector["method"]], chain[-1:])
        header, rest = form.split(wire)
        assert header == self.header(vector, "request")[0]
        body = form.open(form.session(header[:8]), header, rest)
        assert body.hex() == vector["request"]["body_plain"]
        assert parse_request(body, NOW) == (
            Address(vector["target_host"], vector["target_port"]),
            unhex(vector["payload"]),
        )


# -- forms -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_anywhere_changes_the_header_or_fails(name):
    form = form_of(name)
    header = SESSION + bytes(8)
    wire = bytearray(form.seal(form.session(SESSION), header, b"body" * 5, os.urandom))
    for place in range(8 * len(wire)):
        wire[place // 8] ^= 1 << place % 8
        try:
            found, rest = form.split(bytes(wire))
        except InvalidTag:
            pass
        else:
            assert (found != header) is (place < 128)
            with pytest.raises(InvalidTag):
                form.open(form.session(found[:8]), found, rest)
        wire[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize("name", NAMES)
def test_the_least_packet_is_the_shortest_address_without_payload(name):
    form = form_of(name)
    wire = form.seal(
        form.session(SESSION), SESSION + bytes(8), request_body(0, b"", b"\x03\x01a\0\0"), os.urandom
    )
    assert len(wire) == form.least


@pytest.mark.parametrize("name", NAMES)
def test_one_form_serves_all_sessions(name):
    """It keeps contexts, and no trace of one packet in the next."""
    form = form_of(name)
    packets = [
        (header, form.seal(form.session(header[:8]), header, header * 3, os.urandom))
        for header in (os.urandom(16) for _ in range(20))
    ]
    for header, wire in packets:
        found, rest = form.split(wire)
        assert found == header
        assert form.open(form.session(header[:8]), header, rest) == header * 3


# -- bodies ------------------------------------------------------------------------------------------


def body_of(kind: int, *, time: int = int(NOW), size: int = 0, rest: bytes = ADDRESS + b"hello") -> bytes:
    middle = SESSION if kind else b""
    return struct.pack(">BQ", kind, time) + middle + size.to_bytes(2, "big") + rest


def parse(kind: int, body: bytes, now: float = NOW) -> tuple[Address, bytes]:
    return parse_response(body, now, SESSION) if kind else parse_request(body, now)


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("padding", [0, 1, 900, 901, 60_000])
def test_padding_is_skipped(kind, padding):
    rest = b"\xff" * padding + ADDRESS + b"hello"
    assert parse(kind, body_of(kind, size=padding, rest=rest)) == (TARGET, b"hello")
    assert parse(kind, body_of(kind, size=padding, rest=rest[:-5])) == (TARGET, b"")


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("skew", [-30, -29, 0, 29, 30])
@pytest.mark.parametrize("part", [0.0, 0.99])
def test_times_within_30_seconds_are_taken(kind, skew, part):
    assert parse(kind, body_of(kind, time=int(NOW) + skew), NOW + part) == (TARGET, b"hello")


@pytest.mark.parametrize("kind", [0, 1])
@pytest.mark.parametrize("time", [0, int(NOW) - 31, int(NOW) + 31, int(NOW) | 1 << 63, 2**64 - 1])
def test_other_times_are_not(kind, time):
    with pytest.raises(ReplayDetected, match="within 30 s of ours"):
        parse(kind, body_of(kind, time=time))


@pytest.mark.parametrize("kind", [0, 1])
def test_bodies_that_are_wrong(kind):
    good = body_of(kind)
    assert parse(kind, good) == (TARGET, b"hello")
    for end in range(len(good) - 5):  # the payload may be of any size
        with pytest.raises(ProtocolError):
            parse(kind, good[:end])
    for other in (1 - kind, 2, 255):
        with pytest.raises(AuthenticationFailed, match="type of fixed header"):
            parse(kind, bytes([other]) + good[1:])
    for size in (len(ADDRESS) + 6, 1000, 0xFFFF):
        with pytest.raises(AuthenticationFailed, match="padding"):
            parse(kind, body_of(kind, size=size))
    with pytest.raises(ProtocolError):  # padding up to the very end
        parse(kind, body_of(kind, size=len(ADDRESS) + 5))
    with pytest.raises(ProtocolError):
        parse(kind, body_of(kind, rest=b"\x02" + ADDRESS[1:]))


def test_a_response_is_for_one_session():
    with pytest.raises(AuthenticationFailed, match="another session"):
        parse_response(body_of(1), NOW, OTHER)


@settings(max_examples=300)
@given(body=st.binary(max_size=60), kind=st.sampled_from([0, 1]))
def test_any_body_is_parsed_or_refused(body, kind):
    for text in (body, bytes([kind]) + int(NOW).to_bytes(8, "big") + body):
        try:
            address, payload = parse(kind, text)
        except ProtocolError:
            continue
        assert isinstance(address, Address)
        assert text.endswith(payload)


# -- Sender ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_packet_ids_count_from_zero_and_never_come_twice(name):
    form = form_of(name)
    sender = Sender(form, os.urandom)
    session_id = sender.session_id
    for number in range(5):
        header, _ = form.split(sender.seal(request_body(0, b"", ADDRESS)))
        assert header == session_id + number.to_bytes(8, "big")


@pytest.mark.parametrize("name", NAMES)
def test_a_session_without_packet_ids_left_is_followed_by_another(name):
    form = form_of(name)
    sender = Sender(form, os.urandom)
    session_id = sender.session_id
    sender._next = MAX_PACKET_ID
    header, _ = form.split(sender.seal(request_body(0, b"", ADDRESS)))
    assert header == session_id + b"\xff" * 8
    header, rest = form.split(sender.seal(request_body(0, b"", ADDRESS)))
    assert header == sender.session_id + bytes(8)
    assert sender.session_id != session_id
    assert form.open(form.session(header[:8]), header, rest) == request_body(0, b"", ADDRESS)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("keys", [1, 2])
def test_only_dns_is_padded(name, keys):
    """Up to 900 bytes, and up to what any path carries in one piece; at least one where there is room."""
    method = METHODS[name]
    form = new_form(method, tuple(os.urandom(method.key_size) for _ in range(keys)))
    draws = [number.to_bytes(4, "big") for number in (0, 1, 899, 900, 2**32 - 1)]
    for size in (30, 200, 800, 1000, MAX_PADDED_SIZE - form.overhead - 1):
        room = min(900, MAX_PADDED_SIZE - form.overhead - size)
        for draw in draws:
            padding = Sender(form, Script(SESSION, draw)).padding(53, size)
            assert padding == bytes(1 + int.from_bytes(draw, "big") % room)
        assert Sender(form, Script(SESSION)).padding(443, size) == b""
    for size in (MAX_PADDED_SIZE - form.overhead, 65_507):
        assert Sender(form, Script(SESSION)).padding(53, size) == b""
