"""``RelayApp``: what both programs are made of, from a ``Config``: a loop, a resolver, relays, an end.

A subclass says which addresses are listened on and who handles what arrives there (``open``).
Everything here runs on one thread; ``loop.run()`` is the caller's.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from socket import socket
from typing import TYPE_CHECKING, Protocol

from common.acl import load_rules
from common.config.schema import Config, Server
from common.crypto import Cipher
from common.net.bound import BoundSockets, bound_to
from common.net.loop import EventLoop
from common.net.resolver import LIMIT, Resolver
from common.net.sockets import raise_nofile
from common.net.timers import Timer
from common.proto.address import Address
from common.relay.admission import UNBOUNDED, Admission, Bounds
from common.relay.associations import Associations
from common.relay.flow import Allowance
from common.relay.listener import Limits, MakeHandler, TCPRelay

if TYPE_CHECKING:
    from common.acl import AccessRules
    from common.shared import Shared

RESERVED_DESCRIPTORS = 32  # for logs, DNS, listeners and the interpreter
DESCRIPTORS_PER_CONNECTION = 2
DRAIN_PATIENCE = 1.0  # seconds for a client that has just connected to say something

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
        bounds = Bounds(
            handshakes=config.handshakes or UNBOUNDED,
            connecting=config.connecting or UNBOUNDED,
            per_source=config.connections_per_source or UNBOUNDED,
            per_user=config.connections_per_user or UNBOUNDED,
            ipv4_prefix=config.source_ipv4_prefix,
            ipv6_prefix=config.source_ipv6_prefix,
        )
        self._admission = Admission(self.loop, self.max_connections, bounds, self.counters)
        self._allowance = Allowance()
        self.associations = Associations(
            self.loop,
            limit=config.udp_max_associations,
            timeout=config.udp_timeout,
            counters=self.counters,
            per_source=config.udp_associations_per_source or UNBOUNDED,
            per_user=config.udp_associations_per_user or UNBOUNDED,
        )
        self.sockets = BoundSockets()
        self.shared: Shared | None = None  # with other workers, if there are any
        self._patience: Timer | None = None
        self._ciphers: dict[Server, Cipher] = {}
        self._rules: dict[str, AccessRules] = {}
        self._relays: list[TCPRelay] = []
        self._ports: list[tuple[DatagramPort, socket]] = []

    def open(self) -> None:
        """Call ``relay`` and ``serve_datagrams`` for everything to listen on."""
        raise NotImplementedError

    # -- passing on ------------------------------------------------------------------------------

    @classmethod
    def share(cls, config: Config, workers: int, predecessor: Shared | None = None) -> Shared:
        """Return what ``workers`` processes have in common: bound, and made before they are forked.

        ``predecessor`` is what an earlier configuration shared; what is the same is taken over.
        Raises OSError, with nothing left open.
        """
        from common.shared import Shared  # what one process does not need

        raise_nofile(config.nofile)
        shared = Shared(workers, predecessor)
        try:
            cls.prepare(config, shared)
        except BaseException:
            shared.close()
            raise
        shared.sockets.settle()
        cls.load()  # once, before they are forked
        return shared

    @classmethod
    def prepare(cls, config: Config, shared: Shared) -> None:
        """Bind everything that ``open`` will ask for, in the same order."""
        raise NotImplementedError

    def join(self, shared: Shared, worker: int) -> None:
        """Be one of several workers: to be called before ``start``, in that worker's process."""
        self.shared = shared
        self.sockets = shared.sockets.part_of(worker)

    def inherit(self, predecessor: RelayApp) -> None:
        """Take over from an app on the same loop: to be called before ``start``.

        It serves on, with sockets of its own, until its ``retire`` is called.
        """
        self.sockets = predecessor.sockets.successor()
        self._allowance = predecessor._allowance
        wanted = set(self.config.servers)
        self._ciphers = {
            server: cipher for server, cipher in predecessor._ciphers.items() if server in wanted
        }

    def cipher(self, server: Server, users: Sequence[tuple[str, str]] = ()) -> Cipher:
        """Return the cipher of a server: the one there was before, if it is the same server.

        sslocal's knows the salts of packets.
        """
        if server not in self._ciphers:
            self._ciphers[server] = Cipher.from_password(server.method, server.password.reveal(), users)
        return self._ciphers[server]

    # -- listening -------------------------------------------------------------------------------

    def access_rules(self, path: str | None) -> AccessRules | None:
        """Return the rules of a file, read once; None for no file. Raises ConfigError."""
        if path is None:
            return None
        if path not in self._rules:
            self._rules[path] = load_rules(path)
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

    # -- beginning and end -----------------------------------------------------------------------

    def start(self) -> None:
        """Bind and listen. Raises OSError, with nothing left open."""
        try:
            self.open()
        except Exception:
            self.stop()
            raise
        self.sockets.settle()
        self.load()

    @classmethod
    def load(cls) -> None:
        """Import what requests need and listening does not.

        The ports are open by then, so that whoever comes meanwhile waits a moment and is not refused. Later
        would not do: the first request would stop the loop, and a user given up root may not read modules.
        """
        import common.net.ares  # noqa: F401

    def drain(self) -> None:
        """Stop listening; let running connections end, and the loop with the last of them."""
        self.retire(self.loop.stop)

    def retire(self, done: Callable[[], None]) -> None:
        """Stop listening; let running connections end, and call ``done`` after the last of them.

        Who waits in a listener's queue is accepted first, and has a moment to say something. UDP has
        no connections to wait for: a successor takes over the port and its clients.
        """
        self.sockets.remove_files()
        for relay in self._relays:
            relay.drain()
        self._close_ports()
        if self._admission.count:
            self._patience = self.loop.call_later(DRAIN_PATIENCE, self._end_idle)
        self._admission.call_when_empty(done)

    def _end_idle(self) -> None:
        """End the connections that nothing is being done for."""
        for relay in self._relays:
            for handler in list(relay.handlers):
                handler.on_drain()

    def stop(self) -> None:
        """Close everything at once. Idempotent."""
        self.sockets.remove_files()
        if self._patience is not None:
            self._patience.cancel()
        relays, self._relays = self._relays, []
        for relay in relays:
            relay.close()
        self._close_ports()
        self.associations.close()
        self.sockets.close()
        self.resolver.close()

    def _close_ports(self) -> None:
        ports, self._ports = self._ports, []
        for port, _ in ports:
            port.close()

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and what is open now."""
        return {**self.counters, **self.loop.statistics(), **self._admission.statistics()}
