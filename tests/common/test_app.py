"""``RelayApp``: a configuration becomes limits and listeners, and all of it comes to an end."""

from __future__ import annotations

import resource
import socket
import sys

import pytest

from common.app import DESCRIPTORS_PER_CONNECTION, RESERVED_DESCRIPTORS, RelayApp, bound_to
from common.net.loop import READ, EventLoop
from common.net.sockets import bind_datagrams, listen, listen_unix
from common.proto.address import Address
from common.relay.admission import Bounds
from common.relay.listener import Limits
from common.relay.stages import STAGE_ADDR
from common.relay.tcprelay import TCPRelayHandler
from tests.pairs import LOOPBACK, configured, server_entry


class Greeter(TCPRelayHandler):
    """Reads on; nothing here depends on what."""

    def on_prologue(self, data):
        if self.stage != STAGE_ADDR:
            self.advance(STAGE_ADDR)


class App(RelayApp):
    addresses = (LOOPBACK,)

    def open(self):
        for address in self.addresses:
            self.relay(listen(address), Greeter)


@pytest.fixture
def make_app():
    apps = []

    def make(kind=App, **options):
        apps.append(kind(configured((server_entry(),), **options)))
        return apps[-1]

    yield make
    for app in apps:
        app.stop()
        app.loop.close()


@pytest.fixture
def app(make_app):
    app = make_app()
    app.start()
    return app


def connect(app, say=b""):
    """A connected client whose bytes the app has read."""
    client = socket.create_connection(app.listening[0])
    before = app.counters["accepted"]
    client.sendall(say)
    while app.counters["accepted"] == before:
        app.loop.step(1)
    if say:
        app.loop.step(1)
    return client


# -- from the configuration --------------------------------------------------------------------------


def test_limits_are_the_configurations(make_app):
    app = make_app(
        timeout=1.0,
        connect_timeout=2.0,
        idle_timeout=3.0,
        half_close_timeout=4.0,
        keep_alive=5.0,
        no_delay=False,
    )
    assert app.limits == Limits(
        handshake=1.0, connect=2.0, idle=3.0, half_close=4.0, keep_alive=5.0, no_delay=False
    )


