"""An HTTP exchange without sockets: run one through the proxy's front, in any pieces, and read both ends.

What the proxy sends is read back here by h11 alone, as the next hop would: ``read_request`` and
``read_response`` fail on anything that is not one valid message.
"""

from __future__ import annotations

from typing import NamedTuple

import h11

from common.errors import ProtocolError, reply_for
from common.proto.http_exchange import HttpExchange
from common.proto.http_proxy import HttpFront
from common.proto.request import Request
from tests.wire import every_way

# Field lines that two recipients could read in two ways (H15): each has to be a 400.
SMUGGLING = {
    "TE and CL": b"Transfer-Encoding: chunked\r\nContent-Length: 5\r\n",
    "CL and TE": b"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "two lengths": b"Content-Length: 5\r\nContent-Length: 6\r\n",
    "two lengths in a list": b"Content-Length: 5, 6\r\n",
    "two spellings of a length": b"Content-Length: 5\r\nContent-Length: 05\r\n",
    "plus": b"Content-Length: +1\r\n",
    "minus": b"Content-Length: -1\r\n",
    "underscore": b"Content-Length: 1_0\r\n",
    "hexadecimal": b"Content-Length: 0x10\r\n",
    "blank in a length": b"Content-Length: 1 0\r\n",
    "other digits": b"Content-Length: \xd9\xa1\r\n",
    "no length": b"Content-Length:\r\n",
    "length over 63 bits": b"Content-Length: 9223372036854775808\r\n",
    "length over 64 bits": b"Content-Length: 18446744073709551621\r\n",
    "length of many digits": b"Content-Length: " + b"9" * 5000 + b"\r\n",
    "obs-fold": b"X: a\r\n b\r\n",
    "obs-fold with tab": b"X: a\r\n\tb\r\n",
    "obs-fold of TE": b"Transfer-Encoding:\r\n chunked\r\n",
    "obs-fold first": b" X: a\r\n",
    "blank line of blanks": b" \r\n",
    "space before colon": b"Transfer-Encoding : chunked\r\n",
    "tab before colon": b"Content-Length\t: 5\r\n",
    "no name": b": a\r\n",
    "no colon": b"X\r\n",
    "name with blank": b"X Y: a\r\n",
    "name with high byte": b"X\xe9: a\r\n",
    "name in brackets": b"(X): a\r\n",
    "bare CR in value": b"X: a\rTransfer-Encoding: chunked\r\n",
    "bare CR at the end": b"X: a\r\r\n",
    "bare CR in name": b"X\r: a\r\n",
    "bare LF": b"X: a\nTransfer-Encoding: chunked\r\n",
    "NUL in value": b"X: a\x00b\r\n",
    "NUL in name": b"X\x00: a\r\n",
    "vertical tab": b"Transfer-Encoding: \x0bchunked\r\n",
    "form feed": b"Content-Length: 5\x0c\r\n",
    "DEL": b"X: \x7f\r\n",
    "two Hosts": b"Host: a\r\n",
    "two different Hosts": b"host: b\r\n",
    "Connection: host": b"Connection: host\r\n",
    "Connection: Content-Length": b"Connection: close, Content-Length\r\nContent-Length: 5\r\n",
    "Connection: authorization": b"Connection: close\r\nConnection: AUTHORIZATION\r\n",
    "Connection: transfer-encoding": b"Connection: transfer-encoding\r\nTransfer-Encoding: chunked\r\n",
    "Connection: cookie": b"Connection: cookie\r\n",
}


class Message(NamedTuple):
    """One message as the next hop reads it: field names in lower case, the body unframed."""

    start: tuple[bytes, bytes]  # (method, target) or (status, reason)
    fields: list[tuple[bytes, bytes]]
    body: bytes
    rest: bytes
    interim: list[int]  # status codes of the 1xx before a response

    def values(self, name: bytes) -> list[bytes]:
        return [value for key, value in self.fields if key == name]


def new_front(auth=None, via="proxy", **kwargs) -> HttpFront:
    return HttpFront(auth, via=via, **kwargs)


def forward(request: bytes, **kwargs) -> HttpExchange:
    """Return the exchange of a request that is fed whole."""
    front = new_front(**kwargs)
    front.feed(request)
    assert front.exchange is not None
    return front.exchange


