"""Chunk sizes over 64 bits (H15); everything else about chunks is h11's."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import BadRequest
from common.proto.http_chunks import ChunkSizes
from tests.wire import pieces


def feed_all(parts):
    sizes = ChunkSizes()
    for part in parts:
        sizes.feed(memoryview(part))


HARMLESS = [
    b"5\r\nhello\r\n0\r\n\r\n",
    b"5;ext=1\r\nhello\r\n00000000000000000000\r\nTrailer: FFFFFFFFFFFFFFFFF\r\n\r\n",
    b"00000000000000000005 \t\r\nhello\r\n0\r\n\r\nFFFFFFFFFFFFFFFFF\r\n",
    b"11\r\nFFFFFFFFFFFFFFFFF\r\n0\r\n\r\n",  # a body that looks like a size
    b"2\r\n\r\n\r\n1\r\n\n\r\n0\r\n\r\n",
    b"FFFFFFFFFFFFFFFF\r\nhello",
    b"xyz\r\nFFFFFFFFFFFFFFFFF\r\n",  # not a chunk at all: h11 will say so
    b"\r\nFFFFFFFFFFFFFFFFF\r\n",
]


@pytest.mark.parametrize("body", HARMLESS)
def test_harmless_in_any_pieces(body):
    for parts in pieces(body):
        feed_all(parts)


@pytest.mark.parametrize(
    "body",
    [
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"10000000000000000\r\n",
        b"000010000000000000000;x\r\n",
        b"5\r\nhello\r\n12345678901234567\r\n",
    ],
)
def test_H15_size_over_64_bits_in_any_pieces(body):
    for parts in pieces(body):
        with pytest.raises(BadRequest, match="64 bits"):
            feed_all(parts)


@given(st.lists(st.binary(min_size=1, max_size=40)), st.integers(min_value=1, max_value=50))
def test_follows_the_framing_whatever_the_data(chunks, step):
    wire = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks)
    bad = wire + b"F" * 17 + b"\r\n"
    feed_all([wire[i : i + step] for i in range(0, len(wire), step)])
    with pytest.raises(BadRequest):
        feed_all([bad[i : i + step] for i in range(0, len(bad), step)])


def test_an_endless_size_line_is_not_kept():
    sizes = ChunkSizes()
    for _ in range(1000):
        sizes.feed(b";" * 1000)
    assert len(sizes._line) <= ChunkSizes.MAX_SIZE_LINE
