"""The pairs under test, their target, and the resolver: all started here, and ended whatever happens."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.fakedns import FakeDNS
from tests.origin import refused_port
from tests.processes import COMMANDS, Program, free_ports, new_password, write_config
from tests.soak.target import NAME
from tests.soak.traffic import LOOPBACK, Way

# name, method, workers of the server
PAIRS = (
    ("SIP022", "2022-blake3-aes-256-gcm", 1),
    ("SIP004", "aes-256-gcm", 1),
    ("workers", "2022-blake3-chacha20-poly1305", 2),
)
# As short as can be, so that what is left of the traffic is gone soon after it.
SECONDS = {"timeout": 10, "half_close_timeout": 10, "udp_timeout": 60}


@dataclass(frozen=True)
class Pair:
    """A sslocal and a ssserver; ``way`` is how clients use them."""

    name: str
    local: Program
    server: Program
    workers: int
    way: Way

    @property
    def programs(self) -> dict[str, Program]:
        return {f"{self.name} sslocal": self.local, f"{self.name} ssserver": self.server}


class Target:
    """The process behind it all, on one port for its whole life and the next one's."""

    def __init__(self, folder: Path) -> None:
        self._log = folder / "target.log"
        (self.port,) = free_ports(1)
        self.start()

    def start(self) -> None:
        command = (sys.executable, "-m", "tests.soak.target", str(self.port))
        self.program = Program(command, self._log)

    def kill(self) -> None:
        self.program.process.kill()
        self.program.process.wait()


@contextlib.contextmanager
def started(folder: Path, done: Callable[[str, str], None]) -> Iterator[tuple[list[Pair], Target]]:
    """Run the target and all pairs for the length of a ``with`` block.

    ``done`` is called with a pair's name and a kind for each exchange.
    """
    with contextlib.ExitStack() as stack:
        dns = stack.enter_context(FakeDNS())
        dns.add(NAME, LOOPBACK)
        dns.add(NAME, kind="AAAA")
        refused = stack.enter_context(refused_port())
        target = Target(folder)
        stack.callback(lambda: target.kill())
        target.program.wait_listening(target.port)
        pairs = []
        for name, method, workers in PAIRS:
            ports = free_ports(3)
            way = Way(name, *ports, method, new_password(method), target.port, refused, partial(done, name))
            halves = [_start(folder, way, role, dns.server, workers) for role in ("local", "server")]
            for program in halves:
                stack.callback(_end, program)
            for program in halves:
                program.wait_ready()
            pairs.append(Pair(name, *halves, workers, way))
        yield pairs, target


def _start(folder: Path, way: Way, role: str, dns: str, workers: int) -> Program:
    log = folder / f"{way.pair}-{role}.log"
    settings: dict[str, object] = {
        "server": LOOPBACK,
        "server_port": way.server_port,
        "method": way.method,
        "password": way.password,
        "mode": "tcp_and_udp",
        "dns": [dns],
        "log_file": str(log),
        **SECONDS,
    }
    if role == "server":
        settings |= {"forbidden_ip": [], "workers": workers if workers > 1 else None}
    else:
        mixed = {"local_address": LOOPBACK, "local_port": way.local_port}
        tunnel = {"local_address": LOOPBACK, "local_port": way.tunnel_port, "protocol": "tunnel"}
        tunnel |= {"forward_address": LOOPBACK, "forward_port": way.target}
        settings["locals"] = [mixed, tunnel]
    path = write_config(log.with_suffix(".json"), settings)
    return Program((*COMMANDS["ours"][role], "-c", str(path)), log)


def _end(program: Program) -> None:
    """Stop it in its own way first, so that its workers go with it."""
    with contextlib.suppress(AssertionError):
        program.stop()


def complaints(pair: Pair) -> Iterator[str]:
    """Yield what is wrong with the processes of a pair: they ended, or logged a fault of the program."""
    for name, program in pair.programs.items():
        if not program.running:
            yield f"{name} ended with {program.process.returncode}"
        for line in program.log().splitlines():
            if "Traceback" in line or " ERROR " in f" {line} ":
                yield f"{name} logged: {line}"
