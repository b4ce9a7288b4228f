"""``DatagramSocket``: one UDP socket on the loop, whatever stands behind it.

Datagrams are read in batches into one scratch buffer of the process, and each is handed over as a
view that dies with the call. What cannot be sent at once is dropped, as UDP allows and expects.

The surprise: errors of a UDP socket are reports about earlier datagrams (ICMP), so they are counted
and forgotten; and what a datagram provokes is the datagram's fault alone, so a ProtocolError drops
it and the batch goes on.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from socket import socket
from typing import Any

from common.errors import ProtocolError
from common.net.loop import READ, EventLoop

MAX_DATAGRAM = 64 * 1024  # bytes: more than any UDP payload
BATCH = 64  # datagrams per event, so that a flood cannot starve the rest

_RX = memoryview(bytearray(MAX_DATAGRAM))

SocketAddress = Any  # what the socket module makes of an address: a tuple whose shape the family decides
OnDatagram = Callable[[memoryview, SocketAddress], None]
Receive = Callable[[memoryview], tuple[int, SocketAddress]]

logger = logging.getLogger("shadowrelay.udp")


class DatagramSocket:
    """A non-blocking UDP socket, watched for reading until it is closed.

    ``receive`` is how it is read, ``recvfrom_into`` by default; what it returns beside the size is what
    ``on_datagram`` gets beside the datagram.
    """

    __slots__ = ("counters", "loop", "on_datagram", "receive", "sock")

    def __init__(
        self,
        loop: EventLoop,
        sock: socket,
        on_datagram: OnDatagram,
        counters: Counter[str],
        *,
        receive: Receive | None = None,
    ) -> None:
        self.loop, self.sock, self.counters = loop, sock, counters
        self.on_datagram: OnDatagram | None = on_datagram
        self.receive = receive or sock.recvfrom_into
        sock.setblocking(False)
        loop.watch(sock, READ, 0, self)

    def on_event(self, mask: int) -> None:
        receive = self.receive
        for _ in range(BATCH):
            on_datagram = self.on_datagram
            if on_datagram is None:
                return  # closed by what it received, or earlier in this batch of events
            try:
                size, peer = receive(_RX)
            except BlockingIOError:
                return
            except OSError:
                self.counters["udp_errors"] += 1
                continue
            try:
                on_datagram(_RX[:size], peer)
            except ProtocolError as error:
                self.counters["udp_dropped"] += 1
                logger.debug("datagram from %s dropped: %s", peer, error)

    def on_fault(self, exc: Exception) -> None:
        logger.error("a datagram could not be served", exc_info=exc)

    def send(self, data: memoryview | bytes, peer: SocketAddress) -> bool:
        """Send to ``peer``; False when the datagram was dropped."""
        try:
            self.sock.sendto(data, peer)
        except BlockingIOError:  # no room in the kernel, or no port left to send from
            self.counters["udp_dropped"] += 1
            return False
        except OSError:
            self.counters["udp_errors"] += 1
            return False
        return True

    def close(self) -> None:
        """Stop watching and close. Idempotent."""
        if self.on_datagram is not None:
            self.on_datagram = None
            self.loop.watch(self.sock, 0, READ, self)
            self.sock.close()
