"""Relay programs as real processes: start one from a configuration, watch it, stop it.

A ``Program`` is one process; a ``Pair`` is a local and a server that know each other. Either half
may be ours or shadowsocks-libev's, which reads the same JSON. What a process costs (memory, CPU,
descriptors, context switches) is read from /proc and so needs Linux.

The surprise: free ports are taken from below the ephemeral range. A port found by binding 0 may be
handed out again as the source port of any connection before the program gets to bind it.
"""

from __future__ import annotations

import base64
import contextlib
import itertools
import json
import os
import random
import resource
import secrets
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.waiting import wait_until

ROOT = Path(__file__).resolve().parent.parent
TICK = os.sysconf("SC_CLK_TCK")
PORTS = range(12_000, 32_000)  # where ports of tests are taken from
START_SECONDS = 20.0
STOP_SECONDS = 10.0

CLASSIC_METHODS = (
    "aes-128-gcm",
    "aes-192-gcm",
    "aes-256-gcm",
    "chacha20-ietf-poly1305",
    "xchacha20-ietf-poly1305",
)
KEY_SIZES = {
    "2022-blake3-aes-128-gcm": 16,
    "2022-blake3-aes-256-gcm": 32,
    "2022-blake3-chacha20-poly1305": 32,
}
METHODS = (*CLASSIC_METHODS, *KEY_SIZES)

COMMANDS = {
    "ours": {
        "local": (sys.executable, "-m", "sslocal"),
        "server": (sys.executable, "-m", "ssserver"),
    },
    "libev": {"local": ("ss-local",), "server": ("ss-server",)},
}


def has_libev() -> bool:
    """Whether shadowsocks-libev is installed here."""
    return shutil.which("ss-local") is not None and shutil.which("ss-server") is not None


def free_port(host: str = "127.0.0.1") -> int:
    """Return a port, TCP and UDP, nobody listens on and no outgoing connection will be given."""
    while True:
        port = random.choice(PORTS)
        if _is_free(port, host):
            return port


def free_ports(count: int, host: str = "127.0.0.1") -> list[int]:
    """Return ``count`` different ones."""
    free = (port for port in random.sample(PORTS, len(PORTS)) if _is_free(port, host))
    return list(itertools.islice(free, count))


def _is_free(port: int, host: str) -> bool:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with (
        socket.socket(family, socket.SOCK_STREAM) as tcp,
        socket.socket(family, socket.SOCK_DGRAM) as udp,
        contextlib.suppress(OSError),
    ):
        tcp.bind((host, port))
        udp.bind((host, port))
        return True
    return False


def is_udp_bound(port: int) -> bool:
    """Whether some process has a UDP socket on ``port``; only Linux tells."""
    return any(fields[1].endswith(f":{port:04X}") for fields in _udp_table())


def _udp_table() -> list[list[str]]:
    """Return what Linux tells of every UDP socket: 1 is its address, 9 its inode."""
    tables = (Path("/proc/net/udp"), Path("/proc/net/udp6"))
    lines = [line for table in tables if table.exists() for line in table.read_text().splitlines()[1:]]
    return [line.split() for line in lines]


def new_password(method: str) -> str:
    """Return fresh key material in the form ``method`` wants."""
    size = KEY_SIZES.get(method)
    return base64.b64encode(os.urandom(size)).decode() if size else secrets.token_urlsafe(18)


def write_config(path: Path, settings: Mapping[str, object]) -> Path:
    """Write ``settings`` as JSON, without those that are None, and return the path."""
    given = {key: value for key, value in settings.items() if value is not None}
    path.write_text(json.dumps(given, indent=2))
    path.chmod(0o600)
    return path


