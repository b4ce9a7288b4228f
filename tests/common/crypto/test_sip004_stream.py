"""SIP004 streams against the vectors, both ends in both roles, and everything a server must refuse."""

from __future__ import annotations

import hashlib
import os

import pytest

from common.crypto import METHODS, Cipher, Family
from common.crypto.aead import LENGTH_SIZE
from common.errors import AuthenticationFailed, BadRequest, ProtocolError, ReplayDetected, Truncated
from common.proto.address import Address, encode_address
from tests.streams import TARGET, Accepting, Filter, Script, cipher_for, clock, copied, pair
from tests.vectors import VECTORS, unhex
from tests.wire import every_way, pieces

PASSWORD = "barfoo!"  # of all vectors
NEGATIVE_TARGET = Address("127.0.0.1", 18007)
NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP004]
SHORT = ["aes-128-gcm", "xchacha20-ietf-poly1305"]  # for tests of logic that is the same for all


def vector_id(vector):
    return "-".join(vector[key] for key in ("method", "target", "name") if key in vector)


def client_of(vector, *random):
    address = Address(vector["target_host"], vector["target_port"])
    cipher = Cipher.from_password(vector["method"], vector["password"])
    return cipher.client_stream(address, clock=clock, random=Script(*random))


def server_of(vector, *random, salts=None):
    cipher = Cipher.from_password(vector["method"], vector.get("password", PASSWORD))
    return cipher.server_stream(clock=clock, random=Script(*random), salts=salts or Filter())


@pytest.mark.parametrize("vector", VECTORS["sip004"], ids=vector_id)
class TestVectors:
    def test_client_sends_the_request(self, vector):
        request = vector["request"]
        client = client_of(vector, unhex(request["salt"]))
        header = encode_address(Address(vector["target_host"], vector["target_port"]))
        first, second = map(unhex, request["plain_chunks"])
        assert first.startswith(header)
        assert client.first(first.removeprefix(header)).hex() == request["wire_chunks"][0]
        assert bytes(client.seal(second)).hex() == request["wire_chunks"][1]

    def test_server_takes_the_request(self, vector):
        request = vector["request"]
        first, second = map(unhex, request["plain_chunks"])
        address = Address(vector["target_host"], vector["target_port"])
        payload = first.removeprefix(encode_address(address))
        wire = unhex(request["wire_chunks"][0])
        outcome = every_way(lambda: Accepting(server_of(vector)), wire, trailing=b"")
        assert (outcome.result, outcome.rest) == (address, payload)
        server = server_of(vector)
        assert server.accept(unhex(request["wire"])) == (address, payload + second)
        for parts in pieces(unhex(request["wire_chunks"][1])):
            server = server_of(vector)
            server.accept(wire)
            assert copied(server.open, parts) == second
            server.eof()

    def test_server_sends_the_response(self, vector):
        response = vector["response"]
        server = server_of(vector, unhex(response["salt"]))
        server.accept(unhex(vector["request"]["wire_chunks"][0]))
        sealed = [bytes(server.seal(unhex(chunk))).hex() for chunk in response["plain_chunks"]]
        assert sealed == response["wire_chunks"]

    def test_client_takes_the_response(self, vector):
        response = vector["response"]
        for parts in pieces(unhex(response["wire"])):
            client = client_of(vector, unhex(vector["request"]["salt"]))
            client.first(b"")
            assert copied(client.open, parts) == b"".join(map(unhex, response["plain_chunks"]))
            client.eof()


@pytest.mark.parametrize("vector", VECTORS["sip004_long"], ids=vector_id)
def test_long_vectors(vector):
    """A full chunk, and nonces that carry past 0xFF; as client, then as server."""
    payloads = [bytes(i & 0xFF for i in range(0x3FFF)), *(bytes((i & 0xFF,)) for i in range(300))]
    vector = {"password": PASSWORD, "target_host": "127.0.0.1", "target_port": 18007, **vector}
    client = client_of(vector, unhex(vector["salt"]))
    wire = client.first(b"x")
    for payload in payloads:
        sealed = bytes(client.seal(payload))
        wire += sealed
    assert sealed.hex() == vector["last_chunk"]
    assert len(wire) == vector["wire_len"]
    assert hashlib.sha256(wire).hexdigest() == vector["wire_sha256"]
    plain = b"x" + b"".join(payloads)
    assert server_of(vector).accept(wire) == (NEGATIVE_TARGET, plain)
    server = server_of(vector)
    address, first = server.accept(wire[:200])
    assert (address, first) == (NEGATIVE_TARGET, b"x")
    assert copied(server.open, [wire[200:20_000], wire[20_000:]]) == plain[1:]


