"""``TCPRelayHandler`` on real sockets, where the kernel matters."""

from __future__ import annotations

import socket
import struct
from collections import Counter

import pytest

from common.net.loop import EventLoop
from common.relay.admission import Admission
from common.relay.flow import Allowance
from common.relay.listener import TCPRelay
from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN
from tests.fakes import FakeResolver
from tests.relay_world import LIMITS
from tests.toy_relay import Toy


@pytest.fixture
def real():
    """A relay of toys on loopback, and a way to connect to it."""
    loop = EventLoop()
    listener = socket.create_server(("127.0.0.1", 0))
    relay = TCPRelay(
        loop,
        listener,
        Toy,
        resolver=FakeResolver(),
        limits=LIMITS,
        admission=Admission(loop, 100),
        allowance=Allowance(),
        counters=Counter(),
    )
    clients = []

    def connect():
        client = socket.create_connection(listener.getsockname())
        clients.append(client)
        client.setblocking(False)
        while not relay.handlers:
            loop.step(1)
        return client, next(iter(relay.handlers))

    yield loop, connect
    relay.close()
    for client in clients:
        client.close()
    loop.close()


def test_last_words_survive_unread_input_in_the_kernel(real):
    """W35 with a kernel that would send RST: the client is told everything, then sees the end."""
    loop, connect = real
    client, handler = connect()
    client.send(bytes(60_000))
    handler.conclude(b"w" * 200_000)
    got = b""
    while True:
        loop.step(0)
        try:
            piece = client.recv(4096)
        except BlockingIOError:
            client.send(b"still sending")
            continue
        if not piece:
            break
        got += piece
    assert got == b"w" * 200_000
    assert handler.stage == STAGE_DRAIN


def test_a_real_reset_in_the_prologue_ends_the_connection(real):
    loop, connect = real
    client, handler = connect()
    client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    client.close()
    loop.step(1)
    assert handler.stage == STAGE_DESTROYED
