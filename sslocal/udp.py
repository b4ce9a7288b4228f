"""UDP through a server: the link to it, and the two local ends that need one, SOCKS5 and tunnel.

    client ◄──► SocksAssociation ─┐
    client ◄──► TunnelUDP ────────┼──► ServerLink ◄──► ssserver
                                  │    seal, open

A ``ServerLink`` is one association towards a server: one socket, one Shadowsocks session, any number
of targets. Every client has a link of its own, so that all its targets see one source port.
"""

from __future__ import annotations

import logging
import socket
from collections import Counter
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Protocol

from common.acl import Verdict
from common.errors import Overloaded, ProtocolError, UpstreamError
from common.net.loop import EventLoop
from common.net.resolver import Query, Resolver
from common.net.sockets import bind_datagrams, first_reachable, socket_address
from common.proto.address import Address, IPAddress, parse_ip
from common.proto.socks5_udp import build_datagram, parse_datagram
from common.relay.associations import Associations
from common.relay.datagrams import DatagramSocket, SocketAddress
from common.relay.targets import OnReply, Targets, nowhere
from sslocal.upstreams import Upstream, Upstreams

if TYPE_CHECKING:
    from common.acl import AccessRules

MAX_WAITING = 16  # datagrams that wait for the server's name
LOOK_SECONDS = 60.0  # between looks at what the server's name means now
RETRY_SECONDS = 1.0  # the same while there is no address, or nothing can be sent to it

logger = logging.getLogger("shadowrelay.sslocal")


class UDPService:
    """What all UDP clients of sslocal share."""

    def __init__(
        self,
        loop: EventLoop,
        *,
        upstreams: Upstreams,
        resolver: Resolver,
        associations: Associations,
        clock: Callable[[], float],
        random: Callable[[int], bytes],
        counters: Counter[str],
        rules: AccessRules | None = None,
    ) -> None:
        self.loop, self.upstreams, self.resolver = loop, upstreams, resolver
        self.associations, self.clock, self.random = associations, clock, random
        self.counters, self.rules = counters, rules

    def open_link(self, on_reply: OnReply) -> Link:
        """Return a way to targets for one client; ``on_reply(source, payload)`` gets what comes back."""
        if self.rules is None:
            return ServerLink(self, on_reply)
        return RuledLink(self, self.rules, on_reply)


