"""Row S10: ``port_password`` with 75 and with 2,000 ports, TCP and UDP on each."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable

import pytest

from tests.e2e.clients import dial, open_tunnel, receive_exactly
from tests.e2e.udp_clients import associate
from tests.origin import echo, serve
from tests.processes import Program, free_port, free_ports, new_password
from tests.sip004 import METHOD, Client, address
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

START_SECONDS = 10.0  # 5 on a machine of one's own
QUIET_SECONDS = 2.0
SOME = 3  # ports that are tried with a client of ours
SIP022 = "2022-blake3-aes-256-gcm"
DESCRIPTORS = 20  # besides the ports' own


@pytest.fixture
def start_ports(start_program) -> Callable[..., tuple[Program, dict[int, str]]]:
    """Start ssserver with as many ports; return it with their passwords."""

    def start(count: int, method: str) -> tuple[Program, dict[int, str]]:
        passwords = {port: new_password(method) for port in free_ports(count)}
        settings = {
            "server": "127.0.0.1",
            "port_password": {str(port): password for port, password in passwords.items()},
            "method": method,
            "forbidden_ip": [],
        }
        return start_program("server", settings), passwords

    return start


def is_served(start_program, method: str, port: int, password: str) -> None:
    """A client with the port's own password has TCP and UDP there."""
    local = free_port()
    settings = {"server": "127.0.0.1", "server_port": port, "method": method, "password": password}
    start_program("local", {**settings, "local_port": local})
    with serve(echo) as origin, open_tunnel("socks5", local, origin.address) as sock:
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"
    with serve_datagrams(mirror) as target, associate(local) as client:
        assert client.works(target.address)


def test_s10_seventy_five_ports(start_ports, start_program):
    """Each with a password of its own, which opens that one and no other."""
    _, passwords = start_ports(75, METHOD)
    with serve(echo) as origin:
        for port, password in passwords.items():
            with dial(port) as sock:
                client = Client(password)
                sock.sendall(client.flight(address(*origin.address) + b"ping"))
                assert client.receive(sock) == b"ping"
        assert origin.accepted == len(passwords)
    for port in random.sample(sorted(passwords), SOME):
        is_served(start_program, METHOD, port, passwords[port])


@pytest.mark.slow
@pytest.mark.parametrize("method", [METHOD, SIP022])
def test_s10_two_thousand_ports(start_ports, start_program, method, record_property):
    """All accept, soon; then the process sleeps, and ends as fast as ever."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert soft > 4096 + DESCRIPTORS, "two descriptors for every port take more than this system allows"
    started = time.monotonic()
    program, passwords = start_ports(2_000, method)
    record_property("start_seconds", time.monotonic() - started)
    record_property("rss", program.rss())
    assert time.monotonic() - started < START_SECONDS
    assert program.udp_sockets() == len(passwords)
    for port in passwords:
        dial(port).close()
    wait_until(lambda: program.descriptors() < 2 * len(passwords) + DESCRIPTORS)
    for port in random.sample(sorted(passwords), SOME):
        is_served(start_program, method, port, passwords[port])
    before = settle(program)
    asked = time.monotonic()
    wait_until(lambda: time.monotonic() > asked + QUIET_SECONDS)
    assert program.switches() - before <= 1
    asked = time.monotonic()
    assert program.stop() == 0
    assert time.monotonic() - asked < START_SECONDS


def settle(program: Program) -> int:
    """Wait until it has slept for a while, and return how often it was woken so far."""
    last = [program.switches(), time.monotonic()]

    def is_quiet() -> bool:
        now = program.switches()
        if now != last[0]:
            last[:] = [now, time.monotonic()]
        return time.monotonic() - last[1] > 0.5

    wait_until(is_quiet)
    return program.switches()
