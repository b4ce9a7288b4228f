"""The chunk engine by itself, against chunks written out with the bare AEAD.

Streams here begin in the simplest way an engine can be asked for: nothing in the clear, a prefix of
three bytes, a fixed key. How real streams begin is tested with them.
"""

from __future__ import annotations

import itertools
import os
import random
import sys
from collections.abc import Iterator

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.crypto.aead import (
    LENGTH_SIZE,
    MAX_EMPTY_CHUNKS,
    MAX_INPUT,
    OVERHEAD,
    SCRATCH_SIZE,
    SMALL,
    Opener,
    Sealer,
    Start,
    poison,
)
from common.crypto.methods import METHODS
from common.errors import AuthenticationFailed, ProtocolError, Truncated
from tests.streams import AEAD_NAMES, copied
from tests.wire import pieces

PREFIX = b"abc"
AES = METHODS["aes-256-gcm"]
WIDE = METHODS["2022-blake3-aes-256-gcm"]  # chunks of 0xFFFF


def aead_of(method):
    return method.aead(bytes(range(method.key_size)))


class PrefixHead:
    size = len(PREFIX) + LENGTH_SIZE

    def __init__(self, method):
        self.method = method

    def open(self, head):
        aead = aead_of(self.method)
        plain = aead.decrypt(bytes(self.method.nonce_size), head, None)
        assert plain[:-2] == PREFIX
        return aead, int.from_bytes(plain[-2:], "big")


def sealer(method):
    return Sealer(method, lambda: Start(aead_of(method), b"", PREFIX))


def opener(method):
    return Opener(method, PrefixHead(method))


def written_out(method, chunks: list[bytes], lengths: dict[int, int] | None = None) -> list[bytes]:
    """Return the wire form of each chunk; ``lengths`` replaces what a chunk says of itself."""
    aead, wire = aead_of(method), []
    for number, chunk in enumerate(chunks):
        length = (lengths or {}).get(number, len(chunk)).to_bytes(2, "big")
        first, second = (n.to_bytes(method.nonce_size, "little") for n in (2 * number, 2 * number + 1))
        prefix = b"" if number else PREFIX
        wire.append(aead.encrypt(first, prefix + length, None) + aead.encrypt(second, chunk, None))
    return wire


def full_chunks(method, data: bytes) -> list[bytes]:
    limit = method.chunk_limit
    return [data[start : start + limit] for start in range(0, len(data), limit)]


@pytest.fixture(params=AEAD_NAMES)
def method(request):
    return METHODS[request.param]


def test_seal_is_as_written_out(method):
    """Small ones, a large one and several at once; every one starts a chunk of its own."""
    payloads = [b"hello", b"x", os.urandom(SMALL), os.urandom(SMALL + 1), os.urandom(150_000), b"end"]
    seal = sealer(method).seal
    sealed = [copied(seal, [payload]) for payload in payloads]
    chunks = [full_chunks(method, payload) for payload in payloads]
    wire = iter(written_out(method, [*itertools.chain(*chunks)]))
    assert sealed == [b"".join(next(wire) for _ in some) for some in chunks]


def test_open_is_as_written_out(method):
    chunks = [
        b"hello",
        b"x",
        os.urandom(SMALL),
        os.urandom(SMALL + 1),
        os.urandom(method.chunk_limit),
        b"end",
    ]
    wire = b"".join(written_out(method, chunks))
    for parts in whole_and_cut(wire):
        assert copied(opener(method).open, parts) == b"".join(chunks)


def whole_and_cut(wire: bytes) -> Iterator[list[bytes]]:
    """Yield the wire whole, and cut at random and near every place that matters to a short one."""
    rng = random.Random(len(wire))
    yield [wire]
    for size in (1, 17, 18, 19, 1000, 16_000, 70_000):
        if len(wire) // size < 3000:
            yield [wire[start : start + size] for start in range(0, len(wire), size)]
    for _ in range(3):
        cuts = sorted(rng.randrange(len(wire)) for _ in range(20))
        yield [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]


@pytest.mark.parametrize("method", [AES, METHODS["xchacha20-ietf-poly1305"], WIDE], ids=lambda m: m.name)
def test_short_streams_in_every_way(method):
    chunks = [b"hello", b"", b"x" * 40, b"", b"end"]
    wire = b"".join(written_out(method, chunks))
    for parts in pieces(wire):
        assert copied(opener(method).open, parts) == b"hello" + b"x" * 40 + b"end"