ACCEPTED = {
    "good baseline",
    "zero-length first chunk then header",  # what libev refuses and others skip
    "header split over two chunks",
}
REFUSED = {
    "length 0x4000 (reserved bit set)": AuthenticationFailed,
    "bad ATYP 2": ProtocolError,
    "flip in salt": AuthenticationFailed,
    "flip in sealed length": AuthenticationFailed,
    "flip in length tag": AuthenticationFailed,
    "flip in payload tag": AuthenticationFailed,
}
WAITING = {"truncated by one byte"}


@pytest.mark.parametrize("vector", VECTORS["sip004_negative"], ids=vector_id)
def test_negative_vectors(vector):
    outcome = every_way(lambda: Accepting(server_of(vector)), unhex(vector["wire"]), trailing=b"")
    name = vector["name"]
    assert (name in ACCEPTED) + (name in REFUSED) + (name in WAITING) == 1
    if name in ACCEPTED:
        assert outcome.error is None
        assert outcome.result == NEGATIVE_TARGET
    elif name in REFUSED:
        assert isinstance(outcome.error, REFUSED[name])
        assert outcome.result is None
    else:
        assert outcome.result is outcome.error is None


@pytest.mark.parametrize("name", SHORT)
def test_accept_at_every_length_and_eof_after_it(name):
    """W12, W28: byte by byte nothing happens until the first payload is whole, whatever it is cut to."""
    cipher = cipher_for(name)
    client, _ = pair(cipher)
    wire = client.first(b"hello")
    for end in range(len(wire)):
        _, server = pair(cipher)
        assert server.accept(wire[:end]) is None
        if end == 0:
            server.eof()
        else:
            with pytest.raises(Truncated):
                server.eof()
    _, server = pair(cipher)
    assert server.accept(wire) == (TARGET, b"hello")
    server.eof()


@pytest.mark.parametrize("name", SHORT)
def test_eof_inside_the_address_is_truncation_even_between_chunks(name):
    client, server = pair(cipher_for(name))
    header = encode_address(TARGET)
    wire = client._sealer.first(header[:3])
    assert server.accept(wire) is None
    with pytest.raises(Truncated):
        server.eof()
    assert server.accept(bytes(client.seal(header[3:]))) == (TARGET, b"")
    server.eof()


