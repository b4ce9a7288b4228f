"""Raw heads: limits, the grammar a request is held to before h11 (T6, H15), and mending of responses."""

import pytest

from common.errors import (
    BadRequest,
    BadResponse,
    HeadTooLarge,
    ProtocolError,
    Unsupported,
    UriTooLong,
    VersionNotSupported,
)
from common.proto.http_head import (
    MAX_EMPTY_LINES,
    MAX_FIELDS,
    MAX_HEAD,
    MAX_REQUEST_LINE,
    HeadBuffer,
    mend_response_head,
    parse_request_head,
    vet_request_line,
)
from tests.http_wire import SMUGGLING
from tests.wire import every_way


class Cutter:
    """HeadBuffer as a parser: feed until the head is complete."""

    def __init__(self):
        self.head = HeadBuffer()

    @property
    def leftover(self):
        return self.head.rest

    def feed(self, data):
        self.head.append(memoryview(data))
        if self.head.request_line() is None:
            return None
        return self.head.cut()


def head_of(size, line=b"GET / HTTP/1.1\r\n"):
    """Return a head of exactly ``size`` bytes."""
    return line + b"X: " + b"x" * (size - len(line) - 7) + b"\r\n\r\n"


@pytest.mark.parametrize(
    "head", [b"GET / HTTP/1.1\r\nA: b\r\n\r\n", b"\r\n\r\n", b"a\nb\n\n", b"a\n\r\n", b"a\r\n\n"]
)
def test_head_is_cut_at_its_empty_line(head):
    assert every_way(Cutter, b"x" + head).result == b"x" + head


def test_leading_empty_lines_are_skipped():
    assert every_way(Cutter, b"\r\n" * MAX_EMPTY_LINES + b"GET /\r\n\r\n").result == b"GET /\r\n\r\n"
    assert isinstance(every_way(Cutter, b"\r\n" * (MAX_EMPTY_LINES + 1)).error, BadRequest)


@pytest.mark.parametrize("data", [b"\x05\x01\x00", b"\x01", b"\r\n\x01", b"\rG", b" GET", b"(", b"\xc3\xa9"])
def test_what_cannot_begin_a_request_is_refused_without_a_line_end(data):
    """A SOCKS client at a port for HTTP only would wait for ever, and so would we."""
    assert isinstance(every_way(Cutter, data).error, BadRequest)


@pytest.mark.parametrize("data", [b"", b"\r", b"\r\n", b"\r\n\r", b"G", b"\r\nGE"])
def test_what_may_begin_a_request_is_waited_for(data):
    cutter = Cutter()
    assert cutter.feed(data) is None
    assert cutter.feed(b"") is None


def test_H7_head_limit_is_exact():
    assert len(every_way(Cutter, head_of(MAX_HEAD)).result) == MAX_HEAD
    assert isinstance(every_way(Cutter, head_of(MAX_HEAD + 1)).error, HeadTooLarge)


def test_an_endless_head_is_refused_at_the_limit():
    cutter = Cutter()
    cutter.feed(head_of(MAX_HEAD)[:-1])
    with pytest.raises(HeadTooLarge):
        cutter.feed(b"xx")


def test_request_line_limit_is_exact():
    line = b"GET /" + b"x" * (MAX_REQUEST_LINE - 16) + b" HTTP/1.1\r\n"
    assert len(line) == MAX_REQUEST_LINE
    assert every_way(Cutter, line + b"\r\n").result == line + b"\r\n"
    assert isinstance(every_way(Cutter, b"x" + line + b"\r\n").error, UriTooLong)
    assert isinstance(every_way(Cutter, b"x" * MAX_REQUEST_LINE).error, UriTooLong)


def test_a_long_line_is_told_before_a_long_head():
    assert isinstance(every_way(Cutter, b"x" * (MAX_HEAD + 1) + b"\r\n\r\n").error, UriTooLong)


@pytest.mark.parametrize(
    ("line", "method"),
    [
        (b"GET / HTTP/1.1\r\n", b"GET"),
        (b"get http://a/ HTTP/1.0\r\n", b"get"),
        (b"M-SEARCH * HTTP/1.1\r\n", b"M-SEARCH"),
        (b"!#$%&'*+-.^_`|~ a HTTP/1.9\r\n", b"!#$%&'*+-.^_`|~"),
    ],
)
def test_request_line(line, method):
    assert vet_request_line(line) == method


@pytest.mark.parametrize(
    "line",
    [
        b"\n",
        b"GET\r\n",
        b"GET /\r\n",
        b"GET / HTTP/1.1\n",
        b" GET / HTTP/1.1\r\n",
        b"GET  / HTTP/1.1\r\n",
        b"GET / HTTP/1.1 \r\n",
        b"GET\t/ HTTP/1.1\r\n",
        b"GET / / HTTP/1.1\r\n",
        b"GET / http/1.1\r\n",
        b"GET / HTTP/1\r\n",
        b"GET / HTTP/1.10\r\n",
        b"GET / HTTP/11.1\r\n",
        b"GET / XHTTP/1.1\r\n",
        b"G@T / HTTP/1.1\r\n",
        b"G\x00T / HTTP/1.1\r\n",
        b"G\xc9T / HTTP/1.1\r\n",
        b"GET /\x00 HTTP/1.1\r\n",
        b"GET /\r HTTP/1.1\r\n",
        b"GET /\x0b HTTP/1.1\r\n",
        b"GET /\xe9 HTTP/1.1\r\n",
        b"GET / HTTP/1.1\r\r\n",
    ],
)
def test_H15_bad_request_line(line):
    with pytest.raises(BadRequest):
        vet_request_line(line)


