"""``HttpExchange``: one forwarded request and its response, between two framings of HTTP/1.1 (RFC 9112).

    client ──► h11, as its server ──► fields rewritten ──► h11, as a client ──► origin     from_client
    client ◄── h11, as its server ◄── fields rewritten ◄── h11, as a client ◄── origin     from_origin

Each side keeps its own framing: what an HTTP/1.1 origin chunks, an HTTP/1.0 client gets ended by the
connection. Bodies pass through in the pieces they come in, and are never collected.

    Request ─► request_done                                 leftover: what the client sent past it
               interim responses ─► response_started ─► finished: keep_client, keep_origin
                                 └► switched (101): leftover, origin_leftover begin the tunnel
    an error before response_started ─► fail() is a page; after it the connection can only be cut

The surprise: what was valid in a piece that turns out invalid further on is not passed on, so a bad
answer in one piece is still a 502.
"""

from __future__ import annotations

from typing import cast

import h11

from common.errors import BadRequest, BadResponse, HeadTooLarge, RelayError, ServerClosed, Truncated
from common.proto.http_chunks import ChunkSizes
from common.proto.http_fields import field_values, request_fields, response_fields
from common.proto.http_head import HeadBuffer, mend_response_head
from common.proto.http_pages import error_page
from common.proto.http_target import Target

Buffer = bytes | bytearray | memoryview

IDEMPOTENT = (b"GET", b"HEAD", b"OPTIONS", b"TRACE", b"PUT", b"DELETE")  # RFC 9110 section 9.2.2


