"""SIP022 requests: every check of a server on the way in, and what a client must put into one."""

from __future__ import annotations

import os
import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto import METHODS, Family
from common.crypto.methods import keys_from_password, session_subkey
from common.crypto.ss2022_stream import padding_size, parse_variable_header
from common.errors import AuthenticationFailed, ProtocolError, ReplayDetected, Truncated
from common.proto.address import Address, encode_address
from tests.streams import (
    NOW,
    TARGET,
    Script,
    cipher_for,
    pair,
    password_for,
)
from tests.wire import pieces

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP022]
NAME = "2022-blake3-aes-128-gcm"  # for tests of logic that is the same for all
HEAD = {name: METHODS[name].salt_size + 27 for name in NAMES}  # bytes up to the end of the fixed header


def request(name: str, header: bytes, *, kind: int = 0, time: int = int(NOW), more: bytes = b"") -> bytes:
    """A request with these headers, and perhaps one more chunk, written out."""
    method = METHODS[name]
    (psk,) = keys_from_password(method, password_for(method))
    salt = os.urandom(method.salt_size)
    aead = method.aead(session_subkey(psk, salt))
    fixed = struct.pack(">BQH", kind, time, len(header))
    parts = [fixed, header, len(more).to_bytes(2, "big"), more] if more else [fixed, header]
    sealed = (aead.encrypt(n.to_bytes(12, "little"), part, None) for n, part in enumerate(parts))
    return salt + b"".join(sealed)


def header(address: bytes, padding: int, payload: bytes = b"", *, padding_length: int | None = None) -> bytes:
    length = padding if padding_length is None else padding_length
    return address + length.to_bytes(2, "big") + bytes(padding) + payload


def accept(name: str, *parts: bytes, now: float = NOW, segmented: bool = False):
    cipher = cipher_for(name)
    server = cipher.server_stream(
        clock=lambda: now, random=Script(), salts=cipher.replay_memory().streams, segmented=segmented
    )
    found = None
    for part in parts:
        assert found is None
        found = server.accept(part)
    return found


ADDRESS = encode_address(TARGET)


@pytest.mark.parametrize("name", NAMES)
def test_the_first_read_holds_salt_and_fixed_header_or_is_refused(name):
    """S9: 42 bytes and the rest are refused, 43 and the rest are not, though the bytes are the same."""
    wire = request(name, header(ADDRESS, 5, b"hello"))
    size = HEAD[name]
    assert size == {16: 43, 32: 59}[METHODS[name].salt_size]
    for cut in range(size):
        with pytest.raises(AuthenticationFailed, match=f"at least {size} bytes, got {cut}"):
            accept(name, wire[:cut], wire[cut:])
    for cut in range(size, len(wire)):
        assert accept(name, wire[:cut], wire[cut:]) == (TARGET, b"hello")
    assert accept(name, wire[:size], *(wire[i : i + 1] for i in range(size, len(wire)))) == (TARGET, b"hello")


@pytest.mark.parametrize("name", NAMES)
def test_segmented_lets_it_come_in_pieces(name):
    wire = request(name, header(ADDRESS, 5, b"hello"))
    for parts in pieces(wire):
        cipher = cipher_for(name)
        _, server = pair(cipher, segmented=True)
        found = [server.accept(part) for part in parts]
        assert [each for each in found if each] == [(TARGET, b"hello")]


@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize("name", NAMES)
def test_random_bytes_of_any_length(name, segmented):
    """S9: refused at once without ``segmented``; with it, as soon as the fixed header could be there."""
    for size in range(1, 301):
        if segmented and size < HEAD[name]:
            assert accept(name, os.urandom(size), segmented=True) is None
        else:
            with pytest.raises(AuthenticationFailed):
                accept(name, os.urandom(size), segmented=segmented)


