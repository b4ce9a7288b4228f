"""SOCKS5: rows K1, K2, K5, W11 and W27 at the parser, every example delivered every way."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import (
    BadRequest,
    ConnectFailed,
    ConnectTimeout,
    CredentialsRequired,
    HandshakeTimeout,
    Overloaded,
    ProtocolError,
    RelayError,
    ResolveFailed,
    TargetForbidden,
    Unsupported,
    UnsupportedAddressType,
)
from common.proto.address import Address, encode_address
from common.proto.request import Command, Request
from common.proto.socks5 import Socks5Front
from tests.wire import damaged, deliver, every_way, pieces

SOCKS = json.loads((Path(__file__).parents[2] / "data" / "vectors.json").read_text())["socks"]


def vector(name):
    entry = SOCKS[name]
    return bytes.fromhex(entry if isinstance(entry, str) else entry["hex"])


GREETING = vector("socks5_greeting_noauth")
GREETING_BOTH = vector("socks5_greeting_noauth_userpass")
GREETING_USER = b"\x05\x01\x02"
CREDENTIALS = vector("rfc1929_request")
CONNECT = vector("connect_domain")
ASSOCIATE = vector("udp_associate_any")
SUCCEEDED = vector("reply_ok_unspecified")

EXAMPLE = Address("example.com", 443)
MAX_HANDSHAKE = 2 + 255 + 3 + 255 + 255 + 3 + 259  # bytes: methods, credentials, request


fields = st.binary(min_size=1, max_size=255)
addresses = st.builds(
    Address,
    st.ip_addresses().map(str) | st.text("abz09-.", min_size=1, max_size=255).map(lambda name: name + "z"),
    st.integers(1, 0xFFFF),
).filter(lambda address: len(address.host) <= 255)


def sessions():
    """Pieces a client could send, in an order it would, some of them missing."""
    greeting = st.sampled_from([b"", GREETING, GREETING_BOTH, GREETING_USER])
    credentials = st.sampled_from([b"", CREDENTIALS, b"\x01\x01u\x01p"])
    command = st.sampled_from([b"\x05\x01\x00", b"\x05\x02\x00", b"\x05\x03\x00", b"\x05\x09\x00"])
    return st.builds(
        lambda *parts: b"".join(parts), greeting, credentials, command, addresses.map(encode_address)
    )


def check_auth(user, password):
    return (user, password) == ("user", "pass")


def guarded():
    return Socks5Front(check_auth)


def general_failure(outcome):
    """The outcome's error is answered 05 01 once, and by nothing after that."""
    assert outcome.parser.reject(outcome.error) == b"\x05\x01\x00\x01" + bytes(6)
    assert outcome.parser.reject(outcome.error) == b""


def nothing_more(outcome):
    """A refusal that left by outgoing() is the only one."""
    assert outcome.parser.outgoing() == b""
    assert outcome.parser.reject(outcome.error) == b""
    assert outcome.parser.accept() == b""


