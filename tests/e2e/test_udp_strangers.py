"""Row K4: what no client and no server would send, to both processes: ignored, and nothing left behind.

Nobody answers a datagram that is dropped, and nobody closes anything for it. So every test sends good
ones in between, which find the process well, and in the end counts what reached the target.
"""

from __future__ import annotations

import contextlib
import os
import random
import socket
from collections.abc import Callable, Iterator

import pytest

from tests.e2e.udp_clients import Association, associate, datagram
from tests.processes import Pair, free_port
from tests.strangers import strange_datagram, strange_socks5_datagram
from tests.udp_targets import Nat, datagram_socket, lost_by_the_kernel, mirror, nat, serve_datagrams
from tests.waiting import wait_until

FLOOD = 40_000  # datagrams for each method: 120,000 for either process, and as many answers
BATCH = 50  # between two good ones, so that no queue of the kernel overflows
SETTLED = 2_000  # after so many the memory has its size
GROWTH = 1024 * 1024  # bytes
METHODS = ["aes-256-gcm", "2022-blake3-aes-256-gcm", "2022-blake3-chacha20-poly1305"]

HEADER = b"\0\0\0\1\x7f\0\0\1"  # SOCKS5, up to the port


def malformed(port: int) -> list[bytes]:
    """SOCKS5 datagrams that are none; a target on ``port`` must not hear of them."""
    number = port.to_bytes(2, "big")
    address = b"\x7f\0\0\1" + number + b"payload"
    whole = HEADER + number
    return [
        b"",
        b"\0",
        b"\0\0",
        b"\0\0\0",
        *(whole[:size] for size in range(4, len(whole))),
        b"\0\0\1\1" + address,  # FRAG
        b"\0\0\x80\1" + address,
        *(b"\0\0\0" + bytes([kind]) + address for kind in (0, 2, 5, 0x11, 0xFF)),
        b"\0\0\0\3\0" + number + b"payload",  # a name of no letters
        b"\0\0\0\3\x09127.0\0.1" + number + b"payload",
        b"\0\0\0\3\xff127.0.0.1" + number + b"payload",
        b"\0\0\0\4" + address,
    ]


@pytest.fixture
def listened(start_pair) -> Iterator[Callable[[str], tuple[Nat, Pair]]]:
    """Start a pair whose UDP goes through a NAT that listens, and can speak."""
    with contextlib.ExitStack() as stack:

        def start(method: str) -> tuple[Nat, Pair]:
            port = free_port()
            way = stack.enter_context(nat(port))
            return way, start_pair(method=method, server_port=port, dial_port=way.port)

        yield start


def test_k4_malformed_datagrams_to_the_local(pair):
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        for data in malformed(target.port):
            client.send_raw(data)
            assert client.works(target.address), data
        assert target.received == len(malformed(target.port))


def test_k4_nobody_becomes_the_client_with_a_malformed_datagram(pair):
    """The first *datagram* decides who the client is; what is none decides nothing."""
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port) as client,
        datagram_socket() as stranger,
    ):
        for data in malformed(target.port):
            stranger.sendto(data, client.relay)
        assert client.works(target.address)
        stranger.sendto(datagram(target.address, b"too late"), client.relay)
        assert client.works(target.address)
        assert target.received == 2


def test_k4_w33_another_host_is_no_client(pair):
    """Not even with the first datagram, and not on the port of somebody's association."""
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port) as client,
        datagram_socket("127.0.0.2") as stranger,
    ):
        stranger.sendto(datagram(target.address, b"first"), client.relay)
        assert client.works(target.address)
        stranger.sendto(datagram(target.address, b"second"), client.relay)
        assert client.works(target.address)
        assert target.received == 2


def test_k4_short_datagrams_to_the_server(pair):
    """0 to 100 bytes, zeros and random ones."""
    descriptors = pair.server.descriptors()
    with datagram_socket() as stranger:
        for size in range(101):
            for data in (bytes(size), os.urandom(size)):
                stranger.sendto(data, ("127.0.0.1", pair.server_port))
    assert pair.server.descriptors() == descriptors
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        assert client.works(target.address)
        assert target.received == 1


