"""Both ends of SIP022 packets: the vectors, and everything that must be dropped without a trace.

Sessions that come, move, expire and return, and their users, are ``test_ss2022_session_life``'s.
"""

from __future__ import annotations

import os
from itertools import pairwise

import pytest

from common.crypto import METHODS, Cipher, Family
from common.crypto import ss2022_session as session_module
from common.crypto.ss2022_packet import MAX_PADDED_SIZE, new_form
from common.errors import AuthenticationFailed, BadRequest, ProtocolError, ReplayDetected
from common.proto.address import Address
from tests.packets import (
    ADDRESS,
    PEER,
    SESSION,
    client_end,
    of_user,
    pair,
    relayed_packet,
    request,
    response,
    server_end,
    with_users,
)
from tests.streams import NOW, TARGET, Script, cipher_for, clock
from tests.vectors import VECTORS, unhex

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP022]
AES_NAMES = [name for name in NAMES if METHODS[name].has_identity]
NAME = "2022-blake3-aes-128-gcm"  # for tests of logic that is the same for all
ELSEWHERE = ("203.0.113.77", 9)
DNS = Address("192.0.2.53", 53)


def vector_id(vector):
    return "-".join(vector[key] for key in ("method", "chain", "case", "name") if key in vector)


def address_of(vector):
    return Address(vector["target_host"], vector["target_port"])


@pytest.mark.parametrize("vector", VECTORS["sip022_udp"], ids=vector_id)
class TestVectors:
    def nonces(self, vector, side):
        return [unhex(vector[side]["nonce"])] if "separate_header_plain" not in vector[side] else []

    def client(self, vector, *random):
        cipher = Cipher.from_password(vector["method"], vector["config_password"])
        script = Script(unhex(vector["client_session_id"]), *random)
        client = cipher.client_packets(clock=clock, random=script)
        client._sender._next = vector["packet_id"]
        return client

    def server(self, vector, *random):
        """The last server of the chain: with users if there is one, alone if not."""
        method, ipsks = METHODS[vector["method"]], [unhex(key) for key in vector["ipsks"]]
        upsk = unhex(vector["upsk"])
        cipher = Cipher(method, (ipsks[-1],), (("alice", upsk),)) if ipsks else Cipher(method, (upsk,))
        return cipher.server_packets(clock=clock, random=Script(*random), memory=cipher.replay_memory())

    def request(self, vector):
        """The request as it reaches that server: the relays before it took their identity headers off."""
        keys, wire = [unhex(key) for key in vector["ipsks"]], unhex(vector["request"]["wire"])
        for key, following in pairwise(keys):
            wire = relayed_packet(wire, key, following)
        return wire

    def source(self, vector):
        return Address("127.0.0.1", vector["target_port"])

    def test_client_sends_the_request(self, vector):
        """Padded packets, which it sends to no such port, are test_ss2022_packet's."""
        client = self.client(vector, *self.nonces(vector, "request"))
        wire = client.seal(address_of(vector), memoryview(unhex(vector["payload"])))
        if vector["padding"]:
            assert len(wire) == len(unhex(vector["request"]["wire"])) - len(unhex(vector["padding"]))
        else:
            assert wire.hex() == vector["request"]["wire"]

    def test_server_answers_it(self, vector):
        server = self.server(vector, unhex(vector["server_session_id"]), *self.nonces(vector, "response"))
        session, target, payload = server.open(memoryview(self.request(vector)), PEER)
        assert (target, payload) == (address_of(vector), unhex(vector["payload"]))
        assert session.user == ("alice" if vector["ipsks"] else None)
        assert session.key == unhex(vector["client_session_id"])
        session._sender._next = vector["packet_id"]
        wire = session.seal(self.source(vector), memoryview(unhex(vector["payload"])))
        if vector["padding"]:
            assert len(wire) == len(unhex(vector["response"]["wire"])) - len(unhex(vector["padding"]))
        else:
            assert wire.hex() == vector["response"]["wire"]

    def test_client_takes_the_response(self, vector):
        client, wire = self.client(vector), unhex(vector["response"]["wire"])
        assert client.open(memoryview(wire)) == (self.source(vector), unhex(vector["payload"]))
        with pytest.raises(ReplayDetected):
            client.open(wire)

    def test_a_request_is_taken_once(self, vector):
        server, wire = self.server(vector, unhex(vector["server_session_id"])), self.request(vector)
        server.open(wire, PEER)
        with pytest.raises(ReplayDetected):
            server.open(wire, PEER)


