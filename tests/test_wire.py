"""The tool itself: it passes what is cut-proof and catches what is not."""

from __future__ import annotations

import pytest

from common.errors import BadRequest, ProtocolError
from tests.wire import deliver, every_way, pieces, splice


class Line:
    """Reads up to a newline, confirms each byte with a dot, refuses ``!``."""

    def __init__(self):
        self.buffer = b""
        self.replies = b""
        self.leftover = b""

    def feed(self, data):
        for index, byte in enumerate(data):
            if byte == ord("!"):
                raise BadRequest("no shouting")
            if byte == ord("\n"):
                self.leftover = data[index + 1 :]
                return self.buffer
            self.buffer += bytes([byte])
            self.replies += b"."
        return None

    def outgoing(self):
        replies, self.replies = self.replies, b""
        return replies


class OneRead(Line):
    """The fault of W11: a message is what one read brought."""

    def feed(self, data):
        return data.rstrip(b"\n") or None


class LosesLeftover(Line):
    def feed(self, data):
        result = super().feed(data)
        self.leftover = b""
        return result


class AnswersPerRead(Line):
    def feed(self, data):
        result = super().feed(data)
        self.replies = b"."
        return result


class RaisesLate(Line):
    def feed(self, data):
        if data.startswith(b"!"):
            raise ProtocolError("no shouting")
        return super().feed(data)


class Crashes(Line):
    def feed(self, data):
        return super().feed(data) if len(data) > 1 else data[3]


def test_cuts_join_to_the_example():
    data = bytes(range(100))
    ways = list(pieces(data))
    assert all(b"".join(parts) == data for parts in ways)
    assert [len(parts) for parts in ways[:3]] == [1, 100, 201]
    assert ways == list(pieces(data))
    assert ways[3:] != list(pieces(data, seed=2))[3:]


def test_short_examples_are_cut_everywhere():
    assert [list(way) for way in pieces(b"ab")] == [
        [b"ab"],
        [b"a", b"b"],
        [b"", b"a", b"", b"b", b""],
        [b"a", b"b"],
    ]
    assert [b"abc", b"def"] in list(pieces(b"abcdef"))
    assert list(pieces(b"")) == [[b""], [], [b""]]


def test_outcome():
    outcome = every_way(Line, b"abc\nrest")
    assert (outcome.result, outcome.error) == (b"abc", None)
    assert (outcome.replies, outcome.rest) == (b"...", b"rest")


def test_error_outcome():
    outcome = every_way(Line, b"ab!")
    assert outcome.result is None
    assert isinstance(outcome.error, BadRequest)
    assert outcome.replies == b".."


def test_unfinished_outcome():
    outcome = every_way(Line, b"abc")
    assert outcome.result is None
    assert outcome.error is None


def test_nothing_is_fed_after_the_end():
    line = Line()
    assert deliver(line, [b"a\n", b"b", b"c"]).rest == b"bc"
    assert line.buffer == b"a"


def test_check_sees_every_delivery():
    seen = []
    every_way(Line, b"ab\n", check=seen.append)
    assert len(seen) > 10
    assert len({id(outcome.parser) for outcome in seen}) == len(seen)


@pytest.mark.parametrize(
    ("broken", "data"),
    [
        (OneRead, b"abc\n"),
        (LosesLeftover, b"abc\n"),
        (AnswersPerRead, b"abc\n"),
        (RaisesLate, b"ab!"),
    ],
)
def test_faults_are_caught(broken, data):
    with pytest.raises(AssertionError):
        every_way(broken, data)


def test_other_exceptions_are_not_swallowed():
    with pytest.raises(IndexError):
        every_way(Crashes, b"abc\n")


def test_splice():
    assert splice(b"abcdef", 2, 1, b"XY") == b"abXYdef"
    assert splice(b"abcdef", 2, 0, b"X") == b"abXcdef"
    assert splice(b"abcdef", 4, 8, b"") == b"abcd"
    assert splice(b"abcdef", 6, 1, b"X") == b"abcdefX"
    assert splice(b"abcdef", 7, 1, b"X") == b"Xbcdef"
    assert splice(b"", 3, 3, b"X") == b"X"
