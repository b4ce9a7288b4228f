"""``Side`` and ``Flow`` between fake sockets, and between real ones where the kernel matters."""

from __future__ import annotations

import contextlib
import errno
import gc
import random
import socket
import weakref

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.net.loop import READ, WRITE, EventLoop
from common.relay.flow import (
    BULK_READ,
    HELD_LIMIT,
    SPARING_READ,
    Allowance,
    Flow,
    Side,
    discard,
)
from tests.clock import FakeClock
from tests.fakes import FakeSelector, FakeSocket, os_error, settle

_SCRATCH = bytearray(4096)


def same(data: memoryview) -> memoryview:
    return data


def doubling(data: memoryview) -> memoryview:
    """Each byte twice, in a scratch buffer that every call of every flow overwrites, as codecs do."""
    size = len(data) * 2
    _SCRATCH[:] = b"\xdb" * len(_SCRATCH)  # whoever kept a view of an earlier call sees this
    _SCRATCH[0:size:2] = data
    _SCRATCH[1:size:2] = data
    return memoryview(_SCRATCH)[:size]


def doubled(data: bytes) -> bytes:
    return bytes(byte for byte in data for _ in range(2))


class Connection:
    """The least that owns two sides and two flows: passes ends on, and records what it is told."""

    def __init__(self, loop, local, remote, *, up=same, down=same, allowance=None) -> None:
        self.last_active = 0.0
        self.told: list[tuple] = []
        allowance = allowance or Allowance()
        self.local = Side(self, local, loop, allowance)
        self.remote = Side(self, remote, loop, allowance)
        self.up = Flow(self, self.local, self.remote, up)
        self.down = Flow(self, self.remote, self.local, down)
        self.local.want(READ)
        self.remote.want(READ)

    def name(self, side) -> str:
        return "local" if side is self.local else "remote"

    def on_unreadable(self, side, exc) -> None:
        self.told.append(("unreadable", self.name(side), exc.errno))
        side.want(0)

    def on_unwritable(self, side, exc) -> None:
        self.told.append(("unwritable", self.name(side), exc.errno))

    def on_flow_end(self, flow) -> None:
        self.told.append(("end", "up" if flow is self.up else "down"))
        flow.sink.sock.shutdown(socket.SHUT_WR)

    def on_fault(self, exc) -> None:
        self.told.append(("fault", exc))

    def close(self) -> None:
        for flow in (self.up, self.down):
            flow.detach()
        for side in (self.local, self.remote):
            side.close()
            side.detach()
        self.up = self.down = None


@pytest.fixture
def loop():
    return EventLoop(FakeClock(), FakeSelector())


@pytest.fixture
def client():
    return FakeSocket()


@pytest.fixture
def target():
    return FakeSocket()


@pytest.fixture
def connection(loop, client, target):
    return Connection(loop, client, target)


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


# -- ends -----------------------------------------------------------------------------------------


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


# -- R7: any interleaving -------------------------------------------------------------------------


class Interleavings(RuleBasedStateMachine):
    """R7: two sockets that take and give any part of anything, in any order.

    Invariants: order kept, no byte lost or doubled, pending at most one transformed read, a source
    read exactly when its sink has nothing pending.
    """

    def __init__(self) -> None:
        super().__init__()
        self.loop = EventLoop(FakeClock(), FakeSelector())
        self.local, self.remote = FakeSocket(room=0), FakeSocket(room=0)
        self.connection = Connection(self.loop, self.local, self.remote, up=doubling, down=doubling)
        self.said = {id(self.local): bytearray(), id(self.remote): bytearray()}
        self.random = random.Random(7)
        self.biggest = 0

    ends = st.sampled_from(["local", "remote"])

    @rule(end=ends, size=st.integers(1, 300))
    def say(self, end, size):
        sock = getattr(self, end)
        if not sock.ended and len(sock.arrived) < 1000:
            data = self.random.randbytes(size)
            self.said[id(sock)] += data
            sock.arrive(data)
            self.biggest = max(self.biggest, len(sock.arrived))

    @rule(end=ends, size=st.integers(1, 400))
    def make_room(self, end, size):
        getattr(self, end).room += size

    @rule(end=ends, bite=st.integers(1, 50) | st.none())
    def serve_in_bites(self, end, bite):
        getattr(self, end).bite = bite

    @rule(end=ends)
    def finish(self, end):
        getattr(self, end).end()

    @rule(count=st.integers(1, 3))
    def step(self, count):
        for _ in range(count):
            self.loop.step(0)

    @rule(order=st.booleans(), masks=st.tuples(st.integers(1, 3), st.integers(1, 3)))
    def stale_events(self, order, masks):
        """A batch may name events that are not wanted any more, or not there."""
        sides = [self.connection.local, self.connection.remote]
        for side, mask in zip(sides if order else sides[::-1], masks, strict=True):
            side.on_event(mask)

    def directions(self):
        yield self.local, self.remote, self.connection.up
        yield self.remote, self.local, self.connection.down

    @invariant()
    def nothing_is_lost_doubled_or_reordered(self):
        for source, sink, flow in self.directions():
            pending = bytes(flow.sink.pending or b"")
            moved = self.said[id(source)][: flow.total]
            assert bytes(sink.sent) + pending == doubled(moved)
            assert flow.total + len(source.arrived) == len(self.said[id(source)])

    @invariant()
    def pending_is_at_most_one_read(self):
        for _source, _sink, flow in self.directions():
            assert len(flow.sink.pending or b"") <= 2 * self.biggest
        assert self.connection.local.allowance.held == sum(
            side.pinned for side in (self.connection.local, self.connection.remote)
        )

    @invariant()
    def interest_says_what_is_awaited(self):
        for _source, _sink, flow in self.directions():
            held_back = flow.sink.pending is not None
            assert bool(flow.sink.events & WRITE) == held_back
            assert bool(flow.source.events & READ) == (not held_back and not flow.eof)

    @invariant()
    def an_end_is_passed_on_when_all_is_delivered(self):
        for _source, sink, flow in self.directions():
            assert sink.shut == (flow.eof and flow.sink.pending is None)

    def teardown(self):
        for sock in (self.local, self.remote):
            sock.room = None
            sock.end()
        settle(self.loop, limit=5000)
        for source, sink, flow in self.directions():
            assert bytes(sink.sent) == doubled(bytes(self.said[id(source)]))
            assert sink.shut
            assert flow.closed
        assert self.connection.local.allowance.held == 0