@settings(max_examples=40, deadline=None)
@given(
    payloads=st.lists(st.binary(max_size=300) | st.integers(0, 70_000).map(bytes), max_size=8),
    seed=st.integers(0, 1000),
    name=st.sampled_from(["aes-128-gcm", "chacha20-ietf-poly1305", "2022-blake3-aes-128-gcm"]),
)
def test_any_payloads_in_any_cut_come_back(payloads, seed, name):
    method, rng = METHODS[name], random.Random(seed)
    wire, plain = copied(sealer(method).seal, payloads), b"".join(payloads)
    open_ = opener(method)
    cuts = sorted(rng.randrange(len(wire) + 1) for _ in range(rng.randrange(30)))
    parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    assert copied(open_.open, parts) == plain
    open_.eof()


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
def test_any_kind_of_buffer_will_do(kind):
    data = os.urandom(40_000)
    seal, open_ = sealer(AES).seal, opener(AES).open
    wire = bytes(seal(kind(data)))
    assert bytes(open_(kind(wire[:1000]))) + bytes(open_(kind(wire[1000:]))) == data


def test_nothing_gives_nothing(method):
    """Empty chunks are never sent, least of all as the first: shadowsocks-libev drops the stream."""
    send, receive = sealer(method), opener(method)
    assert len(send.seal(b"")) == 0
    assert len(receive.open(b"")) == 0
    wire = bytes(send.seal(b"a"))
    assert len(send.seal(b"")) == 0
    assert len(wire) == len(PREFIX) + OVERHEAD + 1
    assert bytes(receive.open(wire)) == b"a"
    assert len(receive.open(b"")) == 0


@pytest.mark.parametrize("method", [AES, WIDE], ids=lambda m: m.name)
@pytest.mark.parametrize("over", [-1, 0, 1])
@pytest.mark.parametrize("begun", [False, True])
def test_chunks_are_full(method, over, begun):
    """0x3FFF and 0xFFFF bytes; one more makes a second chunk."""
    size = method.chunk_limit + over
    send, receive = sealer(method), opener(method)
    if begun:
        receive.open(bytes(send.seal(b"a")))
    wire = bytes(send.seal(bytes(size)))
    chunks = 2 if over > 0 else 1
    assert len(wire) == size + chunks * OVERHEAD + (0 if begun else len(PREFIX))
    assert bytes(receive.open(wire)) == bytes(size)


@pytest.mark.parametrize("size", [512 * 1024, MAX_INPUT, MAX_INPUT + 1, SCRATCH_SIZE + 1, 1_363_149])
@pytest.mark.parametrize("method", [AES, WIDE], ids=lambda m: m.name)
def test_large_inputs(method, size):
    """512 KiB is what a relay reads at once; 1.3 MiB is more than the scratch holds."""
    send, receive = sealer(method), opener(method)
    receive.open(bytes(send.seal(b"a")))
    data = os.urandom(size)
    wire = bytes(send.seal(memoryview(data)))
    assert wire == b"".join(written_out(method, [b"a", *full_chunks(method, data)])[1:])
    assert bytes(receive.open(memoryview(wire))) == data
    wire = bytes(send.seal(data))
    assert bytes(receive.open(wire[:40_000])) + bytes(receive.open(wire[40_000:])) == data


@pytest.mark.parametrize("method", [AES, WIDE], ids=lambda m: m.name)
def test_the_largest_input_behind_the_largest_rest(method):
    """All but the last byte of a full chunk is waiting when a read of the largest size arrives."""
    send, receive = sealer(method), opener(method)
    data = os.urandom(method.chunk_limit + MAX_INPUT)
    wire = bytes(send.seal(data))
    begun = len(PREFIX) + OVERHEAD + method.chunk_limit - 1
    assert len(receive.open(wire[:begun])) == 0
    out = bytes(receive.open(wire[begun : begun + MAX_INPUT]))
    out += bytes(receive.open(wire[begun + MAX_INPUT :]))
    assert out == data


@pytest.mark.parametrize(
    ("name", "messages"),
    [*((name, 300) for name in AEAD_NAMES), ("aes-256-gcm", 33_000), ("2022-blake3-aes-128-gcm", 33_000)],
)
def test_nonces_carry(name, messages):
    """Past 0xFF, and past 0xFFFF: little endian, and no two are the same."""
    method = METHODS[name]
    send, receive = sealer(method), opener(method)
    wire = b"".join(bytes(send.seal(b"%d," % number)) for number in range(messages))
    assert wire == b"".join(written_out(method, [b"%d," % number for number in range(messages)]))
    assert copied(receive.open, [wire[:500_000], wire[500_000:]]) == b"".join(
        b"%d," % number for number in range(messages)
    )


