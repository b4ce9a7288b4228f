"""Access rules of a ``dns`` local: a resolver behind the server, one nearby, and names asked of neither."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from tests import dns_messages as dns
from tests.e2e.clients import TIMEOUT, dial, receive_exactly
from tests.fakedns import FakeDNS
from tests.processes import Pair, free_port
from tests.udp_targets import datagram_socket

RULES = """
[proxy_all]
[bypass_list]
||lan.test
192.168.0.0/16
[outbound_block_list]
||ads.test
"""
FAR, NEAR = "192.0.2.1", "192.0.2.2"  # the answers of the one resolver and of the other
WIRE = {FAR: b"\xc0\0\x02\x01", NEAR: b"\xc0\0\x02\x02"}


def resolver_that_says(address: str) -> FakeDNS:
    server = FakeDNS()
    for name in ("www.test", "nas.lan.test", "www.ads.test"):
        server.add(name, address, ttl=300)
    return server


@pytest.fixture
def far() -> Iterator[FakeDNS]:
    with resolver_that_says(FAR) as server:
        yield server


@pytest.fixture
def near() -> Iterator[FakeDNS]:
    with resolver_that_says(NEAR) as server:
        yield server


@pytest.fixture
def start(start_pair, far, near, tmp_path) -> Callable[..., tuple[Pair, int]]:
    """Start a pair with a ``dns`` local between the two; return it with the local's port."""
    acl = tmp_path / "rules.acl"
    acl.write_text(RULES)

    def start(**more: object) -> tuple[Pair, int]:
        port = free_port()
        entry = {"protocol": "dns", "local_address": "127.0.0.1", "local_port": port, "target": far.server}
        entry |= {"local_dns_address": near.host, "local_dns_port": near.port, **more}
        pair = start_pair(local_config={"acl": str(acl), "locals": [entry]})
        pair.local.wait_ready()
        return pair, port

    return start


def ask(port: int, name: str) -> bytes:
    with datagram_socket() as sock:
        sock.settimeout(TIMEOUT)
        sock.sendto(dns.query(name), ("127.0.0.1", port))
        return sock.recv(4096)


def test_each_name_is_asked_where_it_belongs(start, far, near):
    _, port = start()
    for _ in range(2):
        assert WIRE[FAR] in ask(port, "www.test")
        assert WIRE[NEAR] in ask(port, "nas.lan.test")
        assert ask(port, "www.ads.test") == dns.response(dns.question("www.ads.test"), rcode=3)
    assert far.queries == [("www.test", "A", "udp")]
    assert near.queries == [("nas.lan.test", "A", "udp")]


def test_what_bypasses_needs_no_server(start, near):
    pair, port = start()
    pair.server.stop()
    assert WIRE[NEAR] in ask(port, "nas.lan.test")


def test_a_resolver_nearby_that_is_silent_is_not_made_up_for(start, far, near):
    """SERVFAIL, and the name is not told to the other one."""
    near.add("nas.lan.test", silent=True)
    _, port = start()
    assert ask(port, "nas.lan.test")[3] & 0x0F == 2
    assert far.queries == []


def test_over_tcp_everything_goes_through_the_server(start, far, near):
    """As config.yaml says: a connection is not looked into."""
    _, port = start()
    message = dns.query("nas.lan.test")
    with dial(port) as sock:
        sock.sendall(len(message).to_bytes(2, "big") + message)
        answer = receive_exactly(sock, int.from_bytes(receive_exactly(sock, 2), "big"))
    assert WIRE[FAR] in answer
    assert (far.queries, near.queries) == ([("nas.lan.test", "A", "tcp")], [])
