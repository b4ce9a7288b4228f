"""``LocalApp``: the ways in and the servers, from a ``Config``.

mixed, http    TCP: a front that asks the client              UDP: SOCKS5 ASSOCIATE (mixed)
tunnel         TCP: a front that knows the target             UDP: TunnelUDP
redir          TCP: a front that asks the kernel              UDP: RedirUDP
dns            TCP: a tunnel to the resolver                  UDP: DNSServer
"""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Sequence
from socket import socket

from common.app import RelayApp
from common.config.schema import Credential, Local
from common.crypto import Cipher
from common.net.sockets import bind_datagrams, listen, listen_unix
from common.net.transparent import bind_transparent, listen_transparent
from common.proto.address import Address
from common.proto.fixed import FixedFront
from common.proto.front import FirstByteFront
from common.proto.http_proxy import HttpFront
from common.proto.request import Auth, Front
from common.proto.socks4 import Socks4Front
from common.proto.socks5 import Socks5Front
from sslocal import redir
from sslocal.dns import DNSServer
from sslocal.tcp import LocalHandler, Service
from sslocal.udp import TunnelUDP, UDPService
from sslocal.upstreams import Upstream, Upstreams

NewFront = Callable[[socket], Front]


class LocalApp(RelayApp):
    """One sslocal process."""

    def open(self) -> None:
        upstreams = [
            (
                server.mode,
                Upstream(server.address, Cipher.from_password(server.method, server.password.reveal())),
            )
            for server in self.config.servers
        ]
        for_tcp = Upstreams([upstream for mode, upstream in upstreams if mode != "udp_only"])
        for_udp = Upstreams([upstream for mode, upstream in upstreams if mode != "tcp_only"])
        for local in self.config.locals:
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
            address = local.address
            if local.mode != "udp_only":
                address = self._open_tcp(local, for_tcp, udp)
            if local.mode != "tcp_only" and local.protocol not in ("mixed", "http"):
                self._open_udp(local, address, udp)

    def _open_tcp(self, local: Local, upstreams: Upstreams, udp: UDPService) -> Address:
        """Listen for the connections of ``local``; return the address bound, which UDP gets too."""
        sock = _listen(local)
        address = Address(local.address.host, 0 if local.path else sock.getsockname()[1])
        service = Service(
            upstreams,
            new_front=_front_of(local, address.port, self.config.via),
            rules=None if local.protocol == "dns" else udp.rules,  # questions go through the server
            udp=udp if local.protocol == "mixed" and local.mode != "tcp_only" and not local.path else None,
            clock=time.time,
            random=os.urandom,
        )
        self.relay(sock, functools.partial(LocalHandler, service=service))
        return address

    def _open_udp(self, local: Local, address: Address, udp: UDPService) -> None:
        if local.protocol == "redir":
            sock = bind_transparent(address)
            self.serve_datagrams(sock, redir.RedirUDP(udp, sock))
            return
        sock = bind_datagrams(address)
        assert local.target is not None
        if local.protocol == "dns":
            self.serve_datagrams(sock, DNSServer(udp, sock, local.target, local.local_dns))
        else:
            self.serve_datagrams(sock, TunnelUDP(udp, sock, local.target))


def _listen(local: Local) -> socket:
    if local.path is not None:
        return listen_unix(local.path)
    if local.protocol == "redir" and local.tcp_redir == "tproxy":
        return listen_transparent(local.address)
    return listen(local.address)


def _front_of(local: Local, port: int, via: str | None) -> NewFront:
    """Return what makes the fronts of ``local``, which listens on ``port``."""
    if local.protocol == "redir":
        return functools.partial(redir.new_front, mode=local.tcp_redir, port=port)
    if local.target is not None:
        return functools.partial(_fixed_front, local.target)
    auth = _auth(local.auth)
    if local.protocol == "http":
        return functools.partial(_http_front, auth, via)
    return functools.partial(_mixed_front, auth, via)


def _fixed_front(target: Address, sock: socket) -> Front:
    return FixedFront(target)


def _http_front(auth: Auth | None, via: str | None, sock: socket) -> Front:
    return HttpFront(auth, via=via)


def _mixed_front(auth: Auth | None, via: str | None, sock: socket) -> Front:
    return FirstByteFront(
        socks4=functools.partial(Socks4Front, auth),
        socks5=functools.partial(Socks5Front, auth),
        http=functools.partial(HttpFront, auth, via=via),
    )


def _auth(credentials: Sequence[Credential]) -> Auth | None:
    if not credentials:
        return None
    # Imported here: hmac brings in a second copy of OpenSSL, 4 MB that an open front need not pay.
    from sslocal.users import is_user

    passwords = {credential.user: credential.password.reveal() for credential in credentials}
    return functools.partial(is_user, passwords)
