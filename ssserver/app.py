"""``ServerApp``: one TCP relay and one UDP port per configured server, with one cipher for both."""

from __future__ import annotations

import functools
import os
import time

from common.app import RelayApp
from common.crypto import Cipher
from common.net.sockets import bind_datagrams, listen
from common.proto.address import Address
from ssserver.gate import Gate
from ssserver.tcp import MAX_DRAINS, ServerHandler, Service
from ssserver.udp import ServerUDP

JITTER = 0.2  # of the handshake time, drawn once per process: processes differ, connections do not


class ServerApp(RelayApp):
    """One ssserver process."""

    def open(self) -> None:
        config = self.config
        jitter = 1.0 + JITTER * os.urandom(1)[0] / 255
        drains: dict[ServerHandler, None] = {}
        for server in config.servers:
            users = [(user.name, user.password.reveal()) for user in server.users]
            cipher = Cipher.from_password(server.method, server.password.reveal(), users)
            gate = Gate(config.forbidden_ip, self.access_rules(server.acl))
            address = server.address
            if server.mode != "udp_only":
                service = Service(
                    cipher,
                    clock=time.time,
                    random=os.urandom,
                    salts=cipher.replay_filter(),
                    handshake_seconds=config.timeout * jitter,
                    segmented_header=config.segmented_header,
                    gate=gate,
                    drains=drains,
                    max_drains=min(MAX_DRAINS, max(1, self.max_connections // 4)),
                )
                listener = listen(address)
                address = Address(address.host, listener.getsockname()[1])  # UDP has the port TCP got
                self.relay(listener, functools.partial(ServerHandler, service=service))
            if server.mode != "tcp_only":
                sock = bind_datagrams(address)
                port = ServerUDP(
                    self.loop,
                    sock,
                    cipher.server_packets(clock=time.time, random=os.urandom),
                    associations=self.associations,
                    resolver=self.resolver,
                    gate=gate,
                    counters=self.counters,
                )
                self.serve_datagrams(sock, port)
