"""Targets for HTTP: what a client sends to the proxy, what an origin answers, the sizes of chunks.

What is let through is read back by h11 as the next hop would read it.
"""

from __future__ import annotations

from typing import Any

from common.errors import BadRequest, HandshakeTimeout, RelayError
from common.proto.http_chunks import ChunkSizes
from common.proto.http_head import MAX_HEAD
from tests.common.proto.test_http_chunks import HARMLESS
from tests.common.proto.test_http_exchange_edges import ANSWERS
from tests.common.proto.test_http_proxy import LINES
from tests.fuzz.registry import target
from tests.fuzz.ways import same_every_way, ways
from tests.http_wire import SMUGGLING, Upload, get, new_front, read_request, read_response, upload

MAX_ADDED = 1024  # bytes of head that we write ourselves, and of a page for an error less its sentence

BODY = ("a chunk size", "the request's body")  # how the reasons begin that are about the body

_HOST = b"Host: h\r\n"
_POST = b"POST http://h:80/p?q HTTP/1.1\r\n" + _HOST
REQUESTS = [
    b"CONNECT example.com:443 HTTP/1.1\r\nHost: example.com:443\r\n\r\n\x16\x03\x01",
    b"CONNECT [::1]:443 HTTP/1.0\r\n\r\n",
    b"GET http://user@example.com:8080/a?b#c HTTP/1.1\r\nHost: x\r\nConnection: close, x\r\nX: y\r\n\r\n",
    b"\r\n\r\nHEAD http://h HTTP/1.0\r\nProxy-Authorization: Basic YTpi\r\n\r\n",
    b"OPTIONS http://h HTTP/1.1\r\nHost: h\r\nMax-Forwards: 0\r\n\r\n",
    b"TRACE http://h/ HTTP/1.1\r\nHost: h\r\nMax-Forwards: 7\r\nVia: 1.0 a\r\n\r\n",
    b"GET http://h/ HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw",
    _POST + b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\nhelloGET http://h/ HTTP/1.1\r\n",
    _POST + b"Transfer-Encoding: chunked\r\nTE: trailers\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\nmore",
    _POST + b"X: y\r\n" * 300 + b"\r\n",
    b"GET http://h/" + b"a" * 1000 + b" HTTP/1.1\r\nHost: h\r\n\r\n",
    *(_POST + fields[:600] + b"\r\n5\r\nhello\r\n0\r\n\r\n" for fields in SMUGGLING.values()),
]
_OK = b"HTTP/1.1 200 OK\r\n"
RESPONSES = [
    _OK + b"Content-Length: 2\r\n\r\nokmore",
    _OK + b"Transfer-Encoding: chunked\r\nConnection: x\r\nX: y\r\n\r\n2\r\nok\r\n0\r\nT: u\r\n\r\n",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: x\r\n\r\n" + _OK + b"\r\nuntil the end",
    b"HTTP/1.0 304 \r\nContent-Length : 9\n\n",
    b"HTTP/1.1 204 No\r\nContent-Length: 3\r\nProxy-Authenticate: Basic\r\n\r\n",
    b"HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw bytes",
    b"HTTP/1.1 407 x\r\nVia: 1.0 b\r\nX: a\r\n folded\r\nContent-Length: 0\r\n\r\n",
]
WORDS = [
    *LINES,
    b"\r\n\r\n",
    b"\n\n",
    b" ",
    b"\t",
    b"FFFFFFFFFFFFFFFFF",
    b"HTTP/2.0",
    b"HTTP/1.9",
    b"://",
    b"@",
]


@target([bytes((kind,)) + wire for wire in REQUESTS for kind in (0, 1)], WORDS, max_size=4096)
def http_request(data: bytes) -> None:
    """The first byte: with users or without. The front, and the exchange behind it."""
    wire = data[1:]
    auth = (lambda user, _: user == "a") if data[:1] > b"\0" else None
    whole, front = _uploaded([wire], auth)
    for parts in ways(wire):
        sent, other = _uploaded(parts, auth)
        assert type(sent.error) is type(whole.error)
        if not str(whole.error).startswith(BODY):  # of two faults in a body, either may be told
            assert str(sent.error) == str(whole.error)
        if whole.error is None:
            assert sent.request == whole.request
            assert sent.leftover == whole.leftover
            assert other.leftover == front.leftover or front.exchange is None
        if front.exchange is not None and other.exchange is not None:
            assert other.exchange.request_done == front.exchange.request_done
            if front.exchange.request_done and whole.error is None:
                assert read_request(sent.to_origin) == read_request(whole.to_origin)


@target([bytes((kind,)) + wire for wire in RESPONSES for kind in (0, 1, 8, 14)], ANSWERS, max_size=4096)
def http_response(data: bytes) -> None:
    """The bits of the first byte: HTTP/1.0, HEAD, an upgrade was asked for, the origin closes behind it."""
    kind, wire = data[0] if data else 0, data[1:]
    old, head, upgrade, eof = (bool(kind >> bit & 1) for bit in range(4))
    method = b"HEAD" if head else b"GET"

    def answer(parts: list[bytes]) -> tuple[Any, bytes, RelayError | None]:
        more = b"Connection: upgrade\r\nUpgrade: websocket\r\n" if upgrade else b""
        exchange, got = get(b"1.0" if old else b"1.1", method, more), b""
        try:
            for part in parts:
                got += exchange.from_origin(part)
            got += exchange.origin_eof() if eof else b""
        except RelayError as error:
            return exchange, got, error
        return exchange, got, None

    whole, got, error = answer([wire])
    assert error is None or len(whole.fail(error)) <= MAX_ADDED
    assert len(got) <= 2 * len(wire) + MAX_ADDED  # a line end or a blank may be added to each line
    for parts in ways(wire):
        exchange, cut_got, cut_error = answer(parts)
        assert type(cut_error) is type(error)
        if error is not None:
            continue
        for flag in (
            "finished",
            "switched",
            "response_started",
            "keep_client",
            "keep_origin",
            "origin_leftover",
        ):
            assert getattr(exchange, flag) == getattr(whole, flag), flag
        if whole.finished or whole.switched:
            assert read_response(cut_got, method, old, upgrade) == read_response(got, method, old, upgrade)


@target(
    [*HARMLESS, b"5\r\nhello\r\n12345678901234567\r\n", b"F" * 17 + b"\r\n", b"1;" + b"x" * 400 + b"\r\n"],
    WORDS,
)
def http_chunks(data: bytes) -> None:
    outcome = same_every_way(_Chunks, data)
    assert outcome.error is None or type(outcome.error) is BadRequest
    assert len(outcome.parser.sizes._line) <= ChunkSizes.MAX_SIZE_LINE


class _Chunks:
    """``ChunkSizes`` as a parser that is never done."""

    def __init__(self) -> None:
        self.sizes = ChunkSizes()

    def feed(self, data: bytes) -> None:
        self.sizes.feed(memoryview(data))


def _uploaded(parts: list[bytes], auth: Any) -> tuple[Upload, Any]:
    front = new_front(auth)
    sent = upload(parts, front)
    size = sum(map(len, parts))
    assert len(sent.to_origin) <= 8 * size + MAX_ADDED  # a byte that comes alone is a chunk: "1" CRLF x CRLF
    assert sent.request is not None or sent.error is not None or len(front._head._data) <= MAX_HEAD + size
    if sent.request is None:
        page = front.reject(sent.error or HandshakeTimeout("late"))
        assert page.startswith(b"HTTP/1.1 ")
        assert len(page) <= 2 * size + 2 * MAX_ADDED  # a TRACE is answered with what it asked
    return sent, front