class Link(Protocol):
    """A way to targets for one client."""

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send one datagram to ``target``; it may be dropped, as UDP is."""

    def close(self) -> None: ...


class ServerLink:
    """One association with a server. ``on_reply(source, payload)`` gets what comes back.

    Whatever may have happened to the server's address, or to ours, traffic heals it: the name is looked
    up again now and then, and soon after a datagram could not be sent. The address in use is kept as
    long as it is one of the server's and there is a route to it, and the socket as long as the family.
    """

    def __init__(self, service: UDPService, on_reply: OnReply) -> None:
        self.service, self.on_reply = service, on_reply
        self.upstream: Upstream = next(service.upstreams.in_turn())
        self.packets = self.upstream.cipher.client_packets(clock=service.clock, random=service.random)
        self._ip: IPAddress | None = None  # of the server, and
        self._server: SocketAddress = None  # as the socket tells it
        self._socket: DatagramSocket | None = None
        self._look_at = service.loop.now
        self._query: Query | None = None
        self._waiting: list[tuple[bytes, int]] = []  # packets, and the sizes of their payloads

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send one datagram to ``target`` through the server; it may be dropped, as UDP is."""
        packet = self.packets.seal(target, payload)
        if self._query is None and self._look_at <= self.service.loop.now:
            self._query = self.service.resolver.resolve(self.upstream.address.host, self._on_resolved)
        if self._socket is not None:
            self._transmit(self._socket, packet, len(payload))
        elif self._query is not None and len(self._waiting) < MAX_WAITING:
            self._waiting.append((bytes(packet), len(payload)))
        else:
            self.service.counters["udp_dropped"] += 1

    def close(self) -> None:
        """Close the socket and wait for no name any more. The owner is let go: freed by refcount."""
        self.on_reply = nowhere
        self._waiting.clear()
        if self._query is not None:
            self._query.cancel()
        if self._socket is not None:
            self._socket.close()

    def _on_resolved(self, addresses: tuple[IPAddress, ...], error: UpstreamError | None) -> None:
        self._query = None
        if error is None:
            self._look_at = self.service.loop.now + LOOK_SECONDS
            self._use(first_reachable(sorted(addresses, key=lambda ip: ip != self._ip)))
        else:
            self._retry_soon(error)
        waiting, self._waiting = self._waiting, []
        for packet, size in waiting:
            if self._socket is not None:
                self._transmit(self._socket, packet, size)
            else:
                self.service.counters["udp_dropped"] += 1

    def _use(self, ip: IPAddress) -> None:
        """Send to this address from now on."""
        try:
            server = socket_address(ip, self.upstream.address.port)
            if self._ip is None or self._ip.version != ip.version:
                self._open_socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6)
        except OSError as exc:
            self.service.associations.refusals.add_socket(exc)
            self._retry_soon(exc)
        else:
            self._ip, self._server = ip, server

    def _open_socket(self, family: int) -> None:
        sock = socket.socket(family, socket.SOCK_DGRAM)
        if self._socket is not None:
            self._socket.close()
        self._socket = DatagramSocket(self.service.loop, sock, self._on_datagram, self.service.counters)

    def _retry_soon(self, error: Exception) -> None:
        logger.debug("server %s: %s", self.upstream.address, error)
        self._look_at = self.service.loop.now + RETRY_SECONDS

    def _transmit(self, sock: DatagramSocket, packet: memoryview | bytes, size: int) -> None:
        if sock.send(packet, self._server):
            self.service.counters["udp_bytes_up"] += size
        else:
            self._look_at = min(self._look_at, self.service.loop.now + RETRY_SECONDS)

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        if peer != self._server:
            raise ProtocolError("datagram is not from the server")
        source, payload = self.packets.open(data)
        self.service.counters["udp_bytes_down"] += len(payload)
        self.on_reply(source, payload)


class RuledLink:
    """A link whose datagrams go where the access rules send their targets.

    A name is judged as a name; it is not resolved here to be judged by its addresses.
    """

    def __init__(self, service: UDPService, rules: AccessRules, on_reply: OnReply) -> None:
        self.service, self.rules, self.on_reply = service, rules, on_reply
        self._server: ServerLink | None = None
        self._targets: Targets | None = None

    def send(self, target: Address, payload: memoryview | bytes) -> None:
        """Send through a server, directly, or not at all."""
        verdict = self.rules.of_target(target.host)
        if verdict is Verdict.PROXY:
            if self._server is None:
                self._server = ServerLink(self.service, self.on_reply)
            self._server.send(target, payload)
        elif verdict is Verdict.BYPASS:
            if self._targets is None:
                self._targets = Targets(
                    self.service.loop,
                    resolver=self.service.resolver,
                    is_allowed=self._is_allowed,
                    on_reply=self.on_reply,
                    counters=self.service.counters,
                    refusals=self.service.associations.refusals,
                )
            self._targets.send(target, payload)
        else:
            self.service.counters["forbidden"] += 1

    def close(self) -> None:
        """Close both ways. The owner is let go: freed by refcount."""
        self.on_reply = nowhere
        for way in (self._server, self._targets):
            if way is not None:
                way.close()
        self._server = self._targets = None

    def _is_allowed(self, target: Address, ip: IPAddress) -> bool:
        return self.rules.of_target(target.host, (ip,)) is not Verdict.BLOCK


