"""Rows S3, S4, H9 and faults W5, W6, W14-W23: where ssserver goes, and where it refuses to go.

Every name is answered by a DNS server of the test's own, on loopback.
"""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Iterator

import pytest

from tests.e2e.clients import (
    TIMEOUT,
    dial,
    ends,
    get,
    open_tunnel,
    receive_exactly,
    socks5_reply,
    socks5_request,
)
from tests.fakedns import FakeDNS
from tests.origin import echo, serve
from tests.processes import Pair
from tests.sip004 import Client, address
from tests.waiting import wait_until

PROMPT = 2.0  # seconds for what takes 0.2 on a machine of one's own


@pytest.fixture
def dns() -> Iterator[FakeDNS]:
    with FakeDNS() as server:
        yield server


def reach(pair: Pair, host: str, port: int, timeout: float = TIMEOUT) -> bool:
    """Whether an echo at ``host:port`` answers through the pair, rather than the stream ending."""
    with dial(pair.local_port) as sock:
        sock.settimeout(timeout)
        sock.sendall(b"\x05\x01\x00" + socks5_request(host, port) + b"ping")
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[1] == 0
        with contextlib.suppress(EOFError, ConnectionResetError):
            return receive_exactly(sock, 4) == b"ping"
        return False


# -- S3: forbidden_ip -----------------------------------------------------------------------------

INSIDE = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",
    "::",
    "::1",
    "::ffff:127.0.0.1",
    "::ffff:0.0.0.0",
    "169.254.169.254",
    "10.0.0.1",
    "172.16.0.1",
    "192.168.1.1",
    "100.64.0.1",
    "224.0.0.1",
    "255.255.255.255",
    "fe80::1",
    "fd00::1",
    "ff02::1",
]
TRICKY = ["localhost", "LOCALHOST", "localhost.", "127.1", "0x7f.0.0.1", "2130706433", "0177.0.0.1"]


@pytest.fixture
def strict(start_pair, dns) -> Pair:
    """A pair whose server has the default rules."""
    return start_pair(server_config={"dns": dns.server, "forbidden_ip": None})


def refused_at_once(pair: Pair, host: str, port: int) -> None:
    started = time.monotonic()
    assert not reach(pair, host, port)
    assert time.monotonic() - started < PROMPT


def test_s3_w6_the_servers_own_networks_are_forbidden(strict):
    with serve(echo) as origin:
        for host in INSIDE:
            refused_at_once(strict, host, origin.port)
        assert origin.accepted == 0


def test_s3_w5_spellings_of_loopback_and_names(strict, dns):
    """After resolution, whatever the name; W5: at once, not at the timeout."""
    dns.add("inside.test", "127.0.0.1")
    dns.add("mapped.test", "::ffff:127.0.0.1")
    dns.add("private.test", "10.0.0.1", "fd00::1")
    dns.add("alias.test", "127.0.0.1", cnames=("inside.test",))
    with serve(echo) as origin:
        for host in (*TRICKY, "inside.test", "mapped.test", "private.test", "alias.test"):
            refused_at_once(strict, host, origin.port)
        assert origin.accepted == 0


def test_s3_literals_written_as_names_are_literals(strict):
    """ATYP 3 carrying "127.0.0.1" is that address for the rules, too (protocol.md 1.2)."""
    with serve(echo) as origin:
        for text in (b"127.0.0.1", b"::1", b"::ffff:127.0.0.1"):
            header = b"\x03" + bytes([len(text)]) + text + origin.port.to_bytes(2, "big")
            with dial(strict.server_port) as sock:
                sock.sendall(Client(strict.password).flight(header + b"ping"))
                assert ends(sock, PROMPT)
        assert origin.accepted == 0


def test_s3_a_list_of_ones_own(start_pair):
    """Only what is listed is forbidden; a bare address is that address (W6: not /8, not /7)."""
    pair = start_pair(server_config={"forbidden_ip": ["127.0.0.2", "127.1.0.0/16"]})
    with serve(echo, "0.0.0.0") as origin:
        assert reach(pair, "127.0.0.1", origin.port)
        assert reach(pair, "127.0.0.3", origin.port)
        assert not reach(pair, "127.0.0.2", origin.port)
        assert not reach(pair, "127.1.2.3", origin.port)
        assert not reach(pair, "::ffff:127.0.0.2", origin.port)


def test_port_zero_is_refused(pair):
    with dial(pair.server_port) as sock:
        sock.sendall(Client(pair.password).flight(address("127.0.0.1", 0) + b"ping"))
        sock.shutdown(socket.SHUT_WR)
        assert ends(sock)


# -- S4: what DNS can do ------------------------------------------------------------------------------


@pytest.fixture
def named(start_pair, dns) -> Pair:
    """A pair whose server asks ``dns``, loopback allowed."""
    return start_pair(server_config={"dns": dns.server, "connect_timeout": 3})


@pytest.mark.parametrize(
    ("told", "what"),
    [
        ({}, "plain"),
        ({"drop": 1}, "W16: the first datagrams lost"),
        ({"forge": "id"}, "W14: a forged answer with another ID"),
        ({"forge": "port"}, "W14: a forged answer from another port"),
        ({"forge": "question"}, "W14: a forged answer to another question"),
        ({"truncate": True}, "W22: truncated, asked again over TCP"),
        ({"cnames": ("one.test", "two.test", "three.test")}, "a chain of canonical names"),
        ({"delay": 0.3}, "slow"),
    ],
    ids=lambda value: value.split(":")[0].replace(" ", "-") if isinstance(value, str) else "",
)
def test_s4_names_are_resolved_in_spite_of(named, dns, told, what):
    dns.add("target.test", "127.0.0.1", **told)
    with serve(echo) as origin:
        assert reach(named, "target.test", origin.port), what


