"""Whole streams through both programs in one process: the engine against real sockets."""

from __future__ import annotations

import contextlib
import gc
import ipaddress
import random
import selectors
import socket
import weakref

import pytest

from common.net.loop import DefaultSelector
from common.proto.address import Address
from common.relay.stages import STAGE_DRAIN, STAGE_STREAM
from sslocal import LocalApp
from tests.pairs import AppPair, configured, running_pair, server_entry

METHODS = [
    "none",
    "aes-128-gcm",
    "chacha20-ietf-poly1305",
    "2022-blake3-aes-128-gcm",
    "2022-blake3-aes-256-gcm",
]
SIZES = [0, 1, 700, 65_536, 1_000_003]


@pytest.fixture
def pair():
    with running_pair() as pair:
        yield pair


def finish(pair: AppPair, *peers) -> None:
    pair.drive(lambda: all(peer.gone for peer in peers))
    pair.check_idle()


@pytest.mark.parametrize("loops", [1, 2])
@pytest.mark.parametrize("front", ["socks5", "socks4", "http"])
def test_a_conversation(front, loops):
    with running_pair(loops=loops) as pair:
        client = pair.tunnel(front).say(b"ping")
        target = pair.accept()
        pair.drive(lambda: target.heard == b"ping")
        target.say(b"pong").end()
        pair.drive(lambda: client.heard == b"pong" and client.ended)
        client.say(b"and more").end()
        finish(pair, client, target)
        assert target.heard == b"pingand more"


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size", SIZES)
def test_both_directions_at_once(method, size):
    """R1: no byte lost, doubled or out of order, whatever the method."""
    data = random.Random(size).randbytes(size)
    with running_pair(method=method) as pair:
        client = pair.tunnel("socks5").say(data).end()
        target = pair.accept().say(data[::-1]).end()
        finish(pair, client, target)
        assert target.heard == data
        assert client.heard == data[::-1]


@pytest.mark.parametrize("selector", [DefaultSelector, selectors.SelectSelector])
def test_small_buffers_and_slow_readers(selector):
    """R2, R7: 4 KiB in the kernel, readers that take odd bites, answered only after the end."""
    data = random.Random(2).randbytes(150_000)
    with running_pair(method="2022-blake3-aes-128-gcm", buffers=4096, selector=selector, loops=2) as pair:
        client = pair.tunnel("http").say(data).end()
        target = pair.accept()
        client.bite, target.bite = 701, 3001
        pair.drive(lambda: target.ended)
        assert target.heard == data
        target.say(data[::-1]).end()
        finish(pair, client, target)
        assert client.heard == data[::-1]


@pytest.mark.parametrize("first", ["client", "target"])
def test_half_close(pair, first):
    """R3, W2: the other direction goes on after an end, either way."""
    client = pair.tunnel("socks5").say(b"x")
    target = pair.accept()
    pair.drive(lambda: target.heard == b"x")
    early, late = (client, target) if first == "client" else (target, client)
    early.say(b"question").end()
    pair.drive(lambda: late.ended)
    late.say(b"a" * 500_000).end()
    early.heard.clear()
    finish(pair, client, target)
    assert len(early.heard) == 500_000
    assert late.heard.endswith(b"question")


def test_a_stalled_reader_holds_the_sender_back(pair):
    """W3, R5: what nobody reads stays with who says it, but for the kernel's buffers and one read."""
    client = pair.tunnel("socks5").say(bytes(40_000_000))
    target = pair.accept()
    target.mute = True
    before = -1
    while len(client.left) != before:
        before = len(client.left)
        for _ in range(20):
            pair.step()
    assert len(client.left) > 10_000_000
    assert pair.local._allowance.held + pair.server._allowance.held < 3_000_000
    target.mute = False
    target.bite = 1_000_000
    client.end()
    pair.drive(lambda: target.ended)
    assert len(target.heard) == 40_000_000


@pytest.mark.parametrize("victim", ["client", "target"])
def test_a_reset_in_mid_transfer(pair, victim):
    """R6: the other end is told, and nothing is left behind."""
    client = pair.tunnel("http").say(bytes(200_000))
    target = pair.accept().say(bytes(200_000))
    pair.drive(lambda: client.heard and target.heard)
    broken, other = (client, target) if victim == "client" else (target, client)
    broken.reset()
    pair.drive(lambda: other.gone)
    other.sock.close()
    pair.check_idle()


def test_a_target_that_refuses_closes_the_stream(pair):
    free = pair.listener.getsockname()
    pair.listener.close()
    client = pair.tunnel("socks5", Address(*free)).say(b"hello?").end()
    finish(pair, client)
    assert client.heard == b""
    assert pair.server.statistics()["connect"] == 1


