"""Addresses: every vector both ways, every refusal, and round trips of whatever hypothesis invents."""

from __future__ import annotations

import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest, ProtocolError, UnsupportedAddressType
from common.proto.address import (
    MAX_ADDRESS_SIZE,
    Address,
    encode_address,
    parse_address,
    parse_ip,
    parse_name,
)
from tests.wire import TRAILING

VECTORS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())
# What the invalid vectors must come to; the others of them are merely unfinished.
REFUSED = {"00", "020000000000", "030050", "0303ff00ff0050"}

ports = st.integers(0, 0xFFFF)
names = st.text("abcxyz0189-_.", min_size=1, max_size=255)
ips = st.ip_addresses().map(str)


def addresses(hosts):
    return st.builds(Address, hosts, ports)


def parse_every_way(wire):
    """Parse ``wire`` whole, as bytearray and view, with bytes behind it; any prefix is "need more"."""
    whole = parse_address(wire)
    assert parse_address(bytearray(wire)) == whole
    assert parse_address(memoryview(wire)) == whole
    assert parse_address(wire + TRAILING) == whole
    assert [parse_address(wire[:size]) for size in range(len(wire))] == [None] * len(wire)
    return whole


@pytest.mark.parametrize("vector", VECTORS["address_header"], ids=lambda v: v["host"][:20])
def test_vectors(vector):
    address, wire = Address(vector["host"], vector["port"]), bytes.fromhex(vector["encoded"])
    assert encode_address(address) == wire
    assert parse_every_way(wire) == (address, len(wire))


@pytest.mark.parametrize("vector", VECTORS["address_header_invalid"], ids=lambda v: v["why"])
def test_invalid_vectors(vector):
    wire = bytes.fromhex(vector["encoded"])
    if vector["encoded"] in REFUSED:
        with pytest.raises(ProtocolError):
            parse_address(wire)
    else:
        assert parse_address(wire) is None


@pytest.mark.parametrize("atyp", [0x00, 0x02, 0x05, 0x11, 0x13, 0xFF])
def test_unknown_type_is_refused_at_once(atyp):
    """High bits (0x11: the dead one-time authentication flag) are not masked away."""
    with pytest.raises(UnsupportedAddressType, match=f"expected 1, 3 or 4, got {atyp}"):
        parse_address(bytes([atyp]))


def test_empty_name_is_refused_at_once():
    with pytest.raises(ProtocolError, match="empty"):
        parse_address(b"\x03\x00")


@pytest.mark.parametrize(
    "raw",
    [
        b"a b",
        b"a\x00b",
        b"a\x7f",
        b"\xc2\x85",  # a C1 control
        b"\xe2\x80\xa8",  # a line separator, which would forge a log line
        b"\xe2\x80\xae",  # a right-to-left override
        b"fe80::1%eth0",
        b"\xff\xfe",
        b"",
    ],
)
def test_unusable_names(raw):
    with pytest.raises(ProtocolError):
        parse_name(raw)
    with pytest.raises(ProtocolError):
        parse_address(b"\x03%c%b\x00\x50" % (len(raw), raw))


@pytest.mark.parametrize(
    "host", ["", "a b", "a\nb", "fe80::1%eth0", "x" * 256, "ä" * 70, "\udcff.example", "ä..example", "¯"]
)
def test_hosts_without_wire_form(host):
    with pytest.raises(BadRequest):
        encode_address(Address(host, 80))


def test_international_names_travel_as_idna():
    assert encode_address(Address("bücher.example", 80)) == b"\x03\x15xn--bcher-kva.example\x00\x50"


def test_full_width_digits_are_the_literal_they_become():
    assert encode_address(Address("１２７.0.0.1", 80)) == b"\x01\x7f\x00\x00\x01\x00\x50"


def test_received_utf8_name_stays_text():
    wire = b"\x03\x0f" + "bücher.example".encode() + b"\x00\x50"
    assert parse_every_way(wire) == (Address("bücher.example", 80), len(wire))


def test_longest_address():
    wire = encode_address(Address("x" * 255, 0xFFFF))
    assert len(wire) == MAX_ADDRESS_SIZE
    assert parse_every_way(wire) == (Address("x" * 255, 0xFFFF), MAX_ADDRESS_SIZE)


@pytest.mark.parametrize(
    ("text", "ip"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("::1", "::1"),
        ("2001:db8::a", "2001:db8::a"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:127.0.0.1", "127.0.0.1"),
        ("::ffff:7f00:1", "127.0.0.1"),
    ],
)
def test_literals(text, ip):
    """W6, the parsing half: mapped and unusual spellings are the address they mean, also as a name."""
    assert parse_ip(text) == ipaddress.ip_address(ip)
    wire = b"\x03%c%b\x00\x50" % (len(text), text.encode())
    parsed = parse_address(wire)
    assert parsed is not None
    assert parsed[0].ip == ipaddress.ip_address(ip)


@pytest.mark.parametrize(
    "text",
    ["", "localhost", "127.1", "0177.0.0.1", "2130706433", "1.2.3.4.5", "[::1]", "a:b", "example.c0", "²"],
)
def test_no_literals(text):
    assert parse_ip(text) is None


def test_text():
    assert str(Address("example.com", 443)) == "example.com:443"
    assert str(Address("::1", 443)) == "[::1]:443"


@given(addresses(names | ips))
def test_round_trip(address):
    wire = encode_address(address)
    parsed = parse_every_way(wire)
    assert parsed == (address, len(wire))
    assert encode_address(parsed[0]) == wire


@given(addresses(st.text(max_size=80)))
def test_any_text_is_encoded_or_refused(address):
    try:
        wire = encode_address(address)
    except BadRequest:
        return
    parsed = parse_address(wire)
    assert parsed is not None
    assert parsed[0].port == address.port
    assert parsed[1] == len(wire) <= MAX_ADDRESS_SIZE


@given(st.binary(max_size=300))
def test_any_bytes_are_parsed_or_refused(data):
    try:
        parsed = parse_address(data)
    except ProtocolError:
        return
    if parsed is None:
        assert len(data) < MAX_ADDRESS_SIZE
    else:
        address, size = parsed
        assert size <= len(data)
        assert address.host
        assert 0 <= address.port <= 0xFFFF