class HttpExchange:
    """One request whose head is complete, and its response. Made by ``HttpFront``, used once.

    ``client`` is the h11 connection that has taken ``request``, ``received`` what came behind its
    head. Raises BadRequest when that is not a valid body.
    """

    __slots__ = (
        "_chunks",
        "_client",
        "_first_flight",
        "_head",
        "_method",
        "_origin",
        "_origin_silent",
        "_repeatable",
        "_via",
        "address",
        "finished",
        "is_last",
        "request_done",
        "response_started",
        "switched",
    )

    def __init__(
        self,
        client: h11.Connection,
        request: h11.Request,
        target: Target,
        *,
        via: str | None,
        received: bytes,
    ) -> None:
        self.address = target.address
        self.is_last = False  # the client's connection will not be kept, which the response has to say
        self.request_done = False  # the whole request was received
        self.response_started = False  # a final response's head, or a 101, was passed on
        self.finished = False  # the whole response was passed on
        self.switched = False  # a 101 was passed on: both directions are raw from here
        self._method = request.method
        self._via = via
        self._client = client
        self._origin = h11.Connection(h11.CLIENT)
        self._origin_silent = True
        self._head = HeadBuffer()  # of the next response
        chunked = bool(field_values(request, b"transfer-encoding"))
        bodiless = not chunked and field_values(request, b"content-length") in ([], [b"0"])
        self._repeatable = bodiless and request.method in IDEMPOTENT
        self._chunks = ChunkSizes() if chunked else None
        head = self._origin.send(
            h11.Request(
                method=request.method, target=target.path, headers=request_fields(request, target.host, via)
            )
        )
        self._first_flight = head + self._request_bytes(received)

    # -- towards the origin ----------------------------------------------------------------------

    def begin(self) -> bytes:
        """Return the head for the origin, and the body as far as it was received with the head.

        To be called once, and once more for each time that a ``retryable`` request is sent again.
        """
        return self._first_flight

    def from_client(self, data: Buffer) -> bytes:
        """Take more of the request; return bytes for the origin. Past its end all goes to ``leftover``.

        Raises BadRequest for a body that is not framed as announced.
        """
        if self.request_done:
            _receive(self._client, data)
            return b""
        return self._request_bytes(data)

    def client_eof(self) -> None:
        """The client closed its sending side: raises Truncated when the request is not complete."""
        if not self.request_done:
            raise Truncated("the client ended inside its request")

    @property
    def leftover(self) -> bytes:
        """What the client sent past its request: a pipelined request, or the tunnel's first bytes."""
        return self._client.trailing_data[0] if self.request_done else b""

    def _request_bytes(self, data: Buffer) -> bytes:
        out: list[bytes] = []
        if self._chunks:
            self._chunks.feed(data)
        try:
            self.request_done = _move_body(self._client, self._origin, data, out)
        except h11.RemoteProtocolError as exc:
            raise BadRequest("the request's body is not framed as its header says") from exc
        return b"".join(out)

    # -- towards the client ----------------------------------------------------------------------

    def from_origin(self, data: Buffer) -> bytes:
        """Take more of the response; return bytes for the client. Past its end all is ``origin_leftover``.

        Raises BadResponse for anything that is not a valid response to this request.
        """
        if not data:
            return b""
        self._origin_silent = False
        self._first_flight = b""
        if self.finished or self.switched:
            _receive(self._origin, data)
            return b""
        out: list[bytes] = []
        started = self.response_started
        try:
            if not started:
                started, data = self._take_heads(data, out)
            if started and not self.switched:
                self.finished = _move_body(self._origin, self._client, data, out)
        except (h11.RemoteProtocolError, HeadTooLarge) as exc:
            raise BadResponse("the origin's answer is not valid HTTP") from exc
        self.response_started = started
        return b"".join(out)

    def origin_eof(self) -> bytes:
        """The origin closed its sending side; return what that still owes the client.

        Raises ServerClosed when it never sent a byte, Truncated when it ended inside a response.
        """
        if self.finished or self.switched:
            self._origin.receive_data(b"")
            return b""
        if self._origin_silent:
            raise ServerClosed("the server closed the stream before the target answered")
        if not self.response_started:
            raise Truncated("the origin closed the connection before its answer began")
        out: list[bytes] = []
        self._origin.receive_data(b"")
        try:
            self.finished = _move_body(self._origin, self._client, b"", out)
        except h11.RemoteProtocolError as exc:
            raise Truncated("the origin closed the connection inside its answer") from exc
        return b"".join(out)

    def fail(self, error: RelayError) -> bytes:
        """Return the page for ``error``; b"" once a response was started: then only cut the connection."""
        return b"" if self.response_started else error_page(error, self._method)

    @property
    def origin_leftover(self) -> bytes:
        """What the origin sent past its response; after a 101, the tunnel's first bytes."""
        return self._origin.trailing_data[0] if self.finished or self.switched else b""

    def _take_heads(self, data: Buffer, out: list[bytes]) -> tuple[bool, bytes]:
        """Pass on interim responses and the final head, as far as they are here.

        Returns whether the final one (or a 101) was among them, and what was received behind it.
        """
        while True:
            self._head.append(data)
            head = self._head.cut()
            if head is None:
                return False, b""
            data = self._head.rest
            self._head = HeadBuffer()
            self._origin.receive_data(mend_response_head(head))
            event = self._origin.next_event()
            assert isinstance(event, h11.InformationalResponse | h11.Response)
            if isinstance(event, h11.Response):
                self._pass_final(event, out)
            elif event.status_code == 101:
                self._pass_switch(event, out)
                _receive(self._origin, data)
            else:
                if self._client.their_http_version != b"1.0":  # RFC 9110 section 15.2
                    out += _sent(self._client, self._interim(event))
                continue
            return True, data

    def _pass_final(self, event: h11.Response, out: list[bytes]) -> None:
        fields = response_fields(event, self._via)
        if self.is_last or not self.request_done:  # the rest of the request may never be read
            fields.append((b"Connection", b"close"))
        response = h11.Response(status_code=event.status_code, reason=event.reason, headers=fields)
        out += _sent(self._client, response)

    def _pass_switch(self, event: h11.InformationalResponse, out: list[bytes]) -> None:
        if not self.request_done:
            raise BadResponse("the origin switched protocols inside the request")
        out += _sent(self._client, self._interim(event))
        self.switched = True

    def _interim(self, event: h11.InformationalResponse) -> h11.InformationalResponse:
        fields = response_fields(event, self._via)
        return h11.InformationalResponse(status_code=event.status_code, reason=event.reason, headers=fields)

    # -- afterwards ------------------------------------------------------------------------------

    @property
    def keep_client(self) -> bool:
        """The response is complete and the client's connection may carry another request."""
        return self.finished and _is_reusable(self._client)

    @property
    def keep_origin(self) -> bool:
        """The response is complete and the stream may carry another request to the same address."""
        return self.finished and _is_reusable(self._origin) and self._origin.trailing_data == (b"", False)

    @property
    def retryable(self) -> bool:
        """Idempotent, bodiless, not a byte answered: may be sent again (RFC 9110 section 9.2.2)."""
        return self._repeatable and self._origin_silent


def _move_body(source: h11.Connection, sink: h11.Connection, data: Buffer, out: list[bytes]) -> bool:
    """Give ``source`` more of its body and frame it for ``sink``, as one chunk at most. True at its end."""
    _receive(source, data)
    body: list[bytes] = []
    while isinstance(event := source.next_event(), h11.Data):
        body.append(event.data)
    if body:
        out += _sent(sink, h11.Data(data=b"".join(body)))
    if not isinstance(event, h11.EndOfMessage):
        return False
    out += _sent(sink, h11.EndOfMessage())  # without the trailer fields
    return True


def _receive(connection: h11.Connection, data: Buffer) -> None:
    """Copy ``data`` in; h11 takes any bytes-like object, but would read an empty one as the end."""
    if data:
        connection.receive_data(cast(bytes, data))


def _sent(connection: h11.Connection, event: h11.Event) -> list[bytes]:
    return connection.send_with_data_passthrough(event) or []


def _is_reusable(connection: h11.Connection) -> bool:
    return connection.our_state is h11.DONE and connection.their_state is h11.DONE
