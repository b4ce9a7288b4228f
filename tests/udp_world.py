"""sslocal's UDP on fakes: real packets of any method; clients, servers and names are the test's."""

from __future__ import annotations

import os
from collections import Counter
from typing import Any

from common.acl.rules import AccessRules
from common.crypto import Cipher
from common.net.loop import EventLoop
from common.proto.address import Address, IPAddress
from common.relay import targets
from common.relay.associations import Associations
from sslocal import udp
from sslocal.udp import UDPService
from sslocal.upstreams import Upstream, Upstreams
from tests.clock import FakeClock
from tests.datagrams import FakeDatagramSocket, Network, recorder
from tests.fakes import FakeResolver, FakeSelector, settle
from tests.pairs import PASSWORDS

NOW = 1_700_000_000.0
SERVER = Address("198.51.100.1", 8388)
NAMED = Address("server.example", 8388)
TIMEOUT = 300.0


class UDPWorld:
    """A ``UDPService`` and its surroundings. ``network.opened`` are the sockets that links opened.

    Addresses in ``unreachable`` have no route; that the kernel says so when one is sent to is the
    socket's ``error``.
    """

    def __init__(
        self,
        monkeypatch: Any,
        *,
        servers: tuple[Address, ...] = (SERVER,),
        method: str = "none",
        limit: int = 100,
        rules: AccessRules | None = None,
    ) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.resolver = FakeResolver()
        self.counters: Counter[str] = Counter()
        self.network = Network()
        self.unreachable: set[str] = set()
        for module in (udp, targets):
            monkeypatch.setattr(module, "socket", self.network)
            monkeypatch.setattr(module, "first_reachable", self.first_reachable)
        self.associations = Associations(self.loop, limit=limit, timeout=TIMEOUT, counters=self.counters)
        self.cipher = Cipher.from_password(method, PASSWORDS.get(method, "correct horse"))
        self.server = self.cipher.server_packets(
            clock=self.unix_time, random=os.urandom, memory=self.cipher.replay_memory()
        )
        self.service = UDPService(
            self.loop,
            upstreams=Upstreams([Upstream(address, self.cipher) for address in servers]),
            resolver=self.resolver,  # type: ignore[arg-type]
            associations=self.associations,
            clock=self.unix_time,
            random=os.urandom,
            counters=self.counters,
            rules=rules,
        )
        self._sessions: dict[FakeDatagramSocket, Any] = {}

    def unix_time(self) -> float:
        return NOW + self.clock.now

    def first_reachable(self, addresses: list[IPAddress]) -> IPAddress:
        return next((ip for ip in addresses if str(ip) not in self.unreachable), addresses[0])

    def sent(self, sock: FakeDatagramSocket | None = None) -> list[tuple[Address, bytes]]:
        """What reached the server from a link's socket since the last call, the latest link's by default."""
        sock = sock or self.network.last
        found = []
        for packet, _ in sock.take():
            self._sessions[sock], target, payload = self.server.open(packet, sock.name)
            found.append((target, bytes(payload)))
        return found

    def reply(
        self,
        source: Address,
        payload: bytes,
        sock: FakeDatagramSocket | None = None,
        server: Any = tuple(SERVER),
    ) -> None:
        """The server answers to a link that it has heard of."""
        sock = sock or self.network.last
        sock.arrive(bytes(self._sessions[sock].seal(source, payload)), server)
        settle(self.loop)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.loop)

    def check_nothing_left(self, ports: int = 0) -> None:
        """No association, socket, lookup or timer; ``ports`` are watched for good."""
        assert len(self.associations) == 0
        assert self.network.open == []
        assert self.resolver.waiting == []
        assert self.loop.statistics() == {"watched": ports, "timers": 0}


class Owner:
    """Whom a link belongs to."""

    def __init__(self, world: UDPWorld) -> None:
        self.replies: list[tuple[Address, bytes]] = []
        self.link = world.service.open_link(self.on_reply)

    def on_reply(self, source: Address, payload: Any) -> None:
        recorder(self.replies)(source, payload)
