"""Row M5: DNS through a ``tunnel`` and through the ``dns`` local, over UDP and TCP; and 1,000 UDP flows.

The resolver is one of the test's own, which only ssserver can be told to ask.
"""

from __future__ import annotations

import ipaddress
import os
import socket
import struct
from collections.abc import Callable, Iterator

import pytest

from tests import dns_messages as dns
from tests.e2e.clients import TIMEOUT, dial, receive_exactly
from tests.fakedns import FakeDNS
from tests.processes import Pair, free_port
from tests.udp_targets import datagram_socket
from tests.waiting import wait_until

FLOWS = 1_000
ABREAST = 50  # flows that begin at one time
UDP_TIMEOUT = 2  # seconds
GROWTH = 1024 * 1024  # bytes
PROTOCOLS = ("tunnel", "dns")
Ask = Callable[..., bytes]


@pytest.fixture
def resolver() -> Iterator[FakeDNS]:
    with FakeDNS() as server:
        server.add("www.test", "192.0.2.1", "192.0.2.2", "2001:db8::1", ttl=300)
        yield server


@pytest.fixture
def start_way(start_pair, resolver) -> Callable[..., tuple[Pair, int]]:
    """Start a pair with a local that leads to the resolver; return it with the local's port."""

    def start(protocol: str, **options: object) -> tuple[Pair, int]:
        port = free_port()
        local = {"protocol": protocol, "local_address": "127.0.0.1", "local_port": port}
        pair = start_pair(local_config={"locals": [{**local, "target": resolver.server}]}, **options)
        pair.local.wait_ready()
        return pair, port

    return start


def ask_udp(port: int, message: bytes, timeout: float = TIMEOUT) -> bytes:
    with datagram_socket() as sock:
        sock.settimeout(timeout)
        sock.sendto(message, ("127.0.0.1", port))
        answer, peer = sock.recvfrom(4096)
        assert peer == ("127.0.0.1", port)
        return answer


def ask_tcp(port: int, message: bytes) -> bytes:
    with dial(port) as sock:
        return ask_on(sock, message)


def ask_on(sock: socket.socket, message: bytes) -> bytes:
    sock.sendall(len(message).to_bytes(2, "big") + message)
    return receive_exactly(sock, int.from_bytes(receive_exactly(sock, 2), "big"))


def addresses(answer: bytes, number: int = 0x1234) -> set[str]:
    """Return the addresses of a good answer to a question as ``dns.query`` makes them."""
    assert answer[:2] == number.to_bytes(2, "big")
    flags, questions, count = struct.unpack_from(">HHH", answer, 2)
    assert flags & dns.QR
    assert flags & 0x0F == 0
    assert questions == 1
    at = answer.index(b"\0", 12) + 5
    found = set()
    for _ in range(count):
        at = at + 2 if answer[at] >= 0xC0 else answer.index(b"\0", at) + 1
        kind, _, _, size = struct.unpack_from(">HHIH", answer, at)
        if kind in (dns.A, dns.AAAA):
            found.add(str(ipaddress.ip_address(answer[at + 10 : at + 10 + size])))
        at += 10 + size
    return found


def ttls(answer: bytes) -> int:
    """Return the TTL of the first record, whose name is a pointer or as in the question."""
    at = answer.index(b"\0", 12) + 5
    at = at + 2 if answer[at] >= 0xC0 else answer.index(b"\0", at) + 1
    return int(struct.unpack_from(">I", answer, at + 4)[0])


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_m5_questions_are_answered(start_way, resolver, protocol, method):
    """Both kinds of address, over UDP and TCP, and what does not exist; the id is the client's own."""
    _, port = start_way(protocol, method=method)
    for ask in (ask_udp, ask_tcp):
        for number in (0x1234, 0, 0xFFFF):
            answer = ask(port, dns.query("www.test", number=number))
            assert addresses(answer, number) == {"192.0.2.1", "192.0.2.2"}
        assert addresses(ask(port, dns.query("www.test", dns.AAAA))) == {"2001:db8::1"}
        assert ask(port, dns.query("nowhere.test"))[3] & 0x0F == 3