def test_connections_are_limited_by_descriptors(make_app):
    """W10, H10: each takes two, and some are left for everything else."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    app = make_app()
    assert app._admission.limit == (soft - RESERVED_DESCRIPTORS) // DESCRIPTORS_PER_CONNECTION


def test_or_by_the_configuration(make_app):
    assert make_app(max_connections=7)._admission.limit == 7


def test_bounds_are_the_configurations(make_app):
    app = make_app(
        handshakes=3,
        connecting=4,
        connections_per_source=5,
        connections_per_user=6,
        source_ipv4_prefix=24,
        source_ipv6_prefix=56,
        udp_max_associations=7,
        udp_associations_per_source=2,
        udp_associations_per_user=1,
    )
    assert app._admission.bounds == Bounds(3, 4, 5, 6, 24, 56)
    table = app.associations
    assert (table.limit, table.sources.limit, table.users.limit) == (7, 2, 1)


def test_bounds_that_are_off(make_app):
    off = ("handshakes", "connecting", "connections_per_source", "connections_per_user")
    off += ("udp_associations_per_source", "udp_associations_per_user")
    app = make_app(**dict.fromkeys(off))
    assert app._admission.bounds == Bounds()
    assert app.associations.sources.limit == app.associations.users.limit == sys.maxsize


def test_a_tiny_descriptor_limit_still_serves_one(make_app, monkeypatch):
    monkeypatch.setattr("common.app.raise_nofile", lambda limit: 20)
    assert make_app()._admission.limit == 1


def test_a_loop_can_be_brought(monkeypatch):
    loop = EventLoop()
    app = App(configured((server_entry(),)), loop)
    assert app.loop is loop
    app.stop()
    loop.close()


def test_what_is_listened_on_is_the_subclass_es_business():
    app = RelayApp(configured((server_entry(),)))
    with pytest.raises(NotImplementedError):
        app.start()
    app.loop.close()


# -- start -------------------------------------------------------------------------------------------


def test_listening_names_the_ports_that_were_picked(app):
    (address,) = app.listening
    assert address.host == "127.0.0.1"
    assert address.port > 0
    connect(app).close()


def test_nothing_is_listened_on_before_the_start(make_app):
    assert make_app().listening == ()


@pytest.mark.parametrize("fault", [OSError, ValueError])
def test_a_start_that_fails_leaves_nothing_open(make_app, fault):
    """W30: the second address cannot be had, so the first is given back."""

    class Half(App):
        def open(self):
            super().open()
            self.bound = self.listening[0]
            raise fault("no")

    app = make_app(Half)
    with pytest.raises(fault):
        app.start()
    assert app.listening == ()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(app.bound)
    assert app.loop.statistics() == {"watched": 0, "timers": 0}


def test_a_busy_port_says_which(make_app, app):
    class Busy(App):
        addresses = (app.listening[0],)

    with pytest.raises(OSError, match="in use") as caught:
        make_app(Busy).start()
    assert caught.value.filename == str(app.listening[0])


# -- statistics --------------------------------------------------------------------------------------


def test_statistics(app):
    idle = {"connections": 0, "handshakes": 0, "connecting": 0, "sources": 0}
    assert app.statistics() == {**idle, "watched": 1, "timers": 0}
    client = connect(app)
    assert app.statistics() == {
        **idle,
        "accepted": 1,
        "connections": 1,
        "handshakes": 1,
        "watched": 2,
        "timers": 1,
    }
    client.close()
    while app.statistics()["connections"]:
        app.loop.step(1)
    assert app.statistics() == {**idle, "accepted": 1, "watched": 1, "timers": 0}


# -- the end -----------------------------------------------------------------------------------------


def test_draining_ends_the_listeners_at_once_and_the_loop_with_the_last_connection(app):
    """S6, T8"""
    running = connect(app, say=b"working")
    idle = connect(app)
    (address,) = app.listening
    app.drain()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(address)
    assert app.statistics()["connections"] == 2, "it may be about to say something"
    while app.statistics()["connections"] > 1:
        app.loop.step(1)
    assert idle.recv(1) == b"", "nothing was being done for it"
    assert app.listening == ()
    running.close()
    app.loop.run()
    assert app.statistics()["connections"] == 0
    idle.close()


def test_draining_an_idle_app_ends_its_loop(app):
    app.drain()
    app.loop.run()


def test_draining_twice_is_harmless(app):
    client = connect(app, say=b"working")
    app.drain()
    app.drain()
    client.close()
    app.loop.run()


def test_stopping_while_draining_ends_the_loop_too(app):
    client = connect(app, say=b"working")
    app.drain()
    app.stop()
    app.loop.run()
    assert client.recv(1) == b""
    client.close()


def test_stopping_ends_everything_at_once(app):
    clients = [connect(app, say=b"working") for _ in range(3)]
    app.stop()
    app.stop()
    for client in clients:
        assert client.recv(1) == b""
        client.close()
    assert app.listening == ()
    assert app.loop.statistics() == {"watched": 0, "timers": 0}


def test_stopping_forgets_lookups_under_way(app):
    app.resolver.resolve("under-way.test", lambda addresses, error: None)
    assert app.loop.statistics()["timers"] > 0
    app.stop()
    assert app.loop.statistics() == {"watched": 0, "timers": 0}


def test_listeners_share_one_limit_and_one_set_of_counters(make_app):
    class Two(App):
        addresses = (LOOPBACK, LOOPBACK)

    app = make_app(Two, max_connections=1)
    app.start()
    first, second = app.listening
    assert first != second
    client = connect(app)
    waiting = socket.create_connection(second)
    for _ in range(3):
        app.loop.step(0)
    assert app.statistics()["accepted"] == 1
    client.close()
    while app.counters["accepted"] < 2:
        app.loop.step(1)
    waiting.close()


def test_addresses_are_addresses(app):
    assert all(isinstance(address, Address) for address in app.listening)


# -- UDP ports ---------------------------------------------------------------------------------------


class Port:
    """A UDP port that only knows whether it was closed."""

    def __init__(self, loop, sock):
        self.loop, self.sock, self.closed = loop, sock, 0
        loop.watch(sock, READ, 0, self)

    def close(self):
        self.closed += 1
        self.loop.watch(self.sock, 0, READ, self)
        self.sock.close()


class WithPort(App):
    def open(self):
        super().open()
        sock = bind_datagrams(LOOPBACK)
        self.port = Port(self.loop, sock)
        self.serve_datagrams(sock, self.port)


@pytest.mark.parametrize("end", ["drain", "stop"])
def test_udp_ports_end_at_once_and_once(make_app, end):
    """S6: there is no connection to wait for, and a successor wants the port."""
    app = make_app(WithPort)
    app.start()
    assert len(app.listening) == 2
    getattr(app, end)()
    app.stop()
    assert app.port.closed == 1
    assert app.listening == ()
    assert app.loop.statistics() == {"watched": 0, "timers": 0}


def test_one_address_of_both_kinds_is_named_once(make_app):
    class Both(App):
        def open(self):
            super().open()
            sock = bind_datagrams(self.listening[0])
            self.serve_datagrams(sock, Port(self.loop, sock))

    app = make_app(Both)
    app.start()
    assert len(app.listening) == 1


def test_an_address_may_be_a_path(tmp_path):
    with listen_unix(str(tmp_path / "front")) as sock:
        assert bound_to(sock) == str(tmp_path / "front")


def test_lookups_take_no_longer_than_connecting_may(make_app):
    assert make_app(connect_timeout=0.5).resolver.limit == 0.5
    assert make_app(connect_timeout=60.0).resolver.limit < 60


# -- access rules ------------------------------------------------------------------------------------


def test_rules_are_read_once_and_their_warnings_logged_once(app, tmp_path, caplog):
    path = tmp_path / "rules.acl"
    path.write_text("[bypass_list]\na/b\n")
    assert app.access_rules(None) is None
    assert app.access_rules(str(path)) is app.access_rules(str(path))
    assert [record.message for record in caplog.records] == [f"{path}: line 2: no host name can match this"]
