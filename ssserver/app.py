"""``ServerApp``: one relay per configured server, each with its cipher and its replay memory."""

from __future__ import annotations

import functools
import os
import time

from common.app import RelayApp
from common.config.schema import IPNetwork
from common.crypto import Cipher
from common.proto.address import IPAddress
from ssserver.tcp import ServerHandler, Service

JITTER = 0.2  # of the handshake time, drawn once per process: processes differ, connections do not


class ServerApp(RelayApp):
    """One ssserver process."""

    def open(self) -> None:
        config = self.config
        jitter = 1.0 + JITTER * os.urandom(1)[0] / 255
        drains: dict[ServerHandler, None] = {}
        for server in config.servers:
            cipher = Cipher.from_password(server.method, server.password.reveal())
            service = Service(
                cipher,
                clock=time.time,
                random=os.urandom,
                salts=cipher.replay_filter(),
                handshake_seconds=config.timeout * jitter,
                segmented_header=config.segmented_header,
                is_forbidden=functools.partial(_within, config.forbidden_ip),
                drains=drains,
            )
            self.relay(server.address, functools.partial(ServerHandler, service=service))


def _within(networks: tuple[IPNetwork, ...], ip: IPAddress) -> bool:
    """True when ``ip`` is in one of ``networks``; an IPv4-mapped address counts as the IPv4 it carries."""
    plain = getattr(ip, "ipv4_mapped", None) or ip
    return any(plain in network for network in networks)
