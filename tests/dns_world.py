"""The ``dns`` local with its surroundings: the test plays the clients, ssserver and, where access rules
let names bypass it, a local resolver, on real loopback sockets.

Packets are not encrypted: the wire is the address and the payload. Time is the test's.
"""

from __future__ import annotations

import itertools
import socket
from collections import Counter

from common.acl.rules import AccessRules
from common.net.loop import EventLoop
from common.proto.address import Address, encode_address, parse_address
from common.relay.associations import Associations
from sslocal.dns import DNSServer
from sslocal.udp import UDPService
from sslocal.upstreams import Upstream, Upstreams
from tests.clock import FakeClock
from tests.dns_messages import numbered
from tests.driving import settle
from tests.fakes import FakeResolver

RESOLVER = Address("192.0.2.53", 53)
LOCALHOST = "127.0.0.1"


class PlainPackets:
    """A cipher whose packets anybody can read."""

    def client_packets(self, *, clock, random):
        return self

    def seal(self, target, payload):
        return encode_address(target) + payload

    def open(self, data):
        source, size = parse_address(data)
        return source, data[size:]


def udp_socket(port: int = 0) -> socket.socket:
    sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    sock.bind((LOCALHOST, port))
    sock.setblocking(False)
    return sock


def receive_all(sock):
    received = []
    while True:
        try:
            received.append(sock.recvfrom(65536))
        except BlockingIOError:
            return received


class Asked:
    """A question as it reached ssserver."""

    def __init__(self, world, data, link):
        self.world, self.link = world, link
        self.target, size = parse_address(data)
        self.message = data[size:]
        self.number = int.from_bytes(self.message[:2], "big")
        self.question = self.message[12:]  # and OPT, if any

    def answer(self, message, *, source=RESOLVER, number=None):
        """Send ``message`` as the response, with the id that was asked with."""
        message = numbered(message, self.number if number is None else number)
        self.world.server.sendto(encode_address(source) + message, self.link)
        settle(self.world.loop)


class AskedDirectly:
    """A question as it reached the local resolver."""

    def __init__(self, world, message, link):
        self.world, self.message, self.link = world, message, link
        self.number = int.from_bytes(message[:2], "big")

    def answer(self, message, *, sock=None, number=None):
        """Send ``message`` as the response, with the id that was asked with."""
        message = numbered(message, self.number if number is None else number)
        (sock or self.world.nearby).sendto(message, self.link)
        settle(self.world.loop)


class World:
    """With ``rules``, a text, there is a local resolver: ``nearby`` is its socket."""

    def __init__(self, resolver=RESOLVER, server_name=LOCALHOST, rules=None):
        self.clock = FakeClock()
        self.loop = EventLoop(self.clock)
        self.counters = Counter()
        self.server = udp_socket()
        self.nearby = udp_socket()
        self.clients = []
        upstream = Upstream(Address(server_name, self.server.getsockname()[1]), PlainPackets())
        self.names = FakeResolver()
        self.drawn = itertools.count(1)
        self.service = UDPService(
            self.loop,
            upstreams=Upstreams([upstream]),
            resolver=self.names,
            associations=Associations(self.loop, limit=10, timeout=300, counters=self.counters),
            clock=lambda: 1_700_000_000.0,
            random=lambda size: next(self.drawn).to_bytes(size, "big"),
            counters=self.counters,
            rules=AccessRules.parse(rules, "rules") if rules is not None else None,
        )
        local_dns = Address(*self.nearby.getsockname()) if rules is not None else None
        sock = udp_socket()
        self.address = sock.getsockname()
        self.dns = DNSServer(self.service, sock, resolver, local_dns)

    def client(self):
        self.clients.append(udp_socket())
        return self.clients[-1]

    def ask(self, *messages, client=None):
        """Send queries, from one client; what reached ssserver since the last time."""
        client = client or self.client()
        for message in messages:
            client.sendto(message, self.address)
            settle(self.loop, 3)
        return client, self.asked()

    def asked(self):
        settle(self.loop)
        return [Asked(self, data, link) for data, link in receive_all(self.server)]

    def asked_directly(self):
        settle(self.loop)
        return [AskedDirectly(self, data, link) for data, link in receive_all(self.nearby)]

    def replies(self, client):
        settle(self.loop)
        received = receive_all(client)
        assert {peer for _, peer in received} <= {self.address}
        return [data for data, _ in received]

    def ask_and_answer(self, message, answer):
        """One query, one question, one answer: the reply."""
        client, (asked,) = self.ask(message)
        asked.answer(answer)
        (reply,) = self.replies(client)
        return reply

    def pass_time(self, seconds):
        self.clock.advance(seconds)
        settle(self.loop)

    def check_quiet(self):
        """Nothing is left but the port itself."""
        assert self.loop.statistics() == {"watched": 1, "timers": 0}
        assert (self.dns._questions, self.dns._waiting) == ({}, 0)
        assert all(way is None or way.channel is None for way in (self.dns._relayed, self.dns._direct))

    def __enter__(self):
        return self

    def __exit__(self, *exc):
        self.dns.close()
        self.dns.close()
        assert self.loop.statistics() == {"watched": 0, "timers": 0}
        self.loop.close()
        for sock in (self.server, self.nearby, *self.clients):
            sock.close()
