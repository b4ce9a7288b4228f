"""Faults of the network between sslocal and ssserver: loss, latency, black holes, resets, roaming."""

from __future__ import annotations

import contextlib
import os
import threading
import time

import pytest

from tests.e2e.clients import HttpWire, receive_exactly
from tests.e2e.udp_clients import associate
from tests.faults import (
    LIMIT,
    NOT_YET,
    Transfer,
    measured,
    nothing_left,
    page,
    pass_seconds,
    seconds_of,
    seconds_until,
)
from tests.http_origin import serve_site
from tests.network import DEVICE, LAPTOP, OTHER_LAPTOP, SERVER, TARGET, network_or_skip
from tests.origin import Received, duplex, echo, sha256, source
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MB = 1024 * 1024
RATE = 4 * MB  # bytes per second of a transfer that shall be under way for a while


@pytest.fixture(scope="module")
def net():
    with network_or_skip() as net:
        yield net


@pytest.fixture
def pair(net, tmp_path):
    """A pair that has relayed once already; the wire is well again afterwards, and nothing is left."""
    with net.pair(tmp_path) as pair, net.serve(echo) as target:
        exchange(net, pair, target.address)
        with nothing_left(*pair.programs):
            try:
                yield pair
            finally:
                net.wire.latency = net.wire.loss = 0.0
                net.wire.cut = False


@pytest.fixture
def target(net):
    with net.serve(echo) as origin:
        yield origin.address


def exchange(net, pair, address):
    """What a new user does: a connection, a question, an answer."""
    with net.tunnel(pair, address) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_packet_loss(net, pair, target):
    """8 % of the packets are lost, each way, of 20 ms latency: slower, and every byte is there."""
    data, sent_up = os.urandom(2 * MB), os.urandom(512 * 1024)
    uploaded = Received(len(sent_up))
    net.wire.loss, net.wire.latency = 0.08, 0.01
    with net.serve(duplex(data, uploaded)) as origin, net.tunnel(pair, origin.address) as sock:
        download = Transfer(sock)
        sock.settimeout(30.0)
        sock.sendall(sent_up)
        assert uploaded.ended.wait(30.0)
        download.wait_for(len(data))
        assert download.received.digest() == sha256(data)
    assert uploaded.digest() == sha256(sent_up)
    slowest = max(seconds_of(lambda: exchange(net, pair, target)) for _ in range(5))
    measured("slowest of 5 requests meanwhile", slowest)
    assert slowest < LIMIT
    assert net.wire.dropped > 50
    net.wire.loss = 0.0
    measured("back after", seconds_until(lambda: exchange(net, pair, target)))


def test_latency(net, pair, target):
    """300 ms there and back: a request costs two of them, and a transfer grows as TCP does."""
    data = os.urandom(2 * MB)
    net.wire.latency = 0.15
    took = seconds_of(lambda: exchange(net, pair, target))
    assert 0.6 <= took < LIMIT
    measured("a request takes", took)
    with net.serve(source(data)) as origin, net.tunnel(pair, origin.address) as sock:
        download = Transfer(sock)
        download.wait_for(len(data))
        assert download.received.digest() == sha256(data)
    net.wire.latency = 0.0
    measured("back after", seconds_until(lambda: exchange(net, pair, target)))


def test_black_hole_in_mid_transfer(net, pair, target):
    """Nothing arrives for 3 s, both ways: the transfer stalls and goes on where it was."""
    data, sent_up = os.urandom(12 * MB), os.urandom(256 * 1024)
    uploaded = Received(len(sent_up))
    with net.serve(duplex(data, uploaded)) as origin, net.tunnel(pair, origin.address) as sock:
        download = Transfer(sock)
        download.wait_for(MB)
        net.wire.cut = True
        stalled_at = download.wait_until_stalled()
        sock.sendall(sent_up)
        pass_seconds(2.5)
        assert download.received.size == stalled_at
        assert uploaded.size == 0
        net.wire.cut = False
        over = time.monotonic()
        measured("back after", seconds_until(lambda: exchange(net, pair, target)))
        download.wait_for(stalled_at + 1)
        measured("transfer goes on after", time.monotonic() - over)
        download.wait_for(len(data))
        assert download.received.digest() == sha256(data)
        assert uploaded.ended.wait(30.0)
    assert uploaded.digest() == sha256(sent_up)


