"""SIP022 responses: every check of a client on the way in, and what a server must put into one."""

from __future__ import annotations

import os
import struct

import pytest

from common.crypto import METHODS, Family
from common.crypto.methods import keys_from_password, session_subkey
from common.errors import AuthenticationFailed, ReplayDetected, Truncated
from tests.streams import NOW, TARGET, Script, cipher_for, clock, copied, pair, password_for
from tests.wire import pieces

NAMES = [name for name, method in METHODS.items() if method.family is Family.SIP022]
NAME = "2022-blake3-aes-128-gcm"  # for tests of logic that is the same for all


def asked(name: str = NAME):
    """A client that has sent its request, and that request; the same ones every time."""
    client = cipher_for(name).client_stream(TARGET, clock=clock, random=bytes)
    return client, client.first(b"hello")


def response(
    wire: bytes, chunks: list[bytes], *, name: str = NAME, kind: int = 1, time: int = int(NOW), salt=None
) -> bytes:
    """The response to the request in ``wire``, written out."""
    method = METHODS[name]
    (psk,) = keys_from_password(method, password_for(method))
    own = b"\x11" * method.salt_size
    aead, out = method.aead(session_subkey(psk, own)), own
    prefix = struct.pack(">BQ", kind, time) + (salt or wire[: method.salt_size])
    for number, chunk in enumerate(chunks):
        length = (b"" if number else prefix) + len(chunk).to_bytes(2, "big")
        out += aead.encrypt((2 * number).to_bytes(12, "little"), length, None)
        out += aead.encrypt((2 * number + 1).to_bytes(12, "little"), chunk, None)
    return out


@pytest.mark.parametrize("name", NAMES)
def test_responses_come_in_any_pieces(name):
    """A server's first read is judged by its size; a client's never is."""
    _, wire = asked(name)
    for parts in pieces(response(wire, [b"first", b"second"], name=name)):
        client, _ = asked(name)
        assert copied(client.open, parts) == b"firstsecond"
        client.eof()


def test_an_end_before_the_response_is_clean():
    """A server has nothing to send until the target speaks; if that never does, it just closes."""
    _, wire = asked()
    answer = response(wire, [b"first", b"second"])
    for end in range(len(answer) + 1):
        client, _ = asked()
        client.open(answer[:end])
        if end in (0, 59 + 5 + 16, len(answer)):
            client.eof()
        else:
            with pytest.raises(Truncated):
                client.eof()


def test_an_empty_first_payload_is_let_pass():
    """Nobody should send one (SIP022 3.1.3); to take it costs nothing."""
    client, wire = asked()
    assert bytes(client.open(response(wire, [b"", b"second"]))) == b"second"


@pytest.mark.parametrize("skew", [-30, 30])
def test_a_response_within_30_seconds(skew):
    client, wire = asked()
    assert bytes(client.open(response(wire, [b"first"], time=int(NOW) + skew))) == b"first"


@pytest.mark.parametrize("time", [int(NOW) - 31, int(NOW) + 31, 2**63 + int(NOW)])
def test_a_response_of_another_time(time):
    client, wire = asked()
    with pytest.raises(ReplayDetected):
        client.open(response(wire, [b"first"], time=time))


@pytest.mark.parametrize("kind", [0, 2, 255])
def test_a_response_of_another_type(kind):
    client, wire = asked()
    with pytest.raises(AuthenticationFailed, match="type of fixed header: expected 1"):
        client.open(response(wire, [b"first"], kind=kind))


@pytest.mark.parametrize("change", [-1, 1])
@pytest.mark.parametrize("place", [0, 7, 15])
def test_a_response_to_another_request(place, change):
    """Every byte counts, smaller and larger ones alike."""
    client, wire = asked()
    salt = bytearray(wire[:16])
    salt[place] = (salt[place] + change) % 256
    with pytest.raises(AuthenticationFailed, match="another request"):
        client.open(response(wire, [b"first"], salt=bytes(salt)))


@pytest.mark.parametrize("name", NAMES)
def test_a_reflected_request_is_no_response(name):
    client, wire = asked(name)
    with pytest.raises(AuthenticationFailed):
        client.open(wire * 2)  # once is too short to be judged


@pytest.mark.parametrize("name", NAMES)
def test_a_reflected_response_is_no_request(name):
    _, wire = asked(name)
    with pytest.raises(AuthenticationFailed):
        pair(cipher_for(name))[1].accept(response(wire, [b"first" * 10], name=name))


def test_flipped_bits_in_a_response():
    _, wire = asked()
    answer = bytearray(response(wire, [b"hi"]))
    for place in range(8 * len(answer)):
        client, _ = asked()
        answer[place // 8] ^= 1 << place % 8
        with pytest.raises(AuthenticationFailed):
            client.open(bytes(answer))
        answer[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize("name", NAMES)
def test_a_server_says_nothing_before_the_target_does(name):
    """And reads the time, and draws the salt, when it does."""
    now, drawn = [NOW], Script()
    cipher = cipher_for(name)
    client, wire = asked(name)
    server = cipher.server_stream(clock=lambda: now[0], random=drawn, salts=cipher.replay_memory().streams)
    server.accept(wire)
    assert len(server.seal(b"")) == 0
    now[0] += 1000
    drawn.parts.append(bytes(cipher.method.salt_size))
    answer = bytes(server.seal(b"hello"))
    assert len(answer) == 2 * cipher.method.salt_size + 11 + 16 + 5 + 16
    with pytest.raises(ReplayDetected, match=r"got \+1000 s"):
        client.open(answer)


@pytest.mark.parametrize("name", NAMES)
def test_a_large_first_answer(name):
    client, server = pair(cipher_for(name))
    server.accept(client.first(b"hello"))
    data = os.urandom(600_000)
    answer = bytes(server.seal(memoryview(data)))
    assert copied(client.open, [answer[:100_000], answer[100_000:]]) == data
