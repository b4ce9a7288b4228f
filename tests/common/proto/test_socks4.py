"""SOCKS4 and 4a, every example delivered every way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import (
    BadRequest,
    ConnectFailed,
    CredentialsRequired,
    HandshakeTimeout,
    HeadTooLarge,
    ProtocolError,
    RelayError,
    Unsupported,
)
from common.proto.address import Address
from common.proto.request import Command, Request
from common.proto.socks4 import Socks4Front
from tests.wire import damaged, deliver, every_way, pieces

SOCKS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())["socks"]
CONNECT = bytes.fromhex(SOCKS["socks4_connect"]["hex"])
CONNECT_4A = bytes.fromhex(SOCKS["socks4a_connect"]["hex"])
GRANTED = bytes.fromhex(SOCKS["socks4_granted"])
REJECTED = bytes.fromhex(SOCKS["socks4_rejected"])


def guarded():
    return Socks4Front(lambda user, password: True)


def rejected_once(outcome):
    assert outcome.replies == b""
    assert outcome.parser.reject(outcome.error) == REJECTED
    assert outcome.parser.reject(outcome.error) == b""
    assert outcome.parser.accept() == b""


def test_connect():
    """W11 and K2 for SOCKS4; the user id proves nothing, so it is no user name."""
    outcome = every_way(Socks4Front, CONNECT)
    assert outcome.result == Request(Command.CONNECT, Address("93.184.216.34", 80), None)
    assert (outcome.replies, outcome.rest) == (b"", b"")


def test_connect_4a():
    outcome = every_way(Socks4Front, CONNECT_4A)
    assert outcome.result == Request(Command.CONNECT, Address("example.com", 443), None)


def test_granted_once():
    def check(outcome):
        assert outcome.parser.accept(Address("127.0.0.1", 9)) == GRANTED
        assert outcome.parser.accept() == b""
        assert outcome.parser.reject(RelayError("late")) == b""

    every_way(Socks4Front, CONNECT, check=check)


def test_failure_after_the_request():
    front = Socks4Front()
    assert front.feed(CONNECT) is not None
    assert front.reject(ConnectFailed("refused")) == REJECTED
    assert front.accept() == b""


def test_early_data():
    front = Socks4Front()
    assert front.leftover == b""
    payload = bytes(range(256)) * 64
    assert front.feed(CONNECT_4A + payload) is not None
    assert front.leftover == payload


@pytest.mark.parametrize(
    ("ip", "host"),
    [
        (b"\x00\x00\x00\x00", "0.0.0.0"),  # x = 0 is not 4a
        (b"\x00\x00\x01\x00", "0.0.1.0"),
        (b"\x00\x01\x00\x01", "0.1.0.1"),
        (b"\x01\x00\x00\x01", "1.0.0.1"),
        (b"\x00\x00\x00\x01", "name.example"),
        (b"\x00\x00\x00\xff", "name.example"),
    ],
)
def test_which_addresses_mean_4a(ip, host):
    line = b"\x04\x01\x00\x50" + ip + b"\x00" + (b"name.example\x00" if host == "name.example" else b"")
    assert every_way(Socks4Front, line).result == Request(Command.CONNECT, Address(host, 80))


@pytest.mark.parametrize("command", [0x00, 0x02, 0x03, 0xFF])
def test_bind_and_unknown_commands(command):
    """K5 for SOCKS4: refused, and not before the request is read to its end."""
    line = b"\x04%c" % command + CONNECT[2:]
    outcome = every_way(Socks4Front, line, check=rejected_once)
    assert type(outcome.error) is Unsupported
    assert every_way(Socks4Front, line[:-1]).error is None


@pytest.mark.parametrize("line", [CONNECT, CONNECT_4A])
def test_refused_where_users_are_set(line):
    """Even when the check would say yes to anyone."""
    outcome = every_way(guarded, line, check=rejected_once)
    assert isinstance(outcome.error, CredentialsRequired)


@pytest.mark.parametrize(
    "line",
    [
        b"\x05",
        b"G",
        b"\x04\x01\x00\x00\x7f\x00\x00\x01\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01user\x00\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00a b\x00",
        b"\x04\x01\x00\x50\x00\x00\x00\x01\x00\xff\xfe\x00",
    ],
)
def test_malformed(line):
    outcome = every_way(Socks4Front, line, check=rejected_once)
    assert type(outcome.error) in (BadRequest, ProtocolError)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (b"\x04\x01\x00\x50\x7f\x00\x00\x01", b"\x00"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01", b"\x00host\x00"),
        (b"\x04\x01\x00\x50\x00\x00\x00\x01" + b"u" * 255 + b"\x00", b"\x00"),
    ],
    ids=["user id", "user id 4a", "host name"],
)
def test_longest_fields(before, after):
    """255 bytes are taken; the 256th is refused when it arrives, not when the NUL does."""
    assert every_way(Socks4Front, before + b"x" * 255 + after).result is not None
    assert every_way(Socks4Front, before + b"x" * 255).error is None
    outcome = every_way(Socks4Front, before + b"x" * 256, check=rejected_once)
    assert type(outcome.error) is HeadTooLarge


def test_most_bytes_ever_held():
    """519: everything of the longest request but its last NUL."""
    line = b"\x04\x01\x00\x50\x00\x00\x00\x01" + b"u" * 255 + b"\x00" + b"h" * 255
    assert len(line) == 519
    for parts in pieces(line):
        front = Socks4Front()
        assert deliver(front, parts).result is None
        assert front.feed(b"\x00") == Request(Command.CONNECT, Address("h" * 255, 80))


def test_timeout():
    front = Socks4Front()
    assert front.feed(CONNECT[:5]) is None
    assert front.accept() == b""
    assert front.reject(HandshakeTimeout("too slow")) == REJECTED


@given(st.binary(min_size=520, max_size=600))
def test_every_client_is_done_in_time(data):
    outcome = deliver(Socks4Front(), [b"\x04" + data])
    assert outcome.result or outcome.error


@given(st.one_of(damaged(st.sampled_from([CONNECT, CONNECT_4A])), st.binary(max_size=600)))
def test_any_bytes(data):
    """A request or a ProtocolError, however the bytes are cut."""
    outcome = every_way(Socks4Front, data, trailing=b"")
    assert outcome.error is None or isinstance(outcome.error, ProtocolError)
