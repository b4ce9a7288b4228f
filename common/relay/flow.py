"""``Side`` and ``Flow``: the two halves of a relayed connection and the bytes between them.

        local side ── up ──►  remote side
        local side ◄─ down ── remote side

A ``Side`` is one socket, and it is what the selector hands back as ``key.data``: one attribute load
and the event is at the right half of the right connection. It owns the only write path: what the
kernel does not take stays in ``pending``, in order, and leaves before anything newer.

A ``Flow`` is one direction: read the source, transform, write the sink.

Invariant (back-pressure): while a sink has ``pending`` bytes its source is not read, so a direction
holds at most one transformed read. Reads go into one process-wide scratch buffer, and what a
transform returns may alias another; views die with the event, and ``Side.write`` copies what it
must keep. An idle connection therefore holds no buffer at all.
"""

from __future__ import annotations

from collections.abc import Callable
from socket import socket
from typing import Protocol

from common.net.loop import READ, WRITE, EventLoop
from common.net.sockets import reset

BULK_READ = 512 * 1024  # bytes per read while memory is plentiful (docs/benchmarks.md)
SPARING_READ = 32 * 1024  # bytes per read once stalled sinks pin HELD_LIMIT
HELD_LIMIT = 8 * 1024 * 1024  # bytes held for all stalled sinks before reads shrink

_RX = memoryview(bytearray(BULK_READ))

Transform = Callable[[memoryview], memoryview | bytes]


class Allowance:
    """How much one read may take, given what all stalled sinks of this loop already hold.

    A big read is cheap, but every stalled connection pins one. So reads are big until
    ``HELD_LIMIT`` bytes are pinned and small from there on: n stalled connections hold at most
    ``HELD_LIMIT + n * SPARING_READ`` bytes plus framing.
    """

    __slots__ = ("held", "room")

    def __init__(self) -> None:
        self.held = 0
        self.room = BULK_READ

    def take(self, size: int) -> None:
        self.held += size
        if self.held >= HELD_LIMIT:
            self.room = SPARING_READ

    def give(self, size: int) -> None:
        self.held -= size
        if self.held < HELD_LIMIT:
            self.room = BULK_READ


class SideOwner(Protocol):
    """What a side and a flow need from the connection they belong to."""

    last_active: float

    def on_unreadable(self, side: Side, exc: OSError) -> None: ...
    def on_unwritable(self, side: Side, exc: OSError) -> None: ...
    def on_flow_end(self, flow: Flow) -> None: ...
    def on_fault(self, exc: Exception) -> None: ...


class Side:
    """One socket of a connection, registered with the loop as ``key.data``.

    ``readable`` is called when there is something to read, ``drained`` when the last pending byte
    has left. The owner rebinds both as the connection moves through its stages, so that no event
    ever tests a stage.
    """

    __slots__ = ("allowance", "drained", "events", "handler", "loop", "pending", "pinned", "readable", "sock")

    def __init__(self, handler: SideOwner, sock: socket, loop: EventLoop, allowance: Allowance) -> None:
        self.handler: SideOwner | None = handler
        self.sock, self.loop, self.allowance = sock, loop, allowance
        self.events = 0
        self.pending: memoryview | None = None
        self.pinned = 0  # bytes of memory behind ``pending``
        self.readable: Callable[[], None] = _nobody_reads
        self.drained: Callable[[], None] = _nobody_waits

    def want(self, events: int) -> None:
        """Change the interest; free when nothing changes. READ, WRITE, both, or 0 for none."""
        if events != self.events:
            self.loop.watch(self.sock, events, self.events, self)
            self.events = events

    def on_event(self, mask: int) -> None:
        # ``self.events`` is read again: an earlier event of this batch may have changed it.
        if mask & self.events & READ:
            self.readable()
        if mask & WRITE and self.events & WRITE:
            self.flush()

    def on_fault(self, exc: Exception) -> None:
        if self.handler is not None:
            self.handler.on_fault(exc)

    def write(self, data: memoryview | bytes) -> bool:
        """Send ``data`` now or keep what does not fit; True when nothing is pending afterwards."""
        if self.pending is not None:
            self._hold(b"".join((self.pending, data)))
            return False
        try:
            sent = self.sock.send(data)
        except BlockingIOError:
            sent = 0
        except OSError as exc:
            self._lost(exc)
            return False
        if sent == len(data):
            return True
        self._hold(bytes(data[sent:]))  # leave the scratch buffer: the only copy
        self.want(self.events | WRITE)
        return False

    def flush(self) -> None:
        """The kernel has room again: retry what did not fit."""
        pending = self.pending
        if pending is None:
            self.want(self.events & ~WRITE)
            return
        try:
            sent = self.sock.send(pending)
        except BlockingIOError:
            return
        except OSError as exc:
            self._lost(exc)
            return
        if self.handler is not None:
            self.handler.last_active = self.loop.now
        if sent < len(pending):
            self.pending = pending[sent:]
            return
        self._release()
        self.want(self.events & ~WRITE)
        self.drained()

    @property
    def closed(self) -> bool:
        return self.sock.fileno() < 0

    def reset(self) -> None:
        """Close with RST instead of FIN: the peer learns that this was no ordinary end."""
        self.want(0)
        reset(self.sock)
        self.close()

    def close(self) -> None:
        """Close the socket. The handler stays known: what this event may still raise is its connection's."""
        if self.pending is not None:
            self._release()
        self.want(0)
        self.sock.close()
        self.readable, self.drained = _nobody_reads, _nobody_waits

    def detach(self) -> None:
        """Drop the reference to the connection, so that it is freed by refcount."""
        self.handler = None

    def _hold(self, data: bytes) -> None:
        self._release()
        self.pending, self.pinned = memoryview(data), len(data)
        self.allowance.take(self.pinned)

    def _release(self) -> None:
        self.allowance.give(self.pinned)
        self.pending, self.pinned = None, 0

    def _lost(self, exc: OSError) -> None:
        self._release()
        self.want(self.events & ~WRITE)
        if self.handler is not None:
            self.handler.on_unwritable(self, exc)


