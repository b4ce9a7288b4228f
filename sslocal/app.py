"""``LocalApp``: the ways in and the servers, from a ``Config``.

mixed, http    TCP: a front that asks the client              UDP: SOCKS5 ASSOCIATE (mixed)
tunnel         TCP: a front that knows the target             UDP: TunnelUDP
redir          TCP: a front that asks the kernel              UDP: RedirUDP
dns            TCP: a tunnel to the resolver                  UDP: DNSServer
"""

from __future__ import annotations

import errno
import functools
import os
import time
from collections.abc import Callable, Iterator, Sequence
from socket import socket
from typing import TYPE_CHECKING

from common.app import RelayApp
from common.config.schema import Config, Credential, Local
from common.net.bound import BoundSockets
from common.net.loop import EventLoop
from common.net.roaming import AddressWatch, is_stranded
from common.net.sockets import bind_datagrams, listen, listen_unix
from common.net.transparent import bind_transparent, listen_transparent
from common.proto.address import Address
from common.proto.fixed import FixedFront
from common.proto.front import FirstByteFront
from common.proto.http_proxy import HttpFront
from common.proto.request import Auth, Front
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front
from sslocal.tcp import LocalHandler, Service
from sslocal.udp import TunnelUDP, UDPService
from sslocal.upstreams import Upstream, Upstreams

if TYPE_CHECKING:
    from common.shared import Shared

NewFront = Callable[[socket], Front]


class LocalApp(RelayApp):
    """One sslocal process."""

    def __init__(self, config: Config, loop: EventLoop | None = None) -> None:
        super().__init__(config, loop)
        self._address_watch: AddressWatch | None = None

    def open(self) -> None:
        upstreams = [
            (server.mode, Upstream(server.address, self.cipher(server))) for server in self.config.servers
        ]
        for_tcp = Upstreams([upstream for mode, upstream in upstreams if mode != "udp_only"])
        for_udp = Upstreams([upstream for mode, upstream in upstreams if mode != "tcp_only"])
        for local, listener, datagrams in bind(self.config, self.sockets):
            udp = UDPService(
                self.loop,
                upstreams=for_udp,
                resolver=self.resolver,
                associations=self.associations,
                clock=time.time,
                random=os.urandom,
                counters=self.counters,
                rules=self.access_rules(local.acl),
            )
            if listener is not None:
                self._open_tcp(local, listener, for_tcp, udp)
            if datagrams is not None:
                self._open_udp(local, datagrams, udp)

    @classmethod
    def prepare(cls, config: Config, shared: Shared) -> None:
        """See ``RelayApp``."""
        for _ in bind(config, shared.sockets):
            pass

    def start(self) -> None:
        """See ``RelayApp``."""
        self._address_watch = AddressWatch(self.loop, self._leave_stranded)
        super().start()

    @classmethod
    def load(cls) -> None:
        """See ``RelayApp``."""
        super().load()
        import common.proto.http_exchange  # noqa: F401

    def stop(self) -> None:
        """See ``RelayApp``."""
        if self._address_watch is not None:
            self._address_watch.close()
        super().stop()

    def _leave_stranded(self) -> None:
        """End what left by an address that this host has lost, or dial it anew: nothing will arrive there."""
        for relay in self._relays:
            for handler in list(relay.handlers):
                try:
                    if handler.dialing is not None:
                        handler.dialing.begin_again()
                    elif handler.remote is not None and is_stranded(handler.remote.sock):
                        self.counters["stranded"] += 1
                        handler.on_unreadable(
                            handler.remote, OSError(errno.ENETRESET, "our address has changed")
                        )
                except Exception as exc:
                    handler.on_fault(exc)

    def _open_tcp(self, local: Local, listener: socket, upstreams: Upstreams, udp: UDPService) -> None:
        port = 0 if local.path else listener.getsockname()[1]
        service = Service(
            upstreams,
            new_front=_front_of(local, port, self.config.via),
            rules=None if local.protocol == "dns" else udp.rules,  # TCP goes to the resolver, unread
            udp=udp if local.protocol == "mixed" and local.mode != "tcp_only" and not local.path else None,
            clock=time.time,
            random=os.urandom,
        )
        self.relay(listener, functools.partial(LocalHandler, service=service))

    def _open_udp(self, local: Local, sock: socket, udp: UDPService) -> None:
        if local.protocol == "redir":
            from sslocal.redir import RedirUDP  # few have one

            self.serve_datagrams(sock, RedirUDP(udp, sock))
            return
        assert local.target is not None
        if local.protocol == "dns":
            from sslocal.dns import DNSServer

            self.serve_datagrams(sock, DNSServer(udp, sock, local.target, local.local_dns))
        else:
            self.serve_datagrams(sock, TunnelUDP(udp, sock, local.target))


def bind(config: Config, sockets: BoundSockets) -> Iterator[tuple[Local, socket | None, socket | None]]:
    """Yield each local with its TCP and its UDP socket, as far as it has them in this process."""
    for local in config.locals:
        address, listener, datagrams = local.address, None, None
        if local.mode != "udp_only":
            listener = _listen(local, sockets)
            if listener is not None and local.path is None:
                address = Address(address.host, listener.getsockname()[1])  # UDP has the port TCP got
        if local.mode != "tcp_only" and local.protocol not in ("mixed", "http"):
            transparent = local.protocol == "redir"
            datagrams = sockets.datagrams(bind_transparent if transparent else bind_datagrams, address)
        yield local, listener, datagrams


def _listen(local: Local, sockets: BoundSockets) -> socket | None:
    if local.path is not None:
        return sockets.listen_unix(listen_unix, local.path)
    transparent = local.protocol == "redir" and local.tcp_redir == "tproxy"
    return sockets.listen(listen_transparent if transparent else listen, local.address)


def _front_of(local: Local, port: int, via: str | None) -> NewFront:
    """Return what makes the fronts of ``local``, which listens on ``port``."""
    if local.protocol == "redir":
        from sslocal import redir

        return functools.partial(redir.new_front, mode=local.tcp_redir, port=port)
    if local.target is not None:
        return functools.partial(_fixed_front, local.target)
    auth = _auth(local.auth)
    if local.protocol == "http":
        return functools.partial(_http_front, auth, via)
    return _mixed_front(auth, via)


def _fixed_front(target: Address, sock: socket) -> Front:
    return FixedFront(target)


def _http_front(auth: Auth | None, via: str | None, sock: socket) -> Front:
    return HttpFront(auth, via=via)


def _mixed_front(auth: Auth | None, via: str | None) -> NewFront:
    socks4, socks5 = functools.partial(Socks4Front, auth), functools.partial(Socks5Front, auth)
    http = functools.partial(HttpFront, auth, via=via)

    def new_front(sock: socket) -> Front:
        return FirstByteFront(socks4=socks4, socks5=socks5, http=http)

    return new_front


def _auth(credentials: Sequence[Credential]) -> Auth | None:
    if not credentials:
        return None
    # Imported here: hmac brings in a second copy of OpenSSL, 4 MB that an open front need not pay.
    from sslocal.users import is_user

    passwords = {credential.user: credential.password.reveal() for credential in credentials}
    return functools.partial(is_user, passwords)
