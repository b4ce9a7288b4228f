"""The datagrams of a SOCKS5 client: RSV, FRAG, an address, and anything behind it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest, ProtocolError, UnsupportedAddressType
from common.proto.address import Address
from common.proto.socks5_udp import build_datagram, parse_datagram

EXAMPLES = [
    (Address("192.0.2.1", 53), b"\x00\x00\x00\x01\xc0\x00\x02\x01\x00\x35"),
    (Address("2001:db8::1", 443), b"\x00\x00\x00\x04\x20\x01\x0d\xb8" + bytes(11) + b"\x01\x01\xbb"),
    (Address("name.example", 65535), b"\x00\x00\x00\x03\x0cname.example\xff\xff"),
    (Address("a", 0), b"\x00\x00\x00\x03\x01a\x00\x00"),
]
PAYLOADS = [b"", b"\x00", b"hello", bytes(1472)]


def parse(data):
    target, payload = parse_datagram(memoryview(data))
    return target, bytes(payload)


@pytest.mark.parametrize("payload", PAYLOADS)
@pytest.mark.parametrize(("address", "header"), EXAMPLES)
def test_both_ways(address, header, payload):
    """RFC 1928 section 7; K4, W34: the payload may be empty."""
    assert parse(header + payload) == (address, payload)
    assert build_datagram(address, payload) == header + payload
    assert build_datagram(address, memoryview(payload)) == header + payload


@pytest.mark.parametrize(("address", "header"), EXAMPLES)
def test_every_shorter_one_is_refused(address, header):
    """K4, W1: a datagram is whole or nothing; there is no "need more"."""
    for size in range(len(header)):
        with pytest.raises(ProtocolError):
            parse(header[:size])


@pytest.mark.parametrize("size", range(4))
def test_shorter_than_a_header(size):
    """K4, W1"""
    with pytest.raises(ProtocolError, match="shorter than its header"):
        parse(bytes(size))


@pytest.mark.parametrize("fragment", [1, 2, 0x7F, 0x80, 0xFF])
def test_fragments_are_refused(fragment):
    """K4: as RFC 1928 section 7 allows, and standalone fragments (00) are none."""
    with pytest.raises(ProtocolError, match="fragment"):
        parse(b"\x00\x00%c\x01\xc0\x00\x02\x01\x00\x35hello" % fragment)


@pytest.mark.parametrize("kind", [0, 2, 5, 255])
def test_unknown_types_of_address(kind):
    """K4"""
    with pytest.raises(UnsupportedAddressType):
        parse(b"\x00\x00\x00%c\xc0\x00\x02\x01\x00\x35hello" % kind)


def test_an_empty_name():
    with pytest.raises(ProtocolError):
        parse(b"\x00\x00\x00\x03\x00\x00\x35")


def test_the_payload_is_a_view():
    """It is copied where it is kept, and nowhere else."""
    data = bytearray(EXAMPLES[0][1] + b"hello")
    _, payload = parse_datagram(memoryview(data))
    data[-5:] = b"HELLO"
    assert bytes(payload) == b"HELLO"


def test_a_source_without_a_wire_form():
    with pytest.raises(BadRequest):
        build_datagram(Address("fe80::1%eth0", 53), b"hello")


WRONG = st.binary(max_size=300)
HALF_RIGHT = st.builds(
    lambda kind, tail: b"\x00\x00\x00" + bytes([kind]) + tail,
    st.sampled_from([1, 3, 4]),
    st.binary(max_size=40),
)


@given(WRONG | HALF_RIGHT)
def test_anything_is_a_datagram_or_refused(data):
    """K4: ProtocolError and nothing else."""
    try:
        target, payload = parse(data)
    except ProtocolError:
        return
    assert target.host
    assert 0 <= target.port <= 65535
    assert data.endswith(payload)
    assert len(payload) <= len(data) - 8