class SocksAssociation:
    """What a SOCKS5 UDP ASSOCIATE gets: a port of its own, for one client (RFC 1928 section 6).

    Datagrams count only from the host of the TCP connection, and from the port it announced; when
    it announced none, the first datagram decides. ``on_end`` is called when it ends by itself.
    """

    def __init__(
        self,
        service: UDPService,
        sock: socket.socket,
        client: IPAddress | None,
        port: int,
        on_end: Callable[[], None],
        user: str | None = None,
    ) -> None:
        self.service, self.client = service, client
        self.last_active = 0.0
        self._on_end: Callable[[], None] | None = on_end
        self._port = port
        self._peer: SocketAddress = None
        self._socket = DatagramSocket(service.loop, sock, self._on_datagram, service.counters)
        self._link = service.open_link(self._on_reply)
        service.associations.add(self, self, user=user)

    def end(self) -> None:
        """The TCP connection has gone."""
        self._on_end = None
        self.service.associations.remove(self)

    def close(self) -> None:
        self._socket.close()
        self._link.close()
        on_end, self._on_end = self._on_end, None
        if on_end is not None:
            on_end()

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        if peer != self._peer and not self._may_be_client(peer):
            raise ProtocolError("datagram is not from the associated client")
        target, payload = parse_datagram(data)
        self._link.send(target, payload)
        self._peer = peer
        self.service.associations.touch(self)

    def _may_be_client(self, peer: SocketAddress) -> bool:
        return self._peer is None and parse_ip(peer[0]) == self.client and self._port in (0, peer[1])

    def _on_reply(self, source: Address, payload: memoryview | bytes) -> None:
        self.service.associations.touch(self)
        self._socket.send(build_datagram(source, payload), self._peer)


def associate(
    service: UDPService,
    control: socket.socket,
    port: int,
    on_end: Callable[[], None],
    user: str | None = None,
) -> tuple[SocksAssociation, Address]:
    """Return an association for the client of ``control``, and the address it is to send to.

    That is the address the client reached us at, so it can reach it again; ``port`` is the one it
    announced, or 0; ``user`` is whom it is counted for. Raises Overloaded when there is no descriptor for it.
    """
    here = parse_ip(control.getsockname()[0])
    client = parse_ip(control.getpeername()[0])
    try:
        sock = bind_datagrams(Address(str(here), 0))
    except OSError as exc:
        raise Overloaded(f"no socket for UDP: {exc.strerror}") from exc
    bound = Address(str(here), sock.getsockname()[1])
    return SocksAssociation(service, sock, client, port, on_end, user), bound


class TunnelUDP:
    """A local UDP port whose every datagram goes to one target; each client address has its own link.

    The client takes what this port sends for the target's, so nobody else's replies are let through.
    """

    def __init__(self, service: UDPService, sock: socket.socket, target: Address) -> None:
        self.service, self.target = service, target
        self._socket = DatagramSocket(service.loop, sock, self._on_datagram, service.counters)

    def reply(self, peer: SocketAddress, source: Address, payload: memoryview | bytes) -> None:
        """Send to a client. Raises ProtocolError when ``source`` is not the target.

        Which address a target given by name has is known to the server only.
        """
        if source.port != self.target.port or self.target.ip not in (None, source.ip):
            raise ProtocolError("datagram is not from the tunnel's target")
        self._socket.send(payload, peer)

    def close(self) -> None:
        self._socket.close()

    def _on_datagram(self, data: memoryview, peer: SocketAddress) -> None:
        key = (self, peer)
        association = self.service.associations.get(key)
        if not isinstance(association, TunnelAssociation):
            association = TunnelAssociation(self, key, peer)
            self.service.associations.add(key, association)
        association.link.send(self.target, data)


class TunnelAssociation:
    """One client of a ``TunnelUDP``."""

    def __init__(self, tunnel: TunnelUDP, key: Hashable, peer: SocketAddress) -> None:
        self.tunnel, self.key, self.peer = tunnel, key, peer
        self.last_active = 0.0
        self.link = tunnel.service.open_link(self._on_reply)

    def close(self) -> None:
        self.link.close()

    def _on_reply(self, source: Address, payload: memoryview | bytes) -> None:
        self.tunnel.reply(self.peer, source, payload)
        self.tunnel.service.associations.touch(self.key)
