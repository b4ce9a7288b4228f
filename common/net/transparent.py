"""Sockets for transparent proxying: the kernel's rules send connections and datagrams here, unasked.

    TCP, REDIRECT   the target was rewritten to ours; conntrack knows the old one   redirected_target
    TCP, TPROXY     nothing was rewritten: the socket is bound to the target        tproxied_target
    UDP, TPROXY     each datagram brings its target along as ancillary data         receive_with_target
                    and the answer leaves a socket bound to that foreign address    bind_foreign

All of this is Linux's. Elsewhere everything here can be imported, and raises OSError when called.
Addresses that are not ours take CAP_NET_ADMIN (ip(7), IP_TRANSPARENT); REDIRECT takes no privilege.

The surprise: on a dual-stack IPv6 socket an IPv4 client's target is asked for, and told, at the IPv4
level. So both levels are set up there, and the answer's own family says which it was.
"""

from __future__ import annotations

import errno
import ipaddress
import socket
import sys
from collections.abc import Callable
from typing import Any

from common.net.sockets import BACKLOG, DISCARD_PORT, bind_datagrams, listen
from common.proto.address import Address, IPAddress, parse_ip

# linux/in.h, linux/in6.h, linux/netfilter_ipv4.h; the socket module names few of them. On another
# system these numbers mean something else, so nothing here is tried there.
_IP_TRANSPARENT, _IPV6_TRANSPARENT = 19, 75
_IP_ORIGDSTADDR, _IPV6_ORIGDSTADDR = 20, 74  # the option that asks, and the type of what comes
_SO_ORIGINAL_DST = 80  # the same number for IPv4 and IPv6, at two levels
_LINUX = sys.platform in ("linux", "android")

_SOCKADDR_SIZES = {socket.AF_INET: 16, socket.AF_INET6: 28}  # bytes
_LEVELS = {socket.AF_INET: socket.IPPROTO_IP, socket.AF_INET6: socket.IPPROTO_IPV6}
_ANCILLARY_SIZE = 128  # bytes: room for two of them with their headers


def listen_transparent(
    address: Address, *, backlog: int = BACKLOG, reuse_port: bool = False
) -> socket.socket:
    """Return a TCP socket as ``sockets.listen`` does, to which TPROXY may send any connection.

    Raises OSError, with the address as its ``filename``; PermissionError without CAP_NET_ADMIN.
    """
    return _prepared(listen(address, backlog=backlog, reuse_port=reuse_port), _allow_foreign, address)


def bind_transparent(address: Address) -> socket.socket:
    """Return a UDP socket as ``sockets.bind_datagrams`` does, to which TPROXY may send any datagram.

    It is for ``receive_with_target``. Raises OSError, with the address as its ``filename``;
    PermissionError without CAP_NET_ADMIN.
    """
    return _prepared(bind_datagrams(address), _report_targets, address)


def redirected_target(sock: socket.socket) -> Address:
    """Return where a connection was going before a REDIRECT rule sent it here.

    A connection that was made to this port directly is answered with this port, or with an OSError
    where the kernel tracks no connections.
    """
    _require_linux()
    host = sock.getsockname()[0]
    family = socket.AF_INET6 if isinstance(parse_ip(host), ipaddress.IPv6Address) else socket.AF_INET
    return _parse_sockaddr(sock.getsockopt(_LEVELS[family], _SO_ORIGINAL_DST, _SOCKADDR_SIZES[family]))


def tproxied_target(sock: socket.socket) -> Address:
    """Return where a connection that TPROXY sent here was going: the address it is bound to."""
    host, port = sock.getsockname()[:2]
    return Address(str(parse_ip(host)), port)


