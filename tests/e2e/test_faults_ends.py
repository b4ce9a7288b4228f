"""Faults at either end: a target that resets, a server that is killed, sleep, no descriptors left."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time

import pytest

from tests.e2e.clients import HttpWire, dial, get, open_tunnel, receive_exactly, receive_to_end
from tests.faults import (
    LIMIT,
    NOT_YET,
    Transfer,
    measured,
    nothing_left,
    page,
    pass_seconds,
    seconds_of,
    seconds_until,
)
from tests.http_origin import serve_site
from tests.origin import echo, reset_after, serve, sha256, source
from tests.processes import COMMANDS, Program, free_port, new_password, write_config
from tests.waiting import wait_until

pytestmark = pytest.mark.slow

MB = 1024 * 1024
RATE = 8 * MB  # bytes per second of a transfer that shall be under way for a while
METHOD = "2022-blake3-aes-128-gcm"


def exchange(pair, address):
    with open_tunnel("socks5", pair.local_port, address) as sock:
        sock.settimeout(LIMIT)
        sock.sendall(b"ping")
        assert receive_exactly(sock, 4) == b"ping"


def test_the_target_resets_in_mid_transfer(start_pair):
    """All that it sent before arrives, then the end, at once; others notice nothing."""
    data, go = os.urandom(MB), threading.Event()
    pair = start_pair()
    with serve(echo) as other, serve(reset_after(data, go)) as origin:
        exchange(pair, other.address)
        with nothing_left(*pair.programs):
            with open_tunnel("socks5", pair.local_port, origin.address) as sock:
                assert receive_exactly(sock, len(data)) == data
                go.set()
                measured("the user sees the end after", seconds_of(lambda: receive_to_end(sock)))
            measured("back after", seconds_until(lambda: exchange(pair, other.address)))


class Server:
    """An ssserver that can be killed and started again, and the sslocal that knows it."""

    def __init__(self, folder):
        self.server_port, self.local_port = free_port(), free_port()
        both = {"server": "127.0.0.1", "server_port": self.server_port, "method": METHOD}
        both["password"] = new_password(METHOD)
        self._folder = folder
        self._configs = {
            "server": write_config(folder / "server.json", {**both, "forbidden_ip": []}),
            "local": write_config(folder / "local.json", {**both, "local_port": self.local_port}),
        }
        self.programs = []
        self.server, self.local = self.start("server"), self.start("local")

    def start(self, role):
        argv = (*COMMANDS["ours"][role], "-c", str(self._configs[role]))
        program = Program(argv, self._folder / f"{role}-{len(self.programs)}.log")
        self.programs.append(program)
        program.wait_ready()
        return program

    def kill(self):
        self.server.process.kill()
        self.server.process.wait()

    def restart(self):
        self.server = self.start("server")


@pytest.fixture
def world(tmp_path):
    world = Server(tmp_path)
    try:
        yield world
        for program in (world.local, world.server):
            assert program.stop() == 0, program.log()
            program.assert_healthy()
    finally:
        for program in world.programs:
            program.process.kill()
            program.process.wait()


def test_the_server_is_killed_and_restarted(world):
    """What ran ends at once with what had arrived; until it is back users are told; then all is well."""
    data = os.urandom(24 * MB)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve(echo))
        site = stack.enter_context(serve_site())
        origin = stack.enter_context(serve(source(data, RATE)))
        stack.enter_context(nothing_left(world.local))
        browser = stack.enter_context(HttpWire(world.local_port))
        assert page(browser, site) == 200
        transfer = Transfer(stack.enter_context(open_tunnel("socks5", world.local_port, origin.address)))
        transfer.wait_for(MB)
        killed = time.monotonic()
        world.kill()
        transfer.wait_for_end()
        measured("the user sees the end after", time.monotonic() - killed)
        assert transfer.is_beginning_of(data)
        answer = get(world.local_port, site.url + "/")
        assert answer.status == 502
        assert "The server 127.0.0.1" in answer.body.decode()
        world.restart()
        measured("back after", seconds_until(lambda: exchange(world, target.address)))
        measured("kept-alive client back after", seconds_of(lambda: page(browser, site)))


@pytest.mark.parametrize("role", ["local", "server"])
def test_sleep(start_pair, role):
    """One end is stopped for 3 s in mid-transfer: nothing is lost, and it goes on when it wakes up."""
    pair = start_pair(local_config={"timeout": 2}, server_config={"timeout": 2})
    sleeper = getattr(pair, role)
    data = os.urandom(24 * MB)
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve(echo))
        site = stack.enter_context(serve_site())
        origin = stack.enter_context(serve(source(data, RATE)))
        stack.enter_context(nothing_left(*pair.programs))
        browser = stack.enter_context(HttpWire(pair.local_port))
        assert page(browser, site) == 200
        transfer = Transfer(stack.enter_context(open_tunnel("socks5", pair.local_port, origin.address)))
        transfer.wait_for(MB)
        sleeper.signal(signal.SIGSTOP)
        try:
            size = transfer.wait_until_stalled()
            pass_seconds(3.0)
        finally:
            sleeper.signal(signal.SIGCONT)
        woken = time.monotonic()
        measured("back after", seconds_until(lambda: exchange(pair, target.address)))
        transfer.wait_for(size + 1)
        measured("transfer goes on after", time.monotonic() - woken)
        with contextlib.suppress(EOFError):  # it was idle for longer than ``timeout``
            page(browser, site)
        transfer.wait_for_end()
        assert transfer.received.digest() == sha256(data)


def test_a_sleep_that_the_server_did_not_wait_for(start_pair):
    """The server has ended what was idle, ``idle_timeout`` here being 1 s: a user meets fresh streams."""
    pair = start_pair(server_config={"idle_timeout": 1})
    with contextlib.ExitStack() as stack:
        target = stack.enter_context(serve(echo))
        site = stack.enter_context(serve_site())
        stack.enter_context(nothing_left(*pair.programs))
        browser = stack.enter_context(HttpWire(pair.local_port))
        assert page(browser, site) == 200
        tunnel = stack.enter_context(open_tunnel("socks5", pair.local_port, target.address))
        tunnel.sendall(b"ping")
        receive_exactly(tunnel, 4)
        pair.local.signal(signal.SIGSTOP)
        try:
            pass_seconds(2.5)
        finally:
            pair.local.signal(signal.SIGCONT)
        woken = time.monotonic()
        measured("back after", seconds_until(lambda: exchange(pair, target.address)))
        measured("kept-alive client back after", seconds_of(lambda: page(browser, site)))
        receive_to_end(tunnel)
        measured("what ran has ended after", time.monotonic() - woken)


def greet(sock):
    sock.sendall(b"\x05\x01\x00")
    receive_exactly(sock, 2)


def test_descriptors_run_out_and_are_freed(start_pair):
    """64 of them, 100 clients: who comes then waits, or is told; when they have left, service is back."""
    pair = start_pair(nofile=64)
    with serve(echo) as target, nothing_left(*pair.programs):
        with contextlib.ExitStack() as crowd:
            kept = crowd.enter_context(open_tunnel("socks5", pair.local_port, target.address))
            for _ in range(100):
                sock = crowd.enter_context(dial(pair.local_port))
                sock.sendall(b"\x05\x01\x00\x05\x01\x00\x01\x7f\0\0\x01" + target.port.to_bytes(2, "big"))
            wait_until(lambda: "new connections wait" in pair.local.log(), what="a full local")
            with dial(pair.local_port) as late:
                late.settimeout(0.5)
                with pytest.raises(NOT_YET):
                    greet(late)
            kept.sendall(b"still here")
            assert receive_exactly(kept, 10) == b"still here"
        measured("back after", seconds_until(lambda: exchange(pair, target.address)))
