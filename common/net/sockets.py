"""Sockets the way this project wants them: listening, options, the hard close, how many there may be.

Everything here can be imported on every system; what a system lacks is left out, not failed on.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import socket
import stat
import struct
import sys
from collections.abc import Sequence
from typing import Any

from common.proto.address import Address, IPAddress

BACKLOG = 1024  # connections the kernel may hold before they are accepted
DATAGRAM_BUFFER = 1024 * 1024  # bytes the kernel may queue on a UDP port, each way; it may grant less
DISCARD_PORT = 9  # RFC 863; where a route is asked for and the port is nobody's
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

# connect(2) on a non-blocking socket: it goes on in the kernel.
_STARTED_ERRNOS = _errnos("EINPROGRESS", "EWOULDBLOCK", "WSAEWOULDBLOCK")

# What a listening socket is told, the connections accepted from it have been told as well.
OPTIONS_ARE_INHERITED = sys.platform in ("linux", "darwin") or "bsd" in sys.platform

# Non-blocking from birth, where the system can: one call less for each connection.
_STREAM = socket.SOCK_STREAM | getattr(socket, "SOCK_NONBLOCK", 0)

# struct linger, on and 0 seconds; its members are short on Windows.
_NO_LINGER = struct.pack("hh" if sys.platform == "win32" else "ii", 1, 0)


class ListeningSocket(socket.socket):
    """Looks up what every socket accepted from it is told, and which is an enum member each, only once."""

    @functools.cached_property
    def family(self) -> int:  # type: ignore[override]
        return super().family

    @functools.cached_property
    def type(self) -> int:  # type: ignore[override]
        return super().type


def listen(address: Address, *, backlog: int = BACKLOG, reuse_port: bool = False) -> socket.socket:
    """Return a non-blocking TCP socket listening on ``address``; port 0 picks a free one.

    ``::`` also takes IPv4 connections where the system can do that. A host name is looked up once,
    blocking, and its IPv4 address preferred, so this is for program start and not for a running
    loop. ``reuse_port`` lets several processes listen on the same port (SO_REUSEPORT).

    Raises OSError, with the address as its ``filename``.
    """
    try:
        sock = _bind_stream(address, reuse_port=reuse_port)
        try:
            sock.listen(backlog)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(address)) from exc
    return sock


def reserve(address: Address) -> socket.socket:
    """Return a TCP socket that is bound as if it were alone and does not listen.

    While it is open, sockets that ``listen`` with ``reuse_port`` may have the same port, port 0 having
    become a free one. Without it they could join another copy of this program, whose port it is.

    Raises OSError, with the address as its ``filename``.
    """
    try:
        sock = _bind_stream(address, reuse_port=False)
        _allow_reuse(sock)
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(address)) from exc
    return sock


def _bind_stream(address: Address, *, reuse_port: bool) -> socket.socket:
    family, bound = _bindable(address)
    sock = ListeningSocket(family, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _share_address(sock)
        if reuse_port:
            _allow_reuse(sock)
        _choose_families(sock, address)
        sock.bind(bound)
    except BaseException:
        sock.close()
        raise
    return sock


def bind_datagrams(address: Address) -> socket.socket:
    """Return a non-blocking UDP socket bound to ``address``; what ``listen`` says holds here too."""
    try:
        family, bound = _bindable(address)
        sock = socket.socket(family, socket.SOCK_DGRAM)
        try:
            sock.setblocking(False)
            _choose_families(sock, address)
            for option in ("SO_RCVBUF", "SO_SNDBUF"):
                with contextlib.suppress(OSError):
                    sock.setsockopt(socket.SOL_SOCKET, getattr(socket, option), DATAGRAM_BUFFER)
            sock.bind(bound)
        except BaseException:
            sock.close()
            raise
    except OSError as exc:
        raise OSError(exc.errno, exc.strerror, str(address)) from exc
    return sock


def _choose_families(sock: socket.socket, address: Address) -> None:
    """Have ``::`` take IPv4 as well, and every other IPv6 address nothing but its own."""
    if sock.family == socket.AF_INET6:
        dual = address.host == "::" and socket.has_dualstack_ipv6()
        sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if dual else 1)


def listen_unix(path: str, *, backlog: int = BACKLOG) -> socket.socket:
    """Return a non-blocking stream socket listening at ``path``, for its owner only (mode 0600).

    A socket file that nobody listens on is replaced; anything else at ``path`` is an OSError, with
    the path as its ``filename``.
    """
    if not hasattr(socket, "AF_UNIX"):
        raise OSError(errno.EOPNOTSUPP, "this system has no Unix sockets", path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        sock.setblocking(False)
        _remove_abandoned(path)
        old = os.umask(0o177)
        try:
            sock.bind(path)
        finally:
            os.umask(old)
        sock.listen(backlog)
    except OSError as exc:
        sock.close()
        raise OSError(exc.errno, exc.strerror or str(exc), path) from exc
    return sock


def _remove_abandoned(path: str) -> None:
    """Remove a socket file whose listener is gone, as after a kill."""
    if not os.path.exists(path) or not stat.S_ISSOCK(os.stat(path).st_mode):
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.setblocking(False)  # a listener whose queue is full is there, too
        if probe.connect_ex(path) == errno.ECONNREFUSED:
            os.unlink(path)


def _bindable(address: Address) -> tuple[int, Any]:
    """Return the family and the socket address; IPv4 before IPv6 where a name has both."""
    host = str(address.ip or address.host)
    # Bytes need no codec of Unicode names, which takes time to load.
    name = host.encode() if host.isascii() else host
    found = socket.getaddrinfo(name, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
    family, _, _, _, bound = min(found, key=lambda entry: entry[0] != socket.AF_INET)
    return family, bound


def _share_address(sock: socket.socket) -> None:
    # On POSIX, SO_REUSEADDR means "do not wait for TIME_WAIT"; on Windows it means "steal the port".
    if os.name == "posix" and sys.platform != "cygwin":
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    elif hasattr(socket, "SO_EXCLUSIVEADDRUSE"):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_EXCLUSIVEADDRUSE, 1)


def _allow_reuse(sock: socket.socket) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        raise OSError(errno.EOPNOTSUPP, "this system cannot share a port between processes")
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)


def begin_connection(
    ip: IPAddress, port: int, *, no_delay: bool, keep_alive: float
) -> tuple[socket.socket, bool]:
    """Return a non-blocking TCP socket on its way to an address, and whether it is there already.

    It is where the address is this host's own. Raises OSError when there is a refusal at once.
    """
    sock = socket.socket(socket.AF_INET if ip.version == 4 else socket.AF_INET6, _STREAM)
    try:
        if sock.getblocking():
            sock.setblocking(False)
        tune(sock, no_delay=no_delay, keep_alive=keep_alive)
        connect_to(sock, ip, port)
    except BaseException:
        sock.close()
        raise
    try:
        sock.getpeername()
    except OSError:
        return sock, False
    return sock, True


def connect_to(sock: socket.socket, ip: IPAddress, port: int) -> None:
    """Begin to connect a non-blocking socket: it becomes writable when the kernel has an answer.

    Raises OSError when there is a refusal at once, as for an address without a route.
    """
    code = sock.connect_ex(socket_address(ip, port))
    if code and code not in _STARTED_ERRNOS:
        raise OSError(code, describe(code))


def socket_address(ip: IPAddress, port: int) -> Any:
    """Return the address as a socket of its family tells it. Raises OSError for a zone that is not there."""
    if ip.version == 4:
        return socket.inet_ntoa(ip.packed), port  # half of what str() takes
    # The system has its own spelling of some addresses, and it knows the number of a zone.
    return socket.getaddrinfo(str(ip), port, type=socket.SOCK_STREAM, flags=socket.AI_NUMERICHOST)[0][4]


def first_reachable(addresses: Sequence[IPAddress]) -> IPAddress:
    """Return the first address that this host has a route to; the first of all where it has none.

    Nothing is sent: connecting a UDP socket only asks the routing table.
    """
    for ip in addresses if len(addresses) > 1 else ():
        family = socket.AF_INET if ip.version == 4 else socket.AF_INET6
        with contextlib.suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
            connect_to(probe, ip, DISCARD_PORT)
            return ip
    return addresses[0]


def describe(code: int) -> str:
    """Return the system's words for an errno, or its name where the C library has none (Winsock's)."""
    words = os.strerror(code)
    return errno.errorcode.get(code, words) if words.startswith("Unknown error") else words


def tune(sock: socket.socket, *, no_delay: bool, keep_alive: float) -> None:
    """Set the options of a relayed connection.

    ``no_delay`` sends small segments at once. After ``keep_alive`` seconds of silence the kernel
    probes the peer, again every ``keep_alive`` seconds, and gives it up after as many probes without
    an answer as the system has it (Linux: 9); 0 for never. An option the system refuses stays as it was.
    """
    for level, option, value in _tuning(no_delay, keep_alive):
        try:
            sock.setsockopt(level, option, value)
        except OSError:
            continue


@functools.lru_cache(maxsize=8)  # one process has one tuning, and every connection asks for it
def _tuning(no_delay: bool, keep_alive: float) -> tuple[tuple[int, int, int], ...]:
    wanted = [(socket.IPPROTO_TCP, "TCP_NODELAY", 1)] if no_delay else []
    if keep_alive:
        seconds = max(1, round(keep_alive))
        wanted += [
            (socket.SOL_SOCKET, "SO_KEEPALIVE", 1),
            (socket.IPPROTO_TCP, "TCP_KEEPIDLE", seconds),
            (socket.IPPROTO_TCP, "TCP_KEEPALIVE", seconds),  # macOS's name for TCP_KEEPIDLE
            (socket.IPPROTO_TCP, "TCP_KEEPINTVL", seconds),
        ]
    return tuple(
        (level, getattr(socket, option), value) for level, option, value in wanted if hasattr(socket, option)
    )


def reset(sock: socket.socket) -> None:
    """Close with RST instead of FIN: the peer sees "connection reset", unsent bytes are dropped."""
    with contextlib.suppress(OSError):
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
    sock.close()


def raise_nofile(limit: int | None = None) -> int:
    """Set the soft limit of open descriptors and return the one now in force.

    ``limit`` may be lower than today's; None asks for all the hard limit allows. Over the hard limit
    only root gets more, others get the hard limit. Windows has no such limit to set; there the
    answer is what ``select()`` can watch.
    """
    try:
        import resource
    except ImportError:
        return WINDOWS_DESCRIPTORS
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if limit is None:
        attempts = [(hard, hard), (max(soft, MACOS_DESCRIPTORS), hard)]
    else:
        attempts = [(limit, hard), (limit, limit), (hard, hard)]
    for wanted in attempts:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, wanted)
            break
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return sys.maxsize if soft == resource.RLIM_INFINITY else soft
