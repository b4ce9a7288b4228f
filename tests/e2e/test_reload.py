"""SIGHUP with real processes, one or several: a good file, a broken one, a port that is taken."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import threading
from pathlib import Path

import pytest

from tests import sip004
from tests.e2e.clients import dial
from tests.origin import echo, serve
from tests.processes import Program, free_port, new_password, write_config
from tests.waiting import wait_until

METHOD = "aes-256-gcm"

pytestmark = pytest.mark.parametrize("workers", [1, 2])


class Server:
    """A running ssserver whose file can be changed."""

    def __init__(self, start, workers: int, **more: object) -> None:
        self.port, self.password = free_port(), new_password(METHOD)
        self.settings = {
            "server": "127.0.0.1",
            "server_port": self.port,
            "method": METHOD,
            "password": self.password,
            "forbidden_ip": [],
            "workers": workers,
            **more,
        }
        self.program: Program = start("server", self.settings)
        wait_until(lambda: "workers" in self.program.log() or workers == 1)
        self.path = Path(self.program.argv[-1])

    def reload(self, **changes: object) -> str:
        """Change the file, send SIGHUP and return what is logged of it."""
        self.settings |= changes
        write_config(self.path, self.settings)
        return self.hang_up()

    def hang_up(self) -> str:
        before = len(self.program.log())

        def said() -> str:
            return self.program.log()[before:]

        self.program.signal(signal.SIGHUP)
        wait_until(lambda: "reloaded" in said())
        return said()

    def ask(self, origin, port: int | None = None, password: str | None = None) -> tuple:
        """Open a stream to an echo; return its two ends."""
        client = sip004.Client(password or self.password)
        sock = dial(port or self.port)
        sock.sendall(client.flight(sip004.address(*origin.address) + b"hello"))
        assert client.receive(sock) == b"hello"
        return client, sock


def goes_on(client, sock) -> bool:
    sock.sendall(client.up.chunk(b"still here"))
    return client.receive(sock) == b"still here"


@pytest.fixture
def server(start_program, workers):
    return Server(start_program, workers)


def test_a_new_user_is_served_and_old_tunnels_live_on(server):
    users = [{"name": "bob", "password": new_password(METHOD)}]
    with serve(echo) as origin:
        client, sock = server.ask(origin)
        with sock:
            assert "reloaded" in server.reload(users=users)
            for _ in range(6):
                server.ask(origin, password=users[0]["password"])[1].close()
                server.ask(origin)[1].close()
            assert goes_on(client, sock)
            assert "reloaded" in server.hang_up()
            assert goes_on(client, sock)


def test_a_broken_file_changes_nothing_and_every_problem_is_logged(server):
    with serve(echo) as origin:
        client, sock = server.ask(origin)
        with sock:
            said = server.reload(method="rot13", timeout="soon")
            assert "ERROR not reloaded: 2 problems, nothing changed" in said
            wait_until(lambda: "timeout" in server.program.log())
            server.path.write_text("{")
            assert "not reloaded: 1 problem" in server.hang_up()
            server.path.unlink()
            assert "not reloaded" in server.hang_up()
            assert goes_on(client, sock)
            server.ask(origin)[1].close()


def test_a_port_that_is_taken_changes_nothing(server):
    taken = free_port()
    entry = {"server": "127.0.0.1", "method": METHOD, "password": server.password}
    servers = [{**entry, "server_port": port} for port in (server.port, taken)]
    with serve(echo) as origin:
        with socket.create_server(("127.0.0.1", taken)):
            client, sock = server.ask(origin)
            said = server.reload(servers=servers, server=None, server_port=None)
            assert f"nothing changed: cannot listen on 127.0.0.1:{taken}: another program" in said
            assert goes_on(client, sock)
            server.ask(origin)[1].close()
        with sock:
            assert "not reloaded" not in server.hang_up()
            assert goes_on(client, sock)
            for port in (server.port, taken):
                server.ask(origin, port)[1].close()


def test_a_port_that_is_wanted_no_more_is_free_again(server):
    old, new = server.port, free_port()
    with serve(echo) as origin:
        client, sock = server.ask(origin)
        with sock:
            server.reload(server_port=new)
            wait_until(lambda: refused(old))
            assert goes_on(client, sock)
            server.ask(origin, new)[1].close()


def refused(port: int) -> bool:
    try:
        dial(port).close()
    except ConnectionRefusedError:
        return True
    return False


def test_a_reload_forgets_no_salt(start_program, workers):
    """S9: what was sent before is a replay after, also when users were added meanwhile."""
    server = Server(start_program, workers, verbose=1)
    with serve(echo) as origin:
        client = sip004.Client(server.password)
        flight = client.flight(sip004.address(*origin.address) + b"once")
        with dial(server.port) as sock:
            sock.sendall(flight)
            assert client.receive(sock) == b"once"
        server.reload(users=[{"name": "bob", "password": new_password(METHOD)}])
        with contextlib.ExitStack() as stack:
            for _ in range(8):
                stack.enter_context(dial(server.port)).sendall(flight)
            wait_until(lambda: server.program.log().count("salt was used before") == 8)


def test_graceful_timeout_ends_what_does_not_end_by_itself(start_program, workers):
    server = Server(start_program, workers, graceful_timeout=0.5)
    with serve(echo) as origin:
        _, sock = server.ask(origin)
        with sock:
            server.reload(timeout=30)
            server.ask(origin)[1].close()
            sock.settimeout(20)
            with contextlib.suppress(ConnectionError):
                assert sock.recv(1) == b""


def test_nobody_is_refused_while_it_reloads(server):
    """Streams are opened without a pause through five reloads."""
    failures: list[BaseException] = []
    done = threading.Event()
    served = [0]

    def load(origin) -> None:
        try:
            while not done.is_set():
                server.ask(origin)[1].close()
                served[0] += 1
        except BaseException as exc:
            failures.append(exc)

    with serve(echo) as origin:
        threads = [threading.Thread(target=load, args=(origin,)) for _ in range(4)]
        for thread in threads:
            thread.start()
        try:
            for number in range(5):
                count = served[0]
                server.reload(timeout=30 + number)
                wait_until(lambda count=count: served[0] > count + 20 or failures)
        finally:
            done.set()
            for thread in threads:
                thread.join(20)
    assert failures == []
    assert json.loads(server.path.read_text())["timeout"] == 34
