"""Rows K3, S3 and S6 over UDP, and the flows people have: HTTP/3, STUN, names, IPv6, a NAT on the way."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.e2e.clients import dial, ends, open_tunnel, receive_exactly, socks5_reply, socks5_request
from tests.e2e.test_targets import INSIDE, TRICKY
from tests.e2e.udp_clients import Association, associate, stream
from tests.fakedns import FakeDNS
from tests.origin import echo, serve
from tests.processes import METHODS, Pair, Program, free_port, is_udp_bound
from tests.udp_targets import (
    OTHER_ADDRESS,
    RESPONSE_ORIGIN,
    XOR_MAPPED_ADDRESS,
    Nat,
    binding_request,
    burst,
    mirror,
    nat,
    serve_datagrams,
    serve_stun,
    stun_addresses,
    swallow,
)
from tests.waiting import wait_until

SIZES = (0, 1, 2, 3, 1200, 1472, 9000, 65_000)
HTTP3_DATAGRAMS, HTTP3_SIZE = 20_000, 1200
LATE = 2.0  # seconds for what takes 0.2 on a machine of one's own
SIP022 = "2022-blake3-aes-256-gcm"


def echoes(client: Association, target: tuple[str, int], sizes: tuple[int, ...] = SIZES) -> bool:
    """Whether datagrams of these sizes come back as they were, one after another."""
    payloads = [os.urandom(size) for size in sizes]
    return all(client.ask(target, payload) == payload for payload in payloads)


# -- K3 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [*METHODS, "none"])
def test_k3_echo_with_every_method(start_pair, method):
    """From 0 bytes to the largest; two targets see one source port."""
    pair = start_pair(method=method)
    with (
        serve_datagrams(mirror) as one,
        serve_datagrams(mirror) as other,
        associate(pair.local_port) as client,
    ):
        assert echoes(client, one.address)
        assert echoes(client, other.address)
        assert one.peers == other.peers
        assert len(one.peers) == 1


def test_k3_echo(pair):
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        assert echoes(client, target.address)


def test_k3_each_client_has_a_source_port_of_its_own(pair):
    with serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(associate(pair.local_port)) for _ in range(20)]
        for client in clients:
            client.send(target.address, b"%d" % client.relay[1])
        for client in clients:
            assert client.receive() == (target.address, b"%d" % client.relay[1])
        assert len(target.peers) == len(clients)


def test_k3_a_target_by_name(pair):
    """The server resolves it; the reply names the address it came from."""
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        client.send(("localhost", target.port), b"ping")
        assert client.receive() == (target.address, b"ping")


def test_k3_an_announced_port_is_the_only_one_heard(pair):
    """RFC 1928 section 6: the client may say where it will send from."""
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port, announced=True) as client,
        associate(pair.local_port) as other,
    ):
        other.sock.sendto(b"\0\0\0\1\x7f\0\0\1" + target.port.to_bytes(2, "big") + b"not ours", client.relay)
        assert echoes(client, target.address, (10,))
        assert target.received == 1


def test_k3_many_answers_to_one_datagram(pair):
    """All come, in order, from where they came: nothing pairs answers with questions."""
    with serve_datagrams(burst) as target, associate(pair.local_port) as client:
        client.send(target.address, (200).to_bytes(2, "big"))
        for number in range(200):
            assert client.receive() == (target.address, number.to_bytes(2, "big"))


def test_k3_mode_tcp_only_refuses_the_command(start_pair):
    """The client is told at once (07), rather than sending into nothing."""
    pair = start_pair(local_config={"mode": "tcp_only"})
    with dial(pair.local_port) as sock:
        sock.sendall(b"\x05\x01\x00" + socks5_request("0.0.0.0", 0, 3))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        assert socks5_reply(sock)[1] == 7
        assert ends(sock)


# -- IPv6 ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["aes-256-gcm", SIP022])
def test_udp_over_ipv6(start_pair, method):
    """Client, server and target; and a target of either family from one association."""
    pair = start_pair(host="::1", method=method)
    with (
        serve_datagrams(mirror, "::1") as six,
        serve_datagrams(mirror) as four,
        associate(pair.local_port, "::1") as client,
    ):
        assert client.relay[0] == "::1"
        assert echoes(client, six.address)
        assert echoes(client, four.address)


def test_udp_to_an_ipv6_target_over_ipv4(pair):
    with serve_datagrams(mirror, "::1") as target, associate(pair.local_port) as client:
        assert echoes(client, target.address)


def test_udp_through_wildcards(start_pair):
    """Both halves on ``::`` serve IPv4 and IPv6; the relay's address is one the client can reach."""
    pair = start_pair(local_config={"local_address": "::"}, server_config={"server": "::"})
    with serve_datagrams(mirror) as target:
        for host in ("127.0.0.1", "::1"):
            with associate(pair.local_port, host) as client:
                assert client.relay[0] == host
                assert echoes(client, target.address, (0, 1200))


