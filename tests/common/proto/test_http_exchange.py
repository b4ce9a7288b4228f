"""``HttpExchange``: one forwarded request and its response; rows H3 to H6 and H15.

Every message crosses whole, byte by byte, at random cuts and with bytes behind it, and is read back by
h11 as the next hop would.
"""

from itertools import product

import pytest

from common.errors import (
    BadRequest,
    ConnectFailed,
    Truncated,
)
from tests.http_wire import download, forward, get, new_front, read_request, read_response, upload
from tests.wire import TRAILING, pieces

BODY = b"\r\n\r\nGET / HTTP/1.1\r\nContent-Length: 9\r\n\r\n0\r\n\r\n\x00\xff" + bytes(range(256))
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


def chunked(body, size=7, extension=b"", trailers=b""):
    chunks = [body[i : i + size] for i in range(0, len(body), size)]
    lines = [b"%x%b\r\n%b\r\n" % (len(chunk), extension, chunk) for chunk in chunks]
    return b"".join(lines) + b"0" + extension + b"\r\n" + trailers + b"\r\n"


def every_answer(make_exchange, wire, eof=False):
    """Yield (exchange, what the client got) for every way to cut the origin's answer."""
    for parts in pieces(wire):
        exchange = make_exchange()
        yield exchange, download(exchange, parts, eof)


# -- requests ------------------------------------------------------------------------------------

REQUEST_BODIES = {
    "length": (b"Content-Length: %d\r\n" % len(BODY), BODY),
    "merged lengths": (b"Content-Length: %d\r\n" % len(BODY) * 2, BODY),
    "chunked": (b"Transfer-Encoding: chunked\r\n", chunked(BODY)),
    "Chunked": (b"transfer-encoding: Chunked\r\n", chunked(BODY, 1000)),
    "extensions": (b"Transfer-Encoding: chunked\r\n", chunked(BODY, 50, b';a="0";b')),
    "trailers": (
        b"Transfer-Encoding: chunked\r\nTrailer: X\r\n",
        chunked(BODY, 50, trailers=b"X: y\r\nHost: z\r\n"),
    ),
}


@pytest.mark.parametrize("behind", [b"", TRAILING])
@pytest.mark.parametrize(("fields", "body"), REQUEST_BODIES.values(), ids=REQUEST_BODIES.keys())
def test_H3_H4_body_reaches_the_origin(fields, body, behind):
    for parts in pieces(b"POST http://h/p HTTP/1.1\r\nHost: h\r\n" + fields + b"\r\n" + body + behind):
        sent = upload(parts)
        seen = read_request(sent.to_origin)
        assert seen.start == (b"POST", b"/p")
        assert seen.body == BODY
        assert seen.rest == b""
        assert not seen.values(b"trailer")
        assert len(seen.values(b"content-length")) + len(seen.values(b"transfer-encoding")) == 1
        assert sent.leftover == behind
        assert sent.error is None


def test_pipelined_bytes_are_left_over():
    exchange = forward(b"PUT http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 3\r\n\r\nab")
    assert (exchange.request_done, exchange.leftover) == (False, b"")
    assert exchange.from_client(memoryview(b"cGET ")) == b"c"
    assert (exchange.request_done, exchange.leftover) == (True, b"GET ")
    assert exchange.from_client(b"http") == b""
    assert exchange.from_client(b"") == b""
    assert exchange.leftover == b"GET http"


@pytest.mark.parametrize("method", [b"GET", b"POST", b"DELETE"])
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_request_without_a_body_is_done_at_once(method, version):
    exchange = get(version, method)
    assert exchange.request_done
    exchange.client_eof()
    assert b"ontent-" not in exchange.begin()


def test_begin_has_what_was_received_and_copies_it():
    wire = bytearray(b"PUT http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nabc")
    exchange = forward(memoryview(wire))
    piece = bytearray(b"de")
    rest = exchange.from_client(memoryview(piece))
    wire[:] = bytes(len(wire))
    piece[:] = b"--"
    assert read_request(exchange.begin() + rest).body == b"abcde"


