"""``Shared``: sockets and memory of several workers, and what a reload takes over."""

from __future__ import annotations

import contextlib
import logging
import random
import socket

import pytest

from common.crypto import Cipher
from common.errors import ProtocolError, ReplayDetected
from common.net.bound import bound_to
from common.net.sockets import bind_datagrams, listen
from common.shared import QUIET_SECONDS, Shared, _Warner
from tests.packets import PEER, client_end, server_end
from tests.pairs import LOOPBACK, server_entry
from tests.strangers import strange_datagram
from tests.streams import TARGET

NOW = 1_700_000_000.0


@pytest.fixture
def make():
    with contextlib.ExitStack() as stack:

        def make(workers: int = 2, predecessor: Shared | None = None) -> Shared:
            shared = Shared(workers, predecessor)
            stack.callback(shared.close)
            return shared

        yield make


def test_listening_names_each_address_once(make):
    shared = make()
    tcp = shared.sockets.listen(listen, LOOPBACK)
    udp = shared.sockets.datagrams(bind_datagrams, LOOPBACK)
    assert shared.listening == (bound_to(tcp), bound_to(udp))


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def test_salts_are_a_servers_and_outlive_a_reload(make, method):
    """S9: keys may change at an address; what was sent there stays known."""
    old = make()
    server, other = server_entry(method=method), server_entry(listen_address(9), method)
    for each in (server, other):
        old.add_memory(each)
    assert old.memory(server).streams.add(b"s" * 32, NOW)
    assert old.memory(other).streams.add(b"s" * 32, NOW)
    new = make(predecessor=old)
    new.add_memory(server)
    assert not new.memory(server).streams.add(b"s" * 32, NOW)


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def test_packets_are_remembered_in_common_and_outlive_a_reload(make, method):
    """Each memory is made as another process would make it: what they share is outside of them."""
    old = make()
    server, other = server_entry(method=method), server_entry(listen_address(9), method)
    for each in (server, other):
        old.add_memory(each)
    cipher = Cipher.from_password(method, server.password.reveal())
    client = client_end(cipher)
    wire = bytes(client.seal(TARGET, b"once"))
    server_end(cipher, memory=old.memory(server)).open(wire, PEER)
    new = make(predecessor=old)
    new.add_memory(server)
    for shared in (old, new):
        with pytest.raises(ReplayDetected):
            server_end(cipher, memory=shared.memory(server)).open(wire, PEER)
    server_end(cipher, memory=old.memory(other)).open(wire, PEER)
    server_end(cipher, memory=new.memory(server)).open(client.seal(TARGET, b"on it goes"), PEER)


def test_of_sip004_streams_and_packets_know_the_same_salts(make):
    shared, server = make(), server_entry()
    shared.add_memory(server)
    memory = shared.memory(server)
    assert memory.streams.add(b"stream", NOW)
    assert memory.packets.add(b"packet", NOW)
    assert not memory.streams.add(b"packet", NOW)
    assert not memory.packets.add(b"stream", NOW)


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def test_strangers_and_replays_take_no_room(make, method):
    """K4: only what was opened and new is remembered."""
    shared, server = make(), server_entry(method=method)
    shared.add_memory(server)
    cipher = Cipher.from_password(method, server.password.reveal())
    wire = bytes(client_end(cipher).seal(TARGET, b"once"))
    packets = server_end(cipher, memory=shared.memory(server))
    rng = random.Random(5)
    strange = [strange_datagram(rng, [wire]) for _ in range(500)]
    ((_, table),) = shared._tables.values()  # of streams; of packets or sessions

    def used() -> int:
        return table._header()[3]

    def offer(datagrams):
        for datagram in datagrams:
            with pytest.raises(ProtocolError):
                packets.open(datagram, PEER)

    offer(strange)
    assert used() == 0
    packets.open(wire, PEER)
    assert used() == 1
    offer([*strange, *[wire] * 100])
    assert used() == 1


def listen_address(port: int):
    return LOOPBACK._replace(port=port)


def test_without_a_key_there_is_nothing_to_remember(make):
    shared = make()
    server = server_entry(method="none")
    shared.add_memory(server)
    assert shared.memory(server) is None


def test_a_pause_gives_a_workers_connections_to_the_others(make):
    shared = make()
    address = shared.sockets.listen(listen, LOOPBACK).getsockname()
    first, second = (next(shared.sockets.of_worker(worker)) for worker in range(2))
    shared.pause(0)
    shared.pause(0)
    with contextlib.ExitStack() as stack:
        for _ in range(20):
            stack.enter_context(socket.create_connection(address))
        for _ in range(20):
            second.accept()[0].close()
    shared.resume(0)
    with contextlib.ExitStack() as stack:
        for _ in range(64):
            stack.enter_context(socket.create_connection(address))
        taken = [accepted(sock) for sock in (first, second)]
    assert sum(taken) == 64
    assert min(taken) > 0


def accepted(sock) -> int:
    count = 0
    with contextlib.suppress(BlockingIOError):
        while True:
            sock.accept()[0].close()
            count += 1
    return count


def test_that_there_is_no_room_is_said_now_and_then(monkeypatch, caplog):
    clock = [100.0]
    monkeypatch.setattr("common.shared.time.monotonic", lambda: clock[0])
    warn = _Warner("streams")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            warn()
        clock[0] += QUIET_SECONDS
        warn()
    assert len(caplog.records) == 2
