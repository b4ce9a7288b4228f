"""Row K6, and the bounds of associations: how they end, how many there may be, how long they last."""

from __future__ import annotations

import contextlib
import socket
import time

import pytest

from tests.e2e.clients import dial, ends, socks5_request
from tests.e2e.udp_clients import Association, associate
from tests.origin import reset
from tests.processes import free_port
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

UDP_TIMEOUT = 1.5  # seconds
EARLY, LATE = 0.2, 5.0  # seconds that an expiry may be off, on a busy machine
LIMIT = 4
CROWD = 50
GROWTH = 1024 * 1024  # bytes


def talk(client: Association, target: tuple[str, int], payload: bytes = b"ping") -> None:
    assert client.ask(target, payload) == payload


# -- K6 --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("leave", [socket.socket.close, reset], ids=["fin", "rst"])
def test_k6_the_association_ends_with_its_connection(start_pair, leave):
    """However the client leaves: its port is closed, and no descriptor is left of it."""
    pair = start_pair()
    with serve_datagrams(mirror) as target:
        before, descriptors = pair.local.udp_sockets(), pair.local.descriptors()
        for _ in range(3):
            with contextlib.ExitStack() as stack:
                clients = [stack.enter_context(associate(pair.local_port)) for _ in range(CROWD)]
                for client in clients:
                    talk(client, target.address)
                assert pair.local.udp_sockets() >= before + 2 * CROWD
                for client in clients:
                    leave(client.control)
                wait_until(lambda: pair.local.udp_sockets() == before)
                wait_until(lambda: pair.local.descriptors() <= descriptors)
                with contextlib.suppress(ConnectionRefusedError):  # the port's own answer, if it has one
                    clients[0].send(target.address, b"late")
        assert target.received == 3 * CROWD


def test_k6_half_a_connection_is_none(pair):
    """A client that ends its side of the connection is told the same."""
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        talk(client, target.address)
        client.control.shutdown(socket.SHUT_WR)
        assert ends(client.control)


def test_k6_what_is_sent_on_the_connection_is_no_matter(pair):
    """It only has to stand: bytes on it are read and ignored."""
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        for _ in range(20):
            client.control.sendall(bytes(10_000))
            talk(client, target.address)


def test_k6_clients_that_leave_before_the_reply(start_pair):
    pair = start_pair()
    before = pair.local.udp_sockets()
    for _ in range(CROWD):
        with dial(pair.local_port) as sock:
            sock.sendall(b"\x05\x01\x00" + socks5_request("0.0.0.0", 0, 3))
            reset(sock)
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        talk(client, target.address)
    wait_until(lambda: pair.local.udp_sockets() == before)


# -- how long --------------------------------------------------------------------------------------


def test_udp_timeout_at_the_server(start_pair):
    """A quiet client's sockets go; when it speaks again it is served, from a new port."""
    pair = start_pair(server_config={"udp_timeout": UDP_TIMEOUT})
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        before = pair.server.udp_sockets()
        talk(client, target.address)
        spoke = time.monotonic()
        assert pair.server.udp_sockets() == before + 1
        wait_until(lambda: pair.server.udp_sockets() == before)
        assert UDP_TIMEOUT - EARLY < time.monotonic() - spoke < UDP_TIMEOUT + LATE
        talk(client, target.address)
        assert len(target.peers) == 2


def test_udp_timeout_at_the_local(start_pair):
    """The association ends, and its connection with it, so that the client learns of it."""
    pair = start_pair(local_config={"udp_timeout": UDP_TIMEOUT})
    before = pair.local.udp_sockets()
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        talk(client, target.address)
        spoke = time.monotonic()
        assert ends(client.control, UDP_TIMEOUT + LATE)
        assert time.monotonic() - spoke > UDP_TIMEOUT - EARLY
        wait_until(lambda: pair.local.udp_sockets() == before)


