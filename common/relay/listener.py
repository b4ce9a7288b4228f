"""``TCPRelay``: a listening socket, the handlers it spawned, and what happens when there are too many.

Accepting stops, instead of failing over and over, when the process is at its limit: the listening
socket is simply not watched until a connection has gone (or, out of descriptors, a moment later).
Clients wait in the kernel's backlog meanwhile. ``Admission`` has the limits, shared by all listeners
of one process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING, Any, NamedTuple

from common.net.loop import READ, EventLoop
from common.net.resolver import Resolver
from common.net.sockets import ABORTED_ERRNOS, BACKLOG, CAPACITY_ERRNOS, OPTIONS_ARE_INHERITED, reset, tune
from common.relay.admission import Admission
from common.relay.flow import Allowance

if TYPE_CHECKING:
    from common.relay.tcprelay import TCPRelayHandler

ACCEPT_BATCH = 64  # connections per event, so that a flood of them cannot starve the rest
CAPACITY_PAUSE = 0.5  # seconds without accepting once the kernel has no descriptor to give

MakeHandler = Callable[["TCPRelay", socket, tuple[Any, ...]], "TCPRelayHandler"]

logger = logging.getLogger("shadowrelay.relay")


class Limits(NamedTuple):
    """Seconds a connection may take for each thing; None = no limit."""

    handshake: float
    connect: float
    idle: float | None
    half_close: float
    keep_alive: float
    no_delay: bool


class TCPRelay:
    """One listening socket. The loop calls it for connections, its handlers' sides for everything else."""

    def __init__(
        self,
        loop: EventLoop,
        sock: socket,
        make_handler: MakeHandler,
        *,
        resolver: Resolver,
        limits: Limits,
        admission: Admission,
        allowance: Allowance,
        counters: Counter[str],
    ) -> None:
        self.loop, self.sock, self.make_handler = loop, sock, make_handler
        self.resolver, self.limits, self.admission = resolver, limits, admission
        self.allowance, self.counters = allowance, counters
        self.handlers: set[TCPRelayHandler] = set()
        self._watched = 0
        sock.setblocking(False)
        self._tune(sock)
        self.resume()

    def on_event(self, mask: int) -> None:
        if self._watched:  # else it was paused or closed earlier in this batch
            self._accept()

    def _accept(self) -> bool:
        """Accept a batch of connections; whether there may be more."""
        for _ in range(ACCEPT_BATCH):
            if self.admission.full:
                self.admission.pause(self, "connection limit reached")
                return False
            try:
                sock, peer = self.sock.accept()
            except BlockingIOError:
                return False
            except OSError as exc:
                if exc.errno in ABORTED_ERRNOS:
                    continue  # the client gave up while it was queued
                out = exc.errno in CAPACITY_ERRNOS
                self._rest("out of file descriptors" if out else f"accepting failed ({exc})")
                return False
            self._spawn(sock, peer)
        return True

    def _rest(self, cause: str) -> None:
        """Stop for a moment what would only fail again, over and over."""
        self.admission.pause(self, cause)
        self.loop.call_later(CAPACITY_PAUSE, self.admission.wake)

    def _spawn(self, sock: socket, peer: Any) -> None:
        admission = self.admission
        if isinstance(peer, tuple):
            source = admission.source_of(peer[0])
        else:
            peer, source = (), None  # of a Unix socket
        if source is not None and not admission.takes_from(source, peer[0]):
            reset(sock)  # in any case, since a close would tell whether bytes have arrived
            return
        sock.setblocking(False)
        if not OPTIONS_ARE_INHERITED:
            self._tune(sock)
        try:
            handler = self.make_handler(self, sock, peer)
        except Exception:
            sock.close()
            if source is not None:
                admission.sources.give(source)
            logger.exception("a connection could not be served")
            return
        if source is not None:
            handler.source = source
        self.counters["accepted"] += 1
        self.handlers.add(handler)
        admission.enter(handler)
        try:
            handler.start()
        except Exception as exc:
            handler.on_fault(exc)

    def _tune(self, sock: socket) -> None:
        tune(sock, no_delay=self.limits.no_delay, keep_alive=self.limits.keep_alive)

    def on_fault(self, exc: Exception) -> None:
        logger.error("accepting failed", exc_info=exc)

    def on_handler_destroyed(self, handler: TCPRelayHandler) -> None:
        self.handlers.discard(handler)
        self.admission.leave(handler)

    def pause(self) -> None:
        """Stop accepting; the kernel queues clients."""
        self._want(0)

    def resume(self) -> None:
        if not self.draining:
            self._want(READ)

    @property
    def draining(self) -> bool:
        """No new connections are taken any more."""
        return self.sock.fileno() < 0

    def close_listener(self) -> None:
        """Take no more connections; those that stand go on."""
        self.pause()
        self.sock.close()

    def drain(self) -> None:
        """Take those who wait in the kernel's queue, which a close would reset, and then no more."""
        for _ in range(BACKLOG // ACCEPT_BATCH):  # they come as fast as they are taken, at the worst
            if self.draining or not self._accept():
                break
        self.close_listener()

    def close(self) -> None:
        """End everything at once."""
        self.close_listener()
        for handler in list(self.handlers):
            handler.destroy()

    def _want(self, events: int) -> None:
        if events != self._watched:
            self.loop.watch(self.sock, events, self._watched, self)
            self._watched = events
