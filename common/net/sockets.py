"""Sockets the way this project wants them: listening, options, the hard close, how many there may be.

Everything here can be imported on every system; what a system lacks is left out, not failed on.
"""

from __future__ import annotations

import contextlib
import errno
import os
import socket
import struct
import sys

from common.proto.address import Address, parse_ip

BACKLOG = 1024  # connections the kernel may hold before they are accepted
KEEP_ALIVE_PROBES = 9  # unanswered probes until a peer counts as dead; Linux's own default
WINDOWS_DESCRIPTORS = 512  # FD_SETSIZE as CPython builds it for Windows
MACOS_DESCRIPTORS = 10240  # OPEN_MAX: the most macOS grants where its hard limit says "infinite"


def _errnos(*names: str) -> frozenset[int]:
    return frozenset(getattr(errno, name) for name in names if hasattr(errno, name))


# Out of descriptors or buffers: nothing is wrong with the peer, waiting helps.
CAPACITY_ERRNOS = _errnos("EMFILE", "ENFILE", "ENOBUFS", "ENOMEM", "WSAEMFILE", "WSAENOBUFS")

# accept(2): the connection died while it was queued; the listener is well and has the next one.
ABORTED_ERRNOS = _errnos(
    "ECONNABORTED",
    "ECONNRESET",
    "EHOSTDOWN",
    "EHOSTUNREACH",
    "ENETDOWN",
    "ENETUNREACH",
    "ENONET",
    "ENOPROTOOPT",
    "EOPNOTSUPP",
    "EPERM",
    "EPROTO",
)

# connect(2) on a non-blocking socket has begun.
STARTED_ERRNOS = _errnos("EINPROGRESS", "EWOULDBLOCK", "WSAEWOULDBLOCK") | {0}


def listen(address: Address, *, backlog: int = BACKLOG, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking TCP socket listening on ``address``; port 0 picks a free one.

    ``::`` also takes IPv4 connections where the system can do that. A host name is looked up once,
    blocking, and its IPv4 address preferred, so this is for program start and not for a running
    loop. ``reuse_port`` lets several processes listen on the same port (SO_REUSEPORT).

    Raises OSError, with the address as its ``filename``.
    """
    try:
        family, bound = _bindable(address)
        sock = socket.socket(family, socket.SOCK_STREAM)
        try:
            sock.setblocking(False)
            _share_address(sock, reuse_port=reuse_port)
            if family == socket.AF_INET6:
                dual = address.host == "::" and socket.has_dualstack_ipv6()
                sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, not dual)
            sock.bind(bound)
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(address)) from exc
    return sock


def _bindable(address: Address) -> tuple[socket.AddressFamily, tuple[str | int, ...]]:
    host, port = address
    if address.ip is None:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, _, _, _, bound = min(found, key=lambda entry: entry[0] != socket.AF_INET)
        return family, bound
    if ":" in host and "." not in host and "%" in host:  # fe80::1%eth0: only the system knows the number
        return socket.AF_INET6, socket.getaddrinfo(host, port, flags=socket.AI_NUMERICHOST)[0][4]
    ip = address.ip
    return (socket.AF_INET if ip.version == 4 else socket.AF_INET6), (str(ip), port)


def _share_address(sock: socket.socket, *, reuse_port: bool) -> None:
    # On POSIX, SO_REUSEADDR means "do not wait for TIME_WAIT"; on Windows it means "steal the port".
    if os.name == "posix" and sys.platform != "cygwin":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)
    if reuse_port:
        if not hasattr(socket, "SO_REUSEPORT"):
            raise OSError(errno.EOPNOTSUPP, "this system cannot share a port between processes")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
