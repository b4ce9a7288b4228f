"""``HttpExchange`` off the main road: interim responses, Upgrade, bad answers and none; H6, H7, H16."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import (
    BadResponse,
    ConnectFailed,
    ServerClosed,
    ServerStalled,
    Truncated,
    reply_for,
)
from tests.http_wire import download, forward, get, read_request, read_response
from tests.wire import TRAILING, pieces

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


# -- interim responses ---------------------------------------------------------------------------

EXPECT = b"POST http://h/ HTTP/%b\r\nHost: h\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\n"


def test_H6_expectation_and_interim_responses_are_passed_on():
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nConnection: x\r\nX: y\r\n\r\n"
    for parts in pieces(CONTINUE + hints + OK):
        exchange = forward(EXPECT % b"1.1")
        sent = exchange.begin()
        assert sent.endswith(b"\r\n\r\n")  # the head left at once
        assert b"Expect: 100-continue\r\n" in sent
        got = exchange.from_origin(CONTINUE)
        assert got == b"HTTP/1.1 100 Continue\r\nVia: 1.1 proxy\r\n\r\n"
        assert not exchange.response_started
        assert exchange.from_client(b"ab") == b"ab"
        got = download(exchange, parts)
        assert b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\nVia: 1.1 proxy\r\n\r\n" in got
        seen = read_response(got)
        assert seen.interim == [100, 103]
        assert seen.body == b"ok"
        assert exchange.keep_client
        assert exchange.keep_origin


def test_H6_an_expectation_may_be_turned_down():
    exchange = forward(EXPECT % b"1.1")
    got = download(exchange, [b"HTTP/1.1 417 No\r\nContent-Length: 0\r\n\r\n"])
    assert read_response(got).start == (b"417", b"No")
    assert exchange.finished
    assert not exchange.keep_client  # the client may send its body all the same


def test_http_1_0_clients_get_no_interim_responses():
    for parts in pieces(CONTINUE * 2 + OK):
        exchange = forward(EXPECT % b"1.0" + b"ab")
        assert b"Expect" not in exchange.begin()
        seen = read_response(download(exchange, parts), eof=True)
        assert (seen.interim, seen.body) == ([], b"ok")


def test_interim_responses_do_not_start_a_response():
    exchange = get()
    download(exchange, [CONTINUE])
    assert not exchange.response_started
    assert not exchange.retryable
    assert exchange.fail(ServerStalled("quiet")).startswith(b"HTTP/1.1 504 ")
    with pytest.raises(Truncated):
        exchange.origin_eof()


# -- Upgrade (H16) -------------------------------------------------------------------------------

WEBSOCKET = (
    b"GET http://h/ws HTTP/1.1\r\nHost: h\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Key: k\r\n\r\n"
)
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    b"Sec-WebSocket-Accept: a\r\n\r\n"
)


@pytest.mark.parametrize("interim", [b"", CONTINUE])
def test_H16_switch(interim):
    for parts in pieces(interim + SWITCHING + TRAILING):
        exchange = forward(WEBSOCKET + b"early")
        head = read_request(exchange.begin())
        assert head.values(b"connection") == [b"upgrade"]
        assert head.values(b"upgrade") == [b"websocket"]
        assert head.values(b"sec-websocket-key") == [b"k"]
        assert exchange.request_done
        assert exchange.from_client(b" birds") == b""
        got = download(exchange, parts)
        seen = read_response(got, upgrade=True)
        assert seen.start == (b"101", b"Switching Protocols")
        assert seen.values(b"connection") == [b"upgrade"]
        assert seen.values(b"upgrade") == [b"websocket"]
        assert seen.values(b"sec-websocket-accept") == [b"a"]
        assert seen.rest == b""
        assert exchange.switched
        assert exchange.response_started
        assert not exchange.finished
        assert not exchange.keep_client
        assert not exchange.keep_origin
        assert exchange.leftover == b"early birds"
        assert exchange.origin_leftover == TRAILING
        assert exchange.fail(ConnectFailed("x")) == b""
        assert exchange.origin_eof() == b""


def test_H16_declined():
    for parts in pieces(OK):
        exchange = forward(WEBSOCKET + b"GET ")
        got = download(exchange, parts)
        assert read_response(got).body == b"ok"
        assert not exchange.switched
        assert exchange.keep_client
        assert exchange.keep_origin
        assert exchange.leftover == b"GET "


def test_H16_a_request_with_a_body_may_switch_too():
    exchange = forward(WEBSOCKET.replace(b"GET", b"POST")[:-2] + b"Content-Length: 2\r\n\r\na")
    assert exchange.from_client(b"bxx") == b"b"
    download(exchange, [SWITCHING])
    assert exchange.switched
    assert exchange.leftover == b"xx"


@pytest.mark.parametrize(
    "request_head",
    [
        b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n",
        WEBSOCKET.replace(b"HTTP/1.1", b"HTTP/1.0"),
        WEBSOCKET.replace(b"keep-alive, Upgrade", b"keep-alive"),
        WEBSOCKET[:-2] + b"Content-Length: 2\r\n\r\na",
    ],
)
def test_a_switch_that_nobody_asked_for_is_refused(request_head):
    exchange = forward(request_head)
    with pytest.raises(BadResponse) as caught:
        exchange.from_origin(SWITCHING)
    assert not exchange.switched
    assert exchange.fail(caught.value).startswith(b"HTTP/1.1 502 ")


# -- bad answers, and none -----------------------------------------------------------------------

INVALID = {
    "noise": b"\x15\x03\x03\x00\x02\x02\x28\r\n\r\n",
    "HTTP/0.9": b"<html>hello</html>\n\n",
    "HTTP/2": b"HTTP/2.0 200 OK\r\n\r\n",
    "ICY": b"ICY 200 OK\r\n\r\n",
    "empty line first": b"\r\nHTTP/1.1 200 OK\r\n\r\n",
    "no status": b"HTTP/1.1 OK\r\n\r\n",
    "status 99": b"HTTP/1.1 099 OK\r\n\r\n",
    "status 2000": b"HTTP/1.1 2000 OK\r\n\r\n",
    "two lengths": b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n",
    "bad length": b"HTTP/1.1 200 OK\r\nContent-Length: +1\r\n\r\n",
    "empty length": b"HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
    "unknown coding": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "coding twice": b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
    "bare CR": b"HTTP/1.1 200 OK\r\nA: b\rContent-Length: 5\r\n\r\n",
    "NUL": b"HTTP/1.1 200 OK\r\nA: \x00\r\n\r\n",
    "no colon": b"HTTP/1.1 200 OK\r\nA\r\n\r\n",
    "folded first": b"HTTP/1.1 200 OK\r\n A: b\r\n\r\n",
    "head too large": b"HTTP/1.1 200 OK\r\nA: " + b"x" * 65536 + b"\r\n\r\n",
    "after an interim": CONTINUE + b"HTTP/1.1 \r\n\r\n",
}


@pytest.mark.parametrize("wire", INVALID.values(), ids=INVALID.keys())
def test_H7_an_invalid_answer_is_502(wire):
    for parts in pieces(wire):
        exchange = get()
        with pytest.raises(BadResponse) as caught:
            download(exchange, parts)
        assert reply_for(caught.value).status == 502
        assert not exchange.response_started
        assert not exchange.finished
        assert read_response(exchange.fail(caught.value), eof=True).start[0] == b"502"


def test_a_bad_chunk_in_the_first_piece_is_502_and_later_a_cut():
    head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
    exchange = get()
    with pytest.raises(BadResponse) as caught:
        exchange.from_origin(head + b"1\r\na\r\nxyz\r\n")
    assert exchange.fail(caught.value).startswith(b"HTTP/1.1 502 ")
    exchange = get()
    exchange.from_origin(head)
    with pytest.raises(BadResponse) as caught:
        exchange.from_origin(b"1\r\na\r\nxyz\r\n")
    assert exchange.fail(caught.value) == b""
    assert not exchange.finished


def test_bare_LF_and_folds_of_an_origin_are_mended():
    wire = b"HTTP/1.1 200 OK\nA : 1\nB:2\r\n  3\nContent-Length : 2\n\nok"
    for parts in pieces(wire):
        assert (
            download(get(), parts)
            == b"HTTP/1.1 200 OK\r\nA: 1\r\nB: 2 3\r\nContent-Length: 2\r\nVia: 1.1 proxy\r\n\r\nok"
        )


def test_nothing_was_answered():
    exchange = get()
    with pytest.raises(ServerClosed) as caught:
        exchange.origin_eof()
    assert exchange.retryable
    page = read_response(exchange.fail(caught.value), eof=True)
    assert page.start == (b"502", b"Bad Gateway")
    assert b"before the target answered" in page.body
    assert page.values(b"connection") == [b"close"]


def test_fail_of_a_head_request_has_no_body():
    page = get(method=b"HEAD").fail(ServerStalled("quiet"))
    assert page.startswith(b"HTTP/1.1 504 ")
    assert page.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    "wire",
    [
        b"H",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcd",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nabcd\r\n0\r\n",
        CONTINUE,
    ],
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_a_truncated_answer_is_not_ended(wire, version):
    for parts in pieces(wire):
        exchange = get(version)
        got = download(exchange, parts)
        with pytest.raises(Truncated) as caught:
            exchange.origin_eof()
        assert not exchange.finished
        assert not exchange.keep_client
        assert not got.endswith(b"0\r\n\r\n")
        assert exchange.response_started == (b"\r\n\r\n" in wire and wire != CONTINUE)
        assert (exchange.fail(caught.value) == b"") == exchange.response_started


def test_an_empty_piece_is_no_end():
    exchange = get()
    assert exchange.from_origin(b"") == b""
    assert exchange.retryable
    with pytest.raises(ServerClosed):
        exchange.origin_eof()


# -- once more -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("request_head", "retryable"),
    [
        (b"GET http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", True),
        (b"HEAD http://h/ HTTP/1.0\r\n\r\n", True),
        (b"DELETE http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", True),
        (b"PUT http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\nx", False),
        (b"PUT http://h/ HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", False),
        (b"POST http://h/ HTTP/1.1\r\nHost: h\r\nContent-Length: 0\r\n\r\n", False),
        (b"PATCH http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", False),
        (b"get http://h/ HTTP/1.1\r\nHost: h\r\n\r\n", False),
    ],
)
def test_retryable(request_head, retryable):
    exchange = forward(request_head)
    assert exchange.retryable == retryable
    exchange.begin()
    assert exchange.retryable == retryable
    if retryable:
        assert exchange.begin() == exchange.begin() != b""
    exchange.from_origin(b"H")
    assert not exchange.retryable


# -- any bytes -----------------------------------------------------------------------------------

ANSWERS = [
    b"HTTP/1.1 200 OK\r\n",
    b"HTTP/1.0 404 \r\n",
    b"HTTP/1.1 204 None\n",
    b"HTTP/1.1 304 \r\n",
    CONTINUE,
    SWITCHING,
    b"Content-Length: 3\r\n",
    b"Content-Length : 3\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Connection: close, x\r\n",
    b"X: y\r\n",
    b" folded\r\n",
    b"\r\n",
    b"\n",
    b"abc",
    b"3\r\nabc\r\n",
    b"0\r\n\r\n",
]

wires = st.lists(st.sampled_from(ANSWERS) | st.binary(max_size=5), max_size=12).map(b"".join)


@given(
    wires, st.booleans(), st.sampled_from([b"GET", b"HEAD"]), st.sampled_from([b"1.0", b"1.1"]), st.booleans()
)
def test_any_answer_is_passed_on_or_a_protocol_error_whole_and_byte_wise(wire, upgrade, method, version, eof):
    def run(parts):
        upgrading = b"Connection: upgrade\r\nUpgrade: x\r\n" if upgrade else b""
        exchange = get(version, method, upgrading)
        error = None
        got = b""
        try:
            for part in parts:
                got += exchange.from_origin(part)
            if eof:
                got += exchange.origin_eof()
        except (BadResponse, Truncated, ServerClosed) as exc:
            error = exc
        return exchange, got, error

    whole, got, error = run([wire])
    cut, cut_got, cut_error = run([wire[i : i + 1] for i in range(len(wire))])
    assert type(cut_error) is type(error)
    if error is None:
        flags = ("finished", "switched", "response_started", "keep_client", "keep_origin", "retryable")
        assert [getattr(cut, flag) for flag in flags] == [getattr(whole, flag) for flag in flags]
        if whole.finished or whole.switched:
            assert cut.origin_leftover == whole.origin_leftover
            old = version == b"1.0"
            assert read_response(cut_got, method, old, upgrade) == read_response(got, method, old, upgrade)
