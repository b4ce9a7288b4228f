"""``TCPRelay``: a listening socket, the handlers it spawned, and what happens when there are too many.

Accepting stops, instead of failing over and over, when the process is at its limit: the listening
socket is simply not watched until a connection has gone (or, out of descriptors, a moment later).
Clients wait in the kernel's backlog meanwhile. ``Admission`` is that limit, shared by all listeners
of one process.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from socket import socket
from typing import TYPE_CHECKING, NamedTuple

from common.net.loop import READ, EventLoop
from common.net.resolver import Resolver
from common.net.sockets import ABORTED_ERRNOS, CAPACITY_ERRNOS, close_listener, tune
from common.relay.flow import Allowance

if TYPE_CHECKING:
    from common.relay.tcprelay import TCPRelayHandler

ACCEPT_BATCH = 64  # connections per event, so that a flood of them cannot starve the rest
CAPACITY_PAUSE = 0.5  # seconds without accepting once the kernel has no descriptor to give
QUIET_SECONDS = 30.0  # at most one warning about capacity in this time

MakeHandler = Callable[["TCPRelay", socket, str], "TCPRelayHandler"]

logger = logging.getLogger("shadowrelay.relay")


class Limits(NamedTuple):
    """Seconds a connection may take for each thing; None = no limit."""

    handshake: float
    connect: float
    idle: float | None
    half_close: float
    keep_alive: float
    no_delay: bool


class Admission:
    """How many connections one process takes; its relays pause at the limit and wake each other."""

    def __init__(self, loop: EventLoop, limit: int) -> None:
        self.loop, self.limit, self.count = loop, limit, 0
        self._paused: list[TCPRelay] = []
        self._quiet_until = 0.0
        self._when_empty: Callable[[], None] | None = None

    @property
    def full(self) -> bool:
        return self.count >= self.limit

    def pause(self, relay: TCPRelay, cause: str) -> None:
        """Take no more connections on ``relay`` until ``leave`` is called for one."""
        relay.pause()
        self._paused.append(relay)
        if self.loop.now >= self._quiet_until:
            self._quiet_until = self.loop.now + QUIET_SECONDS
            logger.warning("%s: new connections wait (%d open, limit %d)", cause, self.count, self.limit)

    def leave(self) -> None:
        """A connection has gone: there is room for one again."""
        self.count -= 1
        self.wake()
        if self.count == 0 and self._when_empty is not None:
            self._when_empty()

    def call_when_empty(self, callback: Callable[[], None]) -> None:
        """Call back once no connection is open, which may be now."""
        self._when_empty = callback
        if self.count == 0:
            callback()

    def wake(self) -> None:
        if self._paused and not self.full:
            paused, self._paused = self._paused, []
            for relay in paused:
                relay.resume()


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
        self.resume()

    def on_event(self, mask: int) -> None:
        if not self._watched:
            return  # paused or closed earlier in this batch
        for _ in range(ACCEPT_BATCH):
            if self.admission.full:
                self.admission.pause(self, "connection limit reached")
                return
            try:
                sock, peer = self.sock.accept()
            except BlockingIOError:
                return
            except OSError as exc:
                if exc.errno in ABORTED_ERRNOS:
                    continue  # the client gave up while it was queued
                out = exc.errno in CAPACITY_ERRNOS
                self._rest("out of file descriptors" if out else f"accepting failed ({exc})")
                return
            self._spawn(sock, peer)

    def _rest(self, cause: str) -> None:
        """Stop for a moment what would only fail again, over and over."""
        self.admission.pause(self, cause)
        self.loop.call_later(CAPACITY_PAUSE, self.admission.wake)

    def _spawn(self, sock: socket, peer: tuple[str, int]) -> None:
        sock.setblocking(False)
        tune(sock, no_delay=self.limits.no_delay, keep_alive=self.limits.keep_alive)
        try:
            handler = self.make_handler(self, sock, f"{peer[0]}:{peer[1]}" if peer else "unix")
        except Exception:
            sock.close()
            logger.exception("a connection could not be served")
            return
        self.admission.count += 1
        self.counters["accepted"] += 1
        self.handlers.add(handler)
        try:
            handler.start()
        except Exception as exc:
            handler.on_fault(exc)

    def on_fault(self, exc: Exception) -> None:
        logger.error("accepting failed", exc_info=exc)

    def on_handler_destroyed(self, handler: TCPRelayHandler) -> None:
        self.handlers.discard(handler)
        self.admission.leave()

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
        close_listener(self.sock)

    def close(self) -> None:
        """End everything at once."""
        self.close_listener()
        for handler in list(self.handlers):
            handler.destroy()

    def _want(self, events: int) -> None:
        if events != self._watched:
            self.loop.watch(self.sock, events, self._watched, self)
            self._watched = events