def receive_with_target(sock: socket.socket, buffer: memoryview) -> tuple[int, tuple[Any, Address | None]]:
    """Receive one datagram into ``buffer``: its size, and ``(sender, target)``.

    The sender is a socket address of the socket's family. The target is None when the kernel did not
    tell it. Raises BlockingIOError when there is no datagram, and OSError as recvmsg(2) does.
    """
    size, ancillary, _flags, sender = sock.recvmsg_into([buffer], _ANCILLARY_SIZE)
    for level, kind, data in ancillary:
        if (level, kind) in (
            (socket.IPPROTO_IP, _IP_ORIGDSTADDR),
            (socket.IPPROTO_IPV6, _IPV6_ORIGDSTADDR),
        ):
            return size, (sender, _parse_sockaddr(data))
    return size, (sender, None)


def bind_foreign(source: Address) -> socket.socket:
    """Return a non-blocking UDP socket to send from ``source``, an IP address that need not be ours.

    It is not for reading: what arrives there is thrown away by the kernel but for a datagram or two.
    Raises OSError; PermissionError without CAP_NET_ADMIN.
    """
    _require_linux()
    sock = socket.socket(socket.AF_INET6 if ":" in source.host else socket.AF_INET, socket.SOCK_DGRAM)
    try:
        sock.setblocking(False)
        _allow_foreign(sock)
        # A service of this host may have the port on all addresses, as a DNS server does with 53.
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 0)
        sock.bind((source.host, source.port))
    except BaseException:
        sock.close()
        raise
    return sock


def is_local(ip: IPAddress) -> bool:
    """Whether ``ip`` leads to this host, as its routes say; True also where that cannot be found out.

    Nothing is sent. Binding would not tell: ``ip_nonlocal_bind`` lets a host bind everything.
    """
    if ip.is_unspecified or ip.is_loopback:
        return True
    try:
        probe = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, socket.SOCK_DGRAM)
    except OSError:
        return True
    with probe:
        try:
            probe.connect((str(ip), DISCARD_PORT))
        except OSError:
            return False  # no way there, and to an address of its own a host always has one
        return parse_ip(probe.getsockname()[0]) == ip


def _prepared(
    sock: socket.socket, prepare: Callable[[socket.socket], None], address: Address
) -> socket.socket:
    try:
        prepare(sock)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, exc.strerror, str(address)) from exc
    return sock


def _report_targets(sock: socket.socket) -> None:
    _allow_foreign(sock)
    sock.setsockopt(socket.IPPROTO_IP, _IP_ORIGDSTADDR, 1)
    if sock.family == socket.AF_INET6:
        sock.setsockopt(socket.IPPROTO_IPV6, _IPV6_ORIGDSTADDR, 1)
    # Now, and not before it was bound: nobody shares this port, but ``bind_foreign`` may use its number.
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)


def _allow_foreign(sock: socket.socket) -> None:
    """Set IP_TRANSPARENT, or IPV6_TRANSPARENT, which stands for both on a dual-stack socket."""
    _require_linux()
    option = _IPV6_TRANSPARENT if sock.family == socket.AF_INET6 else _IP_TRANSPARENT
    try:
        sock.setsockopt(_LEVELS[sock.family], option, 1)
    except PermissionError as exc:
        raise PermissionError(exc.errno, "TPROXY needs the capability CAP_NET_ADMIN") from exc


def _require_linux() -> None:
    if not _LINUX:
        raise OSError(errno.EOPNOTSUPP, "transparent proxying needs Linux")


def _parse_sockaddr(raw: bytes) -> Address:
    """Read a ``struct sockaddr_in`` or ``sockaddr_in6``.

    family(2, native) | port(2, big endian) | IPv4 address(4) | zeros(8)
    family(2, native) | port(2, big endian) | flow(4) | IPv6 address(16) | scope(4)
    """
    family = int.from_bytes(raw[:2], sys.byteorder)
    packed = raw[8:24] if family == socket.AF_INET6 else raw[4:8]
    return Address(socket.inet_ntop(family, packed), int.from_bytes(raw[2:4], "big"))