def flood(
    send: Callable[[], object], entrance: int, client: Association, target: tuple[str, int], pair: Pair
) -> None:
    """Call ``send`` FLOOD times, with good datagrams in between, for what has the UDP port ``entrance``.

    It must have read all of them, and nothing may be left: no descriptor, no memory, no fault in a log.
    """
    descriptors = [program.descriptors() for program in pair.programs]  # fewer when earlier clients expire
    settled = [0, 0]
    lost = lost_by_the_kernel(entrance)
    for count in range(0, FLOOD, BATCH):
        for _ in range(BATCH):
            send()
        assert client.works(target), count
        if count == SETTLED:
            settled = [program.rss() for program in pair.programs]
    assert lost_by_the_kernel(entrance) == lost
    for program, size, count in zip(pair.programs, settled, descriptors, strict=True):
        assert program.running
        assert program.descriptors() <= count
        assert program.rss() - size < GROWTH, (program.argv, size, program.rss())
        assert "ERROR" not in program.log(), program.log()
        program.assert_healthy()


@pytest.mark.slow
def test_k4_a_flood_to_the_local(pair):
    """From the client itself, and from strangers, who send good ones, too: they are not the client."""
    rng = random.Random(4)
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port) as client,
        datagram_socket() as stranger,
    ):
        assert client.works(target.address)
        good = datagram(target.address, b"payload")

        def send() -> None:
            if rng.random() < 0.1:
                stranger.sendto(good, client.relay)
            else:
                sender = rng.choice((client.sock, stranger))
                sender.sendto(strange_socks5_datagram(rng, good), client.relay)

        flood(send, client.relay[1], client, target.address, pair)
        assert target.received == 1 + FLOOD // BATCH


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_k4_a_flood_to_the_server(listened, method):
    """What is near a real client's packets, and copies of them: its association stays the only one."""
    rng = random.Random(4)
    way, pair = listened(method)
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port) as client,
        datagram_socket() as stranger,
    ):
        ports = pair.server.udp_sockets()
        assert client.works(target.address)
        real = way.sent[:1]

        def send() -> None:
            copied = rng.random() < 0.1
            data = rng.choice(way.sent) if copied else strange_datagram(rng, real)
            stranger.sendto(data, ("127.0.0.1", pair.server_port))

        flood(send, pair.server_port, client, target.address, pair)
        assert target.received == 1 + FLOOD // BATCH
        assert pair.server.udp_sockets() == ports + 1


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_k4_a_flood_of_answers_to_the_local(listened, method):
    """From the server's own address and from another one, copies of real ones, too: the client hears none."""
    rng = random.Random(4)
    way, pair = listened(method)
    with (
        serve_datagrams(mirror) as target,
        associate(pair.local_port) as client,
        datagram_socket() as other,
    ):
        assert client.works(target.address)
        real = way.answered[:1]
        link = way.client
        assert link is not None

        def send() -> None:
            copied = rng.random() < 0.1
            data = rng.choice(way.answered) if copied else strange_datagram(rng, real)
            if rng.random() < 0.5:
                way.inject(data)
            else:
                other.sendto(data, link)

        for size in range(4):
            way.inject(real[0][:size])
        flood(send, link[1], client, target.address, pair)
        assert way.client == link


def test_k4_answers_that_are_not_from_the_server(listened):
    """A copy of a real answer, from another address than the server's."""
    way, pair = listened("aes-256-gcm")
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client, datagram_socket() as other:
        assert client.works(target.address)
        way.copies = 0
        client.send(target.address, b"ping")
        wait_until(lambda: len(way.sent) == 2)
        way.replay(way.sent[1])
        answer = wait_until(lambda: way.answered[1:])[0]
        assert way.client is not None
        other.sendto(answer, way.client)
        way.copies = 1
        assert client.works(target.address)


def test_an_icmp_error_ends_nothing(pair):
    """A target that refuses (port unreachable) is followed by one that answers."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        nobody = probe.getsockname()
    with serve_datagrams(mirror) as target, associate(pair.local_port) as client:
        for _ in range(3):
            client.send(nobody, b"ping")
            assert client.works(target.address)
