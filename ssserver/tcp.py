"""``ServerHandler``: one encrypted stream in, one plain connection to its target out.

The order matters more than anything else here: nothing is answered, closed or counted in public
until the first bytes have proven that their sender holds the key. Whatever fails before that point
fails in one way, ``_reject``, and whatever does not even fail ends at one deadline measured from accept
(SIP022 section 3.1.5, SIP004's probing notes). Past that point errors of the target are ordinary and
close normally. The ways to reject, of which one process has one:

    drain   read and forget until the peer leaves or the deadline, then FIN: as if more were awaited
    close   FIN at the first bytes; then read and forget as above, so that no RST follows
    reset   RST at the first bytes

The surprise: the last two betray how many bytes a head has if they wait for all of it. So they take
the first read for the whole head, as SIP022 wants it anyway.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from socket import SHUT_WR, socket
from typing import Any

from common.config.schema import Reject
from common.crypto import Cipher, ReplayFilter
from common.crypto.aead import LENGTH_SIZE
from common.crypto.methods import Family
from common.errors import (
    AuthenticationFailed,
    ConnectFailed,
    RelayError,
    TargetForbidden,
    UpstreamError,
)
from common.proto.address import Address, IPAddress
from common.relay.containment import contained
from common.relay.flow import Flow, discard
from common.relay.listener import TCPRelay
from common.relay.stages import STAGE_ADDR, STAGE_DRAIN, STAGE_INIT, STAGE_STREAM
from common.relay.tcprelay import TCPRelayHandler
from ssserver.gate import Gate

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
        segmented_header: bool,
        gate: Gate,
        reject: Reject = "drain",
    ) -> None:
        self.cipher, self.clock, self.random, self.salts = cipher, clock, random, salts
        self.segmented_header = segmented_header
        self.gate = gate
        self.reject: Reject = reject
        at_once = reject != "drain" and not segmented_header and cipher.method.family is Family.SIP004
        self.first_read = cipher.method.salt_size + LENGTH_SIZE if at_once else 0  # bytes, at least


class ServerHandler(TCPRelayHandler):
    """ssserver's end of one relayed stream."""

    __slots__ = ("early", "service", "session", "welcome")

    def __init__(self, relay: TCPRelay, sock: socket, peer: tuple[Any, ...], service: Service) -> None:
        super().__init__(relay, sock, peer)
        self.service = service
        self.early = b""  # the first payload, until the target is connected
        self.welcome = True
        self.session = service.cipher.server_stream(
            clock=service.clock,
            random=service.random,
            salts=service.salts,
            segmented=service.segmented_header,
            peer=peer,
        )

    def start(self) -> None:
        super().start()
        if not self.service.gate.admits(self.peer[0]):
            self.relay.counters["not_admitted"] += 1
            self.welcome = False  # which shows no sooner than it would show for anybody

    # -- the prologue ----------------------------------------------------------------------------

    def on_prologue(self, data: bytes) -> None:
        if self.stage == STAGE_INIT:
            self.advance(STAGE_ADDR)
            if not self.welcome:
                self._reject()
                return
            if len(data) < self.service.first_read:
                raise AuthenticationFailed("the first read is less than a head")
        opened = self.session.accept(data)
        if opened is None:
            return
        target, self.early = opened
        logger.debug("%s%s wants %s", self, _called(self.session.user), target)
        try:
            self._check(target)
        except UpstreamError as error:
            self._refuse(target, error)
        else:
            self.resolve(target)

    def _check(self, target: Address) -> None:
        """Raise UpstreamError when the client cannot have ``target``, whatever its addresses."""
        if self.session.user is not None:
            self.relay.admission.count_for(self.session.user, self)
        if target.port == 0:
            raise ConnectFailed("port 0 cannot be connected to")
        if self.service.gate.refuses(target.host):
            raise TargetForbidden("it is forbidden (see acl)")

    def on_prologue_eof(self) -> None:
        self.close_quietly()  # whoever leaves before it authenticated hears nothing

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
        logger.debug("%s cannot have %s: %s (%s)", self, target, error, self.count(error))
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
            logger.debug("%s broke its stream: %s (%s)", self, error, label)
            self.conclude()
        elif self.stage in (STAGE_INIT, STAGE_ADDR):
            logger.debug("%s is not a client of ours: %s (%s)", self, error, label)
            self._reject()
        else:
            self.destroy()

    def _reject(self) -> None:
        """End this as every stranger's connection ends."""
        if self.service.reject == "reset":
            self.close_quietly()
            return
        self.drain_silently()
        if self.service.reject == "close":
            try:
                self.local.sock.shutdown(SHUT_WR)
            except OSError:
                self.destroy()

    def on_handshake_timeout(self) -> None:
        if self.stage != STAGE_DRAIN:
            self.relay.counters["handshake_timeout"] += 1
        self.close_quietly()

    @contained
    def on_drain(self) -> None:
        """No stranger keeps the program from leaving, whatever it has sent so far."""
        if self in self.relay.admission.handshakes:
            self.close_quietly()

    @contained
    def give_way(self) -> None:
        self.close_quietly()

    def close_quietly(self) -> None:
        """Close with FIN: unread bytes would turn it into RST and tell how much was consumed.

        Or with RST in any case, where strangers are reset.
        """
        if self.service.reject == "reset":
            self.local.reset()
            self.destroy()
            return
        try:
            for _ in range(QUIET_READS):
                if not discard(self.local):
                    break
        except OSError:
            pass
        self.destroy()


def _called(user: str | None) -> str:
    return "" if user is None else f" ({user})"
