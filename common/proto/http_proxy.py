"""``HttpFront``: one HTTP request head to a proxy, tunnel or forward (RFC 9110, RFC 9112).

    CONNECT host:port HTTP/1.1        ─► Request(CONNECT): accept() is the 200, then an opaque stream
    GET http://host/path HTTP/1.1     ─► Request(FORWARD): ``exchange`` does the talking, both ways
    anything else                     ─► an error, and reject() is a page that says what was wrong

A front holds MAX_HEAD bytes and one feed at most. It is used for one request; on a kept-alive connection
``again()`` makes the one for the next, which has to show its credentials again, as every request has to.

The surprise: a TRACE or OPTIONS whose Max-Forwards ran out is raised as an "error" too, and reject()
answers it with a 200. It ends here like an error does, with nobody to connect to.
"""

from __future__ import annotations

import base64
import binascii
from typing import TYPE_CHECKING

from common.errors import CredentialsRequired, ForwardLimitReached, RelayError
from common.proto.address import Address
from common.proto.http_fields import field_values, forwards_left
from common.proto.http_head import HeadBuffer, parse_request_head, vet_request_line
from common.proto.http_target import parse_absolute, parse_authority
from common.proto.request import Auth, Command, Request

if TYPE_CHECKING:
    import h11

    from common.proto.http_exchange import HttpExchange

ESTABLISHED = b"HTTP/1.1 200 Connection established\r\n\r\n"


class HttpFront:
    """Implements ``Front``; see the contract there. ``auth`` None: open to everyone.

    ``via`` is our pseudonym in Via fields (a token; None for no such fields), ``realm`` what a browser
    shows when it asks for the password. ``exchange`` is set with a FORWARD request, and holds what was
    received behind the head; ``leftover`` is for CONNECT.
    """

    __slots__ = (
        "_answered",
        "_auth",
        "_head",
        "_method",
        "_realm",
        "_request",
        "_via",
        "exchange",
        "leftover",
    )

    def __init__(self, auth: Auth | None, *, via: str | None, realm: str = "shadowrelay") -> None:
        self._auth, self._via, self._realm = auth, via, realm
        self._head = HeadBuffer()
        self._method = b""
        self._request: h11.Request | None = None
        self._answered = False
        self.exchange: HttpExchange | None = None
        self.leftover = b""

    def again(self) -> HttpFront:
        """Return a fresh front with the same settings."""
        return HttpFront(self._auth, via=self._via, realm=self._realm)

    def feed(self, data: bytes | bytearray | memoryview) -> Request | None:
        """Take the client's bytes; return its Request once the head is complete.

        Raises BadRequest (HeadTooLarge, UriTooLong), Unsupported (VersionNotSupported),
        CredentialsRequired and ForwardLimitReached, judged in the order: request line, size, syntax,
        framing, credentials, target.
        """
        self._head.append(data)
        if not self._method:
            line = self._head.request_line()
            if line is None:
                return None
            self._method = vet_request_line(line)
        head = self._head.cut()
        if head is None:
            return None
        connection, request = parse_request_head(head)
        self._request = request
        username = self._authenticate(request)
        if request.method == b"CONNECT":
            address = parse_authority(request.target)
            self.leftover = self._head.rest
            return Request(Command.CONNECT, address, username)
        target = parse_absolute(request.method, request.target)
        if forwards_left(request) == 0:
            raise ForwardLimitReached("Max-Forwards is 0: this proxy answers itself")
        from common.proto.http_exchange import HttpExchange  # for its imports, as in http_head.py

        self.exchange = HttpExchange(connection, request, target, via=self._via, received=self._head.rest)
        return Request(Command.FORWARD, target.address, username)

    def outgoing(self) -> bytes:
        """Return b"": in HTTP nothing is said before the request is known."""
        return b""

    def accept(self, bound: Address | None = None) -> bytes:
        """Return the 200 for a CONNECT; b"" for a forwarded request, which the origin answers."""
        if self._answered or self.exchange is not None or self._request is None:
            return b""
        self._answered = True
        return ESTABLISHED

    def reject(self, error: RelayError) -> bytes:
        """Return the whole response for a failure; the connection is to be closed behind it."""
        if self._answered:
            return b""
        self._answered = True
        from common.proto.http_pages import error_page, final_recipient_page  # for its imports, too

        if isinstance(error, ForwardLimitReached) and self._request is not None:
            return final_recipient_page(self._request)
        if isinstance(error, CredentialsRequired):
            realm = self._realm.replace("\\", "\\\\").replace('"', '\\"')
            challenge = f'Basic realm="{realm}", charset="UTF-8"'.encode()
            return error_page(error, self._method, (b"Proxy-Authenticate", challenge))
        return error_page(error, self._method)

    def _authenticate(self, request: h11.Request) -> str | None:
        """Return the authenticated user, None for an open front (RFC 7617). Raises CredentialsRequired."""
        if self._auth is None:
            return None
        values = field_values(request, b"proxy-authorization")
        if not values:
            raise CredentialsRequired("this proxy asks for a user and password")
        scheme, _, token = values[0].partition(b" ")
        try:
            decoded = base64.b64decode(token.strip(b" "), validate=True).decode("utf-8", "surrogateescape")
        except binascii.Error:
            decoded = ""
        user, colon, password = decoded.partition(":")
        if len(values) > 1 or scheme.lower() != b"basic" or not colon or not self._auth(user, password):
            raise CredentialsRequired("the proxy user or password is wrong")
        return user
