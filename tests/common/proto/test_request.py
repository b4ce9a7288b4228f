"""The contract itself: every front of ours has it, and a Request reads as one."""

from __future__ import annotations

import inspect

import pytest

from common.proto.address import Address
from common.proto.front import FirstByteFront
from common.proto.request import Command, Front, Request
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front

METHODS = ("feed", "outgoing", "accept", "reject")


def first_byte_front():
    return FirstByteFront(socks4=Socks4Front, socks5=Socks5Front, http=Socks5Front)


@pytest.mark.parametrize("make_front", [Socks4Front, Socks5Front, first_byte_front])
def test_fronts_keep_the_contract(make_front):
    front = make_front()
    for name in METHODS:
        contract = inspect.signature(getattr(Front, name)).parameters
        ours = inspect.signature(getattr(type(front), name)).parameters
        assert list(ours.values()) == list(contract.values()), name
    assert front.leftover == front.outgoing() == b""


def test_user_name_is_optional():
    request = Request(Command.CONNECT, Address("example.com", 443))
    assert request.username is None
    assert request == (Command.CONNECT, ("example.com", 443), None)