@pytest.mark.parametrize("line", [b"PRI * HTTP/2.0\r\n", b"GET / HTTP/0.9\r\n", b"GET / HTTP/3.0\r\n"])
def test_other_major_versions(line):
    with pytest.raises(VersionNotSupported):
        vet_request_line(line)


def parse(fields, version=b"1.1", host=b"Host: a\r\n"):
    return parse_request_head(b"GET http://a/ HTTP/" + version + b"\r\n" + host + fields + b"\r\n")[1]


def test_T6_names_in_any_case_and_duplicates():
    request = parse(b"hOST:a\r\nX:1\r\nx:2\r\n", host=b"")
    assert request.headers.raw_items() == [(b"hOST", b"a"), (b"X", b"1"), (b"x", b"2")]


def test_values_lose_only_the_blanks_around_them():
    request = parse(b'A: \t b  c\t \r\nB:\r\nC: \xe9\xff;"=\r\n')
    assert request.headers.raw_items()[1:] == [(b"A", b"b  c"), (b"B", b""), (b"C", b'\xe9\xff;"=')]


def test_equal_content_lengths_are_merged():
    request = parse(b"Content-Length: 5\r\nContent-Length: 5\r\ncontent-length: 5, 5\r\n")
    assert request.headers.raw_items()[1:] == [(b"Content-Length", b"5")]


@pytest.mark.parametrize("fields", SMUGGLING.values(), ids=SMUGGLING.keys())
def test_H15_refused(fields):
    with pytest.raises(BadRequest):
        parse(fields)


@pytest.mark.parametrize(
    "value",
    [
        b"xchunked",
        b"chunkedx",
        b"identity",
        b"gzip, chunked",
        b"chunked, gzip",
        b"chunked;q=1",
        b'"chunked"',
        b"",
    ],
)
def test_H15_unknown_transfer_coding(value):
    with pytest.raises(Unsupported):
        parse(b"Transfer-Encoding: " + value + b"\r\n")


def test_H15_repeated_transfer_coding_is_refused():
    for fields in (b"Transfer-Encoding: chunked, chunked\r\n", b"Transfer-Encoding: chunked\r\n" * 2):
        with pytest.raises(ProtocolError):
            parse(fields)


def test_H15_transfer_encoding_in_http_1_0():
    with pytest.raises(BadRequest, match=r"HTTP/1\.0"):
        parse(b"Transfer-Encoding: chunked\r\n", version=b"1.0")


@pytest.mark.parametrize("version", [b"1.1", b"1.2"])
def test_host_is_mandatory(version):
    with pytest.raises(BadRequest, match="Host"):
        parse(b"", version, host=b"")


def test_host_is_not_mandatory_in_http_1_0():
    assert parse(b"", b"1.0", host=b"").headers == []


@pytest.mark.parametrize(
    "host", [b"a", b"a:80", b"a:", b"", b"[::1]:80", b"1.2.3.4", b"a%20b", b"other.example"]
)
def test_host_may_be_anything_valid(host):
    parse(b"", host=b"Host: " + host + b"\r\n")


@pytest.mark.parametrize(
    "host", [b"a b", b"a, b", b"a/b", b"http://a", b"a@b", b"[::1", b"a:b", b"a?", b"\xe9", b"a#"]
)
@pytest.mark.parametrize("version", [b"1.0", b"1.1"])
def test_bad_host(host, version):
    with pytest.raises(BadRequest):
        parse(b"", version, host=b"Host: " + host + b"\r\n")


def test_number_of_fields_is_limited():
    parse(b"".join(b"X-%d:\r\n" % i for i in range(MAX_FIELDS - 1)))
    with pytest.raises(HeadTooLarge):
        parse(b"".join(b"X-%d:\r\n" % i for i in range(MAX_FIELDS)))


def test_no_verdict_quotes_a_value():
    for fields in [
        *SMUGGLING.values(),
        b"X: s3cret\x00\r\n",
        b"s3cret\r\n",
        b"Transfer-Encoding: s3cret\r\n",
    ]:
        with pytest.raises(ProtocolError) as caught:
            parse(b"Proxy-Authorization: Basic s3cret\r\n" + fields)
        assert "s3cret" not in str(caught.value)


def test_response_is_mended():
    head = b"HTTP/1.1 200 OK\r\nA : b : c\r\nB\t \t: d\r\nC: e :f\r\n\r\n"
    assert mend_response_head(head) == b"HTTP/1.1 200 OK\r\nA: b : c\r\nB: d\r\nC: e :f\r\n\r\n"
    assert mend_response_head(b"HTTP/1.0 200\nA : b\n\n") == b"HTTP/1.0 200\nA: b\n\n"


@pytest.mark.parametrize(
    "head", [b"ICY 200 OK\r\n\r\n", b"HTTP/2.0 200 OK\r\n\r\n", b"\r\nHTTP/1.1 200 OK\r\n\r\n", b"\n\n"]
)
def test_response_needs_a_status_line(head):
    with pytest.raises(BadResponse):
        mend_response_head(head)