@pytest.mark.parametrize("name", SHORT)
def test_a_flipped_bit_anywhere_is_refused(name):
    """S9: every single bit of a first flight; a flip in the salt is one more wrong key."""
    cipher = cipher_for(name)
    client, _ = pair(cipher)
    wire = bytearray(client.first(b"hi"))
    salts = Filter()
    for place in range(8 * len(wire)):
        wire[place // 8] ^= 1 << place % 8
        _, server = pair(cipher, salts)
        with pytest.raises(AuthenticationFailed):
            server.accept(bytes(wire))
        wire[place // 8] ^= 1 << place % 8
    assert salts.seen == []  # nothing is remembered of a stream that is not authentic


@pytest.mark.parametrize("name", NAMES)
def test_random_bytes_of_any_length_are_refused_or_waited_for(name):
    """S9: the point where it is known is the first sealed length, and never an exception of another kind."""
    cipher = cipher_for(name)
    for size in range(1, 301):
        _, server = pair(cipher)
        if size < cipher.method.salt_size + 18:
            assert server.accept(os.urandom(size)) is None
        else:
            with pytest.raises(AuthenticationFailed):
                server.accept(os.urandom(size))


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_is_refused(name):
    """S9, W28: the same first flight twice, whole or in pieces."""
    cipher, salts = cipher_for(name), Filter()
    client, server = pair(cipher, salts)
    wire = client.first(b"hello")
    assert server.accept(wire) == (TARGET, b"hello")
    salt = wire[: cipher.method.salt_size]
    assert salts.seen == [salt]
    for parts in pieces(wire):
        _, server = pair(cipher, salts)
        with pytest.raises(ReplayDetected):
            [server.accept(part) for part in parts]
        assert set(salts.seen) == {salt}


@pytest.mark.parametrize("name", NAMES)
def test_a_recording_is_refused_wherever_it_is_cut(name):
    """Once its head is there: to await the rest would tell how long a head is."""
    cipher, salts = cipher_for(name), Filter()
    client, server = pair(cipher, salts)
    wire = client.first(b"hello")
    assert server.accept(wire) == (TARGET, b"hello")
    head = cipher.method.salt_size + LENGTH_SIZE
    for end in range(1, len(wire)):
        _, other = pair(cipher, salts)
        if end < head:
            assert other.accept(wire[:end]) is None
        else:
            with pytest.raises(ReplayDetected):
                other.accept(wire[:end])
    assert len(salts.seen) == 1


def test_the_filter_is_asked_when_the_first_payload_is_open_and_not_again():
    client, server = pair(cipher_for("aes-128-gcm"), salts := Filter())
    header = encode_address(TARGET)
    wire = client._sealer.first(header[:3])
    for byte in wire[:-1]:
        assert server.accept(bytes((byte,))) is None
        assert salts.seen == []
    assert server.accept(wire[-1:]) is None
    assert len(salts.seen) == 1
    assert server.accept(bytes(client.seal(header[3:] + b"rest"))) == (TARGET, b"rest")
    assert len(salts.seen) == 1


@pytest.mark.parametrize("name", NAMES)
def test_a_servers_own_stream_is_no_request(name):
    """Reflection: a response that spells a request, sent back to the server that made it."""
    cipher, salts = cipher_for(name), Filter()
    client, server = pair(cipher, salts)
    server.accept(client.first(b"hello"))
    response = bytes(server.seal(encode_address(TARGET) + b"GET / HTTP/1.1"))
    _, other = pair(cipher, salts)
    with pytest.raises(ReplayDetected):
        other.accept(response)
    assert salts.seen[1] == salts.seen[2] == response[: cipher.method.salt_size]


@pytest.mark.parametrize("name", NAMES)
def test_a_clients_own_request_is_no_response(name):
    """Reflection the other way: its bytes would open, both directions having the same key."""
    for cut in (1000, 1):
        client, _ = pair(cipher_for(name))
        wire = client.first(b"hello")
        with pytest.raises(ReplayDetected):
            copied(client.open, [wire[start : start + cut] for start in range(0, len(wire), cut)])


@pytest.mark.parametrize("name", NAMES)
def test_a_large_first_payload_continues_in_further_chunks(name):
    payload = os.urandom(100_000)
    client, server = pair(cipher_for(name))
    address, got = server.accept(client.first(memoryview(payload)))
    assert (address, got) == (TARGET, payload)
    client, server = pair(cipher_for(name))
    wire = client.first(payload)
    address, got = server.accept(wire[:20_000])
    assert got == payload[: 0x3FFF - len(encode_address(TARGET))]
    assert got + copied(server.open, [wire[20_000:]]) == payload


def test_address_and_payload_share_the_first_chunk():
    """A header in a chunk of its own would tell; so would a salt that is sent alone."""
    cipher = cipher_for("aes-256-gcm")
    client, _ = pair(cipher)
    assert len(client.first(b"hello")) == 32 + 18 + 7 + 5 + 16
    client, server = pair(cipher)
    server.accept(client.first(b""))
    assert len(server.seal(b"hello")) == 32 + 18 + 5 + 16
    assert len(server.seal(b"hello")) == 18 + 5 + 16


def test_a_server_draws_no_salt_before_it_has_something_to_say():
    cipher = cipher_for("aes-128-gcm")
    client, _ = pair(cipher)
    server = cipher.server_stream(clock=clock, random=Script(), salts=Filter())  # no byte may be drawn
    server.accept(client.first(b"hello"))
    assert len(server.seal(b"")) == 0


def test_an_address_without_wire_form():
    with pytest.raises(BadRequest):
        cipher_for("aes-128-gcm").client_stream(Address("a" * 256, 1), clock=clock, random=os.urandom)