def test_a_flipped_bit_anywhere_is_refused(method):
    """And what was given out before is authentic: a beginning of what was sent."""
    chunks = [b"hello", b"x" * 20, b"end"]
    wire = bytearray(b"".join(written_out(method, chunks)))
    for place in range(8 * len(wire)):
        wire[place // 8] ^= 1 << place % 8
        receive = opener(method)
        with pytest.raises(AuthenticationFailed):
            receive.open(wire)
        receive, out = opener(method), b""
        try:
            for byte in wire:
                out += bytes(receive.open(bytes((byte,))))
        except AuthenticationFailed:
            assert out != b"".join(chunks)
            assert b"".join(chunks).startswith(out)
        else:
            pytest.fail(f"bit {place} went unnoticed")
        wire[place // 8] ^= 1 << place % 8


@pytest.mark.parametrize("length", [0x4000, 0x4005, 0x8005, 0xFFFF])
@pytest.mark.parametrize("number", [0, 1])
def test_sip004_lengths_have_two_bits_reserved(length, number):
    wire = b"".join(written_out(AES, [b"hello", b"hello"], {number: length}))
    for parts in pieces(wire):
        receive = opener(AES)
        with pytest.raises(AuthenticationFailed, match=f"at most 16383, got {length}"):
            copied(receive.open, parts)


def test_sip022_lengths_have_none():
    chunk = os.urandom(0xFFFF)
    assert copied(opener(WIDE).open, [b"".join(written_out(WIDE, [chunk, chunk]))]) == chunk + chunk


@pytest.mark.parametrize("at", [0, 1, 5])
def test_empty_chunks_in_a_row_are_bounded(method, at):
    """Some peers pad with them; without a bound they are a loop of work for nothing."""
    before, after = [b"a"] * at, [b"b"]
    allowed = [*before, *[b""] * MAX_EMPTY_CHUNKS, *after]
    wire = b"".join(written_out(method, [*allowed, *[b""] * MAX_EMPTY_CHUNKS, *after]))
    for parts in whole_and_cut(wire):
        assert copied(opener(method).open, parts) == b"a" * at + b"bb"
    wire = b"".join(written_out(method, [*before, *[b""] * (MAX_EMPTY_CHUNKS + 1), *after]))
    for parts in whole_and_cut(wire):
        with pytest.raises(ProtocolError, match="empty chunks in a row") as caught:
            copied(opener(method).open, parts)
        assert type(caught.value) is ProtocolError


def test_eof_is_clean_between_chunks_only(method):
    chunks = written_out(method, [b"hello", b"", b"x" * 20, b"end"])
    wire, boundaries = b"".join(chunks), {0}
    for chunk in chunks:
        boundaries.add(max(boundaries) + len(chunk))
    bytewise = opener(method)
    for end in range(len(wire) + 1):
        bytewise.open(wire[max(0, end - 1) : end])
        whole, halves = opener(method), opener(method)
        whole.open(wire[:end])
        halves.open(wire[: end // 2])
        halves.open(wire[end // 2 : end])
        for receive in (bytewise, whole, halves):
            if end in boundaries:
                receive.eof()
            else:
                with pytest.raises(Truncated):
                    receive.eof()


def test_scratch_is_not_relied_on():
    """Poisoned after every call, on both sides: nobody keeps a view (``copied`` does that)."""
    data = os.urandom(300_000)
    parts = [data[start : start + 7001] for start in range(0, len(data), 7001)]
    wire = copied(sealer(AES).seal, parts)
    for parts in whole_and_cut(wire):
        assert copied(opener(AES).open, parts) == data


def test_scratch_is_what_large_outputs_lie_in():
    """The other half of the contract: a view that is kept goes bad, so tests like these can tell."""
    send, receive = sealer(AES), opener(AES)
    receive.open(bytes(send.seal(b"a")))
    data = os.urandom(100_000)
    sealed = send.seal(data)
    opened = receive.open(sealed)  # one scratch for each: what was sealed can be opened on the spot
    assert opened == data
    poison()
    assert set(bytes(sealed)) == set(bytes(opened)) == {0xDB}


def test_the_first_flight_is_to_be_kept():
    send = sealer(AES)
    flight = send.first(bytes(100_000))
    before = bytes(flight)
    poison()
    assert flight == before
    with pytest.raises(AssertionError):
        send.first(b"again")


def test_an_idle_opener_holds_no_buffer():
    send, receive = sealer(WIDE), opener(WIDE)
    wire = bytes(send.seal(os.urandom(200_000)))
    receive.open(wire[:60_000])
    assert sys.getsizeof(receive._pending) > 50_000
    receive.open(wire[60_000:])
    assert sys.getsizeof(receive._pending) < 100


def test_the_start_is_asked_for_when_there_is_something_to_send():
    asked = []

    def start() -> Start:
        asked.append(True)
        return Start(aead_of(AES), b"", PREFIX)

    send = Sealer(AES, start)
    send.seal(b"")
    assert not asked
    send.seal(b"a")
    send.seal(b"b")
    assert len(asked) == 1
