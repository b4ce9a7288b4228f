"""Packets of every method, both ends against each other, and against what no end has sent."""

from __future__ import annotations

import gc
import os
import random
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto import METHODS, Cipher, Family, generate_password
from common.errors import ProtocolError
from common.proto.address import Address
from tests.packets import PEER, client_end, of_user, pair, server_end, with_users
from tests.strangers import strange_datagram
from tests.streams import AEAD_NAMES, METHOD_NAMES, TARGET, cipher_for
from tests.streams import pair as stream_pair
from tests.wire import damaged, splice

USER_NAMES = [n for n, m in METHODS.items() if m.has_identity or m.family is Family.SIP004]
DATAGRAMS = 12_500  # of the fuzz, for each of eight methods and either end
WARM = 500  # before what is there is counted
ADDRESSES = st.one_of(
    st.just(TARGET),
    st.just(Address("2001:db8::7", 53)),
    st.from_regex(r"[a-z]{1,60}\.example", fullmatch=True).map(lambda host: Address(host, 65535)),
)
EXCHANGES = st.lists(
    st.tuples(st.integers(0, 2), ADDRESSES, st.binary(max_size=2000), st.booleans()), max_size=12
)


@settings(max_examples=80, deadline=None)
@given(name=st.sampled_from(METHOD_NAMES), exchanges=EXCHANGES, seed=st.integers(0, 1000))
def test_both_ends_understand_each_other(name, exchanges, seed):
    """Three clients at one port, answers or none, and the network shuffles what is under way."""
    cipher, rng = cipher_for(name), random.Random(seed)
    server, clients = server_end(cipher), [client_end(cipher) for _ in range(3)]
    wires = [
        (number, target, payload, answered, bytes(clients[number].seal(target, payload)))
        for number, target, payload, answered in exchanges
    ]
    rng.shuffle(wires)
    replies = []
    for number, target, payload, answered, wire in wires:
        session, *found = server.open(wire, (PEER[0], number))
        assert found == [target, payload]
        if answered:
            replies.append((number, target, payload[::-1], bytes(session.seal(target, payload[::-1]))))
    rng.shuffle(replies)
    for number, source, payload, wire in replies:
        assert clients[number].open(wire) == (source, payload)


@pytest.mark.parametrize("kind", [bytes, bytearray, lambda data: memoryview(bytearray(data))])
@pytest.mark.parametrize("name", METHOD_NAMES)
def test_any_kind_of_buffer(name, kind):
    """And none that was given is held on to: a relay's scratch is written over at once."""
    client, server = pair(cipher_for(name))
    for number in range(3):
        payload, wire = kind(b"request %d" % number), None
        wire = kind(client.seal(TARGET, payload))
        session, target, got = server.open(wire, PEER)
        reply = kind(session.seal(TARGET, kind(b"reply %d" % number)))
        source, answer = client.open(reply)
        if kind is not bytes:
            for buffer in (payload, wire, reply):
                buffer[:] = b"\xdb" * len(buffer)
        assert (target, got) == (TARGET, b"request %d" % number)
        assert (source, answer) == (TARGET, b"reply %d" % number)


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("size", [0, 65_507])
def test_the_smallest_and_the_largest(name, size):
    """W34: a datagram without payload is one."""
    client, server = pair(cipher_for(name))
    payload = os.urandom(size)
    session, *found = server.open(client.seal(TARGET, payload), PEER)
    assert found == [TARGET, payload]
    assert client.open(session.seal(TARGET, payload)) == (TARGET, payload)


@pytest.mark.parametrize("name", AEAD_NAMES)
def test_another_password_is_refused(name):
    other = Cipher.from_password(name, generate_password(METHODS[name], os.urandom))
    client, server = pair(cipher_for(name))
    stranger, far = pair(other)
    with pytest.raises(ProtocolError):
        server.open(stranger.seal(TARGET, b"hello"), PEER)
    session, _, _ = far.open(stranger.seal(TARGET, b"hello"), PEER)
    with pytest.raises(ProtocolError):
        client.open(session.seal(TARGET, b"hello"))


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_another_method_is_refused(name):
    for other in METHOD_NAMES:
        if other == name:
            continue
        wire = bytes(client_end(cipher_for(name)).seal(TARGET, b"hello" * 20))
        if other == "none":
            wire = b"\x00" + wire[1:]  # it takes whatever begins like an address
        with pytest.raises(ProtocolError):
            server_end(cipher_for(other)).open(wire, PEER)


