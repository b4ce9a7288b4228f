"""The first byte chooses, and everything else is the chosen front's."""

from __future__ import annotations

import pytest

from common.errors import BadRequest, ConnectFailed
from common.proto.address import Address
from common.proto.front import FirstByteFront
from common.proto.request import Command, Request
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front
from tests.wire import every_way

SOCKS4 = b"\x04\x01\x00\x50\xc0\x00\x02\x07\x00"
SOCKS5 = b"\x05\x01\x00" + b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"
HTTP = b"CONNECT 192.0.2.7:80 HTTP/1.1\r\n\r\n"
REQUEST = Request(Command.CONNECT, Address("192.0.2.7", 80))


class LineFront:
    """A front that knows one line, and answers with what it was asked."""

    def __init__(self):
        self.received = b""
        self.leftover = b""

    def feed(self, data):
        self.received += data
        if not self.received.startswith(HTTP):
            return None
        self.leftover = self.received[len(HTTP) :]
        return REQUEST

    def outgoing(self):
        return b""

    def accept(self, bound=None):
        return f"accept {bound}".encode()

    def reject(self, error):
        return f"reject {error}".encode()


def make_front():
    return FirstByteFront(socks4=Socks4Front, socks5=Socks5Front, http=LineFront)


@pytest.mark.parametrize(
    ("data", "kind", "replies"),
    [(SOCKS4, Socks4Front, b""), (SOCKS5, Socks5Front, b"\x05\x00"), (HTTP, LineFront, b"")],
    ids=["socks4", "socks5", "http"],
)
def test_three_protocols_on_one_port(data, kind, replies):
    """M1, at the parser; the first byte may come alone and is not lost."""

    def check(outcome):
        assert type(outcome.parser.chosen) is kind

    outcome = every_way(make_front, data, check=check)
    assert (outcome.result, outcome.replies) == (REQUEST, replies)


@pytest.mark.parametrize("first", sorted(set(range(256)) - {4, 5} - set(b"ABCDEFGHIJKLMNOPQRSTUVWXYZ\r\n")))
def test_other_first_bytes(first):
    """Nobody knows what such a client would understand, so it is told nothing."""

    def unanswered(*_):
        raise AssertionError("a front was made")

    front = FirstByteFront(socks4=unanswered, socks5=unanswered, http=unanswered)
    with pytest.raises(BadRequest, match=f"got {first:02x}"):
        front.feed(bytes([first]) + SOCKS5)
    assert front.chosen is None
    assert (front.leftover, front.outgoing(), front.reject(BadRequest("x"))) == (b"", b"", b"")


@pytest.mark.parametrize("first", b"ABCDEFGHIJKLMNOPQRSTUVWXYZ")
def test_capital_letters_are_http(first):
    front = make_front()
    assert front.feed(bytes([first])) is None
    assert type(front.chosen) is LineFront
    assert front.chosen.received == bytes([first])


def test_before_any_byte():
    front = make_front()
    assert front.feed(b"") is None
    assert front.chosen is None
    assert front.leftover == front.outgoing() == front.accept() == front.reject(BadRequest("x")) == b""


def test_one_front_is_made():
    made = []

    def make_http():
        made.append(LineFront())
        return made[-1]

    front = FirstByteFront(socks4=Socks4Front, socks5=Socks5Front, http=make_http)
    assert front.feed(HTTP[:1]) is None
    assert front.feed(HTTP[1:]) == REQUEST
    assert made == [front.chosen]


def test_everything_is_passed_on():
    front = make_front()
    assert front.feed(HTTP + b"payload") == REQUEST
    assert front.leftover == b"payload"
    assert front.accept() == b"accept None"
    assert front.accept(Address("::1", 80)) == b"accept [::1]:80"
    assert front.reject(ConnectFailed("refused")) == b"reject refused"