# -- the flows people have ----------------------------------------------------------------------------


@pytest.mark.slow
def test_an_http3_sized_flow(pair, record_property):
    """20,000 datagrams of 1,200 bytes, a window of them under way: at most 1 % do not come back."""
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        started = time.monotonic()
        arrived = stream(client, target.address, HTTP3_DATAGRAMS, HTTP3_SIZE)
        record_property("seconds", time.monotonic() - started)
    lost = HTTP3_DATAGRAMS - arrived
    record_property("lost", lost)
    assert lost < HTTP3_DATAGRAMS // 100, lost


def test_stun(pair):
    """One mapped address whichever port is asked, and an answer from the other port says it is from there."""
    with serve_stun() as stun, associate(pair.local_port) as client:
        one, other = stun.addresses
        mapped = set()
        for asked, origin, change in ((one, one, False), (other, other, False), (one, other, True)):
            transaction = os.urandom(12)
            client.send(asked, binding_request(transaction, change_port=change))
            source, answer = client.receive()
            assert source == origin
            addresses = stun_addresses(answer, transaction)
            assert addresses[RESPONSE_ORIGIN] == origin
            assert addresses[OTHER_ADDRESS] == (other if asked == one else one)
            mapped.add(addresses[XOR_MAPPED_ADDRESS])
        assert len(mapped) == 1


def test_a_stranger_may_answer(pair):
    """Endpoint-independent filtering: what reaches the mapped port arrives, with its own source."""
    with (
        serve_datagrams(swallow) as known,
        serve_datagrams(mirror) as stranger,
        associate(pair.local_port) as client,
    ):
        client.send(known.address, b"hole")
        wait_until(lambda: known.peers)
        stranger.sock.sendto(b"hello", known.peers[0])
        assert client.receive() == (stranger.address, b"hello")


# -- a NAT on the way ------------------------------------------------------------------------------


@pytest.fixture
def behind_nat(start_pair) -> Iterator[Callable[..., tuple[Nat, Pair]]]:
    """Start a pair with a NAT for UDP between its halves."""
    with contextlib.ExitStack() as stack:

        def start(**options: object) -> tuple[Nat, Pair]:
            port = free_port()
            way = stack.enter_context(nat(port))
            return way, start_pair(server_port=port, dial_port=way.port, **options)

        yield start


@pytest.mark.parametrize("method", [SIP022, "2022-blake3-chacha20-poly1305"])
def test_sip022_a_session_outlives_its_source_port(behind_nat, method):
    """The client's address changes; the target sees nothing of it, and answers follow (SIP022 3.2)."""
    way, pair = behind_nat(method=method)
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        assert echoes(client, target.address, (10,))
        before = pair.server.descriptors()
        for _ in range(5):
            old = way.source
            way.rebind()
            assert way.source != old
            assert echoes(client, target.address, (10, 20))
        assert len(target.peers) == 1
        assert pair.server.descriptors() == before


def test_sip004_a_new_source_port_is_a_new_client(behind_nat):
    """There is no session on the wire: service goes on, from another port (SIP004)."""
    way, pair = behind_nat(method="aes-256-gcm")
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        assert echoes(client, target.address, (10,))
        way.rebind()
        assert echoes(client, target.address, (10, 20))
        assert len(target.peers) == 2


@pytest.mark.parametrize("method", ["chacha20-ietf-poly1305", SIP022, "2022-blake3-chacha20-poly1305"])
def test_s9_what_the_network_doubles_arrives_once(behind_nat, method):
    """Every datagram comes three times at either end; target and client see each once, and old ones never."""
    way, pair = behind_nat(method=method)
    way.copies = 3
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        assert echoes(client, target.address, (0, 1, 1200))
        way.copies = 1
        for old in list(way.sent):
            way.replay(old)
        for old in list(way.answered):
            way.inject(old)
        assert echoes(client, target.address, (10,))
        assert target.received == 4


