"""The proxy's own answers."""

import h11
import pytest

from common.errors import (
    REPLIES,
    BadRequest,
    ConfigError,
    CredentialsRequired,
    ForwardLimitReached,
    Overloaded,
    reply_for,
)
from common.proto.http_pages import error_page, final_recipient_page
from tests.http_wire import read_response


def make(kind):
    return kind(["no"]) if kind is ConfigError else kind("because")


@pytest.mark.parametrize("kind", [kind for kind in REPLIES if kind is not ForwardLimitReached])
def test_H7_every_error_has_a_page(kind):
    error = make(kind)
    page = read_response(error_page(error, b"GET"), eof=True)
    assert page.start[0] == b"%d" % reply_for(error).status
    assert page.start[1]
    assert page.values(b"connection") == [b"close"]
    assert page.values(b"content-type") == [b"text/html; charset=utf-8"]
    assert page.values(b"content-length") == [b"%d" % len(page.body)]
    assert b"because" in page.body.lower()
    assert page.start[0] in page.body
    assert page.rest == b""


def test_cause_is_escaped():
    page = read_response(error_page(BadRequest("<script>&\"'", "1 < 2", "ü"), b"GET"), eof=True)
    assert "&lt;script&gt;&amp;&quot;&#x27;: expected 1 &lt; 2, got ü".encode() in page.body
    assert b"<script>" not in page.body


def test_what_is_not_utf8_is_no_obstacle():
    """As in the name of a user whose client speaks another encoding."""
    page = read_response(error_page(Overloaded("user \udcfc has enough"), b"GET"), eof=True)
    assert b"User ? has enough" in page.body


def test_head_gets_no_body_but_its_length():
    page = error_page(BadRequest("x"), b"HEAD")
    assert page.endswith(b"\r\n\r\n")
    assert b"Content-Length: 0" not in page
    assert read_response(page, b"HEAD", eof=True).body == b""


def test_more_fields():
    page = error_page(CredentialsRequired("x"), b"GET", (b"Proxy-Authenticate", b"Basic"))
    assert read_response(page, eof=True).values(b"proxy-authenticate") == [b"Basic"]


def test_trace_is_reflected_without_secrets():
    fields = [
        (b"Host", b"a"),
        (b"COOKIE", b"secret"),
        (b"Authorization", b"secret"),
        (b"Proxy-Authorization", b"secret"),
        (b"Max-Forwards", b"0"),
    ]
    request = h11.Request(method="TRACE", target="http://a/b", headers=fields)
    page = read_response(final_recipient_page(request), eof=True)
    assert page.start[0] == b"200"
    assert page.values(b"content-type") == [b"message/http"]
    assert page.body == b"TRACE http://a/b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"


def test_options_lists_methods():
    request = h11.Request(method="OPTIONS", target="http://a/", headers=[(b"Host", b"a")])
    page = read_response(final_recipient_page(request), eof=True)
    assert page.start[0] == b"200"
    assert b"CONNECT" in page.values(b"allow")[0]
    assert page.body == b""