def test_a_server_that_refuses_is_told(pair):
    pair.server.stop()
    client = pair.dial().say(b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\1\0\x50").end()
    pair.drive(lambda: client.gone)
    assert client.heard[:4] == b"\x05\x00\x05\x05"


def test_forbidden_targets():
    """S3"""
    with running_pair(server={"forbidden_ip": (ipaddress.ip_network("127.0.0.0/8"),)}) as pair:
        client = pair.tunnel("socks5").say(b"hello").end()
        finish(pair, client)
        assert client.heard == b""
        assert pair.server.statistics()["forbidden"] == 1


def test_a_wrong_key_meets_silence(pair):
    """The server keeps listening to a stranger and says nothing."""
    server = pair.server.listening[0]
    stranger = LocalApp(configured((server_entry(server, "chacha20-ietf-poly1305"),)), pair.loops[0])
    stranger.start()
    pair.local, known = stranger, pair.local
    client = pair.tunnel("socks5").say(b"hello")
    pair.drive(lambda: pair.server.statistics().get("authentication"))
    for _ in range(5):
        pair.step()
    assert not client.gone
    assert [handler.stage for handler in pair.handlers] == [STAGE_STREAM, STAGE_DRAIN]
    stranger.stop()
    pair.local = known


@pytest.mark.parametrize("loops", [1, 2])
def test_plain_http_with_keep_alive(loops):
    """H2, H5"""
    request = "GET http://{} HTTP/1.1\r\nHost: {}\r\n\r\n"
    with running_pair(loops=loops) as pair:
        client = pair.dial()
        answered = b""
        origin = None
        for number in range(3):
            client.say(request.format(f"{pair.target}/{number}", pair.target).encode())
            origin = origin or pair.accept()
            pair.drive(lambda origin=origin: origin.heard.endswith(b"\r\n\r\n"))
            assert origin.heard.startswith(b"GET /%d HTTP/1.1\r\n" % number)
            origin.heard.clear()
            body = b"%d" % number * 100_000
            origin.say(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
            answered += body
            pair.drive(lambda answered=answered: client.heard.endswith(answered[-100_000:]))
        client.end()
        origin.end()
        finish(pair, client, origin)


def test_many_at_once(pair):
    """Forty clients in one batch of events, each with its own bytes."""
    conversations = []
    for number in range(40):
        client = pair.tunnel("socks5").say(b"%d " % number * 20_000).end()
        conversations.append((number, client, pair.accept()))
    pair.drive(lambda: all(target.ended for _, _, target in conversations))
    for number, _client, target in conversations:
        assert target.heard == b"%d " % number * 20_000
        target.say(b"%d" % number).end()
    finish(pair, *(client for _, client, _ in conversations))
    assert all(client.heard == b"%d" % number for number, client, _ in conversations)


@pytest.mark.parametrize("front", ["socks5", "http"])
def test_connections_are_freed_without_the_gc(pair, front):
    """R8, with the real resolver and dialer."""
    client = pair.tunnel(front).say(b"x").end()
    target = pair.accept()
    pair.drive(lambda: target.heard)
    freed = [weakref.ref(handler) for handler in pair.handlers]
    assert len(freed) == 2
    gc.collect()
    gc.disable()
    try:
        target.end()
        finish(pair, client, target)
        assert [reference() for reference in freed] == [None, None]
    finally:
        gc.enable()


@contextlib.contextmanager
def full_queue():
    """A target whose accept queue is full, so that connecting to it goes on and on (R5)."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.create_server(("127.0.0.1", 0), backlog=0))
        for _ in range(3):
            sock = stack.enter_context(socket.socket())
            sock.setblocking(False)
            sock.connect_ex(listener.getsockname())
        yield Address(*listener.getsockname())


def test_a_connection_that_waits_for_a_dial_is_freed(pair):
    """R5, R8: nothing is read for it meanwhile, and it goes with its client's app."""
    with full_queue() as target:
        client = pair.tunnel("socks5", target).say(bytes(20_000_000))
        pair.drive(lambda: any(handler.dialing for handler in pair.handlers))
        for _ in range(50):
            pair.step()
        assert len(client.left) > 5_000_000
        for handler in pair.handlers:
            handler.destroy()
        pair.check_idle()


def test_a_target_that_does_not_answer_is_given_up(pair):
    """R5: at the connect timeout the stream ends, and sslocal's client sees the end."""
    pair.server.limits = pair.server._relays[0].limits = pair.server.limits._replace(connect=0.05)
    with full_queue() as target:
        client = pair.tunnel("http", target).say(b"x").end()
        finish(pair, client)
    assert client.heard == b""
    assert pair.server.statistics()["connect_timeout"] == 1


def test_nothing_wakes_an_idle_pair(pair):
    """H11: no events, and no timers but those of the two handshakes, which nobody arms again."""
    client = pair.tunnel("http").say(b"x")
    target = pair.accept()
    pair.drive(lambda: target.heard)
    for _ in range(3):
        pair.step()
    (loop,) = pair.loops
    for timer in loop._timers.take_due(loop.now + 3600.0):
        timer.fire()
    assert loop.statistics()["timers"] == pair.idle[0]["timers"]
    assert loop._selector.select(0) == []
    assert not client.gone
