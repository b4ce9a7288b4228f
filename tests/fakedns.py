"""A DNS server on loopback that does what it is told, UDP and TCP on one port, in a thread.

    with FakeDNS() as dns:
        dns.add("a.test", "192.0.2.1", "2001:db8::1", ttl=60)
        dns.add("half.test", "192.0.2.2")
        dns.add("half.test", kind="AAAA", silent=True)        # A answers, AAAA never does
        resolver = Resolver(loop, [dns.server])
        ...
        assert dns.count("a.test", "A") == 1

A name nobody added does not exist (NXDOMAIN). What can be told is in ``Rule``.
"""

from __future__ import annotations

import contextlib
import heapq
import ipaddress
import itertools
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

KINDS = {1: "A", 28: "AAAA"}
CNAME = 5
NOERROR, SERVFAIL, NXDOMAIN, REFUSED = 0, 2, 3, 5
FORGED = "192.0.2.66"  # the address a forged answer carries
LOOPED_NAME = b"\xc0\x0c"  # a compression pointer at offset 12, where the question's name should be


@dataclass
class Rule:
    """How questions about one name, or about one name and kind, are answered."""

    addresses: tuple[str, ...] = ()
    ttl: int = 60
    cnames: tuple[str, ...] = ()  # the chain of canonical names before the addresses
    cname_ttl: int = 60
    rcode: int = NOERROR
    drop: int = 0  # datagrams to lose before the first answer
    delay: float = 0.0  # seconds before the answer
    silent: bool = False  # never answer
    forge: str = ""  # first a forged answer with another "id", "port" or "question"
    loop: bool = False  # answer with a name that points at itself
    truncate: bool = False  # over UDP say "truncated", over TCP answer
    asked: dict[str, int] = field(default_factory=dict)


class FakeDNS:
    """``port`` is bound when constructed, a free one for 0; questions are answered inside the with block.

    ``queries`` lists what was asked, as (name, kind, "udp" or "tcp").
    """

    def __init__(self, host: str = "127.0.0.1", port: int = 0) -> None:
        self.host = host
        self.queries: list[tuple[str, str, str]] = []
        self._rules: dict[tuple[str, str], Rule] = {}
        self._udp, self._tcp = _bind_both(host, port)
        self.port: int = self._udp.getsockname()[1]
        self._selector = selectors.DefaultSelector()
        self._wake, self._woken = socket.socketpair()
        self._later: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._thread = threading.Thread(target=self._serve, name="fakedns", daemon=True)

    @property
    def server(self) -> str:
        """The address as a resolver's ``servers`` wants it."""
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"

    def add(self, name: str, *addresses: str, kind: str = "", **told: object) -> None:
        """Answer for ``name``, or only for its ``kind`` ("A" or "AAAA"), from now on."""
        self._rules[name, kind] = Rule(addresses, **told)

    def count(self, name: str, kind: str = "") -> int:
        """How often ``name`` was asked for, over UDP and TCP."""
        return sum(1 for asked, of, _ in list(self.queries) if asked == name and kind in ("", of))

    def __enter__(self) -> FakeDNS:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._wake.close()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            key.fileobj.close()
        self._selector.close()

    def _serve(self) -> None:
        self._selector.register(self._udp, selectors.EVENT_READ, self._on_datagram)
        self._selector.register(self._tcp, selectors.EVENT_READ, self._on_client)
        self._selector.register(self._woken, selectors.EVENT_READ, None)
        while True:
            left = max(0.0, self._later[0][0] - time.monotonic()) if self._later else None
            for key, _ in self._selector.select(left):
                if key.data is None:
                    return
                key.data()
            while self._later and self._later[0][0] <= time.monotonic():
                heapq.heappop(self._later)[2]()

    def _on_datagram(self) -> None:
        with contextlib.suppress(OSError):
            query, peer = self._udp.recvfrom(4096)
            self._answer(query, "udp", lambda answer: self._udp.sendto(answer, peer), peer)

    def _on_client(self) -> None:
        conn, _ = self._tcp.accept()
        conn.settimeout(5.0)
        received = bytearray()

        def on_bytes() -> None:
            data = conn.recv(4096)
            received.extend(data)
            if not data:
                self._selector.unregister(conn)
                conn.close()
            while len(received) >= 2 and len(received) >= 2 + int.from_bytes(received[:2], "big"):
                size = int.from_bytes(received[:2], "big")
                query = bytes(received[2 : 2 + size])
                del received[: 2 + size]
                self._answer(query, "tcp", lambda answer: conn.sendall(_u16(len(answer)) + answer))

        self._selector.register(conn, selectors.EVENT_READ, on_bytes)

    def _answer(
        self,
        query: bytes,
        transport: str,
        send: Callable[[bytes], object],
        peer: tuple[str, int] | None = None,
    ) -> None:
        name, end = _read_name(query)
        kind = KINDS.get(int.from_bytes(query[end : end + 2], "big"), "?")
        question = query[12 : end + 4]
        self.queries.append((name, kind, transport))
        rule = self._rules.get((name, kind)) or self._rules.get((name, "")) or Rule(rcode=NXDOMAIN)
        asked = rule.asked[kind] = rule.asked.get(kind, 0) + 1
        if asked <= rule.drop:
            return
        if rule.forge and peer:
            self._send_forgery(rule.forge, query, question, kind, peer)
        if rule.silent:
            return
        if rule.loop:
            answer = _header(query, rule.rcode, 0x8180, 1) + LOOPED_NAME + question[-4:]
            answer += LOOPED_NAME + _record(_kind_number(kind), 60, b"")
        elif rule.truncate and transport == "udp":
            answer = _header(query, NOERROR, 0x8380, 0) + question
        else:
            records = _records(name, kind, rule)
            answer = _header(query, rule.rcode, 0x8180, len(records)) + question + b"".join(records)
        if rule.delay:
            self._call_later(rule.delay, lambda: send(answer))
        else:
            send(answer)

    def _send_forgery(
        self, how: str, query: bytes, question: bytes, kind: str, peer: tuple[str, int]
    ) -> None:
        if how == "id":
            query = bytes((query[0] ^ 0xFF,)) + query[1:]
        if how == "question":
            question = _name("forged.test") + question[-4:]
        address = FORGED if kind == "A" else f"2001:db8::{FORGED}"
        record = LOOPED_NAME + _record(_kind_number(kind), 60, ipaddress.ip_address(address).packed)
        forgery = _header(query, NOERROR, 0x8180, 1) + question + record
        if how == "port":
            with socket.socket(self._udp.family, socket.SOCK_DGRAM) as stranger:
                stranger.sendto(forgery, peer)
        else:
            self._udp.sendto(forgery, peer)

    def _call_later(self, delay: float, callback: Callable[[], object]) -> None:
        def guarded() -> None:
            with contextlib.suppress(OSError):
                callback()

        heapq.heappush(self._later, (time.monotonic() + delay, next(self._numbers), guarded))


