"""When this host moves: hear that its addresses changed, and tell which sockets stayed behind.

A laptop that changes networks loses an address, and Linux leaves the connections that used it alone:
what they send fails for minutes before anybody hears of it. Other systems end them by themselves, so
the news is only asked for on Linux, from rtnetlink(7).

The surprise: an address that is gone may come back, as when a link flaps, and its connections go on
then. So only a host that could reach the peer from another address has moved.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
import sys
from collections.abc import Callable
from typing import Any

from common.net.loop import READ, EventLoop
from common.net.timers import Timer

SETTLE_SECONDS = 0.5  # addresses come and go together: look once, when they have

_ADDRESS_GROUPS = 0x10 | 0x100  # RTMGRP_IPV4_IFADDR, RTMGRP_IPV6_IFADDR
_MESSAGE_SIZE = 16 * 1024  # bytes; what is cut off was not going to be read

logger = logging.getLogger("shadowrelay.roaming")


class AddressWatch:
    """Calls ``on_change`` from the loop half a second after addresses came or went, until closed.

    Where the system does not tell, it is never called.
    """

    def __init__(self, loop: EventLoop, on_change: Callable[[], None]) -> None:
        self._loop, self._on_change = loop, on_change
        self._timer: Timer | None = None
        self._sock = _subscribe()
        if self._sock is not None:
            loop.watch(self._sock, READ, 0, self)

    def on_event(self, mask: int) -> None:
        if self._sock is None:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                try:
                    self._sock.recv(_MESSAGE_SIZE)
                except OSError as exc:
                    if exc.errno != errno.ENOBUFS:  # news were lost, and the kernel has told so
                        raise
        if self._timer is None:
            self._timer = self._loop.call_later(SETTLE_SECONDS, self._tell)

    def on_fault(self, exc: Exception) -> None:
        logger.error("changes of address are not heard of any more", exc_info=exc)
        self.close()

    def close(self) -> None:
        """Hear of nothing from here on. Idempotent."""
        sock, self._sock = self._sock, None
        if sock is not None:
            self._loop.watch(sock, 0, READ, self)
            sock.close()
        if self._timer is not None:
            self._timer.cancel()

    def _tell(self) -> None:
        self._timer = None
        self._on_change()


def is_stranded(sock: socket.socket, peer: Any = None) -> bool:
    """Whether a socket's address is no longer this host's, though it has a way to the peer.

    One that is not connected yet does not tell its ``peer``, so that is passed in, as a socket address.
    Nothing is sent: binding and connecting a UDP socket only asks the kernel's tables.
    """
    try:
        here, peer = sock.getsockname(), peer or sock.getpeername()
    except OSError:
        return False  # it is ending by itself
    with socket.socket(sock.family, socket.SOCK_DGRAM) as probe:
        try:
            probe.bind((here[0], 0, *here[2:]))
        except OSError as exc:
            if exc.errno != errno.EADDRNOTAVAIL:
                return False
        else:
            return False
        try:
            probe.connect(peer)
        except OSError:
            return False
    return True


def _subscribe() -> socket.socket | None:
    if sys.platform != "linux":
        return None
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE)
        try:
            sock.bind((0, _ADDRESS_GROUPS))
        except OSError:
            sock.close()
            raise
    except OSError:  # a sandbox without netlink
        return None
    return sock
