"""Answers of the proxy itself: error pages, and those to a TRACE or OPTIONS that ends here.

Every one of them says ``Connection: close``: after an error nobody is sure where the next request
would start, and after a refused CONNECT nothing more may be taken from the connection (RFC 9931).
"""

from __future__ import annotations

import html
from http import HTTPStatus
from typing import TYPE_CHECKING

from common.errors import RelayError, reply_for
from common.proto.http_fields import Fields

if TYPE_CHECKING:
    import h11

METHODS = b"CONNECT, DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT, TRACE"  # the usual ones; none is refused

# What a TRACE must not reflect (RFC 9110 section 9.3.8).
_SENSITIVE = (b"authorization", b"cookie", b"proxy-authorization")

_PAGE = """<!DOCTYPE html>
<html lang="en">
<meta charset="utf-8">
<title>{title}</title>
<h1>{title}</h1>
<p>{cause}</p>
</html>
"""


def error_page(error: RelayError, method: bytes, *fields: tuple[bytes, bytes]) -> bytes:
    """Return the response for ``error``: its status and cause; no body for HEAD. ``fields`` are added."""
    status = HTTPStatus(reply_for(error).status)
    cause = str(error)
    page = _PAGE.format(
        title=f"{status.value} {status.phrase}", cause=html.escape(cause[:1].upper() + cause[1:])
    ).encode(errors="replace")  # a user's name may hold bytes that are not UTF-8 (PEP 383)
    head = _head(status, [(b"Content-Type", b"text/html; charset=utf-8"), *fields], len(page))
    return head if method == b"HEAD" else head + page


def final_recipient_page(request: h11.Request) -> bytes:
    """Return the response to a request whose Max-Forwards ran out: TRACE reflected, OPTIONS answered."""
    if request.method != b"TRACE":
        return _head(HTTPStatus.OK, [(b"Allow", METHODS)], 0)
    lines = [b"%b %b HTTP/%b\r\n" % (request.method, request.target, request.http_version)]
    lines += [
        b"%b: %b\r\n" % field for field in request.headers.raw_items() if field[0].lower() not in _SENSITIVE
    ]
    echo = b"".join(lines) + b"\r\n"
    return _head(HTTPStatus.OK, [(b"Content-Type", b"message/http")], len(echo)) + echo


def _head(status: HTTPStatus, fields: Fields, length: int) -> bytes:
    fields = [*fields, (b"Content-Length", b"%d" % length), (b"Connection", b"close")]
    lines = b"".join(b"%b: %b\r\n" % field for field in fields)
    return b"HTTP/1.1 %d %b\r\n%b\r\n" % (status.value, status.phrase.encode(), lines)
