"""The smallest program on ``TCPRelayHandler``, and its streams.

The client sends ``host port`` and a newline, bytes are relayed as they are, and failures are told in
plain words.
"""

from __future__ import annotations

from common.errors import BadRequest, TargetForbidden
from common.proto.address import Address
from common.relay.stages import STAGE_ADDR, STAGE_INIT, STAGE_STREAM
from common.relay.tcprelay import TCPRelayHandler
from tests.fakes import FakeSocket
from tests.relay_world import LIMITS

HALF_CLOSE = LIMITS.half_close


class Toy(TCPRelayHandler):
    def __init__(self, relay, sock, peer):
        super().__init__(relay, sock, peer)
        self.head = b""
        self.failures = []

    def on_prologue(self, data):
        if self.stage == STAGE_INIT:
            self.advance(STAGE_ADDR)
        self.head += data
        line, newline, rest = self.head.partition(b"\n")
        if line == b"bad":
            raise BadRequest("no such thing")
        if newline:
            self.head = rest
            host, port = line.decode().split()
            self.resolve(Address(host, int(port)))

    def on_addresses(self, addresses):
        if str(addresses[0]).startswith("10."):
            raise TargetForbidden("not there")
        return addresses

    def on_connected(self):
        self.local.write(b"ok\n")
        self.stream(bytes, bytes)
        if self.head:
            self.up.feed(memoryview(self.head))

    def on_failed(self, error):
        self.failures.append(error.with_traceback(None))  # which refers to us
        self.conclude(f"failed: {error}\n".encode())

    def on_protocol_error(self, error):
        self.failures.append(error.with_traceback(None))  # which refers to us
        self.count(error)
        self.conclude(f"refused: {error}\n".encode())


def streaming(world, payload=b"", **kwargs):
    """A client, its handler in STREAM, and the target's socket."""
    client, handler = world.connect(FakeSocket(**kwargs))
    client.arrive(b"192.0.2.1 80\n" + payload)
    world.settle()
    target = world.dialer.last.succeed()
    world.settle()
    assert handler.stage == STAGE_STREAM
    if kwargs.get("room") is None:
        assert client.take() == b"ok\n"
    return client, handler, target