def _bind_both(host: str, port: int) -> tuple[socket.socket, socket.socket]:
    """Return a UDP and a listening TCP socket on one port, a free one for 0."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for _ in range(50):
        udp = socket.socket(family, socket.SOCK_DGRAM)
        tcp = socket.socket(family, socket.SOCK_STREAM)
        try:
            udp.bind((host, port))
            tcp.bind((host, udp.getsockname()[1]))
            tcp.listen()
        except OSError:
            udp.close()
            tcp.close()
        else:
            return udp, tcp
    raise OSError("no port is free for both UDP and TCP")


def _read_name(query: bytes) -> tuple[str, int]:
    """Return the question's name, in lower case, and where it ends."""
    labels, at = [], 12
    while query[at]:
        labels.append(query[at + 1 : at + 1 + query[at]].decode().lower())
        at += 1 + query[at]
    return ".".join(labels), at + 1


def _records(name: str, kind: str, rule: Rule) -> list[bytes]:
    """Return the answer section: the chain of canonical names, then the addresses of this kind."""
    records = []
    for target in rule.cnames:
        records.append(_name(name) + _record(CNAME, rule.cname_ttl, _name(target)))
        name = target
    for address in map(ipaddress.ip_address, rule.addresses):
        if KINDS[1 if address.version == 4 else 28] == kind:
            records.append(_name(name) + _record(_kind_number(kind), rule.ttl, address.packed))
    return records


def _header(query: bytes, rcode: int, flags: int, answers: int) -> bytes:
    return query[:2] + struct.pack(">5H", flags | rcode, 1, answers, 0, 0)


def _record(kind: int, ttl: int, data: bytes) -> bytes:
    return struct.pack(">HHIH", kind, 1, ttl, len(data)) + data


def _name(text: str) -> bytes:
    return b"".join(bytes((len(label),)) + label.encode() for label in text.split(".")) + b"\0"


def _kind_number(kind: str) -> int:
    return 1 if kind == "A" else 28


def _u16(number: int) -> bytes:
    return number.to_bytes(2, "big")
