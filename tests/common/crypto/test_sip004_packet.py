"""SIP004 packets against the vectors, in both roles; replays, reflections, and what must be dropped."""

from __future__ import annotations

import os

import pytest

from common.crypto import METHODS, Cipher, Family
from common.crypto.methods import keys_from_password, ss_subkey
from common.crypto.replay import RecentSalts
from common.crypto.sip004_packet import Sip004ServerPackets
from common.crypto.users import Keyring, User
from common.errors import AuthenticationFailed, BadRequest, ProtocolError, ReplayDetected
from common.proto.address import Address, encode_address
from tests.packets import PEER, client_end, of_user, pair, server_end, with_users
from tests.streams import TARGET, Filter, Script, cipher_for, clock, password_for
from tests.vectors import VECTORS, unhex

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP004]
SHORT = ["aes-128-gcm", "xchacha20-ietf-poly1305"]  # for tests of logic that is the same for all
ADDRESS = encode_address(TARGET)


def vector_id(vector):
    return f"{vector['method']}-{vector['target']}"


def parts_of(vector, key):
    """The address and the payload inside a vector's packet, and the two packets' salt and wire."""
    plain = unhex(vector[key]["plain"])
    host = "127.0.0.1" if key == "udp_response" and vector["target"] == "domain" else vector["target_host"]
    address = Address(host, vector["target_port"])
    return address, plain.removeprefix(encode_address(address)), unhex(vector[key]["salt"])


@pytest.mark.parametrize("vector", VECTORS["sip004"], ids=vector_id)
class TestVectors:
    def cipher(self, vector):
        return Cipher.from_password(vector["method"], vector["password"])

    def test_client_sends_the_request(self, vector):
        target, payload, salt = parts_of(vector, "udp_request")
        client = self.cipher(vector).client_packets(clock=clock, random=Script(salt))
        assert client.seal(target, memoryview(payload)).hex() == vector["udp_request"]["wire"]

    def test_server_answers_it(self, vector):
        source, reply, salt = parts_of(vector, "udp_response")
        cipher = self.cipher(vector)
        server = cipher.server_packets(clock=clock, random=Script(salt), memory=cipher.replay_memory())
        session, target, payload = server.open(memoryview(unhex(vector["udp_request"]["wire"])), PEER)
        assert (target, payload) == parts_of(vector, "udp_request")[:2]
        assert session.user is None
        assert session.seal(source, reply).hex() == vector["udp_response"]["wire"]

    def test_client_takes_the_response(self, vector):
        source, reply, _ = parts_of(vector, "udp_response")
        client = self.cipher(vector).client_packets(clock=clock, random=Script())
        assert client.open(unhex(vector["udp_response"]["wire"])) == (source, reply)


def request(name: str, plain: bytes) -> bytes:
    """A packet with this inside, written out."""
    method = METHODS[name]
    (key,) = keys_from_password(method, password_for(method))
    salt = os.urandom(method.salt_size)
    return salt + method.aead(ss_subkey(key, salt)).encrypt(bytes(method.nonce_size), plain, None)


def server_of(name: str, salts) -> Sip004ServerPackets:
    method = METHODS[name]
    users = tuple(User(method, key) for key in keys_from_password(method, password_for(method)))
    return Sip004ServerPackets(method, Keyring(method, users), clock, Script(), salts)


