"""``Forward`` and its end: clients that leave, and a program that does."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest

from common.relay.stages import STAGE_DESTROYED, STAGE_DRAIN
from common.relay.tcprelay import LINGER
from tests.forward_world import SWITCHING, UPGRADE, answer, get, idle, post, status
from tests.relay_world import LIMITS

pytestmark = pytest.mark.usefixtures("no_bug_is_logged")


# -- clients that leave ----------------------------------------------------------------------------


def test_a_client_that_resets_during_the_answer_leaves_nothing_behind(world):
    """Its request is complete, so it is not read: only the failing send tells."""
    client, _handler, server = world.fetch(get())
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    client.break_off(errno.EPIPE)
    server.arrive(b"x" * 50)
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_resets_while_its_answer_is_pending(world):
    client, _handler, server = world.fetch(get())
    client.room = 3
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    client.break_off()
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_resets_during_its_upload_is_delivered_as_far_as_it_came(world):
    client, _handler, server = world.fetch(post(b"", length=9))
    server.take()
    server.room = 2
    client.arrive(b"12345")
    world.settle()
    client.break_off()
    world.settle()
    server.room = None
    world.settle()
    assert server.take() == b"12345"
    world.check_idle()


def test_a_client_that_resets_behind_a_complete_request_is_delivered(world):
    """The answer cannot be given any more, and a part of the request is still on its way out."""
    client, _handler, server = world.fetch(post(b"", length=5))
    server.take()
    server.room = 2
    client.arrive(b"12345")
    world.settle()
    client.break_off()
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    server.room = None
    world.settle()
    assert server.take() == b"12345"
    world.check_idle()


def test_a_client_that_resets_with_nothing_pending(world):
    client, _handler, server = world.fetch(post(b"", length=9))
    client.break_off()
    world.settle()
    assert server.closed
    world.check_idle()


def test_a_client_that_ends_inside_its_request_is_told_once(world):
    client, _handler, server = world.fetch(post(b"123", length=9))
    client.end()
    world.settle()
    told = client.take()
    assert (status(told), told.count(b"HTTP/1.1")) == (400, 1)
    assert server.closed
    assert world.counters["bad_request"] == 1
    world.pass_time(LINGER)
    world.check_idle()


def test_a_client_that_ends_behind_its_request_gets_the_whole_answer(world):
    """T3"""
    client, _handler, server = world.fetch(get())
    client.end()
    world.settle()
    server.arrive(answer(b"hello"))
    world.settle()
    assert (client.take(), client.closed) == (answer(b"hello"), True)
    world.check_idle()


def test_a_client_that_ends_with_its_last_byte_gets_the_whole_answer(world):
    client, _handler, server = world.fetch(post(b"", length=3))
    client.arrive(b"abc").end()
    world.settle()
    server.arrive(answer(b"hello"))
    world.settle()
    assert client.take() == answer(b"hello")
    world.check_idle()


# -- leaving ---------------------------------------------------------------------------------------


def test_draining_ends_idle_clients(world):
    client, handler, server = idle(world)
    handler.on_drain()
    assert (client.shut, client.sent, server.closed) == (True, b"", True)
    handler.on_drain()
    assert handler.stage == STAGE_DRAIN
    world.pass_time(LINGER)
    world.check_idle()


def test_draining_a_client_that_is_being_let_go_anyway(world, caplog):
    client, handler, _server = idle(world)
    world.pass_time(LIMITS.handshake)
    assert handler.stage == STAGE_DRAIN
    handler.on_drain()
    assert caplog.records == []
    assert handler.stage == STAGE_DRAIN
    assert client.shut


def test_draining_lets_a_running_exchange_end_and_takes_no_next_one(world):
    """T8; the client is told, so that it does not send the next one into the end."""
    client, handler, server = world.fetch(get(b"/1"))
    client.arrive(get(b"/2"))
    world.relay.close_listener()
    handler.on_drain()
    server.arrive(answer(b"one"))
    world.settle()
    assert (client.take(), client.shut) == (answer(b"one", b"Connection: close\r\n"), True)
    assert handler.stage == STAGE_DRAIN
    client.end()
    world.settle()
    world.check_idle()


def _answered(world):
    return idle(world)[:2]


def _waiting(world):
    return world.fetch(get())[:2]


def _uploading(world):
    client, handler, server = world.fetch(post(b"", length=9))
    server.room = 0
    client.arrive(b"12345")
    world.settle()
    return client, handler


def _downloading(world):
    client, handler, server = world.fetch(get())
    client.room = 3
    server.arrive(answer(b"x" * 100)[:-50])
    world.settle()
    return client, handler


def _switched(world):
    client, handler, server = world.fetch(UPGRADE)
    server.arrive(SWITCHING)
    world.settle()
    return client, handler


def _retrying(world):
    client, handler, server = idle(world)
    client.arrive(get())
    world.settle()
    server.end()
    world.settle()
    return client, handler


def _third_request(world):
    client, handler, server = idle(world)
    for number in range(2):
        client.arrive(get(b"/%d" % number))
        world.settle()
        server.arrive(answer(b"x") if number == 0 else b"")
        world.settle()
    return client, handler


def _refused(world):
    client, handler, server = world.fetch(get())
    server.end()
    world.settle()
    return client, handler


BEGINNINGS = [
    _answered,
    _waiting,
    _uploading,
    _downloading,
    _switched,
    _retrying,
    _third_request,
    _refused,
]


@pytest.mark.parametrize("ending", ["destroyed", "faulted", "client reset", "server reset"])
@pytest.mark.parametrize("begin", BEGINNINGS)
def test_every_ending_gives_everything_back_without_the_gc(world, begin, ending):
    """R8: a Forward refers to its handler and the handler to it."""
    client, handler = begin(world)
    freed = weakref.ref(handler)
    gc.collect()
    gc.disable()
    try:
        if ending == "destroyed":
            handler.destroy()
        elif ending == "faulted":
            handler.on_fault(OSError())
        elif ending == "client reset":
            client.break_off()
            handler.on_unreadable(handler.local, ConnectionResetError())
        elif handler.remote:
            handler.remote.sock.break_off()
        world.pass_time(LIMITS.handshake)
        world.pass_time(LIMITS.half_close)
        if handler.stage != STAGE_DESTROYED:
            handler.destroy()
        for dial in world.dialer.dials:
            dial.callback = None
        del handler
        world.settle()
        assert freed() is None
    finally:
        gc.enable()
    world.check_idle()