@pytest.mark.parametrize("vector", VECTORS["sip022_udp_negative"], ids=vector_id)
def test_negative_vectors(vector):
    assert vector["now"] == NOW
    cipher = Cipher(METHODS[vector["method"]], (unhex(vector["upsk"]),))
    wire, accepted = unhex(vector["wire"]), vector["expect"].startswith("accept")
    if vector["name"].startswith("to client"):
        client = cipher.client_packets(clock=clock, random=Script(unhex(vector["client_session_id"])))
        if accepted:
            assert client.open(wire)[0].port == 18007
            return
        with pytest.raises(ProtocolError):
            client.open(wire)
        assert client._current is None
        return
    server = server_end(cipher)
    if accepted:
        session, target, payload = server.open(wire, PEER)
        assert target == Address("127.0.0.1", 18007)
        assert (payload == b"") is ("empty payload" in vector["name"])
        assert session.key == unhex(vector["client_session_id"])
        return
    with pytest.raises(ProtocolError):
        server.open(wire, PEER)
    assert not server._sessions
    # Nor is the packet id used up in a session that is there.
    client = cipher.client_packets(clock=clock, random=lambda n: unhex(vector["client_session_id"])[:n])
    header, _ = new_form(cipher.method, (unhex(vector["upsk"]),)).split(wire)
    packet_id = int.from_bytes(header[8:], "big")
    client._sender._next = packet_id + 5
    session, _, _ = server.open(_seal_as(client, os.urandom), PEER)
    before = session.client.window._last, session.client.window._seen
    with pytest.raises(ProtocolError):
        server.open(wire, PEER)
    assert (session.client.window._last, session.client.window._seen) == before
    client._sender._next = packet_id
    assert server.open(_seal_as(client, os.urandom), PEER)[0] is session


def _seal_as(client, random):
    client._sender._random = random  # of the nonce
    return client.seal(TARGET, b"")


# -- packets that must be dropped ---------------------------------------------------------------------

WRONG_REQUESTS = {
    "type 1": {"kind": 1},
    "too early": {"time": int(NOW) - 31},
    "too late": {"time": int(NOW) + 31},
    "padding too long": {"padding_size": 500},
    "bad address type": {"rest": b"\x02" + ADDRESS[1:]},
    "address cut short": {"rest": ADDRESS[:-1]},
    "no address": {"rest": b""},
}


@pytest.mark.parametrize("wrong", WRONG_REQUESTS)
@pytest.mark.parametrize("name", NAMES)
def test_authentic_packets_that_are_wrong_leave_nothing_behind(name, wrong):
    server = server_end(cipher_for(name))
    bad = request(name, 7, **WRONG_REQUESTS[wrong])
    with pytest.raises(ProtocolError):
        server.open(bad, PEER)
    assert not server._sessions
    session, _, _ = server.open(request(name, 5), PEER)
    with pytest.raises(ProtocolError):
        server.open(bad, PEER)
    assert server.open(request(name, 7), PEER) == (session, TARGET, b"hello")  # the id was still free
    assert list(server._sessions) == [SESSION]