class TestOpenFront:
    def test_connect(self):
        """K2, W11: split, byte-wise and pipelined greeting, request and payload."""
        outcome = every_way(Socks5Front, GREETING + CONNECT)
        assert outcome.result == Request(Command.CONNECT, EXAMPLE, None)
        assert outcome.replies == vector("socks5_select_noauth")
        assert outcome.rest == b""

    def test_no_success_before_accept(self):
        """W27: parsing answers the greeting only; success is what the handler says once connected."""

        def check(outcome):
            assert outcome.replies == b"\x05\x00"
            assert outcome.parser.accept() == SUCCEEDED
            assert outcome.parser.accept() == b""
            assert outcome.parser.reject(RelayError("late")) == b""

        every_way(Socks5Front, GREETING + CONNECT, check=check)

    @pytest.mark.parametrize(
        "address",
        [
            Address("192.0.2.7", 80),
            Address("2001:db8::a", 8443),
            Address("x" * 255, 1),
            Address("a", 65535),
        ],
        ids=lambda a: a.host[:16],
    )
    def test_address_types(self, address):
        """K1: a name (--socks5-hostname), IPv4 (--socks5) and IPv6 targets."""
        outcome = every_way(Socks5Front, GREETING + b"\x05\x01\x00" + encode_address(address))
        assert outcome.result == Request(Command.CONNECT, address)

    def test_udp_associate(self):
        outcome = every_way(Socks5Front, GREETING + ASSOCIATE)
        assert outcome.result == Request(Command.UDP_ASSOCIATE, Address("0.0.0.0", 0))

    @pytest.mark.parametrize("bound", [Address("127.0.0.1", 1080), Address("2001:db8::1", 1)])
    def test_bound_address(self, bound):
        front = Socks5Front()
        assert front.feed(GREETING + ASSOCIATE)
        assert front.accept(bound) == b"\x05\x00\x00" + encode_address(bound)

    def test_open_to_clients_that_offer_more(self):
        outcome = every_way(Socks5Front, b"\x05\xff" + bytes(reversed(range(255))) + CONNECT)
        assert outcome.replies == b"\x05\x00"
        assert outcome.result == Request(Command.CONNECT, EXAMPLE)

    def test_replies_are_handed_out_once(self):
        front = Socks5Front()
        assert front.outgoing() == b""
        assert front.feed(GREETING) is None
        assert front.outgoing() == b"\x05\x00"
        assert front.outgoing() == b""

    def test_early_data(self):
        """Payload sent before any reply is the leftover, byte for byte."""
        front = Socks5Front()
        assert front.leftover == b""
        payload = bytes(range(256)) * 64
        assert front.feed(GREETING + CONNECT + payload) == Request(Command.CONNECT, EXAMPLE)
        assert front.leftover == payload

    def test_reserved_byte_is_not_looked_at(self):
        outcome = every_way(Socks5Front, GREETING + b"\x05\x01\xaa" + CONNECT[3:])
        assert outcome.result == Request(Command.CONNECT, EXAMPLE)


class TestUserAndPassword:
    def test_right(self):
        """K1, USERPASS; pipelined: method choice and status leave in this order."""
        outcome = every_way(guarded, GREETING_BOTH + CREDENTIALS + CONNECT)
        assert outcome.replies == vector("socks5_select_userpass") + vector("rfc1929_ok")
        assert outcome.result == Request(Command.CONNECT, EXAMPLE, "user")

    def test_step_by_step(self):
        front = guarded()
        steps = [(GREETING_USER, b"\x05\x02"), (CREDENTIALS, b"\x01\x00")]
        for line, reply in steps:
            assert front.feed(line) is None
            assert front.outgoing() == reply
        assert front.feed(CONNECT) == Request(Command.CONNECT, EXAMPLE, "user")
        assert front.outgoing() == b""

    @pytest.mark.parametrize(
        "line",
        [
            b"\x01\x04user\x04pasS",
            b"\x01\x04User\x04pass",
            b"\x01\x04pass\x04user",
            b"\x01\x05user\x00\x04pass",
            b"\x01\x01u\x01p",
            b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255,
            b"\x01\x04us\xffr\x04pa\x80s",
        ],
    )
    def test_wrong(self, line):
        outcome = every_way(guarded, GREETING_USER + line, check=nothing_more)
        assert isinstance(outcome.error, CredentialsRequired)
        assert outcome.replies == b"\x05\x02" + vector("rfc1929_fail")

    def test_wrong_says_no_secret(self):
        outcome = every_way(guarded, GREETING_USER + b"\x01\x05alice\x07letmein" + CONNECT)
        assert "letmein" not in repr(outcome.error)
        assert "alice" not in repr(outcome.error)

    @pytest.mark.parametrize("line", [b"\x01\x00\x04pass", b"\x01\x04user\x00", b"\x01\x00\x00"])
    def test_empty(self, line):
        asked = []
        outcome = every_way(
            lambda: Socks5Front(lambda *pair: not asked.append(pair)),
            GREETING_USER + line,
            check=nothing_more,
        )
        assert isinstance(outcome.error, BadRequest)
        assert outcome.replies == b"\x05\x02\x01\x01"
        assert asked == []

    @pytest.mark.parametrize("version", [0x00, 0x02, 0x05])
    def test_wrong_version(self, version):
        """Among them a client that skips the sub-negotiation."""
        outcome = every_way(guarded, GREETING_USER + bytes([version]), check=nothing_more)
        assert isinstance(outcome.error, BadRequest)
        assert outcome.replies == b"\x05\x02\x01\x01"

    def test_bytes_reach_the_check_unchanged(self):
        pairs = []
        user, password = bytes(range(128, 256)), "pässwörd".encode() + b"\xff"
        line = b"\x01%c%b%c%b" % (len(user), user, len(password), password)
        front = Socks5Front(lambda *pair: not pairs.append(pair))
        assert front.feed(GREETING_USER + line + CONNECT) is not None
        assert [tuple(text.encode(errors="surrogateescape") for text in pair) for pair in pairs] == [
            (user, password)
        ]

    def test_checked_once(self):
        pairs = []
        front = Socks5Front(lambda *pair: not pairs.append(pair))
        outcome = deliver(front, list(pieces(GREETING_USER + CREDENTIALS + CONNECT))[1])
        assert outcome.result is not None
        assert pairs == [("user", "pass")]


