"""``Side`` and ``Flow`` and how they end: end of stream, resets, faults, and being let go."""

from __future__ import annotations

import errno
import gc
import weakref

import pytest

from common.net.loop import READ, WRITE, EventLoop
from common.relay.flow import SPARING_READ, Allowance, Side, discard
from tests.clock import FakeClock
from tests.fakes import FakeSelector, FakeSocket, settle
from tests.flow_world import Connection


def test_end_of_stream_is_told_once_and_not_read_again(loop, connection, client, target):
    """W2; EOF is level-triggered, so an interest that stays would spin."""
    client.arrive(b"last")
    client.end()
    assert settle(loop) == 2
    assert connection.told == [("end", "up")]
    assert (connection.up.eof, connection.up.closed) == (True, True)
    assert (bytes(target.sent), target.shut) == (b"last", True)
    target.arrive(b"answer")
    settle(loop)
    assert bytes(client.sent) == b"answer"


def test_end_of_stream_waits_for_pending_bytes(loop, connection, client, target):
    target.room = 2
    client.arrive(b"abcdef")
    settle(loop)
    connection.local.want(READ)
    client.end()
    settle(loop)
    assert (connection.up.eof, connection.told) == (True, [])
    target.room = 2
    settle(loop)
    assert connection.told == []
    target.room = None
    settle(loop)
    assert connection.told == [("end", "up")]
    assert (bytes(target.sent), target.shut) == (b"abcdef", True)


def test_release_after_the_end_finishes_the_flow(loop, connection, client):
    connection.up.held = True
    connection.up.eof = True
    connection.up.release()
    assert connection.told == [("end", "up")]


@pytest.mark.parametrize("code", [errno.ECONNRESET, errno.ETIMEDOUT])
def test_a_reset_is_told_after_what_came_before_it(loop, connection, client, target, code):
    """R6"""
    client.arrive(b"before")
    client.break_off(code)
    settle(loop)
    assert bytes(target.sent) == b"before"
    assert connection.told == [("unreadable", "local", code)]


@pytest.mark.parametrize("pending", [False, True])
def test_a_failed_send_is_told_and_drops_what_cannot_leave(loop, connection, client, target, pending):
    if pending:
        target.room = 1
        client.arrive(b"abc")
        settle(loop)
    connection.remote.want(connection.remote.events & ~READ)  # the write meets the error, not the read
    target.break_off(errno.EPIPE)
    if not pending:
        client.arrive(b"abc")
    settle(loop)
    assert connection.told == [("unwritable", "remote", errno.EPIPE)]
    assert connection.remote.pending is None
    assert connection.remote.allowance.held == 0
    assert not connection.remote.events & WRITE


@pytest.mark.parametrize("way", ["feed", "deliver"])
def test_a_write_that_ends_the_flow_leaves_the_interest_to_the_owner(loop, connection, target, way):
    """Who concludes inside a failed write reads on, for itself; the flow has no say any more."""

    def conclude(side, exc):
        connection.up.detach()
        connection.local.want(READ)

    up = connection.up
    connection.on_unwritable = conclude
    connection.local.want(0)
    target.break_off(errno.EPIPE)
    getattr(up, way)(memoryview(b"x"))
    assert connection.local.events == READ


def test_what_a_transform_raises_is_the_connections_fault(loop, client, target):
    """R11, W24"""
    bug = ZeroDivisionError()

    def boom(data):
        raise bug

    connection = Connection(loop, client, target, up=boom)
    client.arrive(b"x")
    loop.step(0)
    assert connection.told == [("fault", bug)]


def test_what_is_raised_after_a_side_closed_in_its_own_event_is_not_lost(loop, client, target):
    """A fault of a side that is closed by now still ends its connection."""
    bug = ZeroDivisionError()

    def boom(data):
        connection.local.close()
        raise bug

    connection = Connection(loop, client, target, up=boom)
    client.arrive(b"x")
    loop.step(0)
    assert connection.told == [("fault", bug)]


def test_a_detached_side_has_nobody_to_tell(loop, connection):
    connection.local.close()
    connection.local.detach()
    connection.local.on_fault(ZeroDivisionError())
    assert connection.told == []


@pytest.mark.parametrize("broken", [False, True])
def test_a_detached_side_may_still_flush(loop, connection, client, target, broken):
    target.room = 1
    client.arrive(b"abc")
    settle(loop)
    connection.remote.detach()
    if broken:
        connection.remote.want(WRITE)
        target.break_off()
    target.room = None
    settle(loop)
    assert bytes(target.sent) == (b"a" if broken else b"abc")
    assert connection.told == []


def test_a_detached_flow_moves_nothing_and_tells_nobody(loop, connection, client, target):
    connection.up.detach()
    client.arrive(b"x")
    client.end()
    settle(loop)
    assert bytes(target.sent) == b""
    assert connection.told == []


def test_a_detached_flow_does_not_report_errors(loop, connection, client):
    connection.up.detach()
    client.break_off()
    connection.up.pump()
    assert connection.told == []


def test_an_unexpected_read_is_an_error_and_not_a_spin(loop, client):
    told = []

    class Owner:
        last_active = 0.0
        on_fault = staticmethod(told.append)

    side = Side(Owner(), client, loop, Allowance())
    side.want(READ)
    client.arrive(b"x")
    loop.step(0)
    assert isinstance(told[0], AssertionError)


def test_closing_twice_is_harmless_and_gives_back_what_was_held(loop, connection, target):
    target.room = 0
    connection.remote.write(b"abc")
    assert connection.remote.allowance.held == 3
    for _ in range(2):
        connection.remote.close()
        assert connection.remote.closed
        assert connection.remote.allowance.held == 0
    assert target.closed
    assert loop.statistics()["watched"] == 1


def test_a_stale_event_of_the_same_batch_reaches_nobody(loop, connection, client, target):
    """R10, with the selector's snapshot of a side that an earlier event has closed."""
    connection.remote.close()
    connection.remote.on_event(READ | WRITE)
    assert connection.told == []


def test_freed_by_refcount():
    """R8"""
    loop = EventLoop(FakeClock(), FakeSelector())
    connection = Connection(loop, FakeSocket().arrive(b"x"), FakeSocket(room=0))
    settle(loop)
    freed = weakref.ref(connection)
    gc.disable()
    try:
        connection.close()
        del connection
        assert freed() is None
    finally:
        gc.enable()


def test_discarding_reads_and_forgets(loop, connection, client):
    with pytest.raises(BlockingIOError):
        discard(connection.local)
    client.arrive(bytes(SPARING_READ + 1))
    assert [discard(connection.local), discard(connection.local)] == [SPARING_READ, 1]
    client.end()
    assert discard(connection.local) == 0
