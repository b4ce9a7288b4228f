"""``RelayApp``: what both programs are made of, from a ``Config``: a loop, a resolver, relays, an end.

A subclass says which addresses are listened on and who handles what arrives there (``open``).
Everything here runs on one thread; ``loop.run()`` is the caller's.
"""

from __future__ import annotations

from collections import Counter

from common.config.schema import Config
from common.net.loop import EventLoop
from common.net.resolver import Resolver
from common.net.sockets import listen, raise_nofile
from common.proto.address import Address
from common.relay.flow import Allowance
from common.relay.listener import Admission, MakeHandler, TCPRelay
from common.relay.tcprelay import Limits

RESERVED_DESCRIPTORS = 32  # for logs, DNS, listeners and the interpreter
DESCRIPTORS_PER_CONNECTION = 2


class RelayApp:
    """One process of sslocal or ssserver.

    ``listening`` holds the addresses actually bound, once ``start`` has returned.
    """

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
            self.loop, config.dns, ipv6_first=config.ipv6_first, ipv6_only=config.ipv6_only
        )
        spare = raise_nofile(config.nofile) - RESERVED_DESCRIPTORS
        limit = config.max_connections or max(1, spare // DESCRIPTORS_PER_CONNECTION)
        self._admission = Admission(self.loop, limit)
        self._allowance = Allowance()
        self._relays: list[TCPRelay] = []

    def open(self) -> None:
        """Call ``relay`` for every address to listen on."""
        raise NotImplementedError

    def relay(self, address: Address, make_handler: MakeHandler) -> None:
        """Listen on ``address``; ``make_handler`` makes the connections. Raises OSError."""
        relay = TCPRelay(
            self.loop,
            listen(address),
            make_handler,
            resolver=self.resolver,
            limits=self.limits,
            admission=self._admission,
            allowance=self._allowance,
            counters=self.counters,
        )
        self._relays.append(relay)

    @property
    def listening(self) -> tuple[Address, ...]:
        return tuple(relay.address for relay in self._relays)

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
        self._admission.call_when_empty(self.loop.stop)

    def stop(self) -> None:
        """Close everything at once. Idempotent."""
        relays, self._relays = self._relays, []
        for relay in relays:
            relay.close()
        self.resolver.close()

    def statistics(self) -> dict[str, int]:
        """Counters since the start, and what is open now."""
        return {**self.counters, **self.loop.statistics(), "connections": self._admission.count}
