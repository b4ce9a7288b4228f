"""``ServerHandler``: one encrypted stream in, one plain connection to its target out.

The order matters more than anything else here: nothing is answered, closed or counted in public
until the first bytes have proven that their sender holds the key. Whatever fails before that point
fails in one way, ``drain_silently``, with one deadline measured from accept (SIP022 section 3.1.5,
SIP004's probing notes). Past that point errors of the target are ordinary and close normally.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from socket import socket

from common.crypto import Cipher, ReplayFilter
from common.errors import ConnectFailed, RelayError, TargetForbidden, UpstreamError
from common.proto.address import Address, IPAddress
from common.relay.flow import Flow, discard
from common.relay.listener import TCPRelay
from common.relay.stages import STAGE_ADDR, STAGE_DRAIN, STAGE_INIT, STAGE_STREAM
from common.relay.tcprelay import TCPRelayHandler, contained
from ssserver.gate import Gate

MAX_DRAINS = 512  # rejected connections kept silent at one time; the oldest is closed for a new one
QUIET_READS = 16  # reads that empty the kernel's buffer before a close, so that it ends in FIN, not RST

logger = logging.getLogger("shadowrelay.ssserver")


class Service:
    """What all streams of one listening port share."""

    def __init__(
        self,
        cipher: Cipher,
        *,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        salts: ReplayFilter,
        handshake_seconds: float,
        segmented_header: bool,
        gate: Gate,
        drains: dict[ServerHandler, None],
        max_drains: int = MAX_DRAINS,
    ) -> None:
        self.cipher, self.clock, self.random, self.salts = cipher, clock, random, salts
        self.handshake_seconds = handshake_seconds
        self.segmented_header = segmented_header
        self.gate = gate
        self.drains, self.max_drains = drains, max_drains


class ServerHandler(TCPRelayHandler):
    """ssserver's end of one relayed stream."""

    def __init__(self, relay: TCPRelay, sock: socket, peer: str, service: Service) -> None:
        super().__init__(relay, sock, peer)
        self.service = service
        self.early = b""  # the first payload, until the target is connected
        self.session = service.cipher.server_stream(
            clock=service.clock,
            random=service.random,
            salts=service.salts,
            segmented=service.segmented_header,
            peer=_host(peer),
        )

    def handshake_seconds(self) -> float:
        return self.service.handshake_seconds

    def start(self) -> None:
        super().start()
        if not self.service.gate.admits(_host(self.peer)):
            self.relay.counters["not_admitted"] += 1
            self._drain()

    # -- the prologue ----------------------------------------------------------------------------

    def on_prologue(self, data: bytes) -> None:
        if self.stage == STAGE_INIT:
            self.advance(STAGE_ADDR)
        opened = self.session.accept(data)
        if opened is None:
            return
        target, self.early = opened
        logger.debug("%s%s wants %s", self.peer, _called(self.session.user), target)
        if target.port == 0:
            self._refuse(target, ConnectFailed("port 0 cannot be connected to"))
        elif self.service.gate.refuses(target.host):
            self._refuse(target, TargetForbidden("it is forbidden (see acl)"))
        else:
            self.resolve(target)

    def on_prologue_eof(self) -> None:
        self.destroy()  # whoever leaves before it authenticated hears nothing

    def on_addresses(self, addresses: Sequence[IPAddress]) -> Sequence[IPAddress]:
        target = self.target
        assert target is not None
        allowed = [ip for ip in addresses if self.service.gate.allows(target, ip)]
        if not allowed:
            raise TargetForbidden(f"{addresses[0]} is forbidden (see forbidden_ip and acl)")
        return allowed

    def on_connected(self) -> None:
        self.stream(self.session.open, self.session.seal)
        early, self.early = self.early, b""
        if early and self.up is not None:
            self.up.deliver(early)

    def on_failed(self, error: UpstreamError) -> None:
        assert self.target is not None
        self._refuse(self.target, error)

    def _refuse(self, target: Address, error: UpstreamError) -> None:
        logger.debug("%s cannot have %s: %s (%s)", self.peer, target, error, self.count(error))
        self.conclude()

    # -- the stream ------------------------------------------------------------------------------

    def on_flow_end(self, flow: Flow) -> None:
        if flow is self.up:
            self.session.eof()
        super().on_flow_end(flow)

    def detach_flows(self) -> None:
        user = self.session.user
        if user is not None and self.up is not None and self.down is not None:
            self.relay.counters[f"bytes_up[{user}]"] += self.up.total
            self.relay.counters[f"bytes_down[{user}]"] += self.down.total
        super().detach_flows()

    # -- failures --------------------------------------------------------------------------------

    def on_protocol_error(self, error: RelayError) -> None:
        label = self.count(error)
        if self.stage == STAGE_STREAM:
            logger.debug("%s broke its stream: %s (%s)", self.peer, error, label)
            self.conclude()
        elif self.stage in (STAGE_INIT, STAGE_ADDR):
            logger.debug("%s is not a client of ours: %s (%s)", self.peer, error, label)
            self._drain()
        else:
            self.destroy()

    def _drain(self) -> None:
        drains = self.service.drains
        if len(drains) >= self.service.max_drains:
            next(iter(drains)).close_quietly()
        drains[self] = None
        self.drain_silently()

    @contained
    def on_handshake_timeout(self) -> None:
        self.timer = None
        if self.stage != STAGE_DRAIN:
            self.relay.counters["handshake_timeout"] += 1
        self.close_quietly()

    @contained
    def on_drain(self) -> None:
        """Neither the silent nor the rejected keep the program from leaving."""
        if self.stage == STAGE_INIT or self in self.service.drains:
            self.close_quietly()

    def close_quietly(self) -> None:
        """Close with FIN: unread bytes would turn it into RST and tell how much was consumed."""
        try:
            for _ in range(QUIET_READS):
                if not discard(self.local):
                    break
        except OSError:
            pass
        self.destroy()

    def destroy(self) -> None:
        self.service.drains.pop(self, None)
        super().destroy()


def _host(peer: str) -> str:
    return peer.rpartition(":")[0]


def _called(user: str | None) -> str:
    return "" if user is None else f" ({user})"
