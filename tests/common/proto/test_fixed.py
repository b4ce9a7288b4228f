"""``FixedFront`` and ``RefusedFront``: clients that ask for nothing."""

from __future__ import annotations

import pytest

from common.errors import ConnectFailed, TargetForbidden
from common.proto.address import Address
from common.proto.fixed import FixedFront, RefusedFront
from common.proto.request import Command, Front, Request

TARGET = Address("origin.example", 25)


@pytest.mark.parametrize("data", [b"", b"\x05\x01\x00", b"GET / HTTP/1.1\r\n\r\n"])
def test_the_request_is_known_at_once(data):
    """M4: whatever the client says is payload, and saying nothing will do."""
    front: Front = FixedFront(TARGET)
    assert front.leftover == b""
    assert front.feed(data) == Request(Command.CONNECT, TARGET, None)
    assert front.leftover == data


def test_nothing_is_ever_answered():
    for front in (FixedFront(TARGET), RefusedFront(TargetForbidden("no"))):
        assert front.outgoing() == b""
        assert front.accept() == front.accept(Address("192.0.2.1", 1)) == b""
        assert front.reject(ConnectFailed("refused")) == b""


@pytest.mark.parametrize("data", [b"", b"EHLO"])
def test_a_refusal_shows_when_it_is_fed(data):
    error = TargetForbidden("the connection leads here")
    front: Front = RefusedFront(error)
    with pytest.raises(TargetForbidden) as caught:
        front.feed(data)
    assert caught.value is error
    assert front.leftover == front.outgoing() == b""
