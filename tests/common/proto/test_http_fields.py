"""Header fields of forwarded messages: what goes, what stays, what is added."""

import h11
import pytest

from common.errors import BadRequest
from common.proto.http_fields import (
    connection_options,
    field_values,
    forwards_left,
    request_fields,
    response_fields,
    wants_upgrade,
)

HOP_BY_HOP = [
    (b"Connection", b"keep-alive, X-Mine"),
    (b"CONNECTION", b"x-other ,,"),
    (b"X-Mine", b"1"),
    (b"X-OTHER", b"1"),
    (b"Keep-Alive", b"timeout=5"),
    (b"Proxy-Connection", b"keep-alive"),
    (b"TE", b"trailers"),
    (b"Trailer", b"X-Sum"),
    (b"Upgrade", b"h2c"),
    (b"Proxy-Authorization", b"Basic secret"),
    (b"Proxy-Authenticate", b"Basic realm=x"),
    (b"Proxy-Authentication-Info", b"x"),
]
END_TO_END = [
    (b"aCCept", b"*/*"),
    (b"Cookie", b"a=1"),
    (b"Cookie", b"b=2"),
    (b"Authorization", b"Basic x"),
    (b"Empty", b""),
    (b"X-Obs", b"\xe9\xff"),
]


def request(method="GET", fields=(), version="1.1"):
    return h11.Request(
        method=method, target="/", headers=[(b"Host", b"ignored"), *fields], http_version=version
    )


def response(status=200, fields=(), version="1.1"):
    kind = h11.InformationalResponse if status < 200 else h11.Response
    return kind(status_code=status, headers=list(fields), http_version=version)


def test_H2_T6_request_keeps_order_and_spelling_of_what_is_end_to_end():
    mixed = [field for pair in zip(HOP_BY_HOP, END_TO_END * 2, strict=True) for field in pair]
    assert request_fields(request(fields=mixed), b"origin:81", None) == [
        (b"Host", b"origin:81"),
        *END_TO_END * 2,
    ]


def test_response_keeps_order_and_spelling_of_what_is_end_to_end():
    cookies = [(b"Set-Cookie", b"a=1"), (b"Set-Cookie", b"b=2"), (b"Content-Length", b"5")]
    assert response_fields(response(fields=HOP_BY_HOP + cookies), None) == cookies


def test_via_is_appended_with_the_received_version():
    fields = [(b"Via", b"1.0 first"), (b"Via", b"1.1 second")]
    assert request_fields(request(fields=fields, version="1.0"), b"o", "me")[1:] == [
        *fields,
        (b"Via", b"1.0 me"),
    ]
    assert response_fields(response(fields=fields), "me") == [*fields, (b"Via", b"1.1 me")]
    assert response_fields(response(fields=fields, version="1.0"), "me")[-1] == (b"Via", b"1.0 me")


def test_upgrade_is_forwarded_when_asked_for():
    fields = [
        (b"Upgrade", b"websocket"),
        (b"Connection", b"Upgrade, keep-alive"),
        (b"Sec-WebSocket-Key", b"k"),
    ]
    assert wants_upgrade(request(fields=fields))
    assert request_fields(request(fields=fields), b"o", None) == [
        (b"Host", b"o"),
        (b"Sec-WebSocket-Key", b"k"),
        (b"Connection", b"upgrade"),
        (b"Upgrade", b"websocket"),
    ]


@pytest.mark.parametrize(
    ("fields", "version"),
    [
        ([(b"Upgrade", b"x"), (b"Connection", b"upgrade")], "1.0"),
        ([(b"Upgrade", b"x")], "1.1"),
        ([(b"Upgrade", b"x"), (b"Connection", b"close")], "1.1"),
        ([(b"Connection", b"upgrade")], "1.1"),
    ],
)
def test_upgrade_is_ignored(fields, version):
    assert not wants_upgrade(request(fields=fields, version=version))
    assert request_fields(request(fields=fields, version=version), b"o", None) == [(b"Host", b"o")]


def test_switching_response_says_to_what():
    fields = [(b"Connection", b"Upgrade"), (b"Upgrade", b"websocket"), (b"Sec-WebSocket-Accept", b"k")]
    assert response_fields(response(101, fields), None) == [
        (b"Sec-WebSocket-Accept", b"k"),
        (b"Connection", b"upgrade"),
        (b"Upgrade", b"websocket"),
    ]


def test_framing_fields():
    chunked = [(b"Transfer-Encoding", b"chunked")]
    length = [(b"Content-Length", b"5")]
    assert request_fields(request(fields=chunked), b"o", None) == [(b"Host", b"o"), *chunked]
    assert request_fields(request(fields=length), b"o", None) == [(b"Host", b"o"), *length]
    assert response_fields(response(fields=length), None) == length
    assert response_fields(response(fields=chunked + length), None) == []
    assert response_fields(response(304, length), None) == length
    assert response_fields(response(204, length), None) == []


def test_expectation_of_http_1_0_is_ignored():
    fields = [(b"Expect", b"100-continue")]
    assert request_fields(request(fields=fields), b"o", None) == [(b"Host", b"o"), *fields]
    assert request_fields(request(fields=fields, version="1.0"), b"o", None) == [(b"Host", b"o")]


@pytest.mark.parametrize("method", ["TRACE", "OPTIONS"])
def test_max_forwards_counts_down(method):
    message = request(method, [(b"Max-Forwards", b"010")])
    assert forwards_left(message) == 10
    assert field_values(message, b"max-forwards") == [b"010"]
    assert request_fields(message, b"o", None) == [(b"Host", b"o"), (b"Max-Forwards", b"9")]
    assert forwards_left(request(method)) is None


def test_max_forwards_of_other_methods_is_left_alone():
    fields = [(b"Max-Forwards", b"x")]
    assert forwards_left(request(fields=fields)) is None
    assert request_fields(request(fields=fields), b"o", None) == [(b"Host", b"o"), *fields]


@pytest.mark.parametrize("values", [[b"x"], [b""], [b"-1"], [b"+1"], [b"1", b"1"], [b"1, 1"], [b"9" * 10]])
def test_bad_max_forwards(values):
    with pytest.raises(BadRequest):
        forwards_left(request("TRACE", [(b"Max-Forwards", value) for value in values]))


def test_connection_options():
    assert connection_options(
        request(fields=[(b"Connection", b"Close,\tUpgrade ,"), (b"connection", b"a")])
    ) == {
        b"close",
        b"upgrade",
        b"a",
    }
