"""ssserver's UDP on fakes: real packets of any method; clients, targets and names are the test's."""

from __future__ import annotations

import gc
import ipaddress
import os
from collections import Counter

import pytest

from common.crypto import METHODS, Cipher, Family
from common.net.loop import EventLoop
from common.proto.address import Address
from common.relay import targets
from common.relay.associations import Associations
from common.relay.targets import Targets
from ssserver.gate import Gate
from ssserver.udp import ServerAssociation, ServerUDP
from tests.clock import FakeClock
from tests.datagrams import FakeDatagramSocket, Network
from tests.fakes import FakeResolver, FakeSelector, settle
from tests.pairs import PASSWORDS

NOW = 1_700_000_000.0
TIMEOUT = 300.0
PEER = ("198.51.100.9", 4321)
MOVED = ("203.0.113.77", 999)
TARGET = Address("192.0.2.80", 443)
SECOND = Address("192.0.2.81", 3478)
NAMED = Address("origin.example", 53)
FORBIDDEN = ("10.0.0.0/8", "127.0.0.0/8", "::1/128")
SIP004 = "aes-256-gcm"
SIP022 = "2022-blake3-aes-128-gcm"

every_method = pytest.mark.parametrize("method", METHODS)
with_sessions = pytest.mark.parametrize(
    "method", [name for name, method in METHODS.items() if method.family is Family.SIP022]
)


class ServerWorld:
    """One port of ssserver; clients, targets, names and time are the test's."""

    def __init__(
        self, monkeypatch, method=SIP004, *, cipher=None, limit=100, per_user=100, forbidden=(), rules=None
    ) -> None:
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock, FakeSelector())
        self.resolver = FakeResolver()
        self.counters: Counter[str] = Counter()
        self.network = Network()
        monkeypatch.setattr(targets, "socket", self.network)
        self.associations = Associations(
            self.loop, limit=limit, timeout=TIMEOUT, counters=self.counters, per_user=per_user
        )
        self.cipher = cipher or Cipher.from_password(method, PASSWORDS.get(method, "correct horse"))
        self.packets = self.cipher.server_packets(
            clock=self.unix_time, random=os.urandom, memory=self.cipher.replay_memory()
        )
        self.port = FakeDatagramSocket()
        self.server = ServerUDP(
            self.loop,
            self.port,
            self.packets,
            associations=self.associations,
            resolver=self.resolver,
            gate=Gate([ipaddress.ip_network(text) for text in forbidden], rules),
            counters=self.counters,
            source_of=lambda host: host,
        )

    def unix_time(self) -> float:
        return NOW + self.clock.now

    def client(self, peer=PEER, cipher=None) -> Client:
        return Client(self, peer, cipher or self.cipher)

    def left(self) -> list[tuple[bytes, tuple]]:
        """What has left for targets since the last call."""
        return [sent for sock in self.network.opened for sent in sock.take()]

    def answer(self, payload: bytes, source=TARGET, sock=None) -> None:
        """A target, or anybody, sends to the socket of a session, the latest by default."""
        (sock or self.network.last).arrive(payload, tuple(source))
        settle(self.loop)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)
        settle(self.loop)

    def stop(self) -> None:
        self.server.close()
        self.associations.close()
        assert self.port.closed
        self.check_nothing_left(ports=0)

    def check_nothing_left(self, ports: int = 1) -> None:
        assert len(self.associations) == 0
        assert self.network.open == []
        assert self.resolver.waiting == []
        assert self.loop.statistics() == {"watched": ports, "timers": 0}


class Client:
    """Who holds the key: one session, sent from ``peer``."""

    def __init__(self, world: ServerWorld, peer, cipher) -> None:
        self.world, self.peer = world, peer
        self.packets = cipher.client_packets(clock=world.unix_time, random=os.urandom)

    def sealed(self, payload: bytes, target=TARGET) -> bytes:
        return bytes(self.packets.seal(target, payload))

    def send(self, payload: bytes, target=TARGET) -> None:
        self.send_raw(self.sealed(payload, target))

    def send_raw(self, data: bytes) -> None:
        self.world.port.arrive(data, self.peer)
        settle(self.world.loop)

    def received(self) -> list[tuple[Address, bytes]]:
        found = []
        for data, to in self.world.port.take():
            assert to == self.peer
            source, payload = self.packets.open(data)
            found.append((source, bytes(payload)))
        return found


def alive() -> int:
    """Associations and what they hold, ended or not."""
    return sum(isinstance(each, ServerAssociation | Targets) for each in gc.get_objects())
