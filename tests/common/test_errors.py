"""The error tree, and the one table of what each error tells a client."""

from __future__ import annotations

from http import HTTPStatus

import pytest

from common import errors
from common.errors import (
    REPLIES,
    AuthenticationFailed,
    BadRequest,
    ConfigError,
    ConnectFailed,
    ProtocolError,
    RelayError,
    ReplayDetected,
    Reply,
    ResolveFailed,
    UpstreamError,
    reply_for,
)

CLASSES = [
    thing for thing in vars(errors).values() if isinstance(thing, type) and issubclass(thing, RelayError)
]
SOCKS5_REPLIES = range(0x01, 0x09)  # RFC 1928 section 6, without success


def test_labels_are_unique():
    labels = [reply.label for reply in REPLIES.values()]
    assert len(set(labels)) == len(labels)


@pytest.mark.parametrize("reply", REPLIES.values(), ids=lambda reply: reply.label)
def test_replies_are_of_their_protocols(reply):
    assert reply.socks5 in SOCKS5_REPLIES
    assert HTTPStatus(reply.status)
    assert reply.label.replace("_", "").isalpha()


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_error_has_a_reply_or_inherits_one(kind):
    """H7, K5: abstract classes and the operator's own errors have none of their own."""
    if kind not in (ConfigError, UpstreamError):
        assert kind in REPLIES
    assert errors.__doc__ is not None
    assert kind.__name__ in errors.__doc__, "it has its place in the tree"


def test_a_subclass_without_a_row_takes_its_parents():
    class Special(ConnectFailed):
        pass

    assert reply_for(Special("x")) is REPLIES[ConnectFailed]
    assert reply_for(ReplayDetected("x")).label == "replay"
    assert reply_for(AuthenticationFailed("x")).label == "authentication"


@pytest.mark.parametrize("error", [UpstreamError("x"), ConfigError(["x"]), ZeroDivisionError()])
def test_what_is_in_no_row_is_internal(error):
    assert reply_for(error) == Reply("internal", 0x01, 502)


def test_a_protocol_error_says_what_was_expected():
    assert str(ProtocolError("length")) == "length"
    assert str(BadRequest("length", "1 to 5", 7)) == "length: expected 1 to 5, got 7"
    assert str(ProtocolError("length", 0, 1)) == "length: expected 0, got 1"
    assert str(ProtocolError("reads", got=0)) == "reads: expected None, got 0"


def test_a_config_error_holds_one_line_per_problem():
    error = ConfigError(["first", "second"])
    assert error.problems == ("first", "second")
    assert str(error) == "first\nsecond"
    assert error.warnings == ()


def test_an_upstream_error_can_say_where_it_was_going():
    error = ConnectFailed("refused", 111)
    error.towards("the server is out of reach")
    assert str(error) == "the server is out of reach: refused"
    assert error.code == 111
    plain = ResolveFailed("no such name")
    plain.towards("there")
    assert str(plain) == "there: no such name"
