"""The raw head of an HTTP/1.x message: cut out of the stream, vetted, and only then given to h11.

    GET http://example.com/ HTTP/1.1 CRLF      start line, MAX_REQUEST_LINE bytes
    Host: example.com CRLF                     field lines, MAX_FIELDS of them
    CRLF                                       MAX_HEAD bytes up to here

h11 reads a head as generously as RFC 9112 lets a recipient be: lines that end in a bare LF, folded
lines, Transfer-Encoding beside Content-Length. Two recipients that are generous in different ways
disagree on where a message ends, which is what request smuggling lives on. So a request is held to
the grammar here first. A response is h11's to judge, but for what a proxy has to mend (section 5.1).

The surprise: the verdicts come in a fixed order (start line, size, field lines, meaning), so that
the way a network cut a head never decides which one it gets.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from common.errors import (
    BadRequest,
    BadResponse,
    HeadTooLarge,
    Unsupported,
    UriTooLong,
    VersionNotSupported,
)
from common.proto.http_fields import connection_options

if TYPE_CHECKING:
    import h11

MAX_REQUEST_LINE = 16 * 1024  # RFC 9112 section 3 asks for 8000 at least
MAX_HEAD = 64 * 1024
MAX_FIELDS = 256
MAX_EMPTY_LINES = 8  # before a request line; RFC 9112 section 2.2 asks for one
MAX_CONTENT_LENGTH = 2**63 - 1  # what an origin can be trusted to count in

_TOKEN = rb"[-!#$%&'*+.^_`|~0-9A-Za-z]+"
_CONTROL = rb"\x00-\x08\x0a-\x1f\x7f"

_REQUEST_START = re.compile(_TOKEN + rb"|\r?\Z")  # of a method, or perhaps of another empty line
_BLANK_LINE = re.compile(rb"\n\r?\n")
_REQUEST_LINE = re.compile(rb"(" + _TOKEN + rb") [\x21-\x7e]+ HTTP/([0-9])\.[0-9]\r\n")
_STATUS_LINE = re.compile(rb"HTTP/1\.[0-9] ")
_FIELD_LINES = re.compile(rb"(?:" + _TOKEN + rb":[^" + _CONTROL + rb"]*\r\n)*\r\n")
_HAS_CONTROL = re.compile(rb"[" + _CONTROL + rb"]")
_BLANK_BEFORE_COLON = re.compile(rb"(?m)^(" + _TOKEN + rb")[ \t]+:")
_HOST = re.compile(rb"(?:[-._~!$&'()*+,;=%0-9A-Za-z]*|\[[0-9A-Fa-f:.]+\])(?::[0-9]*)?")

# Fields that are for all recipients: a Connection option of that name is an attempt to have us
# drop what the origin must see (RFC 9110 section 7.6.1).
_END_TO_END = frozenset(
    b"authorization cache-control content-encoding content-length content-range content-type cookie "
    b"expect host max-forwards transfer-encoding via".split()
)


class HeadBuffer:
    """Collects one head in whatever pieces it arrives; holds MAX_HEAD bytes and one feed at most."""

    __slots__ = ("_data", "_empty_lines", "_searched", "rest")

    def __init__(self) -> None:
        self._data = bytearray()
        self._empty_lines = 0
        self._searched = 0
        self.rest = b""  # once cut: what was received behind the head

    def append(self, data: bytes | bytearray | memoryview) -> None:
        """Add a copy of what was received."""
        self._data += data

    def request_line(self) -> bytes | None:
        """Return the first line with its end, empty lines before it skipped; None while incomplete.

        Raises UriTooLong and, for more than MAX_EMPTY_LINES or what cannot begin a method, BadRequest:
        who speaks another protocol may send no line end ever.
        """
        while self._data.startswith(b"\r\n"):
            del self._data[:2]
            self._empty_lines += 1
            if self._empty_lines > MAX_EMPTY_LINES:
                raise BadRequest(f"more than {MAX_EMPTY_LINES} empty lines before the request")
        if not _REQUEST_START.match(self._data):
            raise BadRequest("the request line does not begin with a method")
        end = self._data.find(b"\n", 0, MAX_REQUEST_LINE)
        if end >= 0:
            return bytes(self._data[: end + 1])
        if len(self._data) >= MAX_REQUEST_LINE:
            raise UriTooLong(f"the request line is over {MAX_REQUEST_LINE} bytes")
        return None

    def cut(self) -> bytes | None:
        """Return the head with its empty line, the rest in ``rest``; None while incomplete.

        Raises HeadTooLarge.
        """
        match = _BLANK_LINE.search(self._data, self._searched, MAX_HEAD)
        if match is None:
            if len(self._data) >= MAX_HEAD:
                raise HeadTooLarge(f"the header is over {MAX_HEAD} bytes")
            self._searched = max(0, len(self._data) - 2)
            return None
        head, self.rest = bytes(self._data[: match.end()]), bytes(self._data[match.end() :])
        self._data.clear()
        return head


def vet_request_line(line: bytes) -> bytes:
    """Return the method of a request line. Raises BadRequest, VersionNotSupported."""
    match = _REQUEST_LINE.fullmatch(line)
    if match is None:
        raise BadRequest("the request line is not 'METHOD URI HTTP/1.1'")
    method, major = match.groups()
    if major != b"1":
        raise VersionNotSupported("this proxy speaks HTTP/1.1 and HTTP/1.0 only")
    return method


def parse_request_head(head: bytes) -> tuple[h11.Connection, h11.Request]:
    """Vet a complete request head: the h11 connection that has taken it, and what it says.

    The request line is vetted before (``vet_request_line``). Raises BadRequest (syntax, Host,
    framing), HeadTooLarge (number of fields), Unsupported (a transfer coding other than chunked).
    """
    import h11  # a tenth of sslocal's start: nothing listens later for it

    _vet_field_lines(head[head.index(b"\n") + 1 :])
    connection = h11.Connection(h11.SERVER)
    connection.receive_data(head)
    try:
        request = connection.next_event()
    except h11.RemoteProtocolError as exc:
        # Its words name the rule and never quote a line: those that do are about syntax, vetted above.
        raise (Unsupported if exc.error_status_hint == 501 else BadRequest)(str(exc)) from exc
    assert isinstance(request, h11.Request)
    _vet_meaning(request)
    return connection, request


def mend_response_head(head: bytes) -> bytes:
    """Return a response head without blanks before colons, which a proxy MUST remove (RFC 9112 section 5.1).

    Raises BadResponse when it does not start like an HTTP/1.x status line.
    """
    if not _STATUS_LINE.match(head):
        raise BadResponse("the origin's answer does not start with an HTTP/1.x status line")
    return _BLANK_BEFORE_COLON.sub(rb"\1:", head)


def _vet_field_lines(block: bytes) -> None:
    """Hold field lines and the empty line behind them to RFC 9112 section 5, no obsolete forms."""
    if block.count(b"\n") > MAX_FIELDS + 1:
        raise HeadTooLarge(f"more than {MAX_FIELDS} header fields")
    if _FIELD_LINES.fullmatch(block):
        return
    for line in block.removesuffix(b"\r\n").split(b"\r\n"):
        if _HAS_CONTROL.search(line):
            raise BadRequest("a control character, or a bare CR or LF, in the header")
        if line.startswith((b" ", b"\t")):
            raise BadRequest("a folded header line")
        if _BLANK_BEFORE_COLON.match(line):
            raise BadRequest("a blank between a header field's name and its colon")
    raise BadRequest("a header line is not 'Name: value'")


def _vet_meaning(request: h11.Request) -> None:
    """Refuse what h11 passes and two recipients could read in two ways (RFC 9112 sections 3.2 and 6)."""
    fields = dict(request.headers)  # h11 has merged or refused repetitions of those that matter here
    if b"transfer-encoding" in fields:
        if b"content-length" in fields:
            raise BadRequest("Transfer-Encoding and Content-Length in one request")
        if request.http_version == b"1.0":
            raise BadRequest("Transfer-Encoding in an HTTP/1.0 request")
    if int(fields.get(b"content-length", 0)) > MAX_CONTENT_LENGTH:
        raise BadRequest("Content-Length is over 63 bits")
    host = fields.get(b"host")
    if host is None and request.http_version != b"1.0":
        raise BadRequest("Host is missing")
    if host is not None and not _HOST.fullmatch(host):
        raise BadRequest("Host is not 'name' or 'name:port'")
    if connection_options(request) & _END_TO_END:
        raise BadRequest("Connection names a field that is meant for the origin")