@pytest.mark.parametrize("name", AEAD_NAMES)
def test_a_stream_is_no_packet_and_a_packet_no_stream(name):
    """Both have the same keys in SIP004. What is authentic as one is too short, or too long, as the other."""
    cipher = cipher_for(name)
    client, server = stream_pair(cipher)
    flight = client.first(b"hello" * 10)
    for end in range(len(flight) + 1):
        with pytest.raises(ProtocolError):
            server_end(cipher).open(flight[:end], PEER)
    with pytest.raises(ProtocolError):
        server.accept(client_end(cipher).seal(TARGET, b"hello" * 10))


# -- fuzz --------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("name", AEAD_NAMES)
def test_strange_datagrams_are_dropped_and_leave_nothing(name):
    """100,000 to each end over all methods: no session, no salt, no object, no packet id used up."""
    rng, cipher = random.Random(name), cipher_for(name)
    client, server = pair(cipher)
    if name in USER_NAMES:
        server, client = server_end(with_users(METHODS[name], 3)), client_end(of_user(METHODS[name], 2))
    used = [bytes(client.seal(TARGET, b"old")) for _ in range(20)]
    good = [bytes(client.seal(TARGET, rng.randbytes(rng.randrange(60)))) for _ in range(20)]
    sessions = [server.open(wire, PEER)[0] for wire in used]
    session = sessions[0]
    used_replies = [bytes(session.seal(TARGET, b"old")) for _ in range(20)]
    replies = [bytes(session.seal(TARGET, rng.randbytes(rng.randrange(60)))) for _ in range(20)]
    for wire in used_replies:
        client.open(wire)
    before = left_by(server)
    for _ in range(WARM):
        offer(server, strange_datagram(rng, good))
        offer(client, strange_datagram(rng, replies))
    gc.collect()
    objects, blocks = len(gc.get_objects()), sys.getallocatedblocks()
    for _ in range(DATAGRAMS):
        offer(server, rng.choice(used) if rng.random() < 0.1 else strange_datagram(rng, good))
        offer(client, rng.choice(used_replies) if rng.random() < 0.1 else strange_datagram(rng, replies))
    gc.collect()
    assert len(gc.get_objects()) - objects < 50
    assert sys.getallocatedblocks() - blocks < 500
    assert left_by(server) == before
    assert [server.open(wire, PEER)[1] for wire in good] == [TARGET] * 20  # none of them was used up
    assert [client.open(wire)[0] for wire in replies] == [TARGET] * 20


def offer(end, wire):
    """An end refuses ``wire``, in the way that it may."""
    with pytest.raises(ProtocolError):
        end.open(wire, PEER) if hasattr(end, "forget") else end.open(wire)


def left_by(server):
    """How many sessions or salts a server's end remembers."""
    if hasattr(server, "_sessions"):
        return len(server._sessions), len(server._sessions.lapsed)
    return [len(generation) for generation in server._salts._generations]


@settings(max_examples=300, deadline=None)
@given(
    name=st.sampled_from(AEAD_NAMES),
    payload=st.binary(max_size=60),
    at=st.integers(0, 1 << 16),
    size=st.integers(0, 40),
    new=st.binary(max_size=40) | st.just(bytes(300)),
)
def test_a_damaged_packet_begins_nothing(name, payload, at, size, new):
    """At a server that knows nobody yet: no session, no salt; and the whole one is good afterwards."""
    cipher = cipher_for(name)
    client, server = pair(cipher)
    wire, before = bytes(client.seal(TARGET, payload)), left_by(server_end(cipher))
    broken = splice(wire, at, size, new)
    if broken != wire:
        offer(server, broken)
        assert left_by(server) == before
    assert server.open(wire, PEER)[1:] == (TARGET, payload)
    assert left_by(server) != before


@settings(max_examples=300, deadline=None)
@given(name=st.sampled_from(METHOD_NAMES), data=st.binary(max_size=100), inside=damaged(st.just(b"\x01")))
def test_any_datagram_is_opened_or_refused(name, data, inside):
    """``none`` as well, of which much can be opened."""
    client, server = pair(cipher_for(name))
    for text in (data, inside):
        for end in (lambda text=text: server.open(text, PEER), lambda text=text: client.open(text)):
            try:
                end()
            except ProtocolError:
                continue
            assert name == "none"


# -- the rest ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_both_ends_are_freed_by_refcount(name):
    cipher = cipher_for(name)
    client, server = pair(cipher)
    session, _, _ = server.open(client.seal(TARGET, b"hello"), PEER)
    client.open(session.seal(TARGET, b"hello"))
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            client, server = pair(cipher)
            session, _, _ = server.open(client.seal(TARGET, b"hello"), PEER)
            client.open(session.seal(TARGET, b"hello"))
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_nothing_prints_a_key(name):
    client, server = pair(cipher_for(name))
    session, _, _ = server.open(client.seal(TARGET, b"hello"), PEER)
    for thing in (client, server, session):
        assert "object at 0x" in repr(thing)