def test_requests_made_in_a_black_hole(net, pair, target):
    """A user who asks while nothing arrives waits, and is served when something does."""
    net.wire.cut = True
    waiting = threading.Thread(target=exchange, args=(net, pair, target), daemon=True)
    waiting.start()
    pass_seconds(2.5)
    assert waiting.is_alive()
    net.wire.cut = False
    over = time.monotonic()
    measured("back after", seconds_until(lambda: exchange(net, pair, target)))
    waiting.join(LIMIT)
    assert not waiting.is_alive()
    measured("who waited is served after", time.monotonic() - over)


def test_resets_from_the_network(net, pair, target):
    """A middlebox resets what runs and what begins: each ends at once, and the next request works."""
    data = os.urandom(12 * MB)
    with net.serve(source(data, RATE)) as origin, net.tunnel(pair, origin.address) as sock:
        download = Transfer(sock)
        download.wait_for(MB)
        net.world.filter(
            "table inet fault { chain input { type filter hook input priority filter; "
            f"tcp dport {pair.server_port} reject with tcp reset; }}; }}"
        )
        ended = seconds_of(download.wait_for_end)
        measured("the user sees the end after", ended)
        assert ended < LIMIT
        assert download.is_beginning_of(data)
        with pytest.raises(NOT_YET):
            exchange(net, pair, target)
        net.world.filter("")
        measured("back after", seconds_until(lambda: exchange(net, pair, target)))


def test_address_change(net, pair, target):
    """The laptop moves to another network: what ran is lost and says so; the next request works.

    A kept-alive HTTP client notices nothing: its idle stream to the server is not used any more.
    """
    with contextlib.ExitStack() as stack:
        running = stack.enter_context(net.tunnel(pair, target))
        running.sendall(b"ping")
        receive_exactly(running, 4)
        with net.world.entered():
            site = stack.enter_context(serve_site(TARGET))
        with net.laptop.entered():
            browser = stack.enter_context(HttpWire(pair.local_port))
        assert page(browser, site) == 200
        net.move(OTHER_LAPTOP, away_from=LAPTOP)
        moved = time.monotonic()
        try:
            measured("back after", seconds_until(lambda: exchange(net, pair, target)))
            browser.sock.settimeout(LIMIT)
            assert page(browser, site) == 200
            measured("kept-alive client back after", time.monotonic() - moved)
            running.settimeout(LIMIT)
            with contextlib.suppress(ConnectionError):
                assert running.recv(1) == b""
            measured("what ran has ended after", time.monotonic() - moved)
        finally:
            net.move(LAPTOP, away_from=OTHER_LAPTOP)


def test_address_change_while_connecting(net, pair, target):
    """Who asked just before the move does not wait for an answer to the old address."""
    net.wire.cut = True
    waiting = threading.Thread(target=exchange, args=(net, pair, target), daemon=True)
    waiting.start()
    wait_until(lambda: "SYN-SENT" in net.laptop.run("ss", "--tcp", "--all"))
    net.move(OTHER_LAPTOP, away_from=LAPTOP)
    net.wire.cut = False
    moved = time.monotonic()
    try:
        waiting.join(LIMIT)
        assert not waiting.is_alive()
        measured("who waited is served after", time.monotonic() - moved)
    finally:
        net.move(LAPTOP, away_from=OTHER_LAPTOP)


def test_address_change_under_an_association(net, tmp_path):
    """Datagrams go on from the new address, and the server answers to where they come from."""
    with contextlib.ExitStack() as stack:
        pair = stack.enter_context(net.pair(tmp_path))
        with net.world.entered():
            mirrored = stack.enter_context(serve_datagrams(mirror, TARGET)).address
        with net.laptop.entered():
            association = stack.enter_context(associate(pair.local_port, timeout=0.3))
        assert association.works(mirrored)
        net.move(OTHER_LAPTOP, away_from=LAPTOP)
        try:
            measured("back after", seconds_until(lambda: association.works(mirrored)))
        finally:
            net.move(LAPTOP, away_from=OTHER_LAPTOP)


def test_link_down(net, pair, target):
    """No network at all: requests fail at once, with the reason; the first one after it works."""
    net.laptop.ip("link", "set", DEVICE, "down")
    try:
        failed = seconds_of(lambda: expect_unreachable(net, pair))
        measured("the user is told after", failed)
        assert failed < LIMIT
    finally:
        net.laptop.ip("link", "set", DEVICE, "up")
        net.move(LAPTOP, away_from=LAPTOP)
    measured("back after", seconds_until(lambda: exchange(net, pair, target)))


def expect_unreachable(net, pair):
    answer = net.get(pair, f"http://{TARGET}/")
    assert answer.status == 502
    assert SERVER in answer.body.decode()