def test_udp_timeout_restarts_with_every_datagram(start_pair):
    """Whichever way it goes: answers alone keep an association, too (RFC 4787 section 4.3)."""
    timeout = {"udp_timeout": UDP_TIMEOUT}
    pair = start_pair(local_config=timeout, server_config=timeout)
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        talk(client, target.address)
        started = time.monotonic()
        client.sock.settimeout(UDP_TIMEOUT / 4)
        while time.monotonic() - started < 2.5 * UDP_TIMEOUT:
            target.sock.sendto(b"news", target.peers[0])
            assert client.receive() == (target.address, b"news")
            with contextlib.suppress(TimeoutError):
                client.receive()
        talk(client, target.address)
        assert len(target.peers) == 1


# -- how many --------------------------------------------------------------------------------------


def test_the_local_evicts_the_quietest(start_pair):
    """Over the limit the association that was quiet longest ends, and its client is told."""
    pair = start_pair(local_config={"udp_max_associations": LIMIT})
    before = pair.local.udp_sockets()
    with serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(associate(pair.local_port)) for _ in range(LIMIT)]
        for client in clients:
            talk(client, target.address)
        talk(clients[0], target.address)
        clients += [stack.enter_context(associate(pair.local_port)) for _ in range(2)]
        for client in (clients[1], clients[2]):
            assert ends(client.control)
        for client in (clients[0], clients[3], clients[4], clients[5]):
            talk(client, target.address)
        assert pair.local.udp_sockets() == before + 2 * LIMIT


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def test_the_server_evicts_the_quietest(start_pair, method):
    """It holds no more sockets than that, and still serves everybody who speaks."""
    pair = start_pair(method=method, server_config={"udp_max_associations": LIMIT})
    before = pair.server.udp_sockets()
    with serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        clients = [stack.enter_context(associate(pair.local_port)) for _ in range(3 * LIMIT)]
        for _ in range(3):
            for client in clients:
                talk(client, target.address)
                assert pair.server.udp_sockets() <= before + LIMIT
        assert len(target.peers) == 3 * len(clients)
        talk(clients[-LIMIT], target.address)
        assert len(target.peers) == 3 * len(clients)


def test_a_flood_of_clients_at_the_limit(start_pair):
    """Association after association at the limit: no growth, nothing left behind."""
    pair = start_pair(
        local_config={"udp_max_associations": LIMIT}, server_config={"udp_max_associations": LIMIT}
    )
    before = pair.local.udp_sockets()
    sizes = []
    with serve_datagrams(mirror) as target:
        for _ in range(4):
            with contextlib.ExitStack() as stack:
                for _ in range(100):
                    talk(stack.enter_context(associate(pair.local_port)), target.address)
            sizes.append([program.rss() for program in pair.programs])
    wait_until(lambda: pair.local.udp_sockets() == before)
    for first, last in zip(sizes[1], sizes[-1], strict=True):
        assert last - first < GROWTH, sizes


def test_h10_without_descriptors_those_who_fit_are_served(start_pair):
    """The others wait in the accept queue or are told; when there is room again, they are served, too."""
    pair = start_pair(nofile=64)
    with serve_datagrams(mirror) as target:
        with contextlib.ExitStack() as stack:
            served = 0
            with contextlib.suppress(AssertionError, EOFError, OSError):
                for _ in range(40):
                    talk(stack.enter_context(associate(pair.local_port, timeout=1.0)), target.address)
                    served += 1
            assert 5 <= served < 40
        with associate(pair.local_port) as client:
            talk(client, target.address)


def test_udp_without_a_server_leaves_nothing(start_pair):
    """Nobody listens where the server should be: what is sent is lost, and all goes with the client."""
    pair = start_pair(local_config={"server_port": free_port()})
    before = pair.local.udp_sockets()
    with associate(pair.local_port) as client:
        for _ in range(200):
            client.send(("127.0.0.1", 9), b"ping")
        wait_until(lambda: pair.local.udp_sockets() == before + 2)
    wait_until(lambda: pair.local.udp_sockets() == before)
