"""Limits of users with real processes: those of sslocal's ``auth`` and of ssserver, TCP and UDP."""

from __future__ import annotations

import base64
import contextlib

import pytest

from tests.e2e.clients import HttpWire, dial, ends, receive_exactly, socks5_reply, socks5_request
from tests.e2e.udp_clients import Association, associate
from tests.origin import echo, serve
from tests.processes import KEY_SIZES, free_port, new_password
from tests.udp_targets import datagram_socket, mirror, serve_datagrams
from tests.waiting import wait_until

GENERAL_FAILURE, SUCCEEDED = 1, 0
AUTH = {"alice": "of alice", "bob": "of bob"}
BOUND = {"auth": AUTH, "limits": {"connections_per_user": 2}}


def basic(user: str) -> str:
    return "Proxy-Authorization: Basic " + base64.b64encode(f"{user}:{AUTH[user]}".encode()).decode()


def ask_by_socks(stack, port, user, target, command=1):
    """Return the connection of a client of SOCKS5, and the reply."""
    sock = stack.enter_context(dial(port))
    password = AUTH[user].encode()
    sock.sendall(b"\x05\x01\x02\x01%c%b%c%b" % (len(user), user.encode(), len(password), password))
    assert receive_exactly(sock, 4) == b"\x05\x02\x01\x00"
    sock.sendall(socks5_request(*target, command))
    reply = socks5_reply(sock)
    return sock, reply


def ask_by_connect(stack, port, user, target):
    wire = stack.enter_context(HttpWire(port))
    authority = "{}:{}".format(*target)
    wire.send(f"CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n{basic(user)}\r\n\r\n".encode())
    return wire.response("HEAD").status  # a tunnel has no body, whatever it carries


def fetch(wire, url, user):
    wire.send(f"GET {url} HTTP/1.1\r\nHost: {url.split('/')[2]}\r\n{basic(user)}\r\n\r\n".encode())
    return wire.response()


# -- connections at the local end ----------------------------------------------------------------------


def test_a_user_of_the_local_end_has_its_part_and_others_have_theirs(start_pair):
    """Over it: general failure or 503, at once; HTTP and SOCKS count together."""
    pair = start_pair(local_config=BOUND)
    port = pair.local_port
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        tunnel, reply = ask_by_socks(stack, port, "alice", origin.address)
        assert reply[1] == SUCCEEDED
        assert ask_by_connect(stack, port, "alice", origin.address) == 200
        refused, reply = ask_by_socks(stack, port, "alice", origin.address)
        assert reply[1] == GENERAL_FAILURE
        assert ends(refused)
        assert ask_by_connect(stack, port, "alice", origin.address) == 503
        assert ask_by_socks(stack, port, "bob", origin.address)[1][1] == SUCCEEDED
        assert ask_by_connect(stack, port, "bob", origin.address) == 200
        tunnel.sendall(b"ping")
        assert receive_exactly(tunnel, 4) == b"ping"
        tunnel.close()
        wait_until(lambda: ask_by_socks(stack, port, "alice", origin.address)[1][1] == SUCCEEDED)
    wait_until(lambda: "user alice has 2 connections, the limit" in pair.local.log())
    assert pair.local.log().count("user alice has 2 connections, the limit") == 1, "rarely told"
    assert "user bob" not in pair.local.log()


def test_many_requests_on_one_connection_count_once(start_pair, site):
    pair = start_pair(local_config=BOUND)
    url = site.url + "/bytes/10"
    with contextlib.ExitStack() as stack:
        wires = [stack.enter_context(HttpWire(pair.local_port)) for _ in range(3)]
        for _ in range(5):
            assert [fetch(wire, url, "alice").status for wire in wires[:2]] == [200, 200]
        response = fetch(wires[2], url, "alice")
        assert response.status == 503
        assert b"user alice has 2 connections" in response.body.lower()
        assert fetch(wires[1], url, "bob").status == 200, "it is bob's from now on"
        third = stack.enter_context(HttpWire(pair.local_port))
        assert fetch(third, url, "alice").status == 200


# -- UDP -------------------------------------------------------------------------------------------------


def test_a_user_of_the_local_end_has_so_many_associations(start_pair):
    """The quietest of its own ends, with its connection; those of others stay."""
    pair = start_pair(local_config={"auth": AUTH, "limits": {"udp_associations_per_user": 2}})
    with serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:

        def associated(user):
            sock = stack.enter_context(datagram_socket())
            sock.settimeout(30)
            control, reply = ask_by_socks(stack, pair.local_port, user, ("0.0.0.0", 0), 3)
            assert reply[1] == SUCCEEDED
            client = Association(control, sock, ("127.0.0.1", int.from_bytes(reply[-2:], "big")))
            assert client.works(target.address)
            return client

        bob, first, second = (associated(user) for user in ("bob", "alice", "alice"))
        assert first.works(target.address)
        third = associated("alice")
        assert ends(second.control)
        assert all(client.works(target.address) for client in (bob, first, third))
    wait_until(
        lambda: "user alice has 2 UDP associations, the limit: its quietest makes room" in pair.local.log()
    )


@pytest.mark.parametrize("method", ["aes-256-gcm", "2022-blake3-aes-256-gcm"])
def test_a_user_of_the_server_has_so_many_sessions(start_program, method):
    """However many addresses it comes from; whoever was ended is served again when it speaks."""
    port = free_port()
    own, keys = new_password(method), {name: new_password(method) for name in ("alice", "bob")}
    common = {"server": "127.0.0.1", "server_port": port, "method": method}
    server = start_program(
        "server",
        {
            **common,
            "password": own,
            "users": [{"name": name, "password": key} for name, key in keys.items()],
            "forbidden_ip": [],
            "limits": {"udp_associations_per_user": 3},
        },
    )

    def local(name):
        password = f"{own}:{keys[name]}" if method in KEY_SIZES else keys[name]
        local_port = free_port()
        start_program("local", {**common, "password": password, "local_port": local_port})
        return local_port

    alice, bob = local("alice"), local("bob")
    before = server.udp_sockets()
    with serve_datagrams(mirror) as target, contextlib.ExitStack() as stack:
        others = [stack.enter_context(associate(bob)) for _ in range(2)]
        clients = [stack.enter_context(associate(alice)) for _ in range(8)]
        for client in (*others, *clients):
            assert client.works(target.address)
        assert server.udp_sockets() == before + 2 + 3
        assert all(client.works(target.address) for client in (*clients, *others))
        assert len(target.peers) == 2 + 8 + 8, "bob's have kept their ports, alice's have new ones"
    wait_until(lambda: "user alice has 3 UDP associations, the limit" in server.log())
    assert server.log().count("user alice has 3 UDP associations, the limit") == 1, "rarely told"
    assert "user bob" not in server.log()
