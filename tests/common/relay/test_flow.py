"""``Side`` and ``Flow`` between fake sockets: bytes, back-pressure, pauses and memory."""

from __future__ import annotations

from common.net.loop import READ, WRITE
from common.relay.flow import BULK_READ, HELD_LIMIT, SPARING_READ, Allowance
from tests.fakes import FakeSocket, settle
from tests.flow_world import Connection, doubling

# -- one direction --------------------------------------------------------------------------------


def test_bytes_pass_both_ways(loop, connection, client, target):
    client.arrive(b"ping")
    target.arrive(b"pong")
    settle(loop)
    assert (bytes(target.sent), bytes(client.sent)) == (b"ping", b"pong")
    assert (connection.up.total, connection.down.total) == (4, 4)


def test_the_transform_is_between(loop, client, target):
    connection = Connection(loop, client, target, up=doubling, down=lambda data: b"")
    client.arrive(b"abc")
    target.arrive(b"swallowed")
    settle(loop)
    assert (bytes(target.sent), bytes(client.sent)) == (b"aabbcc", b"")
    assert (connection.up.total, connection.down.total) == (3, 9)  # counted before the transform


def test_one_read_per_event_keeps_connections_fair(loop, connection, client, target):
    """R9: a saturated direction gives way after every read."""
    client.bite = 10
    client.arrive(b"x" * 30)
    loop.step(0)
    assert len(target.sent) == 10


def test_a_read_takes_what_the_allowance_has_room_for(loop, connection, client, target):
    client.arrive(bytes(BULK_READ + 1))
    loop.step(0)
    assert len(target.sent) == BULK_READ


def test_a_read_takes_no_more_than_the_flows_own_limit(loop, connection, client, target):
    connection.up.limit = 10
    client.arrive(bytes(25))
    for size in (10, 20, 25):
        loop.step(0)
        assert len(target.sent) == size
    connection.up.limit = BULK_READ
    connection.local.allowance.take(HELD_LIMIT)
    client.arrive(bytes(BULK_READ))
    loop.step(0)
    assert len(target.sent) == 25 + SPARING_READ


def test_traffic_is_noted_with_the_time_of_its_batch(loop, connection, client, target):
    loop._clock.advance(5)
    client.arrive(b"x")
    settle(loop)
    assert connection.last_active == loop.now == 1005.0


def test_bytes_that_leave_late_are_traffic_too(loop, connection, client, target):
    target.room = 1
    client.arrive(b"xyz")
    settle(loop)
    loop._clock.advance(7)
    target.room = 1
    settle(loop)
    assert connection.last_active == 1007.0


def test_a_spurious_readable_event_does_nothing(loop, connection, client):
    connection.up.pump()
    assert connection.told == []


# -- back-pressure --------------------------------------------------------------------------------


def test_a_source_is_not_read_while_its_sink_has_pending_bytes(loop, connection, client, target):
    """W3"""
    target.room = 3
    client.arrive(b"abcdef")
    settle(loop)
    assert bytes(target.sent) == b"abc"
    assert bytes(connection.remote.pending) == b"def"
    assert (connection.local.events, connection.remote.events) == (0, READ | WRITE)
    client.arrive(b"more")
    assert settle(loop) == 0, "nothing to do, and nothing is done"
    assert bytes(client.arrived) == b"more"


def test_reading_goes_on_once_the_last_pending_byte_has_left(loop, connection, client, target):
    target.room = 3
    client.arrive(b"abcdef")
    settle(loop)
    client.arrive(b"ghi")
    target.room = 2
    settle(loop)
    assert connection.local.events == 0
    target.room = None
    settle(loop)
    assert bytes(target.sent) == b"abcdefghi"
    assert (connection.local.events, connection.remote.events) == (READ, READ)
    assert connection.remote.pending is None


def test_the_other_direction_is_not_stopped(loop, connection, client, target):
    """R9"""
    target.room = 0
    client.arrive(b"stuck")
    settle(loop)
    target.arrive(b"free")
    settle(loop)
    assert bytes(client.sent) == b"free"


def test_later_bytes_never_overtake_pending_ones(loop, connection, client, target):
    """W4: there is one write path; what is written meanwhile queues behind."""
    target.room = 1
    assert connection.remote.write(b"AAA") is False
    target.room = None
    assert connection.remote.write(b"BBB") is False
    assert bytes(target.sent) == b"A"
    settle(loop)
    assert bytes(target.sent) == b"AAABBB"


def test_readable_and_writable_in_one_batch_keep_the_order(loop, connection, client, target):
    """W4: OUT and IN events of one connection in the same batch, whichever comes first."""
    target.room = 1
    client.arrive(b"AAA")
    settle(loop)
    client.arrive(b"BBB")
    target.room = 1
    connection.local.on_event(READ)  # a stale event of a batch in which the interest was dropped
    connection.remote.on_event(READ | WRITE)
    target.room = None
    settle(loop)
    assert bytes(target.sent) == b"AAABBB"


