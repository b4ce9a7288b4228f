"""Limits with real processes: what is refused, how that looks, and what goes on beside it."""

from __future__ import annotations

import contextlib
import os
import socket
import time

from common.crypto import Cipher
from common.proto.address import Address
from tests.e2e.clients import (
    HttpWire,
    dial,
    ends,
    open_tunnel,
    receive_exactly,
    socks5_reply,
    socks5_request,
)
from tests.netns import SERVER, open_socket, topology_or_skip
from tests.origin import black_hole, echo, refused_port, serve
from tests.processes import COMMANDS, Program, free_port, write_config
from tests.waiting import wait_until

METHOD = "aes-256-gcm"
PASSWORD = "not a secret"


def settings(port, **more):
    return {
        "server": "127.0.0.1",
        "server_port": port,
        "method": METHOD,
        "password": PASSWORD,
        "forbidden_ip": [],
        **more,
    }


def flight(target, password=PASSWORD):
    stream = Cipher.from_password(METHOD, password).client_stream(
        Address(*target), clock=time.time, random=os.urandom
    )
    return bytes(stream.first(b"hello"))


def is_served(sock, target, password=PASSWORD):
    """Whether the stream of a holder of the key reaches its target."""
    with contextlib.suppress(OSError, EOFError):
        sock.sendall(flight(target, password))
        return bool(receive_exactly(sock, 1))
    return False


def test_the_oldest_stranger_makes_room_and_holders_of_the_key_do_not(start_program):
    """W28: a flood of the silent and of the noisy, and service as before."""
    port = free_port()
    program = start_program("server", settings(port, limits={"handshakes": 5}))
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        served = stack.enter_context(dial(port))
        assert is_served(served, origin.address)
        first = [stack.enter_context(dial(port)) for _ in range(6)]
        for sock in first[::2]:
            sock.sendall(os.urandom(300))

        def one_more_ends_the_first():
            stack.enter_context(dial(port))
            return ends(first[0], 0.05) and ends(first[1], 0.05)

        wait_until(one_more_ends_the_first, timeout=20)
        with dial(port) as sock:
            assert is_served(sock, origin.address)
        wait_until(lambda: origin.live == 1, timeout=20)
        assert not ends(served, 0.05)
    wait_until(lambda: "have not said what they want" in program.log())
    assert program.log().count("have not said what they want") == 1, "rarely told"


def test_at_the_local_end_whoever_asked_for_something_stays(start_pair):
    """A browser's spare connections make room; tunnels, and a SOCKS client's UDP, do not."""
    pair = start_pair(local_config={"limits": {"handshakes": 3}})
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        tunnel = stack.enter_context(open_tunnel("socks5", pair.local_port, origin.address))
        waiting = stack.enter_context(dial(pair.local_port))
        waiting.sendall(b"\x05\x01\x00" + socks5_request("127.0.0.1", 1, command=3))
        receive_exactly(waiting, 2)
        assert socks5_reply(waiting)[1] == 0
        spare = [stack.enter_context(dial(pair.local_port)) for _ in range(4)]

        def one_more_ends_the_first():
            stack.enter_context(dial(pair.local_port))
            return ends(spare[0], 0.05)

        wait_until(one_more_ends_the_first, timeout=20)
        tunnel.sendall(b"ping")
        assert receive_exactly(tunnel, 4) == b"ping"
        assert not ends(waiting, 0.05)


