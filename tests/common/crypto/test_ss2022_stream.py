"""SIP022 streams against the vectors, both ends in both roles.

Check by check they are tested in ``test_ss2022_request`` and ``test_ss2022_response``.
"""

from __future__ import annotations

import pytest

from common.crypto import METHODS, Cipher
from common.errors import AuthenticationFailed, ProtocolError, ReplayDetected
from common.proto.address import Address
from tests.streams import NOW, Accepting, Filter, Script, clock, copied
from tests.vectors import VECTORS, unhex
from tests.wire import every_way, pieces


def vector_id(vector):
    return "-".join(vector[key] for key in ("method", "chain", "case", "name") if key in vector)


def address_of(vector):
    return Address(vector["target_host"], vector["target_port"])


def draw_for(size: int, payload_size: int) -> bytes:
    """The four random bytes that make the client choose ``size`` bytes of padding."""
    return (size if payload_size else size - 1).to_bytes(4, "big")


def client_of(vector):
    """A client that draws what the vector's drew."""
    padding, payload = unhex(vector["padding"]), unhex(vector["initial_payload"])
    draws = [draw_for(len(padding), len(payload))] if len(payload) < 900 else []
    script = Script(unhex(vector["request"]["salt"]), *draws, padding)
    cipher = Cipher.from_password(vector["method"], vector["config_password"])
    return cipher.client_stream(address_of(vector), clock=clock, random=script)


def server_of(vector, *random, salts=None, segmented=True):
    """The last server of the chain: with users if there is one, with the user's key alone if not."""
    method, upsk = METHODS[vector["method"]], unhex(vector["upsk"])
    cipher = Cipher(method, (upsk,))
    if vector.get("ipsks"):
        users = (("bob", bytes(method.key_size)), ("alice", upsk))
        cipher = Cipher(method, (unhex(vector["ipsks"][-1]),), users)
    return cipher.server_stream(
        clock=clock, random=Script(*random), salts=salts or Filter(), segmented=segmented
    )


def behind_relays(vector):
    """The request as it reaches that server: each relay before it took its block off."""
    wire, salt_size = unhex(vector["request"]["wire"]), METHODS[vector["method"]].salt_size
    return wire[:salt_size] + wire[salt_size + 16 * max(0, len(vector["ipsks"]) - 1) :]


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp"], ids=vector_id)
class TestVectors:
    def test_client_sends_the_request(self, vector):
        """With none, one and two identity headers, byte for byte."""
        request, client = vector["request"], client_of(vector)
        assert client.first(unhex(vector["initial_payload"])).hex() == request["wire_chunks"][0]
        assert bytes(client.seal(unhex(request["second_chunk_plain"]))).hex() == request["wire_chunks"][1]

    def test_server_takes_the_request(self, vector):
        request, expected = vector["request"], (address_of(vector), unhex(vector["initial_payload"]))
        second = unhex(request["second_chunk_plain"])
        wire = behind_relays(vector)
        first = wire[: -len(unhex(request["wire_chunks"][1]))]
        outcome = every_way(lambda: Accepting(server_of(vector)), first, trailing=b"")
        assert (outcome.result, outcome.rest) == expected
        assert server_of(vector, segmented=False).accept(wire) == (expected[0], expected[1] + second)
        for parts in pieces(wire[len(first) :]):
            server = server_of(vector, segmented=False)
            assert server.user is None
            assert server.accept(first) == expected
            assert server.user == ("alice" if vector["ipsks"] else None)
            assert copied(server.open, parts) == second
            server.eof()

    def test_server_sends_the_response(self, vector):
        response = vector["response"]
        server = server_of(vector, unhex(response["salt"]))
        server.accept(behind_relays(vector))
        payloads = unhex(response["first_payload"]), unhex(response["second_payload"])
        assert [bytes(server.seal(payload)).hex() for payload in payloads] == response["wire_chunks"]

    def test_client_takes_the_response(self, vector):
        response = vector["response"]
        for parts in pieces(unhex(response["wire"])):
            client = client_of(vector)
            assert copied(client.open, parts) == unhex(response["first_payload"] + response["second_payload"])
            client.eof()


NEGATIVE = {
    "baseline": None,
    "time +30": None,
    "time -30": None,
    "padding 901 bytes": None,  # nobody may send it, everybody takes it
    "replay of baseline": None,  # the first time; see test_replay_vectors
    "time +31": ReplayDetected,
    "time -31": ReplayDetected,
    "time with top bit set": ReplayDetected,
    "type 1 (reflection)": AuthenticationFailed,
    "type 2": AuthenticationFailed,
    "no padding and no payload": AuthenticationFailed,
    "padding length beyond chunk": AuthenticationFailed,
    "padding length field missing": AuthenticationFailed,
    "bad ATYP": ProtocolError,
    "flip in salt": AuthenticationFailed,
    "flip in fixed header tag": AuthenticationFailed,
    "flip in last tag": AuthenticationFailed,
}


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp_negative"], ids=vector_id)
def test_negative_vectors(vector):
    assert vector["now"] == NOW
    error = NEGATIVE[vector["name"]]
    wire = unhex(vector["wire"])
    outcome = every_way(lambda: Accepting(server_of(vector)), wire, trailing=b"")
    if error is None:
        assert outcome.error is None
        assert outcome.result == Address("127.0.0.1", 18007)
    else:
        assert isinstance(outcome.error, error)
        assert outcome.result is None
    strict = server_of(vector, segmented=False)
    if error is None:
        assert strict.accept(wire) == (outcome.result, outcome.rest)
    else:
        with pytest.raises(error):
            strict.accept(wire)


@pytest.mark.parametrize("vector", VECTORS["sip022_tcp_negative"], ids=vector_id)
def test_replay_vectors(vector):
    """S9, W28: what was accepted once is not accepted again, and only what passed is remembered."""
    salts, wire = Filter(), unhex(vector["wire"])
    early = vector["name"].startswith(("time", "type", "flip in salt", "flip in fixed"))
    if early and NEGATIVE[vector["name"]]:
        with pytest.raises(ProtocolError):
            server_of(vector, salts=salts).accept(wire)
        assert salts.seen == []
        return
    outcome = Accepting(server_of(vector, salts=salts))
    if NEGATIVE[vector["name"]] is None:
        assert outcome.feed(wire)
    else:  # a good fixed header, so the salt is used up, whatever follows
        with pytest.raises(ProtocolError):
            outcome.feed(wire)
    assert salts.seen == [wire[: METHODS[vector["method"]].salt_size]]
    with pytest.raises(ReplayDetected):
        server_of(vector, salts=salts).accept(wire)