class Program:
    """One running process with its log (stdout and stderr together) in a file."""

    def __init__(
        self,
        argv: Sequence[str],
        log: Path,
        *,
        env: Mapping[str, str] | None = None,
        nofile: int | None = None,
        stderr: int | None = None,
    ) -> None:
        """Start ``argv``. ``nofile`` bounds its descriptors; ``stderr`` replaces the log file."""
        self.argv = tuple(argv)
        self._log = log
        with open(log, "ab") as file:
            self.process = subprocess.Popen(
                self.argv,
                cwd=ROOT,
                env={**os.environ, **(env or {})},
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file if stderr is None else stderr,
                preexec_fn=None if nofile is None else _limit_nofile(nofile),
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def log(self) -> str:
        """Return what it has written so far."""
        return self._log.read_text(errors="replace")

    def wait_listening(self, port: int, host: str = "127.0.0.1") -> None:
        """Return once ``port`` accepts; fail with the log when the process ends instead."""

        def listens() -> bool:
            if not self.running:
                raise AssertionError(
                    f"{self.argv} ended with {self.process.returncode}, not listening:\n{self.log()}"
                )
            with contextlib.suppress(OSError), socket.create_connection((host, port), 1.0):
                return True
            return False

        wait_until(listens, timeout=START_SECONDS)

    def wait_ready(self) -> None:
        """Return once one of ours has bound all it listens on, TCP and UDP; fail when it ends instead."""

        def is_ready() -> bool:
            if not self.running:
                raise AssertionError(f"{self.argv} ended with {self.process.returncode}:\n{self.log()}")
            return "listening on" in self.log()

        wait_until(is_ready, timeout=START_SECONDS)

    def signal(self, number: int) -> None:
        self.process.send_signal(number)

    def wait(self, timeout: float = STOP_SECONDS) -> int:
        """Return its exit code; kill it and fail when it has not ended within ``timeout`` seconds."""
        try:
            return self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise AssertionError(f"{self.argv} did not end in {timeout} s:\n{self.log()}") from None

    def stop(self) -> int:
        """Send SIGTERM if it still runs, and return its exit code."""
        if self.running:
            self.signal(signal.SIGTERM)
        return self.wait()

    def assert_healthy(self) -> None:
        """No fault has shown in its log."""
        assert "Traceback" not in self.log(), self.log()

    # -- what it costs; Linux only ---------------------------------------------------------

    def rss(self) -> int:
        """Resident memory, bytes."""
        return self._status("VmRSS") * 1024

    def peak_rss(self) -> int:
        """Largest resident memory since the start or ``reset_peak_rss``, bytes."""
        return self._status("VmHWM") * 1024

    def reset_peak_rss(self) -> None:
        self._proc("clear_refs").write_text("5")

    def cpu(self) -> float:
        """User and system time so far, seconds, in steps of a clock tick."""
        fields = self._proc("stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICK

    def descriptors(self) -> int:
        """How many files and sockets it holds open."""
        return len(list(self._proc("fd").iterdir()))

    def udp_sockets(self) -> int:
        """How many UDP sockets with a port it holds; a first datagram gives one to those without."""
        known = {f"socket:[{fields[9]}]" for fields in _udp_table()}
        return len(known.intersection(self._open_files()))

    def uses_epoll(self) -> bool:
        """Whether one of its descriptors is an epoll instance."""
        return "anon_inode:[eventpoll]" in self._open_files()

    def threads(self) -> int:
        return self._status("Threads")

    def switches(self) -> int:
        """Context switches of all its threads so far: each wake-up is one."""
        total = 0
        for status in self._proc("task").glob("*/status"):
            for line in status.read_text().splitlines():
                if "ctxt_switches" in line:
                    total += int(line.split()[1])
        return total

    def _open_files(self) -> list[str]:
        targets = []
        for link in self._proc("fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since
                targets.append(os.readlink(link))
        return targets

    def _proc(self, name: str) -> Path:
        return Path(f"/proc/{self.pid}") / name

    def _status(self, field: str) -> int:
        for line in self._proc("status").read_text().splitlines():
            if line.startswith(field + ":"):
                return int(line.split()[1])
        raise AssertionError(f"no {field} in /proc/{self.pid}/status")


def _limit_nofile(count: int) -> Callable[[], None]:
    return lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))


@contextlib.contextmanager
def running(program: Program) -> Iterator[Program]:
    """Stop ``program`` at the end; its log must hold no fault, and it must exit with 0."""
    try:
        yield program
        code = program.stop()
        program.assert_healthy()
        assert code == 0, program.log()
    finally:
        program.process.kill()
        program.process.wait()


@contextlib.contextmanager
def running_program(
    folder: Path,
    role: str,
    settings: Mapping[str, object],
    *,
    env: Mapping[str, str] | None = None,
) -> Iterator[Program]:
    """Run one half of ours with exactly ``settings``; it must come to an end well, with 0."""
    number = len(list(folder.glob(f"{role}-alone-*.json")))
    path = write_config(folder / f"{role}-alone-{number}.json", settings)
    argv = (*COMMANDS["ours"][role], "-c", str(path))
    with running(Program(argv, path.with_suffix(".log"), env=env)) as program:
        program.wait_ready()
        yield program


@dataclass(frozen=True)
class Pair:
    """A local and a server that know each other, both listening."""

    local: Program
    server: Program
    local_port: int
    server_port: int
    method: str
    password: str

    @property
    def programs(self) -> tuple[Program, Program]:
        return self.local, self.server

    def stop(self) -> None:
        """Stop both; whatever they logged must hold no fault, and both must exit with 0."""
        codes = [program.stop() for program in self.programs]
        for program in self.programs:
            program.assert_healthy()
        assert codes == [0, 0], [program.log() for program in self.programs]


@contextlib.contextmanager
def running_pair(
    folder: Path,
    *,
    method: str = "aes-256-gcm",
    kinds: tuple[str, str] = ("ours", "ours"),
    local_config: Mapping[str, object] | None = None,
    server_config: Mapping[str, object] | None = None,
    env: Mapping[str, str] | None = None,
    host: str = "127.0.0.1",
    server_port: int | None = None,
    dial_port: int | None = None,
    nofile: int | None = None,
) -> Iterator[Pair]:
    """Run a local and a server of ``kinds`` (each "ours" or "libev") with loopback targets allowed.

    The configs are merged over the generated ones; None removes a key. ``dial_port`` is the port the
    local dials when that is not the server's own, for something put between the two.
    """
    server_port = server_port or free_port(host)
    local_port = free_port(host)
    password = new_password(method)
    common = {"server": host, "password": password, "method": method, "timeout": 60}
    server_settings = {**common, "server_port": server_port, "forbidden_ip": [], **(server_config or {})}
    local_settings = {
        **common,
        "server_port": dial_port or server_port,
        "local_address": host,
        "local_port": local_port,
        **(local_config or {}),
    }
    programs: list[Program] = []
    halves = (
        ("local", kinds[0], local_settings, local_port),
        ("server", kinds[1], server_settings, server_port),
    )
    try:
        for role, kind, settings, port in halves:
            path = write_config(folder / f"{role}-{port}.json", settings)
            argv = (*COMMANDS[kind][role], "-c", str(path))
            programs.append(Program(argv, folder / f"{role}-{port}.log", env=env, nofile=nofile))
        for program, (_, _, _, port) in zip(programs, halves, strict=True):
            program.wait_listening(port, host)
        pair = Pair(*programs, local_port, server_port, method, password)
        yield pair
        pair.stop()
    finally:
        for program in programs:
            program.process.kill()
            program.process.wait()
