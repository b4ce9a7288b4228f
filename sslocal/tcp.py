"""``LocalHandler``: one client of the local front, relayed through a server.

The front parser says what the client wants, whatever protocol it spoke; a server of ``Upstreams``
is dialled; success is told to the client when the stream to the server stands, which is all a
Shadowsocks client can know. From there on CONNECT and SOCKS are an opaque stream, driven here, and
an absolute-form HTTP request is a ``Forward`` (forward.py).

The surprise: the request header waits up to HEADER_HOLD for the client's first bytes, so that both
leave in one segment; a header alone has a recognisable length (SIP022 section 3.1.3).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from socket import socket
from typing import TYPE_CHECKING, Any

from common.acl import Verdict
from common.crypto import ClientStream
from common.errors import Overloaded, RelayError, ServerClosed, TargetForbidden, Unsupported, UpstreamError
from common.net.loop import READ
from common.proto.address import IPAddress
from common.proto.front import FirstByteFront
from common.proto.http_proxy import HttpFront
from common.proto.request import Command, Front, Request
from common.relay.containment import contained
from common.relay.flow import Flow, Side
from common.relay.listener import TCPRelay
from common.relay.stages import STAGE_ADDR, STAGE_INIT, STAGE_STREAM, STAGE_UDP_ASSOC
from common.relay.tcprelay import TCPRelayHandler
from sslocal.direct import Direct
from sslocal.forward import Forward
from sslocal.udp import SocksAssociation, UDPService, associate
from sslocal.upstreams import Candidate, Upstreams, Way

if TYPE_CHECKING:
    from common.acl import AccessRules

WAITING_FRONTS = (FirstByteFront, HttpFront)  # those that know nothing before the client has spoken
HEADER_HOLD = 0.05  # seconds that the request header waits for the client's first payload

logger = logging.getLogger("shadowrelay.sslocal")


class Service:
    """What all clients of one local share: who parses for them, and ``udp`` if they may have it."""

    def __init__(
        self,
        upstreams: Upstreams,
        *,
        new_front: Callable[[socket], Front],
        udp: UDPService | None,
        rules: AccessRules | None,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
    ) -> None:
        self.upstreams, self.new_front, self.udp, self.rules = upstreams, new_front, udp, rules
        self.clock, self.random = clock, random


class LocalHandler(TCPRelayHandler):
    """sslocal's end of one relayed connection."""

    __slots__ = (
        *("association", "between_requests", "candidate", "candidates", "forward", "front", "header_waits"),
        *("request", "service", "session", "way"),
    )

    def __init__(self, relay: TCPRelay, sock: socket, peer: tuple[Any, ...], service: Service) -> None:
        super().__init__(relay, sock, peer)
        self.service = service
        self.front = service.new_front(sock)
        self.request: Request | None = None
        self.way: Way = service.upstreams
        self.candidates: Iterator[Candidate] = iter(())
        self.candidate: Candidate | None = None
        self.session: ClientStream | None = None
        self.forward: Forward | None = None
        self.header_waits = False  # for the client's first payload
        self.association: SocksAssociation | None = None
        self.between_requests = False

    def start(self) -> None:
        super().start()
        if not isinstance(self.front, WAITING_FRONTS):
            self.on_prologue(b"")  # where it goes is known before it speaks, and it may not speak first

    # -- the prologue ----------------------------------------------------------------------------

    def on_prologue(self, data: bytes) -> None:
        self.between_requests = False
        if self.stage == STAGE_INIT:
            self.advance(STAGE_ADDR)
        front = self.front
        try:
            request = front.feed(data)
        finally:
            reply = front.outgoing()
            if reply:
                self.local.write(reply)
        if isinstance(front, FirstByteFront):
            self.front = front.chosen or front
        if request is None or self.stage != STAGE_ADDR:
            return
        self.request = request
        if request.username is not None:
            self.relay.admission.count_for(request.username, self)
        if request.command is Command.UDP_ASSOCIATE:
            self._associate(request)
            return
        logger.debug("%s wants %s", self, request.address)
        if request.command is Command.FORWARD:
            self._begin_forward(request)
        else:
            self.forward = None
            self.redial()

    def _associate(self, request: Request) -> None:
        """ADDR → UDP_ASSOC: a UDP port for this client, for as long as this connection stands."""
        if self.service.udp is None:
            raise Unsupported("UDP is not enabled here")
        self.advance(STAGE_UDP_ASSOC)
        self.expect_nothing()
        self.relay.admission.handshakes.pop(self, None)
        self.association, bound = associate(
            self.service.udp,
            self.local.sock,
            request.address.port,
            self._on_association_end,
            request.username,
        )
        logger.debug("%s has a UDP association on %s", self, bound)
        self.local.readable = self.discard
        self.local.write(self.front.accept(bound))

    def _on_association_end(self) -> None:
        """The table ended it, for its age or for its number."""
        self.association = None
        self.destroy()

    def _begin_forward(self, request: Request) -> None:
        front = self.front
        assert isinstance(front, HttpFront) and front.exchange is not None
        previous, self.forward = self.forward, Forward(self, front.exchange)
        if previous is not None and previous.parked_for == request.address and self.remote is not None:
            self.expect_nothing()
            self.forward.start(reused=True)
        else:
            self.redial()

    def redial(self) -> None:
        """Take the request on a fresh stream, the way that the rules say."""
        assert self.request is not None
        self.close_remote()
        rules, host = self.service.rules, self.request.address.host
        if rules is None:
            self._go(Verdict.PROXY)
        elif not rules.needs_addresses(host):
            self._go(rules.of_target(host))
        else:
            self.look_up(host, self._on_addresses_for_rules)

    @contained
    def _on_addresses_for_rules(self, addresses: tuple[IPAddress, ...], error: UpstreamError | None) -> None:
        """A name that does not resolve here is judged as a name; the server may know it."""
        assert self.request is not None and self.service.rules is not None
        self.query = None
        self._go(self.service.rules.of_target(self.request.address.host, addresses))

    def _go(self, verdict: Verdict) -> None:
        assert self.request is not None
        target = self.request.address
        if verdict is Verdict.BLOCK:
            self._refuse(TargetForbidden(f"the target {target} is blocked by a rule here"))
            return
        self.way = Direct(target) if verdict is Verdict.BYPASS else self.service.upstreams
        self.candidates = self.way.in_turn()
        self.try_next_candidate(None)

    def try_next_candidate(self, error: UpstreamError | None) -> None:
        """Dial the next in turn; when there is none left, tell the client about ``error``."""
        assert self.request is not None
        self.candidate = next(self.candidates, None)
        if self.candidate is None:
            assert error is not None
            self.way.report_unreachable(error)
            self.count(error)
            self.fail(error)
            return
        self.session = self.candidate.client_stream(
            self.request.address, clock=self.service.clock, random=self.service.random
        )
        self.resolve(self.candidate.address)

    def on_addresses(self, addresses: Sequence[IPAddress]) -> Sequence[IPAddress]:
        rules = self.service.rules
        if rules is None or self.way is self.service.upstreams:
            return addresses
        assert self.request is not None
        host = self.request.address.host
        allowed = [ip for ip in addresses if rules.of_target(host, (ip,)) is not Verdict.BLOCK]
        if not allowed:
            raise TargetForbidden(f"{addresses[0]} is blocked by a rule here")
        return allowed

    def on_failed(self, error: UpstreamError) -> None:
        assert self.candidate is not None
        if isinstance(error, Overloaded):
            self._refuse(error)  # by us: it says nothing about this server, and holds for all of them
            return
        error.towards(f"{self.candidate.description} is out of reach")
        logger.debug("%s: %s", self, error)
        self.try_next_candidate(error)

    def on_connected(self) -> None:
        assert self.candidate is not None and self.session is not None
        self.way.report_reached(self.candidate)
        if self.forward is not None:
            self.forward.start(reused=False)
            return
        self.local.write(self.front.accept())
        if self.stage >= STAGE_STREAM:
            return
        self.stream(self._first_payload, self.session.open)
        early = self.front.leftover
        if early and self.up is not None:
            self.up.feed(memoryview(early))
        else:
            self.header_waits = True
            self.expect(self.loop.now + HEADER_HOLD, self._send_header)

    # -- the stream ------------------------------------------------------------------------------

    def _first_payload(self, data: memoryview) -> bytes:
        """The transform of the first payload only: header and payload in one flight."""
        assert self.session is not None and self.up is not None
        self.up.transform = self.session.seal
        if self.header_waits:
            self.header_waits = False
            self.watch_quiet()
        return self.session.first(data)

    def _send_header(self) -> None:
        """The client waits for the target to speak first: send the header alone."""
        if self.up is not None:
            self.up.feed(memoryview(b""))

    def on_flow_end(self, flow: Flow) -> None:
        assert self.session is not None
        if self.forward is not None:
            self.forward.on_flow_end(flow)
            return
        if flow is self.down:
            self.session.eof()
        elif self.header_waits and self.remote is not None:
            # The client ended before it sent anything; the header must still go first.
            flow.feed(memoryview(b""))
            if self.stage != STAGE_STREAM:
                return  # it met a broken stream
            if self.remote.pending is not None:
                flow.closed = False  # ends once more when the header has left
                return
        super().on_flow_end(flow)

    def on_unreadable(self, side: Side, exc: OSError) -> None:
        if side is self.local:
            self.forward = None  # nobody is left to answer; what is pending may still be delivered
            super().on_unreadable(side, exc)
        elif self.stage == STAGE_ADDR:
            self.close_remote()  # it was idle: the next request gets a fresh one
        elif self.forward is not None:
            self.forward.on_origin_lost(
                ServerClosed(f"the stream to the server broke: {exc.strerror or exc}")
            )
        else:
            super().on_unreadable(side, exc)

    def on_unwritable(self, side: Side, exc: OSError) -> None:
        if self.forward is not None and side is self.local:
            self.on_unreadable(side, exc)  # a complete request is not read past: nothing else would tell
        else:
            super().on_unwritable(side, exc)

    def quiet_limit(self) -> float | None:
        if self.forward is not None and self.stage == STAGE_STREAM:
            return self.forward.quiet_limit()
        return super().quiet_limit()

    def on_quiet(self) -> None:
        if self.forward is not None and self.stage == STAGE_STREAM:
            self.forward.on_quiet()
        else:
            super().on_quiet()

    # -- the next request of a kept-alive HTTP client -----------------------------------------------

    @contained
    def await_request(self, leftover: bytes) -> None:
        """STREAM → ADDR: read the next request; ``leftover`` is what the client already sent of it.

        Contained: it runs inside an event of the remote side, which may be closed by now.
        """
        assert isinstance(self.front, HttpFront) and self.forward is not None
        self.detach_flows()
        self.advance(STAGE_ADDR)
        self.front = self.front.again()
        self.local.readable = self.read_prologue
        self.expect(self.loop.now + self.limits.handshake, self.on_handshake_timeout)
        if self.remote is not None:
            self.remote.readable = self._on_parked_readable
        self.between_requests = True
        self.local.want(self.local.events | READ)
        if leftover:
            self.on_prologue(leftover)

    def _on_parked_readable(self) -> None:
        """An idle stream has nothing to say but its end."""
        self.close_remote()

    @contained
    def on_drain(self) -> None:
        if self.stage == STAGE_ADDR and self.between_requests:
            self.conclude()
        else:
            super().on_drain()

    def on_handshake_timeout(self) -> None:
        if self.between_requests:
            self.conclude()  # an idle client has asked nothing that a 408 could answer
        else:
            super().on_handshake_timeout()

    def detach_flows(self) -> None:
        self.header_waits = False
        super().detach_flows()

    def destroy(self) -> None:
        association, self.association = self.association, None
        if association is not None:
            association.end()
        super().destroy()
        self.forward = None  # it refers to us: freed by refcount, not by the gc

    # -- failures --------------------------------------------------------------------------------

    def on_protocol_error(self, error: RelayError) -> None:
        self._refuse(error)

    def _refuse(self, error: RelayError) -> None:
        logger.debug("%s: %s (%s)", self, error, self.count(error))
        self.fail(error)

    def fail(self, error: RelayError) -> None:
        """Tell the client, in its own protocol and as far as it can still be told, and close."""
        if self.forward is not None and self.stage != STAGE_ADDR:
            self.conclude(self.forward.exchange.fail(error))
        elif self.stage == STAGE_STREAM:
            self.conclude()
        else:
            self.conclude(self.front.reject(error))
