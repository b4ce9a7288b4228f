"""Rows S5, S6 and fault W25: when a connection ends by itself, and when the process does."""

from __future__ import annotations

import signal
import socket
import time

import pytest

from tests.e2e.clients import dial, ends, open_tunnel, receive_exactly
from tests.origin import Received, echo, half_close_first, serve
from tests.processes import COMMANDS, Program, write_config
from tests.waiting import wait_until

LATE = 2.0  # seconds a busy machine may be late


@pytest.mark.parametrize("half", ["local", "server"])
def test_s5_w25_idle_timeout_ends_an_idle_connection(start_pair, half):
    """Precise, restarted by traffic; and a pair without the key keeps its connection."""
    idle = 2.0
    kept = start_pair()
    pair = start_pair(**{f"{half}_config": {"idle_timeout": idle}})
    with (
        serve(echo) as origin,
        open_tunnel("socks5", kept.local_port, origin.address) as patient,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        patient.sendall(b"x")
        receive_exactly(patient, 1)
        for _ in range(2):
            sock.sendall(b"x")
            receive_exactly(sock, 1)
            last = time.monotonic()
            wait_until(lambda last=last: time.monotonic() > last + 0.7)
        assert ends(sock, 20.0)
        assert idle - 0.1 < time.monotonic() - last < idle + LATE
        patient.sendall(b"x")
        assert receive_exactly(patient, 1) == b"x"


@pytest.mark.parametrize("half", ["local", "server"])
def test_half_close_timeout_bounds_a_half_closed_connection(start_pair, half):
    """One direction ended, the other silent: over after ``half_close_timeout``, not before traffic."""
    pair = start_pair(**{f"{half}_config": {"half_close_timeout": 1.5}})
    received = Received()
    with (
        serve(half_close_first(b"bye", received)) as origin,
        open_tunnel("socks5", pair.local_port, origin.address) as sock,
    ):
        assert receive_exactly(sock, 3) == b"bye"
        assert sock.recv(1) == b""
        for _ in range(4):  # traffic restarts it
            sock.sendall(b"x")
            sent = time.monotonic()
            wait_until(lambda sent=sent: time.monotonic() > sent + 0.7)
        assert received.size == 4
        wait_until(lambda: not origin.live, timeout=20.0)
        assert time.monotonic() - sent > 1.4


def test_s6_sigquit_drains(start_pair):
    """The listener goes at once, a live connection goes on, and the process ends with its last one."""
    pair = start_pair()
    with serve(echo) as origin:
        with open_tunnel("socks5", pair.local_port, origin.address) as sock:
            sock.sendall(b"before")
            assert receive_exactly(sock, 6) == b"before"
            for program, port in ((pair.local, pair.local_port), (pair.server, pair.server_port)):
                program.signal(signal.SIGQUIT)
                wait_until(lambda port=port: not listens(port), timeout=2.0)
                successor = listener(port)
                successor.close()
            sock.sendall(b"after")
            assert receive_exactly(sock, 5) == b"after"
            assert pair.local.running
            assert pair.server.running
        ended = time.monotonic()
        assert [program.wait() for program in pair.programs] == [0, 0]
        assert time.monotonic() - ended < 1.0 + LATE


def listens(port: int) -> bool:
    try:
        dial(port).close()
    except ConnectionRefusedError:
        return False
    return True


def listener(port: int) -> socket.socket:
    """Bind and listen on a port the process before has left, as its successor would."""
    sock = socket.socket()
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.bind(("127.0.0.1", port))
    sock.listen()
    return sock


def test_s6_sigquit_without_connections_ends_at_once(start_pair):
    pair = start_pair()
    for program in pair.programs:
        asked = time.monotonic()
        program.signal(signal.SIGQUIT)
        assert program.wait() == 0
        assert time.monotonic() - asked < LATE


def test_s6_sigquit_twice_ends_at_once(start_pair):
    pair = start_pair()
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        pair.local.signal(signal.SIGQUIT)
        wait_until(lambda: not listens(pair.local_port))
        pair.local.signal(signal.SIGQUIT)
        assert pair.local.wait() == 0
        assert ends(sock)


def test_s6_drain_does_not_wait_for_clients_that_have_asked_nothing(start_pair, tmp_path):
    """A kept-alive or silent client is no live connection."""
    pair = start_pair()
    with dial(pair.local_port) as silent:
        wait_until(lambda: pair.local.running)
        pair.local.signal(signal.SIGQUIT)
        assert pair.local.wait() == 0
        assert ends(silent)


def test_the_successor_may_take_the_port_while_the_old_one_drains(start_pair, tmp_path):
    pair = start_pair()
    with serve(echo) as origin, open_tunnel("socks5", pair.local_port, origin.address) as sock:
        pair.local.signal(signal.SIGQUIT)
        wait_until(lambda: not listens(pair.local_port))
        settings = {
            "server": "127.0.0.1",
            "server_port": pair.server_port,
            "local_port": pair.local_port,
            "method": pair.method,
            "password": pair.password,
        }
        config = write_config(tmp_path / "successor.json", settings)
        successor = Program((*COMMANDS["ours"]["local"], "-c", str(config)), tmp_path / "successor.log")
        try:
            successor.wait_listening(pair.local_port)
            with open_tunnel("socks5", pair.local_port, origin.address) as other:
                for tunnel in (sock, other):
                    tunnel.sendall(b"x")
                    assert receive_exactly(tunnel, 1) == b"x"
        finally:
            assert successor.stop() == 0
    assert pair.local.wait() == 0
