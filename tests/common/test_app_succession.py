"""``RelayApp`` passed on: to a successor on the same loop, and to several workers."""

from __future__ import annotations

import os
import socket

import pytest

from common.net.loop import EventLoop
from common.proto.address import Address
from ssserver import ServerApp
from tests.pairs import configured, server_entry, started

METHODS = ("aes-256-gcm", "2022-blake3-aes-256-gcm")


class Apps:
    """Server apps on one loop."""

    def __init__(self) -> None:
        self.loop = EventLoop()
        self.apps: list[ServerApp] = []

    def add(self, *servers, predecessor=None, **options) -> ServerApp:
        def make() -> ServerApp:
            app = ServerApp(configured(servers, **options), self.loop)
            if predecessor is not None:
                app.inherit(predecessor)
            self.apps.append(app)
            return app

        return started(make)

    def close(self) -> None:
        for app in self.apps:
            app.stop()
        assert self.loop.statistics() == {"watched": 0, "timers": 0}
        self.loop.close()


@pytest.fixture
def apps():
    apps = Apps()
    yield apps
    apps.close()


def inodes(app) -> list[int]:
    socks = [relay.sock for relay in app._relays] + [sock for _, sock in app._ports]
    return [os.fstat(sock.fileno()).st_ino for sock in socks]


@pytest.mark.parametrize("method", METHODS)
def test_a_successor_has_the_sockets_and_all_that_must_not_be_forgotten(apps, method):
    server = server_entry(method=method)
    old = apps.add(server)
    new = apps.add(server, predecessor=old, timeout=5.0)
    assert (new.listening, inodes(new)) == (old.listening, inodes(old))
    (one,), (other,) = (
        [relay.make_handler.keywords["service"] for relay in app._relays] for app in (old, new)
    )
    assert one.salts is other.salts
    assert one.cipher is other.cipher
    assert old._ports[0][0].packets is new._ports[0][0].packets


@pytest.mark.parametrize("method", METHODS)
def test_salts_stay_known_when_keys_change(apps, method):
    old = apps.add(server_entry(method=method))
    new = apps.add(
        server_entry(method=method), server_entry(method="chacha20-ietf-poly1305"), predecessor=old
    )
    before = old._relays[0].make_handler.keywords["service"].salts
    assert new._relays[0].make_handler.keywords["service"].salts is before
    assert new._relays[1].make_handler.keywords["service"].salts is not before


def test_connections_are_taken_by_the_successor_once_the_old_one_retires(apps):
    server = server_entry()
    old = apps.add(server)
    new = apps.add(server, predecessor=old)
    done = []
    waiting = socket.create_connection(old.listening[0])
    old.retire(lambda: done.append(1))
    assert (old.statistics()["connections"], done) == (1, []), "who waited in the queue is its own"
    late = socket.create_connection(new.listening[0])
    while new.statistics()["connections"] < 1:
        apps.loop.step(1)
    waiting.close()
    while not done:
        apps.loop.step(1)
    late.close()


def test_a_successor_that_fails_leaves_the_old_one_as_it_was(apps):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        server = server_entry()
        old = apps.add(server)
        new = ServerApp(configured((server, server_entry(Address(*taken.getsockname())))), apps.loop)
        new.inherit(old)
        with pytest.raises(OSError, match="in use"):
            new.start()
    client = socket.create_connection(old.listening[0])
    while old.statistics()["connections"] < 1:
        apps.loop.step(1)
    client.close()


@pytest.mark.parametrize("method", METHODS)
def test_workers_have_listeners_of_their_own_one_udp_port_and_salts_in_common(apps, method):
    config = configured((server_entry(method=method),), workers=2)
    shared = ServerApp.share(config, 2)
    again = ServerApp.share(config, 2, shared)
    parts = []
    for index, pool in enumerate((shared, again)):  # as two processes would; here each closes the rest
        app = ServerApp(config, apps.loop)
        app.join(pool, index)
        app.start()
        apps.apps.append(app)
        parts.append(app)
    assert [len(app._relays) for app in parts] == [1, 1]
    assert [len(app._ports) for app in parts] == [1, 0]
    assert parts[0].listening[0] == parts[1].listening[0]
    assert not set(inodes(parts[0])) & set(inodes(parts[1]))
    first, second = (app._relays[0].make_handler.keywords["service"].salts for app in parts)
    assert first.add(b"s" * 32, 1e9)
    assert not second.add(b"s" * 32, 1e9)


def test_what_cannot_be_shared_leaves_nothing_bound():
    with socket.create_server(("127.0.0.1", 0)) as taken:
        config = configured((server_entry(), server_entry(Address(*taken.getsockname()))), workers=2)
        with pytest.raises(OSError, match="in use"):
            ServerApp.share(config, 2)
