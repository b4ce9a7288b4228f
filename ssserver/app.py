"""``ServerApp``: one TCP relay and one UDP port per configured server, with one cipher for both."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable, Iterator
from socket import socket
from typing import TYPE_CHECKING

from common.app import RelayApp
from common.config.schema import Config, Server
from common.crypto import Cipher, ReplayMemory
from common.net.bound import BoundSockets, bound_to
from common.net.loop import EventLoop
from common.net.sockets import bind_datagrams, listen
from common.proto.address import Address
from ssserver.gate import Gate
from ssserver.tcp import ServerHandler, Service
from ssserver.udp import ServerUDP

if TYPE_CHECKING:
    from common.shared import Shared

JITTER = 0.2  # of the handshake time, at most
# Drawn when the program starts: programs differ. Its connections, workers and reloads do not, so that
# nobody can count them.
_PATIENCE = 1.0 + JITTER * os.urandom(1)[0] / 255


class ServerApp(RelayApp):
    """One ssserver process."""

    def __init__(self, config: Config, loop: EventLoop | None = None) -> None:
        super().__init__(config, loop)
        self.limits = self.limits._replace(handshake=config.timeout * _PATIENCE)
        # Not forgotten by a reload. It goes by the address, since keys and users may change there; what was
        # taken with one method cannot be replayed with another.
        self._memories: dict[tuple[Address | str, str], ReplayMemory] = {}

    def open(self) -> None:
        config = self.config
        for server, listener, datagrams in bind(config, self.sockets):
            sock = listener or datagrams
            if sock is None:
                continue  # it is another worker's
            users = [(user.name, user.password.reveal()) for user in server.users]
            cipher = self.cipher(server, users)
            gate = Gate(config.forbidden_ip, self.access_rules(server.acl))
            memory = self._memory_of(server, cipher, sock)
            if listener is not None:
                service = Service(
                    cipher,
                    clock=time.time,
                    random=os.urandom,
                    salts=memory.streams,
                    segmented_header=config.segmented_header,
                    gate=gate,
                    reject=config.reject,
                )
                self.relay(listener, functools.partial(ServerHandler, service=service))
            if datagrams is not None:
                port = ServerUDP(
                    self.loop,
                    datagrams,
                    cipher.server_packets(clock=time.time, random=os.urandom, memory=memory),
                    associations=self.associations,
                    resolver=self.resolver,
                    gate=gate,
                    counters=self.counters,
                    source_of=self._admission.source_of,
                )
                self.serve_datagrams(datagrams, port)

    @classmethod
    def prepare(cls, config: Config, shared: Shared) -> None:
        """See ``RelayApp``. What every server remembers is in common, too."""
        for server, _, _ in bind(config, shared.sockets):
            shared.add_memory(server)

    def inherit(self, predecessor: RelayApp) -> None:
        """See ``RelayApp``."""
        super().inherit(predecessor)
        assert isinstance(predecessor, ServerApp)
        self._memories = dict(predecessor._memories)

    def retire(self, done: Callable[[], None]) -> None:
        """See ``RelayApp``. A session without its port can answer nobody."""
        super().retire(done)
        self.associations.close()

    def _memory_of(self, server: Server, cipher: Cipher, sock: socket) -> ReplayMemory:
        shared = self.shared.memory(server) if self.shared is not None else None
        if shared is not None:
            return shared
        key = (bound_to(sock), cipher.method.name)
        if key not in self._memories:
            self._memories[key] = cipher.replay_memory()
        return self._memories[key]


def bind(config: Config, sockets: BoundSockets) -> Iterator[tuple[Server, socket | None, socket | None]]:
    """Yield each server with its TCP and its UDP socket, as far as it has them in this process."""
    for server in config.servers:
        address, listener, datagrams = server.address, None, None
        if server.mode != "udp_only":
            listener = sockets.listen(listen, address)
            if listener is not None:
                address = Address(address.host, listener.getsockname()[1])  # UDP has the port TCP got
        if server.mode != "tcp_only":
            datagrams = sockets.datagrams(bind_datagrams, address)
        yield server, listener, datagrams
