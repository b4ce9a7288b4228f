"""``Cipher``: both ends of a stream against each other, for every method, cut in any way."""

from __future__ import annotations

import gc
import os
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto import METHODS, Cipher, Family, generate_password
from common.crypto.aead import poison
from common.crypto.replay import RecentSalts, TimedSalts
from common.errors import ProtocolError
from common.proto.address import Address
from tests.streams import AEAD_NAMES, METHOD_NAMES, TARGET, cipher_for, clock, copied, pair, password_for

ADDRESSES = st.one_of(
    st.just(TARGET),
    st.just(Address("2001:db8::7", 1)),
    st.from_regex(r"[a-z]{1,60}\.example", fullmatch=True).map(lambda host: Address(host, 65535)),
)
PAYLOADS = st.lists(st.binary(max_size=100) | st.integers(0, 70_000).map(lambda n: b"x" * n), max_size=5)


def cut(wire: bytes, rng: random.Random) -> list[bytes]:
    cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(20)))
    return [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(METHOD_NAMES),
    address=ADDRESSES,
    first=st.binary(max_size=2000),
    up=PAYLOADS,
    down=PAYLOADS,
    seed=st.integers(0, 1000),
)
def test_both_ends_understand_each_other(name, address, first, up, down, seed):
    """Whatever goes in comes out, both ways, poisoned scratch and all; and both ends are clean at the end."""
    cipher, rng = cipher_for(name), random.Random(seed)
    client = cipher.client_stream(address, clock=clock, random=os.urandom)
    _, server = pair(cipher)
    wire = client.first(first) + copied(client.seal, up)
    got, target = b"", None
    for piece in cut(wire, rng):
        if target is None:
            found = server.accept(piece)
            poison()
            if found is not None:
                target, got = found
        else:
            got += copied(server.open, [piece])
    assert target == address
    assert got == first + b"".join(up)
    server.eof()
    answer = copied(server.seal, down)
    assert copied(client.open, cut(answer, rng)) == b"".join(down)
    client.eof()


@pytest.mark.parametrize("name", METHOD_NAMES)
@pytest.mark.parametrize("size", [512 * 1024, 1_363_149])
def test_large_reads_both_ways(name, size):
    client, server = pair(cipher_for(name), segmented=False)
    assert server.accept(client.first(b"")) == (TARGET, b"")
    data = os.urandom(size)
    for _ in range(2):
        assert copied(server.open, [copied(client.seal, [data])]) == data
        assert copied(client.open, [copied(server.seal, [data])]) == data


@pytest.mark.parametrize("name", AEAD_NAMES)
def test_streams_of_one_cipher_do_not_mix(name):
    """Calls of many streams take turns on one scratch, and each stream has keys of its own."""
    cipher = cipher_for(name)
    salts = cipher.replay_memory().streams
    pairs = [pair(cipher, salts) for _ in range(5)]
    flights = [client.first(b"%d" % number) for number, (client, _) in enumerate(pairs)]
    assert len({flight[: cipher.method.salt_size] for flight in flights}) == 5
    for number, (_, server) in enumerate(pairs):
        assert server.accept(flights[number]) == (TARGET, b"%d" % number)
    for _ in range(3):
        sealed = [copied(client.seal, [bytes([number]) * 50_000]) for number, (client, _) in enumerate(pairs)]
        for number, (_, server) in enumerate(pairs):
            head = bytes(server.open(sealed[number][:30_000]))
            assert head + bytes(server.open(sealed[number][30_000:])) == bytes([number]) * 50_000
    with pytest.raises(ProtocolError):
        pairs[1][1].open(bytes(pairs[0][0].seal(b"for another")))


@pytest.mark.parametrize("name", AEAD_NAMES)
def test_another_password_is_refused(name):
    method = METHODS[name]
    client, _ = pair(cipher_for(name))
    other = Cipher.from_password(name, generate_password(method, os.urandom))
    with pytest.raises(ProtocolError):
        pair(other)[1].accept(client.first(b"hello"))


@pytest.mark.parametrize("name", AEAD_NAMES)
def test_another_method_is_refused_or_waits(name):
    for other in AEAD_NAMES:
        if other == name:
            continue
        client, _ = pair(cipher_for(name))
        _, server = pair(cipher_for(other))
        try:
            assert server.accept(client.first(b"hello" * 20)) is None
        except ProtocolError:
            continue
        pytest.fail(f"{name} and {other} understood each other")


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_replay_filters_are_of_the_kind_the_method_wants(name):
    cipher = cipher_for(name)
    kind = TimedSalts if cipher.method.family is Family.SIP022 else RecentSalts
    assert type(cipher.replay_memory().streams) is kind
    assert cipher.replay_memory().streams is not cipher.replay_memory().streams


def test_from_password_takes_names_as_configurations_write_them():
    assert Cipher.from_password("AEAD_AES_128_GCM", "pw").method is METHODS["aes-128-gcm"]
    assert Cipher.from_password("plain", "").method is METHODS["none"]
    with pytest.raises(ValueError, match="did you mean 'aes-256-gcm'"):
        Cipher.from_password("aes-256-gmc", "pw")
    with pytest.raises(ValueError, match="needs a password"):
        Cipher.from_password("aes-256-gcm", "")


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_nothing_prints_a_key(name):
    password = password_for(METHODS[name])
    cipher = Cipher.from_password(name, password)
    assert repr(cipher) == str(cipher) == f"<Cipher {name}>"
    for stream in pair(cipher):
        assert "object at 0x" in repr(stream)


@pytest.mark.parametrize("name", METHOD_NAMES)
def test_streams_are_freed_by_refcount(name):
    """A relay drops thousands of them: none may wait for the garbage collector."""
    cipher = cipher_for(name)
    gc.collect()
    gc.disable()
    try:
        before = len(gc.get_objects())
        for _ in range(50):
            client, server = pair(cipher)
            server.accept(client.first(b"hello"))
            client.open(bytes(server.seal(b"hello")))
        del client, server
        assert len(gc.get_objects()) - before < 20
    finally:
        gc.enable()
