"""``ServerHandler`` and its end: closed quietly, drained, and given back."""

from __future__ import annotations

import gc
import socket
import weakref
from collections import Counter

import pytest

from common.net.loop import EventLoop
from common.proto.address import Address
from common.relay.admission import Admission
from common.relay.flow import SPARING_READ, Allowance
from common.relay.listener import TCPRelay
from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN, STAGE_INIT, STAGE_STREAM
from common.relay.tcprelay import LINGER
from ssserver.tcp import QUIET_READS, ServerHandler
from tests.fakes import FakeResolver, FakeSocket
from tests.relay_world import LIMITS
from tests.server_world import HANDSHAKE, NAMED, TARGET, ServerWorld, streaming

# -- closing quietly -----------------------------------------------------------------------------------


def test_closing_quietly_does_not_read_for_ever(world):
    sock, handler = world.connect()
    sock.arrive(bytes((QUIET_READS + 2) * SPARING_READ))
    handler.close_quietly()
    assert len(sock.arrived) == 2 * SPARING_READ
    assert sock.closed


@pytest.mark.parametrize("gone", [FakeSocket.end, FakeSocket.break_off])
def test_closing_quietly_a_peer_that_has_gone(world, gone):
    sock, handler = world.connect()
    gone(sock)
    handler.close_quietly()
    world.check_idle()


class RealServer:
    """A relay of ``ServerHandler`` on loopback, to see what the kernel makes of it."""

    def __init__(self, monkeypatch):
        self.loop = EventLoop()
        service = ServerWorld(monkeypatch).service
        monkeypatch.undo()  # no fakes below: the real dialer is back
        self.relay = TCPRelay(
            self.loop,
            socket.create_server(("127.0.0.1", 0)),
            lambda *args: ServerHandler(*args, service=service),
            resolver=FakeResolver(),
            limits=LIMITS,
            admission=Admission(self.loop, 10),
            allowance=Allowance(),
            counters=Counter(),
        )

    def connect(self):
        client = socket.create_connection(self.relay.sock.getsockname())
        self.loop.step(1)
        (handler,) = self.relay.handlers
        return client, handler

    def close(self):
        self.relay.close()
        self.loop.close()


@pytest.mark.parametrize("unread", [1, 60_000])
def test_quiet_is_a_fin_even_with_unread_bytes(monkeypatch, unread):
    """W28, W35: an RST would tell that, and how much, was not read."""
    server = RealServer(monkeypatch)
    client, handler = server.connect()
    with client:
        client.sendall(bytes(unread))
        handler.close_quietly()
        client.settimeout(5)
        assert client.recv(1) == b""
    server.close()


# -- leaving -------------------------------------------------------------------------------------------


def test_draining_the_program_waits_for_streams_and_not_for_the_silent(world):
    """S6: nor for strangers, of whom there is always one."""
    _client, _sock, running, _target = streaming(world)
    _sock, asking = world.ask(bytes(40))
    _sock, stranger = world.ask(bytes(300))
    refused, told = world.ask(world.client(Address("192.0.2.1", 0), seed=2).first(b"hello"))
    unread, silent = world.connect()
    unread.arrive(b"too late")
    handlers = [silent, running, asking, stranger, told]
    for handler in handlers:
        handler.on_drain()
    assert [handler.stage for handler in handlers] == [
        STAGE_DESTROYED,
        STAGE_STREAM,
        STAGE_DESTROYED,
        STAGE_DESTROYED,
        STAGE_DRAIN,
    ]
    assert unread.arrived == b"", "emptied, so that it ended in FIN"
    assert not refused.closed


def test_a_connection_that_says_nothing_is_in_no_stage_but_the_first(world):
    _sock, handler = world.connect()
    assert handler.stage == STAGE_INIT


BEGINNINGS = {
    "silent": lambda world: world.connect(),
    "asking": lambda world: world.ask(bytes(40)),
    "stranger": lambda world: world.ask(bytes(300)),
    "looking up": lambda world: world.ask(world.client(NAMED).first(b"hello")),
    "dialling": lambda world: world.ask(world.client(TARGET).first(b"hello")),
    "refused": lambda world: world.ask(world.client(Address("192.0.2.1", 0)).first(b"hello")),
    "streaming": lambda world: streaming(world)[1:3],
}


@pytest.mark.parametrize("ending", ["destroyed", "quiet", "faulted", "left", "out of time"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8"""
    sock, handler = BEGINNINGS[begin](world)
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        if ending == "destroyed":
            handler.destroy()
        elif ending == "quiet":
            handler.close_quietly()
        elif ending == "faulted":
            handler.on_fault(OSError())
        elif ending == "left":
            sock.break_off()
        world.pass_time(HANDSHAKE)
        world.pass_time(LINGER)
        if begin in ("looking up", "dialling", "streaming"):
            handler.destroy()  # what waits here has its limit elsewhere, or none
        assert handler.stage == STAGE_DESTROYED
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
