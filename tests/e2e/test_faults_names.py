"""Faults of name resolution: the server's name moves, the resolver dies, is slow, and comes back."""

from __future__ import annotations

import contextlib
import socket

import pytest

from tests.e2e.clients import dial, get, open_tunnel, receive_exactly, socks5_request
from tests.fakedns import SERVFAIL, FakeDNS
from tests.faults import LIMIT, measured, nothing_left, pass_seconds, seconds_of, seconds_until
from tests.http_origin import serve_site
from tests.origin import echo, serve
from tests.processes import free_port, new_password, running_program
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

METHOD = "2022-blake3-aes-128-gcm"
NAME = "server.test"
TTL = 1  # seconds: as short as an answer is kept


@pytest.fixture
def dns():
    with FakeDNS() as dns:
        dns.add(NAME, "127.0.0.1", ttl=TTL)
        yield dns


@pytest.fixture
def settings():
    """What sslocal and ssserver have in common; sslocal knows the server by its name."""
    return {"server_port": free_port(), "method": METHOD, "password": new_password(METHOD)}


@pytest.fixture
def local(tmp_path, dns, settings):
    front = {**settings, "server": NAME, "dns": dns.server, "local_port": free_port()}
    with running_program(tmp_path, "local", front) as program:
        program.port = front["local_port"]
        with nothing_left(program):
            yield program


@contextlib.contextmanager
def server_at(host, tmp_path, settings):
    there = {**settings, "server": host, "forbidden_ip": []}
    with running_program(tmp_path, "server", there) as program:
        yield program


def exchange(local, address):
    with open_tunnel("socks5", local.port, address) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_the_servers_name_changes_its_address(tmp_path, dns, settings, local):
    """The old address is refused until the record's time is over; then sslocal goes to the new one."""
    with (
        serve(echo) as origin,
        server_at("127.0.0.2", tmp_path, settings),
        server_at("127.0.0.1", tmp_path, settings) as old,
    ):
        exchange(local, origin.address)
        dns.add(NAME, "127.0.0.2", ttl=TTL)
        assert old.stop() == 0
        back = seconds_until(lambda: exchange(local, origin.address))
        measured(f"back after, {TTL} s of them the record's", back)


def test_the_servers_old_address_is_a_black_hole(tmp_path, dns, settings, local):
    """As above, but the old address neither accepts nor refuses: who met it is not in anybody's way."""
    with serve(echo) as origin, server_at("127.0.0.2", tmp_path, settings):
        with server_at("127.0.0.1", tmp_path, settings):
            exchange(local, origin.address)
        with hole("127.0.0.1", settings["server_port"]), dial(local.port) as stuck:
            stuck.sendall(ask(origin))
            assert receive_exactly(stuck, 2) == b"\x05\x00"
            dns.add(NAME, "127.0.0.2", ttl=TTL)
            pass_seconds(TTL)
            back = seconds_until(lambda: exchange(local, origin.address))
            measured("back after the record's time", back)


def ask(origin):
    """A whole SOCKS5 request in one go."""
    return b"\x05\x01\x00" + socks5_request(*origin.address)


@contextlib.contextmanager
def hole(host, port):
    """Listen with an accept queue that is full: a connect neither succeeds nor fails."""
    with contextlib.ExitStack() as stack:
        listener = stack.enter_context(socket.socket())
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(0)
        for _ in range(4):
            filler = stack.enter_context(socket.socket())
            filler.setblocking(False)
            filler.connect_ex((host, port))
        yield


@pytest.mark.parametrize("how", ["silent", "failing", "gone"])
def test_the_resolver_is_dead_and_comes_back(tmp_path, settings, how):
    """The name of sslocal's server cannot be found: an error that says so, and no connection hangs."""
    dead = {"silent": {"silent": True}, "failing": {"rcode": SERVFAIL}, "gone": {}}[how]
    with contextlib.ExitStack() as stack:
        dns = FakeDNS()
        if how == "gone":
            with dns:
                pass  # it is bound and closed again
        else:
            stack.enter_context(dns)
            dns.add(NAME, **dead)
        front = {**settings, "server": NAME, "dns": dns.server, "local_port": free_port()}
        front["connect_timeout"] = 2  # and so a lookup
        site = stack.enter_context(serve_site())
        stack.enter_context(server_at("127.0.0.1", tmp_path, settings))
        local = stack.enter_context(running_program(tmp_path, "local", front))
        local.port = front["local_port"]
        stack.enter_context(nothing_left(local))
        told = seconds_of(lambda: refused_with_reason(local, site))
        measured("the user is told after", told)
        assert told < LIMIT
        if how == "gone":
            dns = stack.enter_context(FakeDNS(port=dns.port))
        dns.add(NAME, "127.0.0.1", ttl=TTL)
        measured("back after", seconds_until(lambda: served(local, site)))


def refused_with_reason(local, site):
    answer = get(local.port, site.url + "/")
    assert answer.status == 502
    assert NAME in answer.body.decode()


def served(local, site):
    assert get(local.port, site.url + "/").status == 200


def test_the_resolver_comes_back_while_somebody_waits(tmp_path, dns, settings, local):
    """Who asked while it was silent is served as soon as it answers, not told that it was silent."""
    dns.add(NAME, silent=True)
    with serve(echo) as origin, server_at("127.0.0.1", tmp_path, settings), dial(local.port) as sock:
        sock.sendall(ask(origin))
        assert receive_exactly(sock, 2) == b"\x05\x00"
        wait_until(lambda: dns.count(NAME, "A") >= 3, what="questions")
        dns.add(NAME, "127.0.0.1", ttl=TTL)
        sock.settimeout(LIMIT)
        measured("who waited is served after", seconds_of(lambda: receive_exactly(sock, 10)))


def test_a_slow_resolver(tmp_path, dns, settings, local):
    """2.5 s for each answer: the first user waits that long and is served."""
    dns.add(NAME, "127.0.0.1", ttl=60, delay=2.5)
    with serve(echo) as origin, server_at("127.0.0.1", tmp_path, settings):
        took = seconds_of(lambda: exchange(local, origin.address))
        measured("the first request takes", took)
        assert 2.5 <= took < LIMIT
        took = seconds_of(lambda: exchange(local, origin.address))
        measured("the next one takes", took)
