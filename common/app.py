"""``RelayApp``: what both programs are made of, from a ``Config``: a loop, a resolver, relays, an end.

A subclass says which addresses are listened on and who handles what arrives there (``open``).
Everything here runs on one thread; ``loop.run()`` is the caller's.
"""

from __future__ import annotations

import logging
from collections import Counter
from socket import socket
from typing import Protocol

from common.acl import AccessRules
from common.config.schema import Config
from common.net.loop import EventLoop
from common.net.resolver import LIMIT, Resolver
from common.net.sockets import raise_nofile
from common.proto.address import Address
from common.relay.associations import Associations
from common.relay.flow import Allowance
from common.relay.listener import Admission, Limits, MakeHandler, TCPRelay

RESERVED_DESCRIPTORS = 32  # for logs, DNS, listeners and the interpreter
DESCRIPTORS_PER_CONNECTION = 2

logger = logging.getLogger("shadowrelay.app")


class DatagramPort(Protocol):
    """Something that serves a UDP port."""

    def close(self) -> None: ...


class RelayApp:
    """One process of sslocal or ssserver."""

    def __init__(self, config: Config, loop: EventLoop | None = None) -> None:
        self.config = config
        self.loop = loop or EventLoop()
        self.counters: Counter[str] = Counter()
        self.limits = Limits(
            handshake=config.timeout,
            connect=config.connect_timeout,
            idle=config.idle_timeout,
            half_close=config.half_close_timeout,
            keep_alive=config.keep_alive,
            no_delay=config.no_delay,
        )
        self.resolver = Resolver(
            self.loop,
            config.dns,
            ipv6_first=config.ipv6_first,
            ipv6_only=config.ipv6_only,
            limit=min(LIMIT, config.connect_timeout),
        )
        spare = raise_nofile(config.nofile) - RESERVED_DESCRIPTORS
        self.max_connections = config.max_connections or max(1, spare // DESCRIPTORS_PER_CONNECTION)
        self._admission = Admission(self.loop, self.max_connections)
        self._allowance = Allowance()
        self.associations = Associations(
            self.loop,
            limit=config.udp_max_associations,
            timeout=config.udp_timeout,
            counters=self.counters,
        )
        self._rules: dict[str, AccessRules] = {}
        self._relays: list[TCPRelay] = []
        self._ports: list[tuple[DatagramPort, socket]] = []

    def open(self) -> None:
        """Call ``relay`` and ``serve_datagrams`` for everything to listen on."""
        raise NotImplementedError

    def access_rules(self, path: str | None) -> AccessRules | None:
        """Return the rules of a file, read once; None for no file. Raises ConfigError."""
        if path is None:
            return None
        if path not in self._rules:
            self._rules[path] = AccessRules.load(path)
            for warning in self._rules[path].warnings:
                logger.warning(warning)
        return self._rules[path]

    def relay(self, sock: socket, make_handler: MakeHandler) -> None:
        """Accept on the listening ``sock``; ``make_handler`` makes the connections."""
        relay = TCPRelay(
            self.loop,
            sock,
            make_handler,
            resolver=self.resolver,
            limits=self.limits,
            admission=self._admission,
            allowance=self._allowance,
            counters=self.counters,
        )
        self._relays.append(relay)

    def serve_datagrams(self, sock: socket, port: DatagramPort) -> None:
        """Keep ``port``, which reads the bound ``sock``, and close it in the end."""
        self._ports.append((port, sock))

    @property
    def listening(self) -> tuple[Address | str, ...]:
        """What is actually bound, TCP and UDP alike: addresses, and paths of Unix sockets."""
        socks = [relay.sock for relay in self._relays if not relay.draining]
        socks += [sock for _, sock in self._ports]
        return tuple(dict.fromkeys(bound_to(sock) for sock in socks))

    def start(self) -> None:
        """Bind and listen. Raises OSError, with nothing left open."""
        try:
            self.open()
        except Exception:
            self.stop()
            raise

    def drain(self) -> None:
        """Stop listening; let running connections end, and the loop with the last of them."""
        for relay in self._relays:
            relay.close_listener()
            for handler in list(relay.handlers):
                handler.on_drain()
        self._close_ports()
        self._admission.call_when_empty(self.loop.stop)

    def stop(self) -> None:
        """Close everything at once. Idempotent."""
        relays, self._relays = self._relays, []
        for relay in relays:
            relay.close()
        self._close_ports()
        self.resolver.close()

    def _close_ports(self) -> None:
        """UDP has no connections to wait for: a successor takes over the port and its clients."""
        ports, self._ports = self._ports, []
        for port, _ in ports:
            port.close()
        self.associations.close()

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and what is open now."""
        return {**self.counters, **self.loop.statistics(), "connections": self._admission.count}


def bound_to(sock: socket) -> Address | str:
    """Return the address that ``sock`` is bound to, or the path of a Unix socket."""
    bound = sock.getsockname()
    return Address(*bound[:2]) if isinstance(bound, tuple) else str(bound)