TestInterleavings = Interleavings.TestCase
TestInterleavings.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


# -- the same on real sockets ---------------------------------------------------------------------


def test_a_megabyte_through_small_kernel_buffers():
    """R2: real sockets of 4 KiB, both directions at once, each answered only after its end."""
    loop = EventLoop()
    (client, local), (remote, target) = socket.socketpair(), socket.socketpair()
    for sock in (client, local, remote, target):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        sock.setblocking(False)
    connection = Connection(loop, local, remote)
    data = random.Random(2).randbytes(200_000)
    left = {client: memoryview(data), target: memoryview(data)}
    got = {client: bytearray(), target: bytearray()}
    ended = set()
    while len(ended) < 2:
        for sock in (client, target):
            if sock in left:
                with contextlib.suppress(BlockingIOError):
                    left[sock] = left[sock][sock.send(left[sock]) :]
                if not left[sock]:
                    sock.shutdown(socket.SHUT_WR)
                    del left[sock]
            try:
                piece = sock.recv(1000)
                got[sock] += piece
                if not piece:
                    ended.add(sock)
            except BlockingIOError:
                pass
        loop.step(0)
    assert got == {client: data, target: data}
    assert connection.told in ([("end", "up"), ("end", "down")], [("end", "down"), ("end", "up")])
    connection.close()
    client.close()
    target.close()
    loop.close()


def test_a_descriptor_reused_within_a_batch_is_not_mistaken():
    """R10: the first event of a batch closes the second's socket, and its number is given out again."""
    loop = EventLoop()
    sockets = [sock for _ in range(3) for sock in socket.socketpair()]
    for sock in sockets:
        sock.setblocking(False)
    first, first_peer, second, second_peer, spare, spare_peer = sockets
    calls = []

    class Owner:
        last_active = 0.0

        def on_fault(self, exc):
            calls.append(exc)

    sides = {}

    def replace(name, victim):
        number = sides[victim].sock.fileno()
        sides[victim].close()
        heir = spare.dup()
        assert heir.fileno() == number, "the lowest free number is given out"
        sides["heir"] = Side(Owner(), heir, loop, Allowance())
        sides["heir"].readable = lambda: calls.append(f"heir, {heir.recv(9)!r}")
        sides["heir"].want(READ)
        calls.append(name)
        sides[name].want(0)

    for name, sock, victim in (("first", first, "second"), ("second", second, "first")):
        sides[name] = Side(Owner(), sock, loop, Allowance())
        sides[name].readable = lambda name=name, victim=victim: replace(name, victim)
        sides[name].want(READ)
    first_peer.send(b"x")
    second_peer.send(b"x")
    loop.step(1)
    assert len(calls) == 1, calls
    spare_peer.send(b"hello")
    loop.step(1)
    assert calls[1:] == ["heir, b'hello'"]
    for side in sides.values():
        side.close()
    for sock in sockets:
        sock.close()
    loop.close()


def test_a_paused_side_whose_peer_resets_does_not_spin():
    """No interest is no registration: HUP and ERR cannot be masked."""
    loop = EventLoop()
    listener = socket.create_server(("127.0.0.1", 0))
    peer = socket.create_connection(listener.getsockname())
    sock, _ = listener.accept()
    sock.setblocking(False)

    class Owner:
        last_active = 0.0

    side = Side(Owner(), sock, loop, Allowance())
    side.want(READ)
    side.want(0)
    peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    peer.close()
    assert loop._selector.select(0) == []
    side.close()
    listener.close()
    loop.close()


def test_os_errors_of_the_fakes_are_the_kernels():
    assert isinstance(os_error(errno.ECONNRESET), ConnectionResetError)
