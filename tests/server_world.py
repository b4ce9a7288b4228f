"""An ssserver on fakes: real streams of one method, clients and targets that the test plays."""

from __future__ import annotations

import functools
import ipaddress
import random
from typing import Any

from common.acl.rules import AccessRules
from common.config.schema import Reject
from common.crypto import Cipher
from common.proto.address import Address
from common.relay.admission import Bounds
from ssserver.gate import Gate
from ssserver.tcp import ServerHandler, Service
from tests.fakes import FakeSocket
from tests.relay_world import LIMITS, World

HANDSHAKE = 70.0  # seconds; not the limit of the configuration, to see which one is used
NOW = 1_700_000_000.0
SIP022 = "2022-blake3-aes-128-gcm"
PASSWORDS = {SIP022: "AAAAAAAAAAAAAAAAAAAAAA=="}
TARGET = Address("192.0.2.1", 80)
NAMED = Address("origin.example", 80)


class Client:
    """What a holder of the key does: ``first`` flight, ``seal`` more, ``open`` what came back."""

    def __init__(self, cipher: Cipher, target: Address, seed: int = 1) -> None:
        noise = random.Random(seed)
        self._stream = cipher.client_stream(target, clock=lambda: NOW, random=noise.randbytes)

    def first(self, payload: bytes = b"") -> bytes:
        return bytes(self._stream.first(payload))

    def seal(self, payload: bytes) -> bytes:
        return bytes(self._stream.seal(memoryview(payload)))

    def open(self, data: bytes) -> bytes:
        return bytes(self._stream.open(memoryview(data)))


class ServerWorld(World):
    """``connect`` accepts a stream; ``cipher`` is what its clients use too."""

    def __init__(
        self,
        monkeypatch: Any,
        *,
        method: str = "aes-256-gcm",
        forbidden: tuple[str, ...] = (),
        rules: AccessRules | None = None,
        segmented: bool = False,
        limits: Any = LIMITS,
        bounds: Bounds = Bounds(),  # noqa: B008 (immutable)
        reject: Reject = "drain",
        users: tuple[str, ...] = (),
    ) -> None:
        passwords = [(name, f"the password of {name}") for name in users]
        self.cipher = Cipher.from_password(method, PASSWORDS.get(method, "correct horse"), passwords)
        self.of_user = {name: Cipher.from_password(method, password) for name, password in passwords}
        networks = [ipaddress.ip_network(text) for text in forbidden]
        self.service = Service(
            self.cipher,
            clock=lambda: NOW,
            random=random.Random(99).randbytes,
            salts=self.cipher.replay_memory().streams,
            segmented_header=segmented,
            gate=Gate(networks, rules),
            reject=reject,
        )
        make_handler = functools.partial(ServerHandler, service=self.service)
        limits = limits._replace(handshake=HANDSHAKE)
        super().__init__(monkeypatch, make_handler, limits=limits, bounds=bounds)

    def client(self, target: Address, seed: int = 1, user: str | None = None) -> Client:
        return Client(self.cipher if user is None else self.of_user[user], target, seed)

    def ask(self, data: bytes, sock: FakeSocket | None = None) -> tuple[FakeSocket, Any]:
        """Accept a connection on which ``data`` arrives."""
        sock, handler = self.connect(sock)
        sock.arrive(data)
        self.settle()
        return sock, handler

    def reach(self, target: FakeSocket | None = None) -> FakeSocket:
        """Let the dial under way succeed."""
        target = self.dialer.last.succeed(target)
        self.settle()
        return target


def streaming(world: ServerWorld, payload: bytes = b"hello") -> tuple[Client, FakeSocket, Any, FakeSocket]:
    """A client's codec, its socket, the handler, and the target that was reached."""
    client = world.client(TARGET)
    sock, handler = world.ask(client.first(payload))
    target = world.reach()
    assert target.take() == payload
    return client, sock, handler, target
