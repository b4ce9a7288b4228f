"""No password and no key in anything a program shows, while it serves, refuses, fails and crashes.

Looked through: the log at its most talkative, stdout and stderr of every command, the process list, what
clients and targets got, and the wire. Looked for: the forms of tests/secret_forms.py.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import secrets
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.chopper import chopper
from tests.crashing import FAULT, PLACES
from tests.e2e.clients import HttpWire, dial, receive_exactly, receive_to_end
from tests.e2e.udp_clients import associate
from tests.origin import refused_port, serve
from tests.processes import COMMANDS, KEY_SIZES, ROOT, Program, free_port, new_password, write_config
from tests.secret_forms import escaped
from tests.udp_targets import mirror, serve_datagrams
from tests.waiting import wait_until

METHODS = ["aes-256-gcm", "2022-blake3-aes-128-gcm", "2022-blake3-chacha20-poly1305"]
USER = "alice"
REFUSED = 2  # exit code


def command(*argv: str, env: dict[str, str] | None = None) -> tuple[int, bytes]:
    """Run a program to its end; return exit code and all it wrote."""
    done = subprocess.run(
        [sys.executable, "-m", *argv],
        cwd=ROOT,
        env={**os.environ, **(env or {})},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        timeout=30,
    )
    return done.returncode, done.stdout


class World:
    """A server with users, if the method has them, a local with ``auth``, and all that came out of either."""

    def __init__(self, folder: Path, method: str, dial_port: int) -> None:
        self.folder, self.method = folder, method
        self.own, self.theirs, self.front = new_password(method), new_password(method), secrets.token_hex(12)
        self.server_port, self.local_port = free_port(), free_port()
        self.outputs: dict[str, bytes] = {}
        has_users = method != "2022-blake3-chacha20-poly1305"
        chain = f"{self.own}:{self.theirs}" if method in KEY_SIZES else self.theirs
        shared = {"server": "127.0.0.1", "method": method, "timeout": 1, "verbose": 2}
        users = [{"name": USER, "password": self.theirs}] if has_users else None
        server = {"server_port": self.server_port, "password": self.own, "users": users, "forbidden_ip": []}
        local = {"server_port": dial_port, "password": chain if has_users else self.own}
        local |= {"local_port": self.local_port, "auth": [{"user": USER, "password": self.front}]}
        self.configs = {
            "server": write_config(folder / "server.json", {**shared, **server}),
            "local": write_config(folder / "local.json", {**shared, **local}),
        }

    @property
    def secrets(self) -> tuple[str, ...]:
        return self.own, self.theirs, self.front

    @contextlib.contextmanager
    def running(self) -> Iterator[list[Program]]:
        programs = {
            role: Program((*COMMANDS["ours"][role], "-c", str(path)), self.folder / f"{role}.log")
            for role, path in self.configs.items()
        }
        try:
            for program in programs.values():
                program.wait_ready()
            yield list(programs.values())
            for role, program in programs.items():
                for name in ("cmdline", "environ", "comm", "status"):
                    self.outputs[f"{role} {name}"] = Path(f"/proc/{program.pid}/{name}").read_bytes()
                assert program.stop() == 0, program.log()
                program.assert_healthy()
                self.outputs[f"{role} log"] = program.log().encode()
        finally:
            for program in programs.values():
                program.process.kill()
                program.process.wait()

    def credentials(self, password: str) -> str:
        return "Proxy-Authorization: Basic " + base64.b64encode(f"{USER}:{password}".encode()).decode()

    def ask(self, name: str, head: str, *fields: str) -> int:
        """Send one HTTP request to the front; note the answer, return its status."""
        with HttpWire(self.local_port) as wire:
            wire.send("\r\n".join((head, "Host: target", *fields, "Connection: close", "", "")).encode())
            answer = wire.response()
        self.outputs[name] = repr(answer).encode() + answer.body
        return answer.status

    def socks(self, name: str, password: str, request: bytes = b"") -> socket.socket:
        """Log in by RFC 1929 and go on with ``request``; the answer to the login is noted."""
        sock = dial(self.local_port)
        sock.sendall(b"\x05\x01\x02")
        assert receive_exactly(sock, 2) == b"\x05\x02"
        text = password.encode()
        sock.sendall(b"\x01" + bytes([len(USER)]) + USER.encode() + bytes([len(text)]) + text)
        self.outputs[name] = receive_exactly(sock, 2)
        sock.sendall(request)
        return sock

    def assert_nothing_escaped(self) -> None:
        assert escaped(self.secrets, self.outputs) == []


@pytest.mark.parametrize("method", METHODS)
def test_nothing_secret_comes_out_of_programs_at_work(tmp_path, method):
    """Good and bad logins, good and failing targets, strangers, replays, datagrams, signals, ``-vv``."""
    received: list[bytes] = []

    def origin(sock: socket.socket) -> None:
        received.append(sock.recv(65536))
        sock.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi")

    port = free_port()
    with chopper(("127.0.0.1", port)) as wire, serve(origin) as site, refused_port() as refused:
        world = World(tmp_path, method, wire.port)
        world.server_port = port
        settings = json.loads(world.configs["server"].read_text()) | {"server_port": port}
        write_config(world.configs["server"], settings)
        with world.running() as (server, _):
            good, bad = world.credentials(world.front), world.credentials(world.front[:-1] + "!")
            url = f"http://{site.authority}/"
            assert world.ask("page", f"GET {url} HTTP/1.1", good) == 200
            assert world.ask("bad login", f"GET {url} HTTP/1.1", bad) == 407
            assert world.ask("no login", f"GET {url} HTTP/1.1") == 407
            assert world.ask("nowhere", f"GET http://127.0.0.1:{refused}/ HTTP/1.1", good) == 502
            assert world.ask("no name", "GET http://a..b/ HTTP/1.1", good) >= 400
            assert world.ask("bad head", "GET / HTTP/9.9", good) >= 400
            target = b"\x05\x01\x00\x01\x7f\x00\x00\x01" + site.port.to_bytes(2, "big")
            with world.socks("socks", world.front, target) as sock:
                receive_exactly(sock, 10)
                sock.sendall(b"x")
                world.outputs["through socks"] = receive_to_end(sock)
            with world.socks("bad socks", world.front + "!") as sock:
                world.outputs["after a bad login"] = receive_to_end(sock)
            flight = wire.first_reads[0]
            for strange in (b"", os.urandom(200), flight, flight[:-1], flight[:60] + os.urandom(60)):
                with dial(port) as sock:
                    sock.sendall(strange)
                    world.outputs[f"answer to {len(strange)} bytes"] = receive_to_end(sock)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
                    stranger.sendto(strange, ("127.0.0.1", port))
            wait_until(lambda: "is not a client of ours" in server.log())
        world.outputs["wire"] = b"".join(wire.captured)
        world.outputs["seen by the site"] = b"".join(received)
    assert b"-v" not in world.outputs["server cmdline"]
    assert (
        all(text in world.outputs["server log"] for text in (b"DEBUG", USER.encode())) or "chacha" in method
    )
    assert site.accepted == 2
    world.assert_nothing_escaped()


@pytest.mark.parametrize("method", METHODS)
def test_datagrams_show_nothing_either(tmp_path, method):
    """The front has no ``auth`` here: the client of the tests does not log in."""
    port = free_port()
    world = World(tmp_path, method, port)
    for role in world.configs:
        settings = json.loads(world.configs[role].read_text()) | {"server_port": port}
        settings.pop("auth", None)
        write_config(world.configs[role], settings)
    with world.running(), serve_datagrams(mirror) as target, associate(world.local_port) as client:
        assert client.works(target.address)
    world.assert_nothing_escaped()


@pytest.mark.parametrize("method", METHODS[:2])
def test_check_and_refusals_show_nothing(tmp_path, method):
    world = World(tmp_path, method, free_port())
    for role, path in world.configs.items():
        program = f"ss{role}"
        code, world.outputs[f"{role} --check"] = command(program, "-c", str(path), "--check", "-vv")
        assert code == 0
        whole = path.read_text()
        for number, text in enumerate(
            (
                whole[:-3],  # unfinished
                whole.replace(world.own, world.own[:-5]).replace(world.theirs, world.theirs[:-5] + "\\u00e4"),
                whole.replace('"password": "', '"password": '),
                whole.replace('"password"', '"pasword"'),
                whole.replace('"127.0.0.1"', f'"ss://{world.method}:{world.own}@h"'),
                f"password: {{{world.own}: [}}\n",
            )
        ):
            broken = tmp_path / f"broken-{number}.{'json' if text[:1] == '{' else 'yaml'}"
            broken.write_text(text)
            code, output = command(program, "-c", str(broken), "--check")
            world.outputs[f"{role} {broken.name}"] = output
            assert b"Traceback" not in output, output
    busy = tmp_path / "busy.json"
    settings = json.loads(world.configs["server"].read_text())
    with socket.create_server(("127.0.0.1", 0)) as taken:
        write_config(busy, settings | {"server_port": taken.getsockname()[1]})
        code, world.outputs["busy"] = command("ssserver", "-c", str(busy), "-vv")
        assert code == 1
    world.assert_nothing_escaped()


@pytest.mark.parametrize("how", ["flag", "link", "environment"])
def test_the_process_list_shows_no_password(tmp_path, how):
    """A flag and a link are moved out of it. A variable stays in ``environ``, for this user and root."""
    password, port = new_password(METHODS[0]), free_port()
    link = base64.urlsafe_b64encode(f"{METHODS[0]}:{password}".encode()).decode()
    argv = {
        "flag": ("-s", "127.0.0.1:9", "-m", METHODS[0], "-k", password),
        "link": (f"ss://{link}@127.0.0.1:9",),
        "environment": ("-s", "127.0.0.1:9", "-m", METHODS[0]),
    }[how]
    env = {"SS_SERVER_PASSWORD": password} if how == "environment" else None
    program = Program(
        (*COMMANDS["ours"]["local"], *argv, "-l", str(port), "-vv"), tmp_path / "local.log", env=env
    )
    try:
        program.wait_ready()
        folder = Path(f"/proc/{program.pid}")
        cmdline, environ = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        assert stat.S_IMODE((folder / "environ").stat().st_mode) == 0o400
        assert program.stop() == 0
    finally:
        program.process.kill()
        program.process.wait()
    outputs = {"cmdline": cmdline, "log": program.log().encode()}
    assert escaped([password, link], outputs) == []
    assert (password.encode() in environ) == (how == "environment")


# -- crashes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("dev", [False, True], ids=["", "dev"])
@pytest.mark.parametrize("place", ["loader", "start"])
def test_a_crash_at_the_start_shows_no_secret(tmp_path, place, dev):
    """A bug where the password is a local variable: a traceback, and no password in it."""
    world = World(tmp_path, METHODS[0], free_port())
    env = {"PYTHONDEVMODE": "1", "PYTHONFAULTHANDLER": "1"} if dev else {}
    argv = ("tests.crashing", place, "ssserver", "-c", str(world.configs["server"]), "-vv")
    code, world.outputs["output"] = command(*argv, env=env)
    assert code == 1
    assert FAULT.encode() in world.outputs["output"]
    assert b"in crash" in world.outputs["output"]
    world.assert_nothing_escaped()


def test_a_crash_of_the_daemon_shows_no_secret(tmp_path):
    world = World(tmp_path, METHODS[0], free_port())
    argv = ("tests.crashing", "start", "ssserver", "-c", str(world.configs["server"]), "-d", "start")
    files = ("--pid-file", str(tmp_path / "pid"), "--log-file", str(tmp_path / "log"))
    code, world.outputs["output"] = command(*argv, *files)
    world.outputs["log"] = (tmp_path / "log").read_bytes()
    assert code == 1
    assert FAULT.encode() in world.outputs["output"] + world.outputs["log"]
    world.assert_nothing_escaped()


@pytest.mark.parametrize(("place", "method"), [("stream", METHODS[0]), ("stream of 2022", METHODS[2])])
def test_a_crash_while_serving_shows_no_secret(tmp_path, place, method):
    """The key is a local variable; the bug ends that connection, and SIGABRT then ends the program."""
    world = World(tmp_path, method, free_port())
    argv = (sys.executable, "-m", "tests.crashing", place, "ssserver", "-c", str(world.configs["server"]))
    program = Program(argv, tmp_path / "log", env={"PYTHONFAULTHANDLER": "1"})
    try:
        program.wait_ready()
        with dial(world.server_port) as sock:
            sock.sendall(os.urandom(500))
            world.outputs["answer"] = receive_to_end(sock)
        wait_until(lambda: FAULT in program.log())
        assert program.running
        program.signal(signal.SIGABRT)
        assert program.wait() == -signal.SIGABRT
    finally:
        program.process.kill()
        program.process.wait()
    world.outputs["log"] = program.log().encode()
    assert b"in crash" in world.outputs["log"]
    assert b"Fatal Python error: Aborted" in world.outputs["log"]
    world.assert_nothing_escaped()


# -- the search itself -------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_search_would_notice(method):
    from common.crypto.methods import find_method, keys_from_password

    secret = new_password(method)
    (key,) = keys_from_password(find_method(method), secret)
    leaks = {
        "text": f"password={secret}".encode(),
        "cut": secret[:15].encode(),
        "raw": b"\x00" + key,
        "hex": key.hex().encode(),
        "base64": base64.b64encode(key),
        "repr": repr(key).encode(),
        "list": str(list(key)).encode(),
        "dump": str(bytearray(key)).encode(),
    }
    for name, leak in leaks.items():
        assert escaped([secret], {name: leak}), name
    assert escaped([new_password(method)], leaks) == []


def test_every_planted_bug_is_somewhere_real():
    import importlib

    for path in PLACES.values():
        parts = path.split(".")
        depth = next(count for count in range(len(parts), 0, -1) if _is_module(parts[:count]))
        found = importlib.import_module(".".join(parts[:depth]))
        for name in parts[depth:]:
            found = getattr(found, name)
        assert callable(found), path


def _is_module(parts: list[str]) -> bool:
    path = ROOT.joinpath(*parts)
    return path.is_dir() or path.with_suffix(".py").exists()