def test_what_is_kept_is_a_copy(loop, client, target):
    """Scratch views die with the event: two stalled flows share one scratch and lose nothing."""
    other_client, other_target = FakeSocket(), FakeSocket(room=0)
    Connection(loop, client, target, up=doubling)
    Connection(loop, other_client, other_target, up=doubling)
    target.room = 3
    client.arrive(b"abcd")
    other_client.arrive(b"0123")
    settle(loop)
    target.room = other_target.room = None
    settle(loop)
    assert bytes(target.sent) == b"aabbccdd"
    assert bytes(other_target.sent) == b"00112233"


def test_an_empty_write_is_no_event(loop, connection, target):
    target.room = 0
    assert connection.remote.write(b"") is True
    assert connection.remote.events == READ


def test_a_write_event_with_nothing_pending_ends_the_interest(loop, connection, target):
    connection.remote.want(READ | WRITE)
    assert settle(loop) == 1
    assert connection.remote.events == READ
    assert connection.told == []


def test_a_flush_that_the_kernel_refuses_after_all_waits(loop, connection, client, target):
    target.room = 0
    client.arrive(b"abc")
    settle(loop)
    connection.remote.flush()
    assert bytes(connection.remote.pending) == b"abc"


def test_delivering_what_is_transformed_already(loop, client, target):
    connection = Connection(loop, client, target, up=doubling)
    target.room = 2
    connection.up.deliver(b"head")
    assert connection.local.events == 0
    target.room = None
    client.arrive(b"x")
    settle(loop)
    assert bytes(target.sent) == b"headxx"


# -- pauses of a protocol -------------------------------------------------------------------------


def test_hold_stops_reading_until_release(loop, connection, client, target):
    connection.up.hold()
    client.arrive(b"next")
    assert settle(loop) == 0
    connection.up.release()
    settle(loop)
    assert bytes(target.sent) == b"next"


def test_draining_does_not_undo_a_hold(loop, connection, client, target):
    target.room = 1
    client.arrive(b"abc")
    settle(loop)
    connection.up.hold()
    target.room = None
    settle(loop)
    assert bytes(target.sent) == b"abc"
    assert connection.local.events == 0


def test_release_does_not_undo_back_pressure(loop, connection, client, target):
    connection.up.hold()
    target.room = 0
    connection.remote.write(b"abc")
    connection.up.release()
    assert connection.local.events == 0
    target.room = None
    settle(loop)
    assert connection.local.events == READ


def test_stop_reads_no_more(loop, connection, client, target):
    connection.up.stop()
    client.arrive(b"more")
    assert settle(loop) == 0
    assert bytes(client.arrived) == b"more"


def test_stop_reads_no_more_even_when_the_sink_drains(loop, connection, client, target):
    target.room = 1
    client.arrive(b"abc")
    settle(loop)
    connection.up.stop()
    target.room = None
    settle(loop)
    assert connection.up.closed
    assert connection.local.events == 0
    assert connection.told == []


# -- memory ---------------------------------------------------------------------------------------


def test_reads_shrink_while_stalled_sinks_hold_much():
    """R12"""
    allowance = Allowance()
    allowance.take(HELD_LIMIT - 1)
    assert allowance.room == BULK_READ
    allowance.take(1)
    assert allowance.room == SPARING_READ
    allowance.give(1)
    assert allowance.room == BULK_READ


def test_stalled_connections_hold_the_limit_and_one_small_read_each(loop):
    """R12: 40 clients that never read, each with more waiting for it than it gets."""
    allowance = Allowance()
    connections = [Connection(loop, FakeSocket(), FakeSocket(room=0), allowance=allowance) for _ in range(40)]
    for connection in connections:
        connection.local.sock.arrive(bytes(BULK_READ))
    for _ in range(5):
        loop.step(0)
    bound = HELD_LIMIT + BULK_READ + len(connections) * SPARING_READ
    assert allowance.held == sum(len(connection.remote.pending) for connection in connections) <= bound
    for connection in connections:
        connection.close()
    assert (allowance.held, allowance.room) == (0, BULK_READ)


def test_pending_counts_all_the_memory_behind_it_until_it_is_gone(loop, connection, client, target):
    target.room = 0
    client.arrive(bytes(1000))
    settle(loop)
    target.room = 999
    settle(loop)
    assert connection.remote.allowance.held == 1000  # a view pins the whole buffer
    connection.remote.write(b"more")
    assert connection.remote.allowance.held == 5
    target.room = None
    settle(loop)
    assert connection.remote.allowance.held == 0