@pytest.mark.parametrize(
    ("told", "limit"),
    [
        ({"rcode": 3}, PROMPT),
        ({"rcode": 2}, 15.0),
        ({"rcode": 5}, 15.0),
        ({"loop": True}, 15.0),
        ({"silent": True}, 20.0),
    ],
    ids=["nxdomain", "servfail", "refused", "W21-pointer-loop", "W16-silence"],
)
def test_s4_names_that_do_not_resolve_end_the_stream(named, dns, told, limit):
    dns.add("target.test", **told)
    started = time.monotonic()
    assert not reach(named, "target.test", 80)
    assert time.monotonic() - started < limit


def test_s4_h7_a_bad_domain_is_502_with_its_cause(named):
    response = get(named.local_port, "http://nowhere.test/")
    assert response.status == 502
    assert b"resolve" in response.body


def test_s4_w17_the_next_address_when_the_first_is_dead(named, dns):
    """Refused on one address, reached on another: of both families, in any order."""
    dns.add("half.test", "127.0.0.77", "127.0.0.1")
    dns.add("mixed.test", "::1", "127.0.0.1")
    with serve(echo) as origin:
        assert reach(named, "half.test", origin.port)
        assert reach(named, "mixed.test", origin.port)


def test_s4_only_one_family_answers(named, dns):
    """A answers, AAAA never does: no waiting for it (RFC 8305)."""
    dns.add("lopsided.test", "127.0.0.1")
    dns.add("lopsided.test", kind="AAAA", silent=True)
    with serve(echo) as origin:
        started = time.monotonic()
        assert reach(named, "lopsided.test", origin.port)
        assert time.monotonic() - started < PROMPT


def test_s4_w18_the_cache_honours_the_ttl(named, dns):
    """A long TTL is asked once; a TTL of one second is asked again after it, however often used."""
    dns.add("long.test", "127.0.0.1", ttl=300)
    dns.add("short.test", "127.0.0.1", ttl=1)
    with serve(echo) as origin:
        for _ in range(5):
            assert reach(named, "long.test", origin.port)
        assert dns.count("long.test", "A") == 1
        assert reach(named, "short.test", origin.port)
        assert dns.count("short.test", "A") == 1

        def asked_again() -> bool:
            assert reach(named, "short.test", origin.port)
            return dns.count("short.test", "A") == 2

        wait_until(asked_again, timeout=15.0)


def test_s4_one_question_for_many_waiters(named, dns):
    dns.add("popular.test", "127.0.0.1", delay=0.5)
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        socks = []
        for _ in range(20):
            sock = stack.enter_context(dial(named.local_port))
            sock.sendall(b"\x05\x01\x00" + socks5_request("popular.test", origin.port) + b"ping")
            socks.append(sock)
        for sock in socks:
            assert receive_exactly(sock, 16)[-4:] == b"ping"
    assert dns.count("popular.test", "A") == 1


def test_s4_w20_a_late_answer_revives_nobody(named, dns):
    """Clients that left before the answer came: no connection is made for them."""
    dns.add("late.test", "127.0.0.1", delay=0.5)
    dns.add("later.test", "127.0.0.1", delay=0.8)
    with serve(echo) as origin:
        for _ in range(2):
            with dial(named.local_port) as sock:
                sock.sendall(b"\x05\x01\x00" + socks5_request("late.test", origin.port) + b"ping")
                wait_until(lambda: dns.count("late.test"))
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        assert reach(named, "later.test", origin.port)
        assert origin.accepted == 1


def test_h9_w23_a_name_without_answer_delays_nobody_else(named, dns):
    """In both programs: for a target, and (below) for the server's own name."""
    dns.add("never.test", silent=True)
    dns.add("works.test", "127.0.0.1")
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        for _ in range(20):
            sock = stack.enter_context(dial(named.local_port))
            sock.sendall(b"\x05\x01\x00" + socks5_request("never.test", 80) + b"ping")
        wait_until(lambda: dns.count("never.test"))
        for host in ("127.0.0.1", "works.test"):
            started = time.monotonic()
            assert reach(named, host, origin.port)
            assert time.monotonic() - started < 0.5


def test_w23_the_servers_own_name_is_resolved_without_blocking(start_pair, dns):
    """sslocal is told a name for its server, and ``dns`` to ask."""
    dns.add("server.test", "127.0.0.77", "127.0.0.1")
    pair = start_pair(local_config={"server": "server.test", "dns": dns.server})
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_w23_a_server_name_that_never_resolves_is_told(start_pair, dns):
    """While it is looked up the front still takes clients; then 502 or 504."""
    dns.add("server.test", silent=True)
    pair = start_pair(local_config={"server": "server.test", "dns": dns.server, "connect_timeout": 2})
    with dial(pair.local_port) as waiting:
        waiting.sendall(b"CONNECT example.test:80 HTTP/1.1\r\nHost: a\r\n\r\n")
        wait_until(lambda: dns.count("server.test"))
        with dial(pair.local_port) as sock:
            sock.sendall(b"\x05\x01\x00")
            assert receive_exactly(sock, 2) == b"\x05\x00"
        assert receive_exactly(waiting, 12) in (b"HTTP/1.1 502", b"HTTP/1.1 504")
