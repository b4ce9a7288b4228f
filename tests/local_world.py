"""An sslocal on fakes: real fronts, real ``none`` streams, servers that the test plays.

The wire of method ``none`` is the address and then the payload as it is, so a test reads what the
server was sent without a codec of its own.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

from common.acl.rules import AccessRules
from common.crypto import Cipher
from common.proto.address import Address, encode_address
from common.relay.admission import Bounds
from sslocal.app import NewFront, _mixed_front
from sslocal.tcp import LocalHandler, Service
from sslocal.upstreams import Upstream, Upstreams
from tests.fakes import FakeSocket
from tests.relay_world import LIMITS, World

SERVER = Address("198.51.100.1", 8388)
SOCKS_GREETING = b"\x05\x01\x00"
SOCKS_ACCEPTED = b"\x05\x00\x00\x01\0\0\0\0\0\0"
HTTP_ACCEPTED = b"HTTP/1.1 200 Connection established\r\n\r\n"
SOCKS4_ACCEPTED = b"\x00\x5a\x00\x00\x00\x00\x00\x00"


def socks_request(target: Address, command: int = 1) -> bytes:
    return b"\x05%c\x00%b" % (command, encode_address(target))


TARGET = Address("origin.example", 80)
SOCKS = SOCKS_GREETING + socks_request(TARGET)
HTTP = b"CONNECT origin.example:80 HTTP/1.1\r\nHost: origin.example:80\r\n\r\n"
SOCKS4 = b"\x04\x01\x00\x50\x00\x00\x00\x01me\x00origin.example\x00"
FRONTS = {
    "socks5": (SOCKS, b"\x05\x00" + SOCKS_ACCEPTED),
    "socks4a": (SOCKS4, SOCKS4_ACCEPTED),
    "http": (HTTP, HTTP_ACCEPTED),
}


def header(host: str = "origin.example", port: int = 80) -> bytes:
    """What begins a ``none`` stream."""
    return encode_address(Address(host, port))


class LocalWorld(World):
    """``connect`` accepts a client; ``server`` is the far end of the latest stream."""

    def __init__(
        self,
        monkeypatch: Any,
        *,
        servers: tuple[Address, ...] = (SERVER,),
        method: str = "none",
        password: str = "",
        auth: Any = None,
        limits: Any = LIMITS,
        bounds: Bounds = Bounds(),  # noqa: B008 (immutable)
        new_front: NewFront | None = None,
        rules: AccessRules | None = None,
    ) -> None:
        cipher = Cipher.from_password(method, password)
        self.random = itertools.count(1)
        self.upstreams = Upstreams([Upstream(address, cipher) for address in servers])
        self.service = Service(
            self.upstreams,
            new_front=new_front or _mixed_front(auth, None),
            udp=None,
            rules=rules,
            clock=lambda: 1_700_000_000.0,
            random=lambda size: next(self.random).to_bytes(size, "big"),
        )
        make_handler = functools.partial(LocalHandler, service=self.service)
        super().__init__(monkeypatch, make_handler, limits=limits, bounds=bounds)

    def ask(self, data: bytes, client: FakeSocket | None = None) -> tuple[FakeSocket, Any]:
        """Connect a client that sends ``data``."""
        client, handler = self.connect(client)
        client.arrive(data)
        self.settle()
        return client, handler

    def reach(self, server: FakeSocket | None = None) -> FakeSocket:
        """Let the dial under way succeed."""
        server = self.dialer.last.succeed(server)
        self.settle()
        return server

    def fetch(self, request: bytes, **kwargs: Any) -> tuple[FakeSocket, Any, FakeSocket]:
        """A client that sends ``request``, its handler, and the server that was reached for it."""
        client, handler = self.ask(request, **kwargs)
        return client, handler, self.reach()