def get(version: bytes = b"1.1", method: bytes = b"GET", more: bytes = b"") -> HttpExchange:
    """Return the exchange of a simple request without a body."""
    return forward(method + b" http://origin/a HTTP/" + version + b"\r\nHost: origin\r\n" + more + b"\r\n")


class Upload(NamedTuple):
    """What became of the client's bytes."""

    request: Request | None
    to_origin: bytes
    leftover: bytes
    error: ProtocolError | None


def upload(parts: list[bytes], front: HttpFront | None = None) -> Upload:
    """Give the client's bytes to a front and its exchange, piece by piece."""
    front = front or new_front()
    request, to_origin = None, b""
    try:
        for part in parts:
            if request is None:
                request = front.feed(part)
                if request is not None and front.exchange is not None:
                    to_origin += front.exchange.begin()
            elif front.exchange is not None:
                to_origin += front.exchange.from_client(part)
    except ProtocolError as error:
        return Upload(request, to_origin, b"", error)
    return Upload(request, to_origin, front.exchange.leftover if front.exchange else b"", None)


def download(exchange: HttpExchange, parts: list[bytes], eof: bool = False) -> bytes:
    """Give the origin's bytes to an exchange, piece by piece; return what the client gets."""
    to_client = b"".join(exchange.from_origin(memoryview(bytearray(part))) for part in parts)
    return to_client + (exchange.origin_eof() if eof else b"")


def read_request(wire: bytes) -> Message:
    """Read one complete request as an origin does."""
    connection = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 20)
    connection.receive_data(wire)
    head = connection.next_event()
    assert isinstance(head, h11.Request), head
    return _read_body(connection, (head.method, head.target), head, [])


def read_response(wire: bytes, method: bytes = b"GET", eof: bool = False, upgrade: bool = False) -> Message:
    """Read one complete response to ``method`` as a client does; ``eof``: the proxy closed behind it."""
    connection = h11.Connection(h11.CLIENT, max_incomplete_event_size=1 << 20)
    fields = [("Host", "x"), *([("Upgrade", "any"), ("Connection", "upgrade")] if upgrade else [])]
    connection.send(h11.Request(method=method, target="/", headers=fields))
    connection.send(h11.EndOfMessage())
    connection.receive_data(wire)
    if eof:
        connection.receive_data(b"")
    interim = []
    while isinstance(head := connection.next_event(), h11.InformationalResponse):
        interim.append(head.status_code)
        if head.status_code == 101:
            return Message(
                (b"101", head.reason), list(head.headers), b"", connection.trailing_data[0], interim
            )
    assert isinstance(head, h11.Response), head
    return _read_body(connection, (b"%d" % head.status_code, head.reason), head, interim)


def _read_body(
    connection: h11.Connection,
    start: tuple[bytes, bytes],
    head: h11.Request | h11.Response,
    interim: list[int],
) -> Message:
    body = b""
    while isinstance(event := connection.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage), event
    assert not event.headers
    return Message(start, list(head.headers), body, connection.trailing_data[0], interim)


class WholeFront:
    """HttpFront as a parser whose leftover is the exchange's, where there is one."""

    def __init__(self, front=None):
        self.front = front or new_front()
        self.feed, self.outgoing = self.front.feed, self.front.outgoing

    @property
    def leftover(self):
        return self.front.exchange.leftover if self.front.exchange else self.front.leftover


def refused(head, kind, **kwargs):
    """Assert that ``head`` is refused with ``kind`` in any pieces; return the answer as a client reads it."""
    outcome = every_way(lambda: WholeFront(new_front(**kwargs)), head)
    assert type(outcome.error) is kind, outcome
    front = outcome.parser.front
    assert front.exchange is None
    method = b"HEAD" if head.startswith(b"HEAD ") else b"GET"
    answer = read_response(front.reject(outcome.error), method, eof=True)
    assert answer.start[0] == b"%d" % reply_for(outcome.error).status
    assert answer.values(b"connection") == [b"close"]
    assert front.reject(outcome.error) == b""
    assert front.accept() == b""
    return answer
