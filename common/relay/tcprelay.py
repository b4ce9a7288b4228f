"""``TCPRelayHandler``: one relayed connection, from its first byte to its last.

Its stages, and what may follow what, are in ``stages``. Most of what happens here is endings: a
connection may end in every stage, through either side, a timer, a lookup or a dial, and each time
what can still be delivered is delivered first.

Subclasses say what the client wants and how bytes are coded: ``on_prologue``, ``on_addresses``,
``on_connected``, ``on_failed`` and, where they differ, the ``on_…`` of a running stream.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Hashable, Sequence
from socket import SHUT_WR, SO_ERROR, SOL_SOCKET, socket
from typing import Any

from common.errors import ConnectTimeout, HandshakeTimeout, RelayError, UpstreamError
from common.net.dialer import Dial, dial
from common.net.loop import READ
from common.net.resolver import Query, ResolveCallback
from common.proto.address import Address, IPAddress
from common.relay.containment import contained
from common.relay.expectant import Expectant
from common.relay.flow import Flow, Side, Transform, discard, receive
from common.relay.listener import Limits, TCPRelay
from common.relay.stages import (
    NEXT_STAGES,
    STAGE_CONNECTING,
    STAGE_DESTROYED,
    STAGE_DNS,
    STAGE_DRAIN,
    STAGE_INIT,
    STAGE_STREAM,
)

logger = logging.getLogger("shadowrelay.relay")

PROLOGUE_READ = 32 * 1024  # bytes per read before the stream stands
RESET_LINGER = 0.2  # seconds, when the far end broke: there is nothing to wait for but our own last bytes
LINGER = 2.0  # seconds to keep reading a client that has been told everything (RFC 9112 section 9.6)


class TCPRelayHandler(Expectant):
    """One proxied connection. Its sides are what the loop holds; nothing else refers to it for long."""

    __slots__ = (
        *("__weakref__", "dialing", "down", "limits", "local", "peer", "query", "relay"),
        *("remote", "source", "stage", "target", "up", "user"),
    )

    def __init__(self, relay: TCPRelay, sock: socket, peer: tuple[Any, ...]) -> None:
        super().__init__(relay.loop)
        self.relay, self.peer = relay, peer
        self.source: Hashable = None  # what ``Admission`` counts it under, if at all,
        self.user: str | None = None  # and for whom
        self.limits: Limits = relay.limits
        self.stage = STAGE_INIT
        self.local = Side(self, sock, self.loop, relay.allowance)
        self.remote: Side | None = None
        self.up: Flow | None = None
        self.down: Flow | None = None
        self.query: Query | None = None
        self.dialing: Dial | None = None
        self.target: Address | None = None

    def __str__(self) -> str:
        """Who it is, for a log."""
        return f"{self.peer[0]}:{self.peer[1]}" if self.peer else "unix"

    def start(self) -> None:
        """Begin to read; whatever raises from here on is this connection's own fault."""
        self.expect(self.loop.now + self.limits.handshake, self.on_handshake_timeout)
        self.local.readable = self.read_prologue
        self.local.want(READ)

    # -- what a subclass decides ---------------------------------------------------------------

    def on_prologue(self, data: bytes) -> None:
        """Consume handshake bytes; call ``resolve`` when the way on is known. Raises ProtocolError."""
        raise NotImplementedError

    def on_prologue_eof(self) -> None:
        """The client ended its side before it said what it wants."""
        self.conclude()

    def on_addresses(self, addresses: Sequence[IPAddress]) -> Sequence[IPAddress]:
        """Which of the resolved addresses may be dialled. Raises TargetForbidden for none."""
        return addresses

    def on_connected(self) -> None:
        """The remote side stands: call ``stream``."""
        raise NotImplementedError

    def on_failed(self, error: UpstreamError) -> None:
        """The way to ``target`` failed before a stream stood."""
        raise NotImplementedError

    def on_protocol_error(self, error: RelayError) -> None:
        """The peer broke a protocol, in any stage."""
        raise NotImplementedError

    @contained
    def on_drain(self) -> None:
        """The program is about to leave: end now if nothing is being done for the client."""
        if self.stage == STAGE_INIT:
            self.destroy()

    @contained
    def give_way(self) -> None:
        """The prologue is not done, and somebody else needs the room."""
        self.destroy()

    # -- stages ----------------------------------------------------------------------------------

    def advance(self, stage: int) -> None:
        """Move to ``stage``; the only place where it changes, but for ``destroy``."""
        if stage not in NEXT_STAGES[self.stage]:
            raise AssertionError(f"illegal stage change {self.stage} -> {stage}")
        self.stage = stage

    def resolve(self, target: Address) -> None:
        """ADDR or CONNECTING → DNS: look up ``target``, then connect to it."""
        self.target = target
        ip = target.ip
        if ip is None:
            self.look_up(target.host, self._on_resolved)
        else:
            self._enter_dns()
            if not self._is_reset():
                self._connect((ip,))

    def look_up(self, host: str, callback: ResolveCallback) -> None:
        """To DNS: the client waits until ``callback`` has what the resolver finds, which may be at once."""
        self._enter_dns()
        query = self.relay.resolver.resolve(host, callback)
        if query is not None:  # else it was answered already, and ``self.query`` may be the next one by now
            self.query = query
            self.local.want(self.local.events & ~READ)

    def _enter_dns(self) -> None:
        self.advance(STAGE_DNS)
        self.expect_nothing()
        self.relay.admission.handshakes.pop(self, None)

    @contained
    def _on_resolved(self, addresses: tuple[IPAddress, ...], error: UpstreamError | None) -> None:
        self.query = None
        if self.stage != STAGE_DNS or self.target is None or self._is_reset():
            return
        if error is None:
            self._connect(addresses)
        else:
            self.on_failed(error)

    def _is_reset(self) -> bool:
        """Whether the client reset while it was not watched; nothing may be done for it any more."""
        code = self.local.sock.getsockopt(SOL_SOCKET, SO_ERROR)
        if code:
            self.on_unreadable(self.local, OSError(code, "reset"))
        return code != 0

    def _connect(self, addresses: tuple[IPAddress, ...]) -> None:
        """DNS → CONNECTING, and on if the way stands at once."""
        assert self.target is not None
        port, limits, admission = self.target.port, self.limits, self.relay.admission
        allowed = [(ip, port) for ip in self.on_addresses(addresses)]
        admission.check_connecting()
        self.advance(STAGE_CONNECTING)
        connect, no_delay, keep_alive = limits.connect, limits.no_delay, limits.keep_alive
        dialled = dial(
            self.loop, allowed, self._on_dialled, timeout=connect, no_delay=no_delay, keep_alive=keep_alive
        )
        if isinstance(dialled, socket):
            self._reach(dialled)
        else:
            self.dialing = dialled
            admission.connecting.add(self)
            self.local.want(self.local.events & ~READ)

    @contained
    def _on_dialled(self, sock: socket | None, error: UpstreamError | None) -> None:
        self.dialing = None
        self.relay.admission.connecting.discard(self)
        if sock is None:
            self.on_failed(error or ConnectTimeout("no answer"))
        else:
            self._reach(sock)

    def _reach(self, sock: socket) -> None:
        self.remote = Side(self, sock, self.loop, self.relay.allowance)
        self.on_connected()

    def stream(self, up: Transform, down: Transform) -> None:
        """CONNECTING or ADDR → STREAM: two flows take over both sides."""
        assert self.remote is not None
        self.advance(STAGE_STREAM)
        local, remote = self.local, self.remote
        self.up = Flow(self, local, remote, up)
        self.down = Flow(self, remote, local, down)
        self.last_active = self.loop.now
        for source, sink in ((local, remote), (remote, local)):
            source.want(source.events | READ if sink.pending is None else source.events & ~READ)
        self.watch_quiet()

    def read_prologue(self) -> None:
        try:
            data = receive(self.local, PROLOGUE_READ)
        except BlockingIOError:
            return
        except OSError as exc:
            self.on_unreadable(self.local, exc)
            return
        if data:
            self.on_prologue(data)
        else:
            self.on_prologue_eof()

    # -- a running stream ------------------------------------------------------------------------

    def on_flow_end(self, flow: Flow) -> None:
        """``flow`` delivered its last byte: pass the end on, keep the other direction."""
        assert self.up is not None and self.down is not None
        if self.up.closed and self.down.closed:
            if self.up.eof:
                self.destroy()
            else:
                self.conclude()  # the far end takes no more, but the client may still be sending
            return
        try:
            flow.sink.sock.shutdown(SHUT_WR)
        except OSError as exc:
            self.on_unwritable(flow.sink, exc)
            return
        self.watch_quiet()

    def on_unwritable(self, side: Side, exc: OSError) -> None:
        """A send failed. The peer may have said something before it went, so its own flow goes on."""
        writer = self.up if side is self.remote else self.down
        reader = self.down if side is self.remote else self.up
        if writer is None or reader is None or reader.closed or reader.eof:
            self.on_unreadable(side, exc)
            return
        writer.stop()
        self.watch_quiet()

    def on_unreadable(self, side: Side, exc: OSError) -> None:
        """A receive failed: the socket is dead. What it delivered before still reaches the other side.

        A client's reset is passed on as one: an end of stream would only close one direction.
        """
        if side is self.remote and self.stage == STAGE_STREAM:
            self.conclude(linger=RESET_LINGER)
        elif side is self.local and self.up is not None and self.remote is not None and self.remote.pending:
            if self.down is not None:
                self.down.stop()
            self.up.eof = True  # ends, and ends this connection, when the rest is delivered
            self.local.close()
            self.watch_quiet()
        else:
            if self.remote is not None:
                self.remote.reset()
            self.destroy()

    # -- time ------------------------------------------------------------------------------------

    def quiet_limit(self) -> float | None:
        idle = self.limits.idle
        if self.stage == STAGE_STREAM and self.up and self.down and not (self.up.closed or self.down.closed):
            return idle
        return self.limits.half_close if idle is None else min(idle, self.limits.half_close)

    def on_quiet(self) -> None:
        self.destroy()

    def on_handshake_timeout(self) -> None:
        """The prologue did not arrive in time."""
        self.on_protocol_error(HandshakeTimeout("the request did not arrive in time"))

    # -- endings ---------------------------------------------------------------------------------

    def on_fault(self, exc: Exception) -> None:
        """Something raised while this connection was served: the one place that decides what follows."""
        if self.stage == STAGE_DESTROYED:
            return
        try:
            if isinstance(exc, UpstreamError) and self.stage in (STAGE_DNS, STAGE_CONNECTING):
                self.on_failed(exc)
                return
            if isinstance(exc, RelayError) and self.stage != STAGE_DRAIN:
                self.on_protocol_error(exc)
                return
            if not isinstance(exc, (OSError, RelayError)):
                logger.error("connection from %s failed on a bug", str(self), exc_info=exc)
        except Exception as second:
            logger.error("connection from %s failed on a bug", str(self), exc_info=second)
        self.destroy()

    def count(self, error: RelayError) -> str:
        """Count ``error`` under its label and return the label."""
        return self.relay.admission.refusals.count(error)

    def conclude(self, last_words: bytes = b"", linger: float = LINGER) -> None:
        """Tell the client the rest, end our direction, and close only when it has left.

        Closing with unread input makes the kernel send RST, which can destroy the tail of a reply
        that is still on its way; so the client's input is read and forgotten for up to ``linger`` seconds.
        """
        if self.local.closed:
            self.destroy()  # nobody is left to tell
            return
        self.relay.admission.handshakes.pop(self, None)
        self.release_remote()
        self.advance(STAGE_DRAIN)
        self.local.readable = self.discard
        self.local.drained = functools.partial(self._end_local, linger)
        self.last_active = self.loop.now
        if last_words:
            self.local.write(last_words)
            if self.stage == STAGE_DESTROYED:
                return
        self.local.want(self.local.events | READ)
        if self.local.pending is None:
            self._end_local(linger)
        else:
            self.watch_quiet()

    def drain_silently(self) -> None:
        """Answer nothing and reveal nothing: read and forget until the peer leaves or the armed deadline."""
        self.release_remote()
        self.advance(STAGE_DRAIN)
        self.local.readable = self.discard
        self.local.want(READ)

    def _end_local(self, linger: float) -> None:
        try:
            self.local.sock.shutdown(SHUT_WR)
        except OSError:
            self.destroy()
            return
        self.expect(self.loop.now + linger, self.destroy)

    def discard(self) -> None:
        """Read and forget what the client sends; end when it has ended and heard everything."""
        try:
            left = not discard(self.local)
        except BlockingIOError:
            return
        except OSError:
            left = True
        if left:
            if self.local.pending is None:
                self.destroy()
            else:
                self.local.want(self.local.events & ~READ)

    def release_remote(self) -> None:
        """Give up the way to the target: lookup, dial, flows and remote side."""
        if self.query is not None:
            self.query.cancel()
        if self.dialing is not None:
            self.dialing.cancel()
            self.relay.admission.connecting.discard(self)
        self.query = self.dialing = None
        self.detach_flows()
        self.close_remote()

    def detach_flows(self) -> None:
        """End both flows where they are and count what they moved."""
        up, self.up = self.up, None
        down, self.down = self.down, None
        if up is not None:
            up.detach()
            self.relay.counters["bytes_up"] += up.total
        if down is not None:
            down.detach()
            self.relay.counters["bytes_down"] += down.total

    def close_remote(self) -> None:
        remote, self.remote = self.remote, None
        if remote is not None:
            remote.close()

    def destroy(self) -> None:
        """Release everything. Idempotent, never raises, may be called from any callback."""
        if self.stage == STAGE_DESTROYED:
            return
        self.stage = STAGE_DESTROYED
        self.expect_no_more()
        self.release_remote()
        self.local.close()
        self.local.detach()
        self.relay.on_handler_destroyed(self)
