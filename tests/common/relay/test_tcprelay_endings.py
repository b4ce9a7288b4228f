"""``TCPRelayHandler`` through all its endings: everything is given back, and what was said is kept."""

from __future__ import annotations

import gc
import random
import weakref

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ConnectTimeout, ResolveFailed
from common.net.loop import READ, WRITE
from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN, STAGE_STREAM
from common.relay.tcprelay import LINGER
from tests.relay_world import World
from tests.toy_relay import HALF_CLOSE, Toy, streaming

# -- endings: everything is given back (R8) --------------------------------------------------------


def _nothing(world, client, handler):
    pass


def _prologue(world, client, handler):
    client.arrive(b"exam")


def _looking_up(world, client, handler):
    client.arrive(b"example.com 80\n")


def _dialling(world, client, handler):
    client.arrive(b"192.0.2.1 80\n")


def _streaming(world, client, handler):
    _dialling(world, client, handler)
    world.settle()
    world.dialer.last.succeed()
    client.arrive(b"x")


def _half_closed(world, client, handler):
    _streaming(world, client, handler)
    client.end()


def _stalled_both_ways(world, client, handler):
    _streaming(world, client, handler)
    world.settle()
    client.room = 0
    handler.remote.sock.room = 0
    handler.remote.sock.arrive(b"down")
    client.arrive(b"up")


def _concluding(world, client, handler):
    client.room = 1
    client.arrive(b"bad")


def _lingering(world, client, handler):
    client.arrive(b"bad")


BEGINNINGS = [
    _nothing,
    _prologue,
    _looking_up,
    _dialling,
    _streaming,
    _half_closed,
    _stalled_both_ways,
    _concluding,
    _lingering,
]

ENDINGS = {
    "destroyed": lambda world, client, handler: handler.destroy(),
    "faulted": lambda world, client, handler: handler.on_fault(OSError()),
    "reset": lambda world, client, handler: handler.on_unreadable(handler.local, ConnectionResetError()),
    "concluded": lambda world, client, handler: handler.stage != STAGE_DRAIN and handler.conclude(b"bye"),
    "out of time": lambda world, client, handler: None,
    "relay closed": lambda world, client, handler: world.relay.close(),
}


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8: freed by refcount, sockets closed, timers, queries and dials cancelled, counts right."""
    client, handler = world.connect()
    begin(world, client, handler)
    world.settle()
    target = handler.remote.sock if handler.remote else None
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        ENDINGS[ending](world, client, handler)
        for _ in range(4):
            world.pass_time(HALF_CLOSE)
            for query in world.resolver.queries:
                if ending == "out of time" and query.callback:
                    world.resolver.answer(query.name, ResolveFailed("no answer"))
            if ending == "out of time" and world.dialer.dials and world.dialer.last.under_way:
                world.dialer.last.fail(ConnectTimeout("no answer"))
            if ending == "out of time" and handler.stage == STAGE_STREAM and not handler.up.closed:
                handler.destroy()  # it would live for ever
        assert (handler.stage, handler.remote, handler.up, handler.down) == (
            STAGE_DESTROYED,
            None,
            None,
            None,
        )
        del handler
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
    assert client.closed
    assert target is None or target.closed


def test_destroy_is_idempotent_and_counts_once(world):
    _client, handler, _target = streaming(world)
    handler.destroy()
    handler.destroy()
    assert world.admission.count == 0
    world.check_idle()


def test_destroying_inside_ones_own_event_is_safe(world, caplog):
    """R10: both sides of a connection are ready in one batch, and the first event ends it."""
    client, handler, target = streaming(world)

    def last(data):
        handler.destroy()
        return b"never sent"

    handler.up.transform = handler.down.transform = last
    client.arrive(b"x")
    target.arrive(b"y")
    world.settle()
    assert (client.sent, target.sent, caplog.records) == (b"", b"", [])
    world.check_idle()


def test_bytes_are_counted_when_a_stream_ends(world):
    client, handler, target = streaming(world, b"12345")
    client.arrive(b"678")
    target.arrive(b"0123456789")
    world.settle()
    handler.destroy()
    assert world.counters == {"accepted": 1, "bytes_up": 8, "bytes_down": 10}


@pytest.mark.parametrize("begin", BEGINNINGS)
def test_draining_the_program_ends_what_has_not_begun(world, begin):
    client, handler = world.connect()
    begin(world, client, handler)
    world.settle()
    handler.on_drain()
    assert (handler.stage == STAGE_DESTROYED) == (begin is _nothing)


# -- R7 for whole connections ----------------------------------------------------------------------


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_any_interleaving_with_any_end_keeps_what_was_said(data):
    """R7 with ends and resets: each end receives a prefix in order, and all of it unless that end broke."""
    with pytest.MonkeyPatch.context() as monkeypatch:
        world = World(monkeypatch, Toy)
        client, handler, target = streaming(world)
        noise = random.Random(data.draw(st.integers(0, 99)))
        said = {client: b"", target: b""}
        for _ in range(data.draw(st.integers(1, 25))):
            sock = data.draw(st.sampled_from([client, target]))
            action = data.draw(
                st.sampled_from(["say", "say", "room", "room", "step", "step", "end", "break"])
            )
            if action == "say" and not (sock.ended or sock.dead or sock.error):
                piece = noise.randbytes(data.draw(st.integers(1, 200)))
                said[sock] += piece
                sock.arrive(piece)
            elif action == "room":
                sock.room = data.draw(st.none() | st.integers(0, 150))
            elif action == "end":
                sock.end()
            elif action == "break" and not sock.dead:
                sock.break_off()
            world.loop.step(0)
            if handler.stage == STAGE_STREAM:
                for flow in (handler.up, handler.down):
                    assert not (flow.sink.pending is not None and flow.source.events & READ)
                    assert flow.sink.closed or bool(flow.sink.events & WRITE) == (
                        flow.sink.pending is not None
                    )
        broken = {sock: sock.dead or sock.error is not None for sock in (client, target)}
        for sock in (client, target):
            sock.room = None
            sock.end()
        world.settle()
        world.pass_time(LINGER)
        world.check_idle()
        for source, sink in ((client, target), (target, client)):
            assert said[source].startswith(bytes(sink.sent))
            if not any(broken.values()):
                assert bytes(sink.sent) == said[source]
                assert sink.shut or sink.closed
