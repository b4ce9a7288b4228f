"""Run a wire example every way a network may deliver it, and demand the same outcome each time.

``pieces`` cuts bytes; ``every_way`` feeds the cuts to fresh parsers; ``damaged`` is for fuzzing. A
parser is anything with ``feed(bytes)`` returning None until it is done; ``outgoing()`` and
``leftover`` are used if it has them. So a test states one example and gets: whole, byte by byte,
every cut in two (short examples), random cuts, empty feeds in between, and all of it again with
trailing bytes behind.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hypothesis import strategies as st

from common.errors import ProtocolError

TRAILING = b"\x00\x05\x01trailing\r\n\r\n\xff\x04"  # whatever it looks like, it is payload
EVERY_CUT_BELOW = 64  # bytes: longer examples are cut at random places only
RANDOM_RUNS = 8


class Outcome(NamedTuple):
    """What one delivery led to. ``result`` is what feed returned at last, or None."""

    result: Any
    error: ProtocolError | None
    replies: bytes  # everything outgoing() gave, in order
    rest: bytes  # leftover, and what was never fed because the parser was done
    parser: Any  # of this delivery, to ask it for accept() or reject()


def pieces(data: bytes, seed: int = 1) -> Iterator[list[bytes]]:
    """Yield ways to cut ``data``, each a list that joins to ``data``; the same ones for the same seed."""
    yield [data]
    yield [data[i : i + 1] for i in range(len(data))]
    yield [b"", *(piece for i in range(len(data)) for piece in (data[i : i + 1], b""))]
    if len(data) < EVERY_CUT_BELOW:
        yield from ([data[:cut], data[cut:]] for cut in range(1, len(data)))
    rng = random.Random(seed)
    for _ in range(RANDOM_RUNS if len(data) > 2 else 0):
        cuts = sorted(rng.sample(range(1, len(data)), rng.randint(1, min(6, len(data) - 1))))
        yield [data[a:b] for a, b in zip([0, *cuts], [*cuts, len(data)], strict=True)]


def deliver(parser: Any, parts: list[bytes]) -> Outcome:
    """Feed ``parts`` in order until the parser is done, collecting its replies after every feed."""
    outgoing = getattr(parser, "outgoing", bytes)
    result, error, replies = None, None, b""
    fed = 0
    for part in parts:
        fed += 1
        try:
            result = parser.feed(part)
        except ProtocolError as exc:  # and nothing else: any other exception fails the test
            error = exc
        replies += outgoing()
        if result is not None or error is not None:
            break
    rest = getattr(parser, "leftover", b"") if result is not None else b""
    return Outcome(result, error, replies, rest + b"".join(parts[fed:]), parser)


def every_way(
    make_parser: Callable[[], Any],
    data: bytes,
    *,
    trailing: bytes = TRAILING,
    check: Callable[[Outcome], None] | None = None,
) -> Outcome:
    """Deliver ``data`` every way, assert that all agree, and return the outcome of the whole delivery.

    An example that is done (a result or an error) runs again with ``trailing`` behind it, and all of
    it must come back in ``rest``; pass b"" to leave that out. ``check`` is called with the outcome of
    every delivery, for what lies beyond feeding: accept(), reject(), a second request.
    """
    first = deliver(make_parser(), [data])
    for parts in pieces(data):
        _same(first, deliver(make_parser(), parts), first.rest, parts, check)
    if trailing and (first.result is not None or first.error is not None):
        for parts in pieces(data + trailing, seed=2):
            _same(first, deliver(make_parser(), parts), first.rest + trailing, parts, check)
    if check:
        check(first)
    return first


def splice(example: bytes, start: int, size: int, new: bytes) -> bytes:
    """Return ``example`` with ``new`` in place of the ``size`` bytes at ``start``, which wraps around."""
    start %= len(example) + 1
    return example[:start] + new + example[start + size :]


def damaged(examples: st.SearchStrategy[bytes]) -> st.SearchStrategy[bytes]:
    """The neighbourhood of the valid, which random bytes never reach; some examples come undamaged."""
    new = st.binary(max_size=8) | st.just(bytes(300))
    return st.builds(splice, examples, st.integers(0, 1 << 16), st.integers(0, 8), new)


def _same(
    first: Outcome, other: Outcome, rest: bytes, parts: list[bytes], check: Callable[[Outcome], None] | None
) -> None:
    where = f"in pieces of {[len(part) for part in parts]}"
    assert other.result == first.result, where
    assert type(other.error) is type(first.error), where
    assert str(other.error) == str(first.error), where
    assert other.replies == first.replies, where
    if first.error is None:  # past an error nothing is payload any more
        assert other.rest == rest, where
    if check:
        check(other)
