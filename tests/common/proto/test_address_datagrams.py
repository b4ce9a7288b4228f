"""``address | payload``, the inside of every datagram."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest, ProtocolError, UnsupportedAddressType
from common.proto import address as module
from common.proto.address import (
    MIN_ADDRESS_SIZE,
    Address,
    address_header,
    encode_address,
    parse_address,
    split_datagram,
)
from tests.vectors import VECTORS, unhex

ADDRESSES = [
    Address("192.0.2.7", 443),
    Address("2001:db8::7", 0),
    Address("a", 65535),
    Address("example.com", 53),
    Address("n" * 255, 1),
]


@pytest.mark.parametrize("payload", [b"", b"x", b"\x01" * 30, bytes(65_507)])
@pytest.mark.parametrize("start", [0, 1, 11, 919])
@pytest.mark.parametrize("address", ADDRESSES, ids=str)
def test_both_ways(address, start, payload):
    plain = b"\x03" * start + address_header(address) + payload
    assert split_datagram(plain, start) == (address, payload)
    assert split_datagram(memoryview(bytearray(plain)), start) == (address, payload)


@pytest.mark.parametrize("vector", VECTORS["sip004"], ids=lambda v: f"{v['method']}-{v['target']}")
def test_vectors(vector):
    plain = unhex(vector["udp_request"]["plain"])
    address = Address(vector["target_host"], vector["target_port"])
    assert split_datagram(plain) == (address, b"udp ping")
    assert address_header(address) + b"udp ping" == plain


@pytest.mark.parametrize("vector", VECTORS["address_header_invalid"], ids=lambda vector: vector["why"])
def test_invalid_addresses(vector):
    with pytest.raises(ProtocolError):
        split_datagram(unhex(vector["encoded"]))


@pytest.mark.parametrize("address", ADDRESSES, ids=str)
@pytest.mark.parametrize("start", [0, 11])
def test_an_address_cut_short_anywhere(address, start):
    header = encode_address(address)
    for end in range(len(header)):
        with pytest.raises(ProtocolError):
            split_datagram(bytes(start) + header[:end], start)


def test_unknown_types():
    for kind in {*range(256)} - {1, 3, 4}:
        with pytest.raises(UnsupportedAddressType):
            split_datagram(bytes([kind]) + bytes(30))


def test_the_shortest_address_there_is():
    assert min(map(len, map(encode_address, ADDRESSES))) == MIN_ADDRESS_SIZE


def test_an_address_without_wire_form():
    with pytest.raises(BadRequest):
        address_header(Address("n" * 256, 1))


def test_what_is_remembered_is_bounded():
    """And it is the same whether it is remembered or read anew."""
    for number in range(3 * module.REMEMBERED_HEADERS):
        address = Address(f"h{number}.example", number)
        header = address_header(address)
        assert split_datagram(header + b"x") == split_datagram(header + b"x") == (address, b"x")
    for cache in (address_header, module._whole_address):
        assert cache.cache_info().currsize <= module.REMEMBERED_HEADERS
        cache.cache_clear()


@given(plain=st.binary(max_size=40) | st.binary(max_size=300).map(lambda rest: b"\x03" + rest))
def test_it_reads_what_parse_address_reads(plain):
    try:
        found = parse_address(plain)
    except ProtocolError:
        found = None
    if found is None:
        with pytest.raises(ProtocolError):
            split_datagram(plain)
    else:
        assert split_datagram(plain) == (found[0], plain[found[1] :])
