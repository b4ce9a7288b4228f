"""Credentials of ``HttpFront`` (H8): Basic, for tunnels and forwards alike, with every request anew."""

import base64

import pytest

from common.errors import BadRequest, CredentialsRequired
from common.proto.http_proxy import HttpFront
from tests.http_wire import WholeFront, new_front, read_response, refused
from tests.wire import every_way

CONNECT = b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n"
GET = b"GET http://example.com/a?b HTTP/1.1\r\nHost: example.com\r\n\r\n"
BODY = b"POST http://a/ HTTP/1.1\r\nHost: a\r\n"


def auth(user, password):
    return (user, password) in [("ann", "s3:cret"), ("jürgen", "ü"), ("\udcff", "")]


def basic(user, password, scheme=b"Basic ", encoding="utf-8"):
    token = base64.b64encode(f"{user}:{password}".encode(encoding, "surrogateescape"))
    return b"Proxy-Authorization: " + scheme + token + b"\r\n"


@pytest.mark.parametrize("head", [CONNECT, GET])
@pytest.mark.parametrize(
    ("field", "user"),
    [
        (basic("ann", "s3:cret"), "ann"),
        (basic("ann", "s3:cret", b"bAsIc   "), "ann"),
        (basic("jürgen", "ü"), "jürgen"),
        (basic("\udcff", ""), "\udcff"),
    ],
)
def test_H8_right_credentials(head, field, user):
    outcome = every_way(lambda: WholeFront(new_front(auth)), head[:-2] + field + b"\r\n")
    assert outcome.result.username == user


@pytest.mark.parametrize("head", [CONNECT, GET, b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"])
@pytest.mark.parametrize(
    "field",
    [
        b"",
        basic("ann", "wrong"),
        basic("ann", ""),
        basic("", ""),
        basic("ann", "s3:cret", b"Bearer "),
        basic("ann", "s3:cret", b"Basic"),
        basic("ann", "s3:cret")[:-5] + b"\r\n",
        basic("ann", "s3:cret") * 2,
        b"Proxy-Authorization:\r\n",
        b"Proxy-Authorization: Basic\r\n",
        b"Proxy-Authorization: Basic !!!\r\n",
        b"Proxy-Authorization: Basic \xff\r\n",
        b"Proxy-Authorization: Basic YW5u\r\n",
        b"Authorization: Basic YW5uOnMzOmNyZXQ=\r\n",
    ],
)
def test_H8_wrong_or_missing_credentials(head, field):
    answer = refused(head[:-2] + field + b"\r\n", CredentialsRequired, auth=auth)
    assert answer.start[0] == b"407"
    assert answer.values(b"proxy-authenticate") == [b'Basic realm="shadowrelay", charset="UTF-8"']
    assert b"s3" not in answer.body


def test_realm_is_quoted():
    front = new_front(auth, realm='a "b" \\c')
    with pytest.raises(CredentialsRequired) as caught:
        front.feed(GET)
    answer = read_response(front.reject(caught.value), eof=True)
    assert answer.values(b"proxy-authenticate") == [b'Basic realm="a \\"b\\" \\\\c", charset="UTF-8"']


def test_syntax_is_judged_before_credentials_and_those_before_the_target():
    refused(BODY + b"Content-Length: x\r\n\r\n", BadRequest, auth=auth)
    refused(b"CONNECT nowhere HTTP/1.1\r\nHost: a\r\n\r\n", CredentialsRequired, auth=auth)
    refused(b"TRACE http://a/ HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n", CredentialsRequired, auth=auth)


def test_H5_H8_every_request_of_a_connection_shows_its_credentials():
    front = HttpFront(auth, via="me", realm="here")
    assert front.feed(GET[:-2] + basic("ann", "s3:cret") + b"\r\n")
    second = front.again()
    assert second.exchange is None
    with pytest.raises(CredentialsRequired) as caught:
        second.feed(GET)
    assert b'realm="here"' in second.reject(caught.value)
    third = front.again()
    assert third.feed(GET[:-2] + basic("ann", "s3:cret") + b"\r\n").username == "ann"
    assert b"Via: 1.1 me\r\n" in third.exchange.begin()
