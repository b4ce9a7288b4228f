"""``Forward``: one absolute-form HTTP request and its response, over one stream to a server.

The messages are ``HttpExchange``'s business; this is the traffic around it:

    client ──► exchange.from_client ──► seal ──► server        (the ``up`` flow)
    client ◄── exchange.from_origin ◄── open ◄── server        (the ``down`` flow)

When the request is complete the client is not read any further, so pipelined requests wait in the
kernel. When the response is complete the connection goes back to reading a request, and the stream
stays parked for a next request to the same origin. After a 101 both flows become the plain tunnel.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from common.errors import (
    BadRequest,
    ProtocolError,
    ServerClosed,
    ServerStalled,
    Truncated,
    UpstreamError,
)
from common.proto.address import Address
from common.relay.flow import BULK_READ, Flow

if TYPE_CHECKING:
    from common.proto.http_exchange import HttpExchange
    from sslocal.tcp import LocalHandler

logger = logging.getLogger("shadowrelay.sslocal")

# Bytes per read: a grammar costs per chunk, not per read, so a hostile origin's tiny chunks must not
# stop the loop for long; and h11 is at its best with buffers of this size.
FORWARD_READ = 64 * 1024


class Forward:
    """The exchange of one request, on a handler that has (or gets) a remote side and a session."""

    def __init__(self, handler: LocalHandler, exchange: HttpExchange) -> None:
        self.handler, self.exchange = handler, exchange
        self.reused = False
        self.started_at = 0.0
        self.parked_for: Address | None = None  # the origin that the idle stream still leads to

    def start(self, reused: bool) -> None:
        """Send the request: on a parked stream when ``reused``, as a first flight otherwise."""
        handler, session = self.handler, self.handler.session
        assert handler.remote is not None and session is not None
        self.reused = reused
        self.started_at = handler.loop.now
        head = self.exchange.begin()
        handler.stream(self._to_origin, self._to_client)
        for flow in (handler.up, handler.down):
            if flow is not None:
                flow.limit = FORWARD_READ
        if handler.up is not None:
            handler.up.deliver(session.seal(memoryview(head)) if reused else session.first(head))
        self._pause_client()

    # -- transforms ------------------------------------------------------------------------------

    def _to_origin(self, data: memoryview) -> memoryview | bytes:
        session = self.handler.session
        assert session is not None
        out = self.exchange.from_client(data)
        self._pause_client()
        return session.seal(memoryview(out)) if out else b""

    def _to_client(self, data: memoryview) -> memoryview | bytes:
        session = self.handler.session
        assert session is not None
        plain = session.open(data)
        if not plain:
            return b""
        was_due = self._answer_is_due
        self.exchange.is_last = self.handler.relay.draining
        out = self.exchange.from_origin(memoryview(plain))
        if was_due and not self._answer_is_due:
            self.handler.watch_quiet()  # another limit applies now, and it may be shorter
        if self.exchange.switched:
            self._switch()
            return out + self.exchange.origin_leftover
        if self.exchange.finished:
            self.handler.local.write(out)
            self._finish()
            return b""
        return out

    def _pause_client(self) -> None:
        """Once the request is complete, what the client sends next is for later."""
        handler = self.handler
        if handler.up is not None and self.exchange.request_done and not handler.up.held:
            handler.up.hold()
            handler.watch_quiet()

    def _switch(self) -> None:
        """101 Switching Protocols: from here on an opaque stream (RFC 9110 section 7.8)."""
        handler = self.handler
        session, up, down = handler.session, handler.up, handler.down
        assert session is not None and up is not None and down is not None
        handler.forward = None
        up.transform, down.transform = session.seal, session.open
        up.limit = down.limit = BULK_READ
        up.release()
        if self.exchange.leftover:
            up.feed(memoryview(self.exchange.leftover))
        handler.watch_quiet()

    # -- ends ------------------------------------------------------------------------------------

    def on_flow_end(self, flow: Flow) -> None:
        """One direction reached its end; unlike in a tunnel, HTTP's own framing says what that means."""
        handler = self.handler
        if flow is handler.up:
            try:
                self.exchange.client_eof()
            except Truncated as error:
                raise BadRequest(str(error)) from error
            return
        assert handler.session is not None
        try:
            handler.session.eof()
            tail = self.exchange.origin_eof()
        except ServerClosed:
            self.on_origin_lost(self._cause())
            return
        except ProtocolError as error:
            self.on_origin_lost(error)
            return
        handler.local.write(tail)
        self._finish()

    def on_origin_lost(self, error: UpstreamError | ProtocolError) -> None:
        """The stream is gone: once more on a fresh one if nothing can have happened, else tell the client."""
        handler = self.handler
        if self.reused and self.exchange.retryable:
            handler.detach_flows()
            handler.redial()
            return
        logger.debug("%s: %s (%s)", handler, error, handler.count(error))
        handler.conclude(self.exchange.fail(error))

    def _cause(self) -> UpstreamError:
        """A stream that ended after the server's connect timeout most likely ended because of it."""
        waited = self.handler.loop.now - self.started_at
        if waited >= 0.9 * self.handler.limits.connect:
            reason = "the target is silent, or the key is wrong"
            return ServerStalled(f"the server gave up after {waited:.0f} s: {reason}")
        return ServerClosed(self.handler.way.closed_without_answer)

    def _finish(self) -> None:
        """The response is complete: on to the client's next request, or close."""
        handler, exchange = self.handler, self.exchange
        up, down = handler.up, handler.down
        if up is None or down is None:
            return  # the client went away while the response was written
        if not exchange.keep_client or up.eof or handler.relay.draining:
            handler.conclude()
            return
        if exchange.keep_origin and not down.eof:
            self.parked_for = exchange.address
        else:
            handler.close_remote()
        handler.await_request(exchange.leftover)

    # -- time ------------------------------------------------------------------------------------

    def quiet_limit(self) -> float | None:
        """While an answer is due: the ``timeout`` setting; apart from that the relay's idle limit."""
        return self.handler.limits.handshake if self._answer_is_due else self.handler.limits.idle

    @property
    def _answer_is_due(self) -> bool:
        return self.exchange.request_done and not self.exchange.response_started

    def on_quiet(self) -> None:
        if not self._answer_is_due:
            self.handler.destroy()
            return
        waited = self.handler.limits.handshake
        error = ServerStalled(
            f"no answer within {waited:.0f} s: the target is slow, or the server does not accept our key"
        )
        self.on_origin_lost(error)
