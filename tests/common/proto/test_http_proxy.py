"""``HttpFront``: CONNECT, absolute-form requests and refusals; rows H1 to H3, H6, H7, H15, T6."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import (
    BadRequest,
    ConnectFailed,
    ForwardLimitReached,
    HandshakeTimeout,
    HeadTooLarge,
    ProtocolError,
    ServerStalled,
    TargetForbidden,
    Unsupported,
    UriTooLong,
    VersionNotSupported,
    reply_for,
)
from common.proto.address import Address
from common.proto.http_head import MAX_FIELDS, MAX_HEAD, MAX_REQUEST_LINE
from common.proto.http_proxy import ESTABLISHED
from common.proto.request import Command, Request
from tests.http_wire import SMUGGLING, WholeFront, new_front, read_request, read_response, refused, upload
from tests.wire import every_way, pieces

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
GET = b"GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n\r\n"
BODY = b"POST http://a/ HTTP/1.1\r\nHost: a\r\n"


# -- CONNECT -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("head", "address"),
    [
        (CONNECT, Address("example.com", 443)),
        (b"CONNECT example.com:443 HTTP/1.0\r\n\r\n", Address("example.com", 443)),
        (b"CONNECT a:1 HTTP/1.0\r\nUser-Agent: x\r\nProxy-Connection: keep-alive\r\n\r\n", Address("a", 1)),
        (b"CONNECT [2001:db8::1]:443 HTTP/1.1\r\nhost: somewhere.else\r\n\r\n", Address("2001:db8::1", 443)),
        (b"\r\n\r\nCONNECT 192.0.2.1:443 HTTP/1.1\r\nHost:\r\n\r\n", Address("192.0.2.1", 443)),
        (b"CONNECT a:1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", Address("a", 1)),
    ],
)
def test_H1_H3_connect(head, address):
    outcome = every_way(WholeFront, head)
    assert outcome.result == Request(Command.CONNECT, address, None)
    assert outcome.rest == b""
    front = outcome.parser.front
    assert front.exchange is None
    assert front.accept(Address("192.0.2.9", 1)) == ESTABLISHED
    assert front.accept() == b""
    assert front.reject(ConnectFailed("x")) == b""


def test_connect_answer_has_no_framing():
    assert ESTABLISHED == b"HTTP/1.1 200 Connection established\r\n\r\n"


def test_H3_what_is_sent_early_belongs_to_the_tunnel():
    early = b"\x16\x03\x01GET / HTTP/1.1\r\n\r\n"
    front = new_front()
    assert front.feed(CONNECT + early)
    assert front.leftover == early


@pytest.mark.parametrize(
    "target",
    [
        b"example.com",
        b"example.com:0",
        b"example.com:x",
        b"http://example.com/",
        b"/",
        b"*",
        b"::1:443",
        b"a@b:1",
    ],
)
def test_H7_connect_needs_host_and_port(target):
    refused(b"CONNECT " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n", BadRequest)


def test_connect_of_http_1_1_needs_host():
    refused(b"CONNECT example.com:443 HTTP/1.1\r\n\r\n", BadRequest)


@pytest.mark.parametrize(
    "error", [ConnectFailed("refused", 111), ServerStalled("quiet"), TargetForbidden("no")]
)
def test_H7_refusing_a_connect_closes(error):
    front = new_front()
    front.feed(CONNECT)
    answer = read_response(front.reject(error), eof=True)
    assert answer.start[0] == b"%d" % reply_for(error).status
    assert answer.values(b"connection") == [b"close"]
    assert str(error)[1:].encode() in answer.body
    assert front.accept() == b""


# -- absolute-form -------------------------------------------------------------------------------


def test_H2_forward():
    head = (
        b"GET http://example.com/a?b HTTP/1.1\r\nhost: example.com\r\nProxy-Connection: keep-alive\r\n"
        b"Proxy-Authorization: Basic eDp5\r\nAccept: */*\r\n\r\n"
    )
    outcome = every_way(WholeFront, head)
    assert outcome.result == Request(Command.FORWARD, Address("example.com", 80), None)
    exchange = outcome.parser.front.exchange
    assert exchange.address == Address("example.com", 80)
    assert exchange.begin() == (
        b"GET /a?b HTTP/1.1\r\nHost: example.com\r\nAccept: */*\r\nVia: 1.1 proxy\r\n\r\n"
    )
    assert outcome.parser.front.accept() == b""
    assert outcome.parser.front.leftover == b""


def test_front_without_via():
    front = new_front(via=None)
    front.feed(GET)
    assert front.exchange.begin() == b"GET /a?b HTTP/1.1\r\nHost: example.com\r\n\r\n"


@pytest.mark.parametrize(
    "method", [b"GET", b"HEAD", b"PUT", b"DELETE", b"PATCH", b"OPTIONS", b"TRACE", b"get", b"X-1"]
)
def test_H6_any_method_is_forwarded(method):
    for parts in pieces(method + b" http://h/p HTTP/1.1\r\nHost: h\r\n\r\n"):
        sent = upload(parts)
        assert sent.request == Request(Command.FORWARD, Address("h", 80), None)
        assert read_request(sent.to_origin).start == (method, b"/p")


def test_OPTIONS_of_the_whole_server():
    sent = upload([b"OPTIONS http://h HTTP/1.1\r\nHost: h\r\n\r\n"])
    assert read_request(sent.to_origin).start == (b"OPTIONS", b"*")


def test_H3_http_1_0_is_forwarded_as_1_1():
    sent = upload([b"GET http://h:8080/ HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"])
    assert sent.to_origin == b"GET / HTTP/1.1\r\nHost: h:8080\r\nVia: 1.0 proxy\r\n\r\n"


def test_https_scheme_is_501_with_a_sentence():
    assert b"CONNECT" in refused(b"GET https://a/ HTTP/1.1\r\nHost: a\r\n\r\n", Unsupported).body


@pytest.mark.parametrize("target", [b"/", b"/favicon.ico", b"*"])
def test_origin_form_gets_a_friendly_page(target):
    answer = refused(b"OPTIONS " + target + b" HTTP/1.1\r\nHost: 127.0.0.1:1080\r\n\r\n", BadRequest)
    assert b"This is a proxy, not a web site" in answer.body


def test_head_is_refused_without_a_body():
    assert refused(b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest).body == b""


# -- limits and syntax ---------------------------------------------------------------------------


@pytest.mark.parametrize("fields", SMUGGLING.values(), ids=SMUGGLING.keys())
@pytest.mark.parametrize("line", [b"POST http://a/ HTTP/1.1\r\n", b"CONNECT a:1 HTTP/1.1\r\n"])
def test_H15_T6_smuggling_is_refused(line, fields):
    refused(line + b"Host: a\r\n" + fields + b"\r\n", BadRequest)


def test_H15_unknown_coding_is_501():
    refused(BODY + b"Transfer-Encoding: xchunked\r\n\r\n", Unsupported)


@pytest.mark.parametrize(
    ("head", "kind"),
    [
        (b"GET http://a/ HTTP/1.1\r\n\r\n", BadRequest),
        (b"GET http://a/ HTTP/2.0\r\n\r\n", VersionNotSupported),
        (b"GET\r\n", BadRequest),
        (b"GET http://a/\r\n", BadRequest),
        (b"G(T http://a/ HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
        (b"GET a:80 HTTP/1.1\r\nHost: a\r\n\r\n", BadRequest),
        (b"\n", BadRequest),
        (b"\r\n" * 9, BadRequest),
        (b"GET http://a/" + b"x" * MAX_REQUEST_LINE, UriTooLong),
        (b"GET http://a/ HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, HeadTooLarge),
        (b"GET http://a/ HTTP/1.1\r\n" + b"X: y\r\n" * (MAX_FIELDS + 1) + b"\r\n", HeadTooLarge),
        (b"HEAD http://a/ HTTP/1.1\r\nX: " + b"x" * MAX_HEAD, HeadTooLarge),
    ],
)
def test_H7_malformed(head, kind):
    refused(head, kind)


def test_a_long_uri_and_a_large_header_are_fine():
    uri = b"http://a/" + b"x" * 8000
    head = b"GET " + uri + b" HTTP/1.1\r\nHost: a\r\nCookie: " + b"c" * 50_000 + b"\r\n\r\n"
    outcome = every_way(WholeFront, head)
    assert read_request(outcome.parser.front.exchange.begin()).start[1] == uri[8:]


def test_a_timeout_is_told_before_there_is_a_request():
    front = new_front()
    front.feed(b"GET http://a/ HT")
    answer = read_response(front.reject(HandshakeTimeout("too slow")), eof=True)
    assert answer.start == (b"408", b"Request Timeout")
    assert new_front().reject(HandshakeTimeout("x")).startswith(b"HTTP/1.1 408 ")
    assert new_front().accept() == b""


# -- Max-Forwards --------------------------------------------------------------------------------


def test_trace_that_may_go_no_further_is_answered_here():
    head = b"TRACE http://a/b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\nCookie: s3cret\r\n\r\n"
    answer = refused(head, ForwardLimitReached)
    assert answer.values(b"content-type") == [b"message/http"]
    assert answer.body == b"TRACE http://a/b HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"


def test_options_that_may_go_no_further_is_answered_here():
    answer = refused(b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", ForwardLimitReached)
    assert answer.values(b"allow")
    refused(b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: x\r\n\r\n", BadRequest)


def test_max_forwards_counts_down():
    sent = upload([b"OPTIONS http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 1\r\n\r\n"])
    assert read_request(sent.to_origin).values(b"max-forwards") == [b"0"]


# -- a body behind the head ----------------------------------------------------------------------


def test_H15_a_bad_body_that_came_with_the_head_is_refused_before_anything_is_forwarded():
    head = BODY + b"Transfer-Encoding: chunked\r\n\r\n"
    for body in (
        b"FFFFFFFFFFFFFFFFF\r\n",
        b"x\r\n",
        b"1\r\nab\r\n",
        b"-1\r\n",
        b"+1\r\na\r\n",
        b"1 ;\x00\n\r\n",
    ):
        front = new_front()
        with pytest.raises(BadRequest) as caught:
            front.feed(head + body)
        assert front.exchange is None
        assert front.reject(caught.value).startswith(b"HTTP/1.1 400 ")


# -- any bytes -----------------------------------------------------------------------------------

LINES = [
    b"GET http://a/ HTTP/1.1\r\n",
    b"POST http://a:81/x HTTP/1.0\r\n",
    b"CONNECT a:1 HTTP/1.1\r\n",
    b"TRACE http://a HTTP/1.1\r\n",
    b"Host: a\r\n",
    b"Host: b\n",
    b" folded\r\n",
    b"Content-Length: 3\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, upgrade, x\r\n",
    b"Upgrade: y\r\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"Proxy-Authorization: Basic YTpi\r\n",
    b"\r\n",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"abc",
    b"\x00",
    b"\r",
    b"\n",
    b":",
]


@given(
    st.lists(st.sampled_from(LINES) | st.binary(max_size=6), max_size=14).map(b"".join),
    st.booleans(),
    st.data(),
)
@settings(max_examples=400)
def test_any_bytes_are_a_request_or_a_protocol_error_whole_and_byte_wise(wire, closed, data):
    def run(parts):
        front = new_front((lambda user, password: user == "a") if closed else None)
        sent = upload(parts, front)
        if isinstance(sent.error, ProtocolError) and sent.request is None:
            read_response(
                front.reject(sent.error), b"HEAD" if wire.lstrip().startswith(b"HEAD") else b"GET", True
            )
        return sent, front

    whole, front = run([wire])
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=4)))
    random_parts = [wire[a:b] for a, b in zip([0, *cuts], [*cuts, len(wire)], strict=True)]
    for parts in ([wire[i : i + 1] for i in range(len(wire))], random_parts):
        cut, cut_front = run(parts)
        assert type(cut.error) is type(whole.error)
        if whole.error is None:
            assert cut.request == whole.request
            assert cut.leftover == whole.leftover
            if front.exchange is not None:
                assert cut_front.exchange.request_done == front.exchange.request_done
                assert cut_front.exchange.retryable == front.exchange.retryable
                if front.exchange.request_done:
                    assert read_request(cut.to_origin) == read_request(whole.to_origin)


@given(st.binary(max_size=200))
def test_noise_is_no_request(noise):
    front = new_front()
    sent = upload([noise], front)
    assert sent.request is None
    assert front.reject(sent.error or HandshakeTimeout("x")).startswith(b"HTTP/1.1 ")