@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_m5_many_questions_on_one_connection(start_way, protocol):
    _, port = start_way(protocol)
    with dial(port) as sock:
        for number in range(20):
            answer = ask_on(sock, dns.query("www.test", number=number))
            assert addresses(answer, number) == {"192.0.2.1", "192.0.2.2"}


def test_the_dns_local_remembers(start_way, resolver):
    """A hundred clients, one question to the resolver; the time left is told, and the spelling is theirs."""
    _, port = start_way("dns")
    first = ask_udp(port, dns.query("www.test"))
    assert ttls(first) == 300
    for number in range(100):
        name = "".join(letter.upper() if number >> at & 1 else letter for at, letter in enumerate("www.test"))
        answer = ask_udp(port, dns.query(name, number=number))
        assert addresses(answer, number) == {"192.0.2.1", "192.0.2.2"}
        assert dns.name(name) in answer
        assert 290 <= ttls(answer) <= 300
    assert resolver.count("www.test") == 1


def test_the_dns_local_forgets_when_it_is_time(start_way, resolver):
    """A TTL of one second is one second."""
    resolver.add("soon.test", "192.0.2.3", ttl=1)
    _, port = start_way("dns")
    assert addresses(ask_udp(port, dns.query("soon.test"))) == {"192.0.2.3"}
    resolver.add("soon.test", "192.0.2.4", ttl=1)
    wait_until(lambda: addresses(ask_udp(port, dns.query("soon.test"))) == {"192.0.2.4"}, timeout=5.0)
    assert resolver.count("soon.test") >= 2


def test_w16_a_lost_question_is_asked_again(start_way, resolver):
    """Nobody but the ``dns`` local does that for its clients: a tunnel is only a way."""
    resolver.add("lost.test", "192.0.2.5", drop=1)
    _, port = start_way("dns")
    assert addresses(ask_udp(port, dns.query("lost.test"))) == {"192.0.2.5"}
    assert resolver.count("lost.test") == 2


def test_w14_a_forged_answer_is_not_believed(start_way, resolver):
    """Another id, another port, another question: the real answer comes after it, and counts."""
    _, port = start_way("dns")
    for forge in ("id", "port", "question"):
        resolver.add(f"{forge}.test", "192.0.2.6", forge=forge)
        assert addresses(ask_udp(port, dns.query(f"{forge}.test"))) == {"192.0.2.6"}
        assert addresses(ask_udp(port, dns.query(f"{forge}.test"))) == {"192.0.2.6"}


def test_a_truncated_answer_sends_the_client_to_tcp(start_way, resolver):
    resolver.add("long.test", "192.0.2.7", truncate=True)
    _, port = start_way("dns")
    answer = ask_udp(port, dns.query("long.test"))
    assert int.from_bytes(answer[2:4], "big") & dns.TC
    assert addresses(ask_tcp(port, dns.query("long.test"))) == {"192.0.2.7"}


def test_k4_what_is_no_question(start_way):
    """Random bytes at the ``dns`` local, questions in between: never an answer that asks for another."""
    pair, port = start_way("dns")
    with datagram_socket() as sock:
        sock.settimeout(TIMEOUT)
        good = dns.query("www.test", number=0x4242)
        for number in range(500):
            size = number % 60
            sock.sendto(os.urandom(size), ("127.0.0.1", port))
            sock.sendto(good[:size], ("127.0.0.1", port))
            if number % 25 == 0:
                sock.sendto(good, ("127.0.0.1", port))
                while (answer := sock.recv(4096))[:2] != b"\x42\x42" or answer[3] & 0x0F:
                    assert answer[2] & 0x80  # a response, as every refusal is
    assert pair.local.running


# -- 1,000 flows -----------------------------------------------------------------------------------