@pytest.mark.parametrize(
    "chunks", [b"g\r\n", b"1\r\nab\r\n", b"\r\n", b"1\n", b"FFFFFFFFFFFFFFFFF\r\n", b" 1\r\na\r\n"]
)
def test_H15_a_bad_chunk_is_refused_later_too(chunks):
    for parts in pieces(b"2\r\nab\r\n" + chunks):
        exchange = forward(b"PUT http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
        with pytest.raises(BadRequest) as caught:  # noqa: PT012
            for part in [*parts, b"." * 70_000]:
                exchange.from_client(part)
        assert not exchange.request_done
        assert exchange.fail(caught.value).startswith(b"HTTP/1.1 400 ")


def test_client_eof_inside_a_request():
    for framing in (b"Content-Length: 5\r\n\r\nabc", b"Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n"):
        exchange = forward(b"PUT http://h/ HTTP/1.1\r\nHost: h\r\n" + framing)
        with pytest.raises(Truncated):
            exchange.client_eof()


# -- responses: the matrix -----------------------------------------------------------------------

VERSIONS = list(product([b"1.0", b"1.1"], repeat=2))
FRAMINGS = {
    "length": (b"Content-Length: %d\r\n" % len(BODY), BODY, False),
    "merged lengths": (b"Content-Length: %d, %d\r\n" % (len(BODY), len(BODY)), BODY, False),
    "chunked": (b"Transfer-Encoding: chunked\r\n", chunked(BODY), False),
    "chunked with extensions": (b"Transfer-Encoding: Chunked\r\n", chunked(BODY, 99, b" ;a=b"[1:]), False),
    "chunked with trailers": (b"Transfer-Encoding: chunked\r\n", chunked(BODY, trailers=b"A: b\r\n"), False),
    "chunked wins over length": (
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        chunked(BODY),
        False,
    ),
    "close": (b"", BODY, True),
    "close, said": (b"Connection: close\r\n", BODY, True),
    "empty": (b"Content-Length: 0\r\n", b"", False),
    "empty, chunked": (b"Transfer-Encoding: chunked\r\n", chunked(b""), False),
    "empty, close": (b"", b"", True),
}


@pytest.mark.parametrize("framing", FRAMINGS)
@pytest.mark.parametrize(("client", "origin"), VERSIONS)
@pytest.mark.parametrize("method", [b"GET", b"POST"])
def test_H6_matrix_of_versions_and_framings(client, origin, framing, method):
    fields, body, eof = FRAMINGS[framing]
    wire = b"HTTP/" + origin + b" 200 Fine by me\r\nX-A: b\r\n" + fields + b"\r\n" + body
    for exchange, got in every_answer(lambda: get(client, method), wire, eof):
        old = client == b"1.0"
        seen = read_response(got, eof=old)
        assert seen.start == (b"200", b"Fine by me")
        assert seen.body == (b"" if framing.startswith("empty") else BODY)
        assert seen.rest == b""
        assert seen.values(b"x-a") == [b"b"]
        assert seen.values(b"via") == [origin + b" proxy"]
        assert len(seen.values(b"content-length")) + len(seen.values(b"transfer-encoding")) <= 1
        assert exchange.finished
        assert exchange.response_started
        assert exchange.keep_client == (not old)
        assert exchange.keep_origin == (origin == b"1.1" and not eof)
        assert (seen.values(b"connection") == [b"close"]) == old
        assert not (old and seen.values(b"transfer-encoding"))
        assert exchange.fail(ConnectFailed("x")) == b""
        assert not exchange.retryable


@pytest.mark.parametrize(("client", "origin"), VERSIONS)
@pytest.mark.parametrize("fields", [b"", b"Content-Length: 5\r\n", b"Transfer-Encoding: chunked\r\n"])
@pytest.mark.parametrize(
    ("method", "status"), [(b"HEAD", b"200"), (b"GET", b"204"), (b"GET", b"304"), (b"HEAD", b"404")]
)
def test_H6_responses_without_a_body(client, origin, fields, method, status):
    wire = b"HTTP/" + origin + b" " + status + b" \r\n" + fields + b"\r\n"
    for exchange, got in every_answer(lambda: get(client, method), wire):
        seen = read_response(got, method, eof=client == b"1.0")
        assert seen.start[0] == status
        assert (seen.body, seen.rest) == (b"", b"")
        assert exchange.finished
        assert exchange.keep_client == (client == b"1.1")
        assert exchange.keep_origin == (origin == b"1.1")
        if status == b"204":
            assert not seen.values(b"content-length") + seen.values(b"transfer-encoding")
        elif fields.startswith(b"Content-Length"):
            assert seen.values(b"content-length") == [b"5"]


def test_bytes_behind_a_response_spoil_the_stream_not_the_client():
    for parts in pieces(OK + b"HTTP/1.1 200 Injected\r\n\r\n"):
        exchange = get()
        got = download(exchange, parts)
        assert read_response(got)[2:4] == (b"ok", b"")
        assert exchange.keep_client
        assert not exchange.keep_origin
        assert exchange.origin_leftover == b"HTTP/1.1 200 Injected\r\n\r\n"
    body_of_a_204 = get()
    assert b"oops" not in download(body_of_a_204, [b"HTTP/1.1 204 \r\nContent-Length: 4\r\n\r\noops"])
    assert not body_of_a_204.keep_origin


def test_eof_behind_a_response():
    exchange = get()
    download(exchange, [OK])
    assert exchange.keep_origin
    assert exchange.origin_eof() == b""
    assert exchange.keep_client
    assert not exchange.keep_origin


@pytest.mark.parametrize(
    ("client", "origin", "keep_client", "keep_origin"),
    [
        (b"", b"", True, True),
        (b"Connection: close\r\n", b"", False, True),
        (b"Proxy-Connection: close\r\n", b"", True, True),
        (b"", b"Connection: close\r\n", True, False),
        (b"", b"Connection: Keep-Alive, CLOSE\r\n", True, False),
        (b"Connection: keep-alive\r\n", b"Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", True, True),
    ],
)
def test_H5_persistence(client, origin, keep_client, keep_origin):
    exchange = get(more=client)
    assert b"onnection" not in exchange.begin()
    got = download(exchange, [b"HTTP/1.1 200 OK\r\n" + origin + b"Content-Length: 0\r\n\r\n"])
    assert read_response(got).values(b"connection") == ([] if keep_client else [b"close"])
    assert not read_response(got).values(b"keep-alive")
    assert (exchange.keep_client, exchange.keep_origin) == (keep_client, keep_origin)


def test_an_answer_before_the_end_of_the_request_closes():
    exchange = forward(b"POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nab")
    got = download(exchange, [b"HTTP/1.1 413 Too much\r\nContent-Length: 2\r\n\r\nno"])
    assert read_response(got).values(b"connection") == [b"close"]
    assert exchange.finished
    assert not exchange.keep_client
    assert not exchange.keep_origin
    assert exchange.from_client(b"cde") == b"cde"
    assert exchange.request_done
    assert not exchange.keep_client


@pytest.mark.parametrize("said", [b"", b"Connection: close\r\n", b"Connection: keep-alive\r\n"])
def test_the_last_response_says_so(said):
    """RFC 9112 section 9.6"""
    exchange = forward(b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n")
    exchange.is_last = True
    got = download(exchange, [b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n" + said + b"\r\nok"])
    assert read_response(got).values(b"connection") == [b"close"]
    assert exchange.finished
    assert not exchange.keep_client


def test_answer_and_request_at_the_same_time():
    exchange = forward(b"POST http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n")
    sent = exchange.begin()
    got = download(exchange, [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\na\r\n"])
    sent += exchange.from_client(b"1\r\nA\r\n0\r\n\r\n")
    got += download(exchange, [b"1\r\nb\r\n0\r\n\r\n"])
    assert read_request(sent).body == b"A"
    assert read_response(got).body == b"ab"
    assert exchange.finished
    assert not exchange.keep_client


def test_three_pipelined_requests():
    requests = [
        b"POST http://a/1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n" + chunked(BODY),
        b"GET http://b/2 HTTP/1.1\r\nHost: b\r\n\r\n",
        b"PUT http://a/3 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\nConnection: close\r\n\r\n\r\n\r\n",
    ]
    for parts in pieces(b"\r\n".join(requests) + TRAILING):
        front, seen, kept, left = new_front(), [], [], list(parts)
        for _ in requests:
            while front.exchange is None:
                front.feed(left.pop(0))
            exchange = front.exchange
            to_origin = exchange.begin()
            while not exchange.request_done:
                to_origin += exchange.from_client(left.pop(0))
            message = read_request(to_origin)
            seen.append((exchange.address.host, message.start[1], message.body))
            assert read_response(download(exchange, [OK])).body == b"ok"
            kept.append(exchange.keep_client)
            left.insert(0, exchange.leftover)
            front = front.again()
        assert seen == [("a", b"/1", BODY), ("b", b"/2", b""), ("a", b"/3", b"\r\n\r\n")]
        assert kept == [True, True, False]
        assert b"".join(left) == TRAILING


# -- bulk ---------------------------------------------------------------------------------------


def test_a_large_body_moves_in_few_calls_and_unchanged():
    body = bytes(range(256)) * 4096  # 1 MiB
    for framing in (b"Content-Length: %d\r\n" % len(body), b""):
        exchange = get()
        got = exchange.from_origin(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n")
        for start in range(0, len(body), 512 * 1024):
            got += exchange.from_origin(memoryview(body)[start : start + 512 * 1024])
        got += exchange.origin_eof()
        assert read_response(got).body == body
        assert len(got) < len(body) + 200


def test_many_chunks_become_one():
    exchange = get()
    exchange.from_origin(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    assert exchange.from_origin(b"1\r\na\r\n" * 100) == b"64\r\n" + b"a" * 100 + b"\r\n"