class TestRefusals:
    @pytest.mark.parametrize(
        ("make_front", "greeting", "error"),
        [
            (Socks5Front, GREETING_USER, Unsupported),
            (Socks5Front, b"\x05\x02\x01\x80", Unsupported),
            (guarded, GREETING, CredentialsRequired),
            (guarded, b"\x05\x03\x00\x01\x03", CredentialsRequired),
            (Socks5Front, b"\x05\x00", BadRequest),
            (guarded, b"\x05\x00", BadRequest),
        ],
    )
    def test_no_acceptable_method(self, make_front, greeting, error):
        """K5: 05 FF, and open access is never chosen where users are set."""
        outcome = every_way(make_front, greeting, check=nothing_more)
        assert type(outcome.error) is error
        assert outcome.replies == vector("socks5_no_acceptable")

    @pytest.mark.parametrize("command", [0x00, 0x02, 0x04, 0xFF])
    def test_bind_and_unknown_commands(self, command):
        """K5: 05 07, and not before the request is read to its end."""

        def check(outcome):
            assert outcome.parser.reject(outcome.error) == b"\x05\x07\x00\x01" + bytes(6)
            assert outcome.parser.reject(outcome.error) == b""

        request = b"\x05%c\x00" % command + CONNECT[3:]
        outcome = every_way(Socks5Front, GREETING + request, check=check)
        assert type(outcome.error) is Unsupported
        assert every_way(Socks5Front, GREETING + request[:-1]).error is None

    @pytest.mark.parametrize("atyp", [0x00, 0x02, 0x05, 0xFF])
    def test_unknown_address_type(self, atyp):
        def check(outcome):
            assert outcome.parser.reject(outcome.error) == b"\x05\x08\x00\x01" + bytes(6)

        outcome = every_way(Socks5Front, GREETING + b"\x05\x01\x00%c" % atyp, check=check)
        assert isinstance(outcome.error, UnsupportedAddressType)

    @pytest.mark.parametrize(
        "request_line",
        [
            CONNECT[:-2] + b"\x00\x00",
            b"\x05\x01\x00\x01\x7f\x00\x00\x01\x00\x00",
            b"\x05\x01\x00\x03\x00",
            b"\x05\x01\x00\x03\x03a b\x00\x50",
            b"\x05\x01\x00\x03\x02\xff\xfe\x00\x50",
            b"\x04",
            b"G",
        ],
    )
    def test_malformed(self, request_line):
        outcome = every_way(Socks5Front, GREETING + request_line, check=general_failure)
        assert not isinstance(outcome.error, Unsupported)
        assert outcome.replies == b"\x05\x00"

    @pytest.mark.parametrize("first", [0x00, 0x04, 0x16, 0x47])
    def test_other_version(self, first):
        outcome = every_way(Socks5Front, bytes([first]), check=nothing_more)
        assert isinstance(outcome.error, BadRequest)

    @pytest.mark.parametrize(
        ("error", "code"),
        [
            (ConnectFailed("refused"), 0x05),
            (ConnectTimeout("slow"), 0x04),
            (ResolveFailed("no such name"), 0x04),
            (TargetForbidden("rule"), 0x02),
            (Overloaded("full"), 0x01),
            (RelayError("other"), 0x01),
        ],
        ids=lambda value: type(value).__name__,
    )
    def test_failure_after_the_request(self, error, code):
        """W27: what the handler knows is told, once."""
        front = Socks5Front()
        assert front.feed(GREETING + CONNECT) is not None
        assert front.reject(error) == b"\x05%c\x00\x01" % code + bytes(6)
        assert front.reject(error) == b""
        assert front.accept() == b""

    def test_refused_vector(self):
        front = Socks5Front()
        front.feed(GREETING + CONNECT)
        assert front.reject(ConnectFailed("refused")) == vector("reply_refused")

    @pytest.mark.parametrize(
        ("sent", "reply"),
        [
            (b"\x05", b"\x05\xff"),
            (GREETING_USER, b"\x01\x01"),
            (GREETING_USER + CREDENTIALS, b"\x05\x01\x00\x01" + bytes(6)),
        ],
    )
    def test_timeout_is_answered_in_the_terms_of_the_stage(self, sent, reply):
        front = guarded()
        assert front.feed(sent) is None
        assert front.accept() == b""
        assert front.reject(HandshakeTimeout("too slow")) == reply
        assert front.reject(HandshakeTimeout("too slow")) == b""