def test_too_many_connections_under_way_are_told_as_that(start_program):
    """A server that does not answer, and then no room to ask another one: it is not called unreachable."""
    with black_hole() as silent, refused_port() as other, contextlib.ExitStack() as stack:
        port = free_port()
        common = {"server": "127.0.0.1", "method": METHOD, "password": PASSWORD}
        servers = [{**common, "server_port": number} for number in (silent, other)]
        more = {"connect_timeout": 60, "limits": {"connecting": 1}}
        program = start_program("local", {"servers": servers, "local_port": port, **more})
        first = stack.enter_context(dial(port))
        first.sendall(b"\x05\x01\x00" + socks5_request("192.0.2.1", 80))
        assert receive_exactly(first, 2) == b"\x05\x00"

        def is_refused():
            with HttpWire(port) as wire:
                wire.send(b"CONNECT 192.0.2.1:80 HTTP/1.1\r\nHost: 192.0.2.1:80\r\n\r\n")
                wire.sock.settimeout(0.3)
                try:
                    return wire.response()
                except TimeoutError:
                    return None  # it was quicker than the first

        response = wait_until(is_refused)
        assert response.status == 503
        assert b"1 connections are being made, the limit" in response.body
        told = "1 connections are being made, the limit: more are refused"
        wait_until(lambda: told in program.log())
        log = program.log()
        assert log.count(told) == 1
        assert "no server can be reached" not in log
        assert "out of reach" not in log


def test_the_silent_keep_nobody_out_of_a_full_house(start_program):
    """W10: all connections there may be, and none says a word."""
    port = free_port()
    start_program("server", settings(port, max_connections=4))
    with serve(echo) as origin, contextlib.ExitStack() as stack:
        silent = [stack.enter_context(dial(port)) for _ in range(8)]
        with dial(port) as sock:
            assert is_served(sock, origin.address)
        assert sum(ends(sock, 0.01) for sock in silent) >= 5


def test_a_user_has_its_part_and_others_have_theirs(start_program):
    port = free_port()
    users = [{"name": name, "password": f"the password of {name}"} for name in ("alice", "bob")]
    more = {"users": users, "limits": {"connections_per_user": 2}}
    program = start_program("server", settings(port, **more))
    with serve(echo) as origin, contextlib.ExitStack() as stack:

        def ask(name):
            sock = stack.enter_context(dial(port))
            return sock, is_served(sock, origin.address, f"the password of {name}")

        asked = [ask(name) for name in ("alice", "alice", "bob", "alice")]
        assert [served for _, served in asked] == [True, True, True, False]
        asked[0][0].close()
        wait_until(lambda: ask("alice")[1])
    wait_until(lambda: "user alice has 2 connections, the limit" in program.log())


def test_a_network_has_its_part_and_others_have_theirs(tmp_path):
    """Over it: RST at once, bytes or not; other networks and this machine itself are served."""
    port = free_port()
    with topology_or_skip() as net:
        more = {"server": "::", "limits": {"connections_per_source": 2}}
        config = write_config(tmp_path / "server.json", settings(port, **more))
        argv = net.world.argv(*COMMANDS["ours"]["server"], "-c", str(config))
        program = Program(argv, tmp_path / "server.log")
        try:
            program.wait_ready()
            with contextlib.ExitStack() as stack:

                def connect(version):
                    sock = stack.enter_context(open_socket(net.router, version, socket.SOCK_STREAM))
                    sock.connect((SERVER[version], port))
                    return sock

                def is_reset(version):
                    try:
                        return connect(version).recv(1) != b""
                    except ConnectionResetError:
                        return True

                def is_reset_soon(version):
                    with contextlib.suppress(ConnectionResetError):
                        return ends(connect(version), 0.05)
                    return True

                held = [connect(4), connect(4), connect(6), connect(6)]
                assert is_reset(4)
                assert is_reset(6)
                assert not any(ends(sock, 0.05) for sock in held)
                with net.world.entered():
                    for _ in range(4):
                        own = stack.enter_context(dial(port))
                        assert not ends(own, 0.05), "this machine is no source"
                held[0].close()
                wait_until(lambda: not is_reset_soon(4))
            wait_until(lambda: "its limit: more are reset" in program.log())
            assert program.stop() == 0, program.log()
            program.assert_healthy()
        finally:
            program.process.kill()
            program.process.wait()
