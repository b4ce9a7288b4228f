"""R7: ``Flow`` under any interleaving of its two sockets."""

from __future__ import annotations

import random

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from common.net.loop import READ, WRITE, EventLoop
from tests.clock import FakeClock
from tests.fakes import FakeSelector, FakeSocket, settle
from tests.flow_world import Connection, doubled, doubling


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