class TestBounds:
    @pytest.mark.parametrize(
        ("make_front", "before", "line"),
        [
            (Socks5Front, b"", b"\x05\xff" + bytes(255)),
            (guarded, GREETING_USER, b"\x01\xff" + b"u" * 255 + b"\xff" + b"p" * 255),
            (Socks5Front, GREETING, b"\x05\x01\x00\x03\xff" + b"x" * 255 + b"\x00\x50"),
        ],
    )
    def test_longest_lines(self, make_front, before, line):
        """The longest line of each stage waits for its last byte and for none after it."""
        for parts in pieces(before + line[:-1]):
            front = make_front()
            waiting = deliver(front, parts)
            assert (waiting.result, waiting.error) == (None, None)
            finished = deliver(front, [line[-1:]])
            assert (finished.result, finished.error, finished.replies) != (None, None, b"")

    @given(st.binary(min_size=MAX_HANDSHAKE, max_size=MAX_HANDSHAKE + 50))
    def test_every_client_is_done_in_time(self, data):
        for make_front in (Socks5Front, guarded):
            outcome = deliver(make_front(), [data])
            assert outcome.result or outcome.error

    @given(st.one_of(sessions(), damaged(sessions()), st.binary(max_size=600)), st.booleans())
    def test_any_bytes(self, data, guard):
        """A request or a ProtocolError that is answered, however the bytes are cut."""
        outcome = every_way(guarded if guard else Socks5Front, data, trailing=b"")
        if outcome.error is not None:
            assert isinstance(outcome.error, ProtocolError)
            assert outcome.replies + outcome.parser.reject(outcome.error)

    @given(st.data())
    def test_any_session(self, data):
        """What a client composes of valid parts arrives as it was meant, payload and all."""
        methods = data.draw(st.binary(min_size=1, max_size=255).map(lambda raw: raw[:-1] + b"\x02"))
        user, password = data.draw(fields), data.draw(fields)
        address, payload = data.draw(addresses), data.draw(st.binary(max_size=100))
        wire = b"\x05%c%b" % (len(methods), methods)
        wire += b"\x01%c%b%c%b" % (len(user), user, len(password), password)
        wire += b"\x05\x01\x00" + encode_address(address) + payload
        outcome = every_way(lambda: Socks5Front(lambda *pair: True), wire)
        assert outcome.result == Request(Command.CONNECT, address, user.decode(errors="surrogateescape"))
        assert (outcome.replies, outcome.rest) == (b"\x05\x02\x01\x00", payload)
