"""``redir``: clients that know of no proxy, sent here by rules of the kernel (docs/transparent.md).

    TCP   new_front(sock) ─► FixedFront(where the client was going)        the rest is LocalHandler's
    UDP   client ──► RedirUDP ──► RedirAssociation ──► a link of UDPService ──► target
          client ◄── Outlets  ◄── RedirAssociation ◄── a link of UDPService ◄──

A reply leaves from the address of who answered, as the client expects, and that is a foreign address:
``Outlets`` holds a socket for each in recent use, shared by all clients.

The surprise: the server chooses that address, and it is trusted with any but our own. A socket bound
to an address and port of this host would take the datagrams of the service that has it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Hashable
from functools import partial
from socket import AF_INET6, socket
from typing import Literal

from common.errors import BadRequest, ProtocolError, RelayError, TargetForbidden
from common.net.transparent import (
    bind_foreign,
    is_local,
    receive_with_target,
    redirected_target,
    tproxied_target,
)
from common.proto.address import Address, parse_ip
from common.proto.fixed import FixedFront, RefusedFront
from common.proto.request import Front
from common.relay.associations import Associations
from common.relay.datagrams import DatagramSocket, SocketAddress
from sslocal.udp import UDPService

MAX_OUTLETS = 128  # sockets of a ``RedirUDP``, each bound to one address that answers

_TARGETS: dict[str, Callable[[socket], Address]] = {
    "redirect": redirected_target,
    "tproxy": tproxied_target,
}

logger = logging.getLogger("shadowrelay.sslocal")


def original_target(sock: socket, mode: Literal["redirect", "tproxy"], port: int) -> Address:
    """Return where the client of ``sock``, accepted on our ``port``, was going.

    Raises BadRequest when no rule sent it here, and TargetForbidden when it was going here.
    """
    try:
        target = _TARGETS[mode](sock)
    except OSError as exc:
        raise BadRequest(f"no rule sent this connection here: {exc.strerror}") from exc
    if _is_here(target, port):
        raise TargetForbidden(f"the connection was made to {target} itself, where no target can be known")
    return target


def new_front(sock: socket, mode: Literal["redirect", "tproxy"], port: int) -> Front:
    """Return the front of a connection accepted on ``port``; what is wrong with it shows when it is fed."""
    try:
        return FixedFront(original_target(sock, mode, port))
    except RelayError as error:
        return RefusedFront(error)


def _is_here(target: Address, port: int) -> bool:
    """Whether ``target`` is our own listening port: relayed, it would come back without end."""
    ip = target.ip
    return target.port == port and ip is not None and is_local(ip)


class RedirUDP:
    """A UDP port that TPROXY sends datagrams to; each client address has its own link.

    ``sock`` is one of ``bind_transparent``.
    """

    def __init__(self, service: UDPService, sock: socket) -> None:
        self.service = service
        self._port: int = sock.getsockname()[1]
        self._outlets = Outlets(service)
        self._socket = DatagramSocket(
            service.loop,
            sock,
            self._on_datagram,
            service.counters,
            receive=partial(receive_with_target, sock),
        )

    def reply(self, client: Address, source: Address, payload: memoryview | bytes) -> None:
        """Send to ``client`` as if from ``source``. Raises ProtocolError when that can be no source."""
        self._outlets.send(client, source, payload)

    def close(self) -> None:
        """Close the port; the associations end with their table."""
        self._socket.close()
        self._outlets.close()

    def _on_datagram(self, data: memoryview, origin: SocketAddress) -> None:
        peer, target = origin
        if target is None or _is_here(target, self._port):
            raise ProtocolError("no rule sent this datagram here")
        key = (self, peer)
        association = self.service.associations.get(key)
        if not isinstance(association, RedirAssociation):
            association = RedirAssociation(self, key, peer)
            self.service.associations.add(key, association)
            logger.debug("%s sends UDP", association.client)
        association.link.send(target, data)


class RedirAssociation:
    """One client of a ``RedirUDP``."""

    def __init__(self, redir: RedirUDP, key: Hashable, peer: SocketAddress) -> None:
        self.redir, self.key = redir, key
        self.client = Address(str(parse_ip(peer[0])), peer[1])
        self.last_active = 0.0
        self.link = redir.service.open_link(self._on_reply)

    def close(self) -> None:
        self.link.close()

    def _on_reply(self, source: Address, payload: memoryview | bytes) -> None:
        self.redir.service.associations.touch(self.key)
        self.redir.reply(self.client, source, payload)


class Outlet:
    """A socket bound to an address that is not ours."""

    def __init__(self, sock: socket) -> None:
        self.sock = sock
        self.is_ipv6 = sock.family == AF_INET6
        self.last_active = 0.0

    def close(self) -> None:
        self.sock.close()


class Outlets:
    """The sockets that replies leave by, one for each source; quiet ones are closed."""

    def __init__(self, service: UDPService) -> None:
        self._counters = service.counters
        self._table = Associations(
            service.loop,
            limit=MAX_OUTLETS,
            timeout=service.associations.timeout,
            counters=Counter(),
            called="sockets to reply from",
        )
        self._warned = self._closed = False

    def send(self, client: Address, source: Address, payload: memoryview | bytes) -> None:
        """Send a datagram to ``client`` from ``source``; it may be dropped, as UDP is.

        Raises ProtocolError for a source that is not one other host, or of another family than the client.
        """
        if self._closed:
            return
        outlet = self._table.get(source)
        if not isinstance(outlet, Outlet):
            try:
                outlet = Outlet(bind_foreign(_checked(source)))
            except OSError as exc:
                self._counters["udp_errors"] += 1
                self._tell(source, exc)
                return
            self._table.add(source, outlet)
        if outlet.is_ipv6 != (":" in client.host):
            raise ProtocolError(f"reply from {source} to {client}: not of one address family")
        try:
            outlet.sock.sendto(payload, client)
        except OSError as exc:
            if not isinstance(exc, BlockingIOError):
                self._counters["udp_errors"] += 1

    def close(self) -> None:
        self._closed = True
        self._table.close()

    def _tell(self, source: Address, exc: OSError) -> None:
        if isinstance(exc, PermissionError) and not self._warned:
            self._warned = True
            logger.warning("replies to UDP clients cannot be sent: %s", exc.strerror)
        else:
            logger.debug("no socket to reply from %s: %s", source, exc)


def _checked(source: Address) -> Address:
    """Return ``source``, unmapped. Raises ProtocolError for what is no address of one other host."""
    ip = source.ip
    if ip is None or source.port == 0 or ip.is_multicast or is_local(ip):
        raise ProtocolError(f"reply from {source}, which is not one other host")
    return Address(str(ip), source.port)