@pytest.mark.parametrize("name", NAMES)
def test_every_length_and_every_bit(name):
    """K4: before there is a session, and when there is one."""
    server, wire = server_end(cipher_for(name)), bytearray(request(name, 3, rest=ADDRESS + b"hi"))
    for sessions in (0, 1):
        for end in range(len(wire)):
            with pytest.raises(AuthenticationFailed):
                server.open(wire[:end], PEER)
        for place in range(8 * len(wire)):
            wire[place // 8] ^= 1 << place % 8
            with pytest.raises(AuthenticationFailed):
                server.open(bytes(wire), PEER)
            wire[place // 8] ^= 1 << place % 8
        assert len(server._sessions) == sessions
        assert server.open(request(name, 2 + sessions), PEER)[1] == TARGET  # id 3 when all is done


@pytest.mark.parametrize("name", AES_NAMES)
def test_every_length_and_every_bit_with_users(name):
    """The identity header is one region more; what it names must hold the key of the body."""
    method = METHODS[name]
    server, client = server_end(with_users(method, 3)), client_end(of_user(method, 2))
    wire = bytearray(client.seal(TARGET, b"hi"))
    for end in range(len(wire)):
        with pytest.raises(AuthenticationFailed):
            server.open(wire[:end], PEER)
    for place in range(8 * len(wire)):
        wire[place // 8] ^= 1 << place % 8
        with pytest.raises(AuthenticationFailed):
            server.open(bytes(wire), PEER)
        wire[place // 8] ^= 1 << place % 8
    assert not server._sessions
    assert server.open(wire, PEER)[0].user == "u2"


@pytest.mark.parametrize("name", NAMES)
def test_every_length_and_every_bit_of_a_response(name):
    client = client_end(cipher_for(name))
    for number in (3, 4):
        wire = bytearray(response(name, client, number))
        known = client._current
        for end in range(len(wire)):
            with pytest.raises(AuthenticationFailed):
                client.open(wire[:end])
        for place in range(8 * len(wire)):
            wire[place // 8] ^= 1 << place % 8
            with pytest.raises(AuthenticationFailed):
                client.open(bytes(wire))
            wire[place // 8] ^= 1 << place % 8
        assert client._current is known
        assert client.open(wire) == (TARGET, b"hello")


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", range(1, 160, 3))
def test_random_bytes(name, size):
    """K4, W1"""
    client, server = pair(cipher_for(name))
    with pytest.raises(AuthenticationFailed):
        server.open(os.urandom(size), PEER)
    with pytest.raises(AuthenticationFailed):
        client.open(os.urandom(size))
    assert not server._sessions


@pytest.mark.parametrize("name", NAMES)
def test_the_window_of_a_session(name):
    vector, server = VECTORS["sliding_window"], server_end(cipher_for(name))
    session, _, _ = server.open(request(name), PEER)
    session.client.window = session_module.SlidingWindow(vector["window"])
    for packet_id, accepted in vector["sequence"]:
        if accepted:
            assert server.open(request(name, packet_id), PEER)[0] is session
        else:
            with pytest.raises(ReplayDetected, match="packet id"):
                server.open(request(name, packet_id), PEER)


@pytest.mark.parametrize("name", NAMES)
def test_the_window_of_a_client(name):
    client = client_end(cipher_for(name))
    for packet_id in (5, 3, 4, 1000, 999):
        assert client.open(response(name, client, packet_id)) == (TARGET, b"hello")
        with pytest.raises(ReplayDetected):
            client.open(response(name, client, packet_id))
    for packet_id, wrong in ((998, {"time": 0}), (997, {"kind": 0}), (996, {"answers": b"somebody"})):
        with pytest.raises(AuthenticationFailed):
            client.open(response(name, client, packet_id, **wrong))
        assert client.open(response(name, client, packet_id)) == (TARGET, b"hello")


@pytest.mark.parametrize("name", NAMES)
def test_what_one_sent_is_not_for_oneself(name):
    client, server = pair(cipher_for(name))
    wire = client.seal(TARGET, b"hello")
    with pytest.raises(AuthenticationFailed):
        client.open(wire)
    session, _, _ = server.open(wire, PEER)
    with pytest.raises(AuthenticationFailed):
        server.open(session.seal(TARGET, b"hello"), PEER)
    assert list(server._sessions) == [session.key]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [0, 1, 1200, 65_507])
def test_sizes(name, size):
    client, server = pair(cipher_for(name))
    payload = os.urandom(size)
    wire = client.seal(TARGET, payload)
    extra = 16 + 24 if "chacha" in name else 16
    assert len(wire) == extra + 11 + len(ADDRESS) + size + 16
    session, target, got = server.open(wire, PEER)
    assert (target, got) == (TARGET, payload)
    reply = session.seal(TARGET, payload)
    assert len(reply) == len(wire) + 8
    assert client.open(reply) == (TARGET, payload)


@pytest.mark.parametrize("name", NAMES)
def test_dns_is_padded_both_ways(name):
    client, server = pair(cipher_for(name))
    sizes, reply_sizes = set(), set()
    for _ in range(40):
        wire = client.seal(DNS, b"question")
        session, target, payload = server.open(wire, PEER)
        reply = session.seal(DNS, b"answer")
        assert (target, payload) == (DNS, b"question")
        assert client.open(reply) == (DNS, b"answer")
        sizes.add(len(wire))
        reply_sizes.add(len(reply))
    for seen in (sizes, reply_sizes):
        assert len(seen) > 20
        assert max(seen) <= MAX_PADDED_SIZE


def test_an_address_without_wire_form_uses_no_packet_id():
    client = client_end(cipher_for(NAME))
    with pytest.raises(BadRequest):
        client.seal(Address("n" * 256, 1), b"")
    assert client._sender._next == 0
