"""Absolute-form HTTP on a ``LocalWorld``: requests, what the origin sees of them, and answers."""

from __future__ import annotations

from common.relay.stages import STAGE_ADDR
from tests.local_world import header

UPGRADE = (
    b"GET http://origin.example/ws HTTP/1.1\r\nHost: origin.example\r\n"
    b"Connection: Upgrade\r\nUpgrade: echo\r\n\r\n"
)
SWITCHING = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: echo\r\n\r\n"


def get(path: bytes = b"/", host: bytes = b"origin.example", method: bytes = b"GET") -> bytes:
    return b"%b http://%b%b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, host, path, host)


def sent(path: bytes = b"/", host: bytes = b"origin.example", method: bytes = b"GET") -> bytes:
    """The request as the origin should see it."""
    return b"%b %b HTTP/1.1\r\nHost: %b\r\n\r\n" % (method, path, host)


def post(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        b"POST http://origin.example/ HTTP/1.1\r\nHost: origin.example\r\nContent-Length: %d\r\n\r\n" % size
        + body
    )


def answer(body: bytes, extra: bytes = b"") -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n%b\r\n%b" % (len(body), extra, body)


def status(response: bytes) -> int:
    return int(response.split(b" ", 2)[1])


def idle(world):
    """A client whose first request was answered: its handler waits for the next, the stream is parked."""
    client, handler, server = world.fetch(get())
    server.arrive(answer(b"one"))
    world.settle()
    assert client.take() == answer(b"one")
    assert server.take() == header() + sent()
    assert (handler.stage, handler.between_requests) == (STAGE_ADDR, True)
    return client, handler, server