@pytest.mark.parametrize("name", NAMES)
def test_every_length_and_every_bit(name):
    """K4: cut anywhere, or with any bit flipped, it is dropped, and nothing is remembered of it."""
    wire, salts = request(name, ADDRESS + b"hi"), Filter()
    server = server_of(name, salts)
    for end in range(len(wire)):
        with pytest.raises(AuthenticationFailed):
            server.open(wire[:end], PEER)
    flipped = bytearray(wire)
    for place in range(8 * len(wire)):
        flipped[place // 8] ^= 1 << place % 8
        with pytest.raises(AuthenticationFailed):
            server.open(flipped, PEER)
        flipped[place // 8] ^= 1 << place % 8
    assert salts.seen == []
    assert server.open(wire, PEER)[1:] == (TARGET, b"hi")
    assert salts.seen == [wire[: METHODS[name].salt_size]]


@pytest.mark.parametrize(
    "plain",
    [
        b"\x01\x7f\x00\x00\x01\x00",
        b"\x03\x05abcd\x00\x50",
        b"\x02" + ADDRESS[1:],
        b"\x11" + ADDRESS[1:],  # flags in the type byte are a thing of the past
        b"\x03\x00\x00\x50payload",
        b"\x03\x01\x00\x00\x50payload",
    ],
    ids=bytes.hex,
)
def test_authentic_packets_without_a_usable_address(plain):
    salts = Filter()
    with pytest.raises(ProtocolError):
        server_of("aes-128-gcm", salts).open(request("aes-128-gcm", plain), PEER)
    assert salts.seen == []


@pytest.mark.parametrize("name", SHORT)
@pytest.mark.parametrize("size", range(1, 120))
def test_random_bytes(name, size):
    """K4, W1"""
    client, server = pair(cipher_for(name))
    with pytest.raises(AuthenticationFailed):
        server.open(os.urandom(size), PEER)
    with pytest.raises(AuthenticationFailed):
        client.open(os.urandom(size))


@pytest.mark.parametrize("name", NAMES)
def test_a_replay_is_dropped(name):
    """S9: whoever sends it, at either end."""
    client, server = pair(cipher_for(name))
    wire = bytes(client.seal(TARGET, b"hello"))
    session, _, _ = server.open(wire, PEER)
    for peer in (PEER, ("203.0.113.1", 1)):
        with pytest.raises(ReplayDetected):
            server.open(wire, peer)
    reply = bytes(session.seal(TARGET, b"hello"))
    assert client.open(reply) == (TARGET, b"hello")
    with pytest.raises(ReplayDetected):
        client.open(reply)


@pytest.mark.parametrize("name", NAMES)
def test_what_one_sent_is_not_for_oneself(name):
    """Reflection: a packet either way looks the same, so both ends know their own salts."""
    client, server = pair(cipher_for(name))
    request = bytes(client.seal(TARGET, b"hello"))
    with pytest.raises(ReplayDetected):
        client.open(request)
    session, _, _ = server.open(request, PEER)
    with pytest.raises(ReplayDetected):
        server.open(bytes(session.seal(TARGET, b"hello")), PEER)


def test_associations_share_what_they_have_seen():
    """A response replayed into another association of the same server is dropped there too."""
    cipher = cipher_for("aes-128-gcm")
    one, other, server = client_end(cipher), client_end(cipher), server_end(cipher)
    session, _, _ = server.open(one.seal(TARGET, b""), PEER)
    reply = bytes(session.seal(TARGET, b"hello"))
    assert one.open(reply) == (TARGET, b"hello")
    for association in (one, other):
        with pytest.raises(ReplayDetected):
            association.open(reply)


def test_salts_are_bounded():
    salts = RecentSalts(capacity=10)
    server = server_of("aes-128-gcm", salts)
    wires = [request("aes-128-gcm", ADDRESS) for _ in range(100)]
    for wire in wires:
        server.open(wire, PEER)
        with pytest.raises(ReplayDetected):
            server.open(wire, PEER)
    assert sum(map(len, salts._generations)) <= 20


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 1200, 65_507])
def test_overhead_and_sizes(name, size):
    client, server = pair(cipher_for(name))
    payload = os.urandom(size)
    wire = client.seal(TARGET, payload)
    assert len(wire) == METHODS[name].salt_size + len(ADDRESS) + size + 16
    _, target, got = server.open(wire, PEER)
    assert (target, got) == (TARGET, payload)


def test_sessions_are_client_addresses():
    """Equal keys, interchangeable sessions; nothing is kept, so nothing has to be forgotten."""
    client, server = pair(cipher_for("aes-128-gcm"))
    here = [server.open(client.seal(TARGET, b""), PEER)[0] for _ in range(2)]
    there, _, _ = server.open(client.seal(TARGET, b""), (PEER[0], PEER[1] + 1))
    assert here[0].key == here[1].key != there.key
    assert hash(here[0].key) == hash(here[1].key)
    server.forget(here[0])
    server.forget(here[0])
    assert client.open(here[0].seal(TARGET, b"x")) == (TARGET, b"x")
    assert server.open(client.seal(TARGET, b""), PEER)[0].key == here[0].key


@pytest.mark.parametrize("name", NAMES)
def test_users_are_told_apart(name):
    method = METHODS[name]
    server = server_end(with_users(method, 3))
    clients = {f"u{n}": client_end(of_user(method, n)) for n in (3, 1, 2)}
    sessions = {}
    for user, client in clients.items():
        session, target, payload = server.open(client.seal(TARGET, user.encode()), PEER)
        assert (session.user, target, payload) == (user, TARGET, user.encode())
        sessions[user] = session
    assert len({session.key for session in sessions.values()}) == 3  # though they share an address
    for user, client in clients.items():
        assert client.open(sessions[user].seal(TARGET, b"for you")) == (TARGET, b"for you")
        for other in clients.keys() - {user}:
            with pytest.raises(AuthenticationFailed):
                client.open(sessions[other].seal(TARGET, b"not for you"))
    stranger = client_end(of_user(method, 4))
    with pytest.raises(AuthenticationFailed):
        server.open(stranger.seal(TARGET, b""), PEER)


def test_a_replay_does_not_change_the_order_of_users():
    cipher = with_users(METHODS["aes-128-gcm"], 3)
    server = server_end(cipher)
    clients = [client_end(of_user(METHODS["aes-128-gcm"], n)) for n in (1, 2)]
    wires = [client.seal(TARGET, b"") for client in clients]
    for wire in wires:
        server.open(wire, PEER)
    order = [user.name for user in cipher._keyring._recent]
    assert order[-2:] == ["u1", "u2"]
    with pytest.raises(ReplayDetected):
        server.open(wires[0], ("203.0.113.1", 1))
    assert [user.name for user in cipher._keyring._recent] == order
    assert list(cipher._keyring._newer) == [PEER[0]]


def test_an_address_without_wire_form_uses_no_salt():
    client = cipher_for("aes-128-gcm").client_packets(clock=clock, random=Script())
    with pytest.raises(BadRequest):
        client.seal(Address("n" * 256, 1), b"")
