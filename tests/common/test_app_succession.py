"""``RelayApp`` passed on: to a successor on the same loop, and to several workers."""

from __future__ import annotations

import os
import socket
import time

import pytest

from common.config.schema import Secret, User
from common.crypto import METHODS, Family
from common.errors import ProtocolError
from common.net.loop import EventLoop
from common.proto.address import Address
from ssserver import ServerApp
from tests.packets import PEER, client_end, of_user, user_password
from tests.pairs import configured, server_entry, started
from tests.streams import TARGET, password_for

NAMES = ("aes-256-gcm", "2022-blake3-aes-256-gcm")


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


@pytest.mark.parametrize("method", NAMES)
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


def packets_of(app):
    """The packets of its only UDP port."""
    ((port, _),) = app._ports
    return port.packets


@pytest.mark.parametrize("method", NAMES)
@pytest.mark.parametrize("users", [(1, 2), (3, 1)], ids=["the same users", "others"])
def test_a_datagram_is_a_replay_for_the_successor_too(apps, method, users):
    """And a session goes on, if its user is still one."""
    client = client_end(of_user(METHODS[method], 1), time.time)
    wires = [bytes(client.seal(TARGET, b"%d" % number)) for number in range(2)]
    old = apps.add(with_users(method, 1, 2))
    session, _, _ = packets_of(old).open(wires[0], PEER)
    own = bytes(session.seal(TARGET, b"reply"))
    new = apps.add(with_users(method, *users), predecessor=old)
    old.retire(lambda: None)
    for replay in (wires[0], own):
        with pytest.raises(ProtocolError):
            packets_of(new).open(replay, PEER)
    again, _, payload = packets_of(new).open(wires[1], PEER)
    assert (again.key, again.user, payload) == (session.key, "u1", b"1")
    assert client.open(own) == (TARGET, b"reply")
    assert client.open(again.seal(TARGET, b"reply")) == (TARGET, b"reply")


def with_users(name: str, *numbers: int):
    """A server with these users of tests/packets.py."""
    method = METHODS[name]
    users = tuple(User(f"u{number}", Secret(user_password(method, number))) for number in numbers)
    own = Secret(password_for(method) if method.family is Family.SIP022 else "")
    return server_entry(method=name)._replace(password=own, users=users)


@pytest.mark.parametrize("method", NAMES)
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


@pytest.mark.parametrize("method", NAMES)
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