def _nobody_reads() -> None:
    raise AssertionError("a readable event on a side that nobody reads")


def _nobody_waits() -> None:
    """Nobody asked to hear that the pending bytes have left."""


class Flow:
    """Bytes moving one way: source socket, transform, sink socket.

    ``eof`` is set when the source ended, ``closed`` when nothing more will be written to the sink
    (a failed write can close the flow, and then the source's interest is somebody else's).
    ``total`` counts bytes before the transform. ``limit`` is the most one read takes, in bytes.
    """

    __slots__ = ("closed", "eof", "handler", "held", "limit", "sink", "source", "total", "transform")

    def __init__(self, handler: SideOwner, source: Side, sink: Side, transform: Transform) -> None:
        self.handler: SideOwner | None = handler
        self.source, self.sink, self.transform = source, sink, transform
        self.eof = self.closed = self.held = False
        self.total = 0
        self.limit = BULK_READ
        source.readable, sink.drained = self.pump, self.resume

    def pump(self) -> None:
        """The source is readable: move one read. One per event keeps connections fair."""
        source = self.source
        room = source.allowance.room
        try:
            size = source.sock.recv_into(_RX, room if room < self.limit else self.limit)
        except BlockingIOError:
            return
        except OSError as exc:
            if self.handler is not None:
                self.handler.on_unreadable(source, exc)
            return
        if size:
            self.feed(_RX[:size])
            return
        self.eof = True
        source.want(source.events & ~READ)
        if self.sink.pending is None:
            self._end()

    def feed(self, data: memoryview) -> None:
        """Transform ``data`` and pass it on; also the way in for bytes left over from a handshake."""
        handler, source = self.handler, self.source
        if handler is not None:
            handler.last_active = source.loop.now
        self.total += len(data)
        out = self.transform(data)
        if out and not self.sink.write(out) and not self.closed:
            source.want(source.events & ~READ)

    def deliver(self, data: memoryview | bytes) -> None:
        """Pass on ``data`` as it is, transformed already."""
        if not self.sink.write(data) and not self.closed:
            self.source.want(self.source.events & ~READ)

    def hold(self) -> None:
        """Stop reading the source until ``release``; a protocol's pause, apart from back-pressure."""
        self.held = True
        self.source.want(self.source.events & ~READ)

    def release(self) -> None:
        """Undo ``hold``."""
        self.held = False
        if self.sink.pending is None:
            self.resume()

    def resume(self) -> None:
        """The sink has taken everything: read on, or finish."""
        if self.closed:
            return
        if self.eof:
            self._end()
        elif not self.held:
            self.source.want(self.source.events | READ)

    def stop(self) -> None:
        """Nothing more will be moved this way; the source is not read for it any longer."""
        self.closed = True
        self.source.want(self.source.events & ~READ)

    def detach(self) -> None:
        """Drop every reference to the connection (see ``Side.detach``)."""
        self.closed = True
        self.handler = None
        self.transform = _nowhere

    def _end(self) -> None:
        self.closed = True
        if self.handler is not None:
            self.handler.on_flow_end(self)


def _nowhere(data: memoryview) -> bytes:
    return b""


def receive(side: Side, size: int) -> bytes:
    """Read up to ``size`` bytes, to keep; none at end of stream.

    Raises BlockingIOError when there is nothing to read, OSError when the connection broke.
    """
    return bytes(_RX[: side.sock.recv_into(_RX, size)])  # cheaper than a buffer of ``size`` made for a few


def discard(side: Side) -> int:
    """Read and forget up to ``SPARING_READ`` bytes; the number read, 0 at end of stream.

    Raises BlockingIOError when there is nothing to read, OSError when the connection broke.
    """
    return side.sock.recv_into(_RX, SPARING_READ)
