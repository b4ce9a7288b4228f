"""``Shared``: sockets and salts of several workers, and what a reload takes over."""

from __future__ import annotations

import contextlib
import logging
import socket

import pytest

from common.net.bound import bound_to
from common.net.sockets import bind_datagrams, listen
from common.shared import QUIET_SECONDS, Shared, _Warner
from tests.pairs import LOOPBACK, server_entry

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
        old.add_salts(each)
    assert old.salts(server).add(b"s" * 32, NOW)
    assert old.salts(other).add(b"s" * 32, NOW)
    new = make(predecessor=old)
    new.add_salts(server)
    assert not new.salts(server).add(b"s" * 32, NOW)


def listen_address(port: int):
    return LOOPBACK._replace(port=port)


def test_without_a_key_there_is_nothing_to_remember(make):
    shared = make()
    server = server_entry(method="none")
    shared.add_salts(server)
    assert shared.salts(server) is None


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
    warn = _Warner()
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            warn()
        clock[0] += QUIET_SECONDS
        warn()
    assert len(caplog.records) == 2