@pytest.mark.parametrize("name", NAMES)
def test_a_flipped_bit_anywhere_is_refused(name):
    wire = bytearray(request(name, header(ADDRESS, 1, b"hi")))
    for place in range(8 * len(wire)):
        wire[place // 8] ^= 1 << place % 8
        with pytest.raises(AuthenticationFailed):
            accept(name, bytes(wire))
        wire[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize(
    ("skew", "part"),
    [(0, 0.0), (30, 0.0), (30, 0.99), (-30, 0.0), (-30, 0.99), (29, 0.5)],
)
def test_times_within_30_seconds_are_taken(skew, part):
    wire = request(NAME, header(ADDRESS, 1), time=int(NOW) + skew)
    assert accept(NAME, wire, now=NOW + part) == (TARGET, b"")


@pytest.mark.parametrize(
    ("time", "now"),
    [
        (int(NOW) + 31, NOW),
        (int(NOW) + 31, NOW + 0.99),
        (int(NOW) - 31, NOW),
        (0, NOW),
        (2**63 + int(NOW), NOW),  # equal to now for whoever subtracts in 63 bits
        (2**64 - 1, NOW),
        (2**64 - 1, 0.0),  # one second before 1970 for whoever reads it signed
        (2**64 - 30, 0.0),
    ],
)
def test_other_times_are_not(time, now):
    with pytest.raises(ReplayDetected, match="within 30 s of ours, got "):
        accept(NAME, request(NAME, header(ADDRESS, 1), time=time), now=now)


def test_the_sentence_tells_the_skew():
    with pytest.raises(ReplayDetected, match=r"peer's clock: expected within 30 s of ours, got -45 s"):
        accept(NAME, request(NAME, header(ADDRESS, 1), time=int(NOW) - 45))


@pytest.mark.parametrize("address", [ADDRESS, encode_address(Address("::1", 53)), b"\x03\x01a\x00\x50"])
@pytest.mark.parametrize(
    ("padding", "payload"), [(1, b""), (0, b"x"), (900, b"x"), (901, b""), (60_000, b"x")]
)
def test_variable_headers_that_are_right(address, padding, payload):
    text = header(address, padding, payload)
    assert accept(NAME, request(NAME, text))[1] == payload
    assert parse_variable_header(text)[1] == len(text) - len(payload)


@pytest.mark.parametrize(
    "text",
    [
        b"\x00",
        b"\x01",
        ADDRESS[:-1],  # the address is cut short
        b"\x03\xff" + b"a" * 100,
        ADDRESS,  # no padding length
        ADDRESS + b"\x00",  # half of it
        header(ADDRESS, 0),  # neither padding nor payload
        header(ADDRESS, 0, padding_length=1),  # padding past the end
        header(ADDRESS, 5, padding_length=6),
        header(ADDRESS, 5, b"payload", padding_length=0xFFFF),
        header(b"\x02" + ADDRESS[1:], 5),
        header(b"\x03\x00\x00\x50", 5),  # a name of no bytes
    ],
    ids=lambda text: text.hex()[:30],
)
def test_variable_headers_that_are_wrong(text):
    """Everything lies inside this chunk, though more bytes would follow (SIP022 3.1.3)."""
    with pytest.raises(ProtocolError):
        parse_variable_header(text)
    for more in (b"", bytes(1000)):
        with pytest.raises(ProtocolError):
            accept(NAME, request(NAME, text, more=more))


def test_an_empty_variable_header():
    """Refused with the fixed header that announces it, before anything else is waited for."""
    with pytest.raises(AuthenticationFailed, match="variable header is empty"):
        accept(NAME, request(NAME, b"")[: HEAD[NAME]])


@settings(max_examples=200, deadline=None)
@given(text=st.binary(max_size=40))
def test_any_variable_header_is_parsed_or_refused(text):
    try:
        address, start = parse_variable_header(text)
    except ProtocolError:
        return
    assert isinstance(address, Address)
    assert 0 < start <= len(text)


@pytest.mark.parametrize("name", NAMES)
def test_accept_at_every_length_and_eof_after_it(name):
    wire = request(name, header(ADDRESS, 5, b"hello"))
    for end in range(len(wire)):
        _, server = pair(cipher_for(name), segmented=True)
        assert server.accept(wire[:end]) is None
        if end == 0:
            server.eof()
        else:
            with pytest.raises(Truncated):
                server.eof()


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 500, 899, 900, 901, 65_000, 65_535, 200_000])
def test_first_payloads_of_any_size(name, size):
    payload = os.urandom(size)
    client, server = pair(cipher_for(name), segmented=False)
    assert server.accept(client.first(payload)) == (TARGET, payload)


@pytest.mark.parametrize(
    ("size", "least", "most"),
    [(0, 1, 900), (1, 0, 899), (450, 0, 450), (899, 0, 1), (900, 0, 0), (65_536, 0, 0)],
)
def test_padding_rule(size, least, most):
    """Padding or payload, and padded up to 900 bytes together (SIP022 3.1.3)."""
    sizes = {padding_size(size, lambda n, draw=draw: draw.to_bytes(n, "big")) for draw in range(1000)}
    assert sizes == set(range(least, most + 1))
    assert least <= padding_size(size, lambda n: b"\xff" * n) <= most


@pytest.mark.parametrize("name", NAMES)
def test_requests_without_payload_differ_in_size(name):
    sizes = {len(pair(cipher_for(name))[0].first(b"")) for _ in range(50)}
    least = HEAD[name] + len(ADDRESS) + 2 + 16
    assert len(sizes) > 25
    assert least < min(sizes) <= max(sizes) <= least + 900


def test_the_time_is_read_when_the_request_is_sent():
    now = [0.0]
    cipher = cipher_for(NAME)
    client = cipher.client_stream(TARGET, clock=lambda: now[0], random=os.urandom)
    now[0] = NOW
    assert accept(NAME, client.first(b"hello")) == (TARGET, b"hello")