# -- S3 --------------------------------------------------------------------------------------------


@pytest.fixture
def dns() -> Iterator[FakeDNS]:
    with FakeDNS() as server:
        yield server


def test_s3_w7_every_datagram_is_checked(start_pair, dns):
    """A forbidden target is refused, by number or by name, also when the association has an allowed one."""
    dns.add("inside.test", "127.0.0.2")
    dns.add("mapped.test", "::ffff:127.0.0.2")
    dns.add("outside.test", "127.0.0.1")
    pair = start_pair(server_config={"dns": dns.server, "forbidden_ip": ["127.0.0.2"]})
    with serve_datagrams(mirror, "0.0.0.0") as target, associate(pair.local_port) as client:
        for name in ("127.0.0.1", "outside.test"):
            for inside in ("127.0.0.2", "::ffff:127.0.0.2", "inside.test", "mapped.test", "inside.test"):
                client.send((inside, target.port), b"inside")
            wait_until(lambda: dns.count("mapped.test") and dns.count("inside.test"))
            assert client.ask((name, target.port), b"outside") == b"outside"
        assert target.received == 2


def test_s3_w6_the_servers_own_networks_are_forbidden(start_pair, dns):
    """The default rules: every spelling of an address inside, and names that lead there."""
    dns.add("inside.test", "127.0.0.1")
    dns.add("private.test", "10.0.0.1", "fd00::1")
    pair = start_pair(server_config={"dns": dns.server, "forbidden_ip": None, "verbose": 1})
    hosts = (*INSIDE, *TRICKY, "inside.test", "private.test")
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        for host in hosts:
            client.send((host, target.port), b"inside")
        wait_until(lambda: pair.server.log().count("datagram to ") == len(hosts))
        assert target.received == 0


# -- S6 --------------------------------------------------------------------------------------------


def successor_of(program: Program, folder: Path) -> Program:
    """Start the same program again, and return once it listens."""
    new = Program(program.argv, folder / "successor.log")
    new.wait_ready()
    return new


def test_s6_sigquit_of_the_server_with_a_tcp_and_a_udp_client(start_pair, tmp_path):
    """The ports are free at once; a successor has the UDP client, the old one the TCP client to its end."""
    pair = start_pair(method=SIP022)
    with serve(echo) as origin, serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        client = stack.enter_context(associate(pair.local_port))
        assert echoes(client, target.address, (10,))
        with open_tunnel("socks5", pair.local_port, origin.address) as sock:
            sock.sendall(b"x")
            assert receive_exactly(sock, 1) == b"x"
            asked = time.monotonic()
            pair.server.signal(signal.SIGQUIT)
            wait_until(lambda: not is_udp_bound(pair.server_port))
            assert time.monotonic() - asked < LATE
            successor = successor_of(pair.server, tmp_path)
            stack.callback(successor.stop)
            assert echoes(client, target.address, (10, 20))
            sock.sendall(b"still here")
            assert receive_exactly(sock, 10) == b"still here"
            assert pair.server.running
        asked = time.monotonic()
        assert pair.server.wait() == 0
        assert time.monotonic() - asked < LATE
        successor.assert_healthy()


def test_s6_sigquit_of_the_local_with_a_tcp_and_a_udp_client(start_pair, tmp_path):
    """Both go on: a SOCKS5 association is as alive as the connection that asked for it."""
    pair = start_pair()
    with serve(echo) as origin, serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        with open_tunnel("socks5", pair.local_port, origin.address) as sock:
            with associate(pair.local_port) as client:
                assert echoes(client, target.address, (10,))
                pair.local.signal(signal.SIGQUIT)
                wait_until(lambda: "draining" in pair.local.log())
                assert echoes(client, target.address, (10,))
            successor = successor_of(pair.local, tmp_path)
            stack.callback(successor.stop)
            with associate(pair.local_port) as client:
                assert echoes(client, target.address, (10,))
            sock.sendall(b"still here")
            assert receive_exactly(sock, 10) == b"still here"
            assert pair.local.running
        assert pair.local.wait() == 0
        successor.assert_healthy()
