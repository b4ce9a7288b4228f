"""Who is measured, and how each is started.

    direct               no relay: the generator against its own target
    libev                ss-local and ss-server, what every ratio is to
    ours                 this tree
    base                 another working copy of ours (``--base PATH``)
    floor                the least that a relay in CPython can be (``bench/floor.py``)
    rust, go, sing-box   found as ``tests/peers.py`` says
    go2, pproxy          go-shadowsocks2 and pproxy, on PATH or where SHADOWRELAY_PEER_GO2 and
                         SHADOWRELAY_PEER_PPROXY point

The surprise: a contestant that lacks what a case is about may still run the nearest thing it has
(``fit``). libev knows neither 2022 methods nor HTTP nor users, and is the reference all the same: with
aes-256-gcm, the fastest it has, through SOCKS5 and with one key.
"""

from __future__ import annotations

import compileall
import contextlib
import os
import random
import re
import shutil
import socket
import subprocess
import sys
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from bench.cases import KINDS_WITHOUT_DIRECT, USUAL, Case
from tests.peers import LOOPBACK, PEERS, Half, Peer
from tests.processes import new_password, write_config

ROOT = Path(__file__).resolve().parents[1]
# Where relays listen. Outgoing connections get ports above these: one that was given the very port it
# dials would meet itself, and look like a relay that listens.
PORTS = range(2_000, 10_000)


@dataclass(frozen=True)
class Setting:
    """A case with its ports and keys; ``users`` are names and keys, the last is the client's."""

    case: Case
    local_port: int
    server_port: int
    password: str
    users: dict[str, str]

    @classmethod
    def fresh(cls, case: Case) -> Setting:
        users = {f"user{number}": new_password(case.method) for number in range(case.users)}
        return cls(case, *free_ports(), new_password(case.method), users)

    @property
    def client_password(self) -> str:
        """The key of the port, of the user, or with SIP023 both."""
        if not self.users:
            return self.password
        user = list(self.users.values())[-1]
        return f"{self.password}:{user}" if self.case.method.startswith("2022-") else user


class Contestant(ABC):
    """``pace`` is how much it gets of what is measured by quantity, so that slow ones do not take all day."""

    pace = 1.0
    cwd = ROOT

    def __init__(self, name: str) -> None:
        self.name = name

    @property
    def has_workers(self) -> bool:
        """Whether it can be told how many processes to be."""
        return False

    @abstractmethod
    def version(self) -> str | None:
        """Return what it says it is; None when it is not here."""

    @abstractmethod
    def fit(self, case: Case) -> Case | None:
        """Return the nearest case it can run, or None."""

    @abstractmethod
    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        """Write what configuration it takes and return the commands of local and server."""


class Direct(Contestant):
    def version(self) -> str:
        return "no relay"

    def fit(self, case: Case) -> Case | None:
        simple = not case.users and case.workers == 1
        if not simple or case.kind in KINDS_WITHOUT_DIRECT:
            return None
        return replace(case, front="direct")

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        raise AssertionError("there is nothing to start")


class Ours(Contestant):
    """One working copy of ours; the interpreter and its packages are those of this process."""

    def __init__(self, name: str, path: Path) -> None:
        super().__init__(name)
        self.cwd = path

    def version(self) -> str | None:
        if not (self.cwd / "sslocal").is_dir():
            return None
        state = _output("git", "-C", str(self.cwd), "describe", "--always", "--dirty")
        return f"{_output(sys.executable, '-m', 'sslocal', '--version', cwd=self.cwd)}, {state}".strip(", ")

    @property
    def has_workers(self) -> bool:
        return "--workers" in _output(sys.executable, "-m", "sslocal", "--help", cwd=self.cwd)

    def fit(self, case: Case) -> Case | None:
        return case if case.workers == 1 or self.has_workers else None

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        for package in ("common", "sslocal", "ssserver"):  # as an installation does
            compileall.compile_dir(self.cwd / package, quiet=2)
        more: dict[str, Any] = {"forbidden_ip": []}
        if setting.case.workers > 1:
            more["workers"] = setting.case.workers
        users = [{"name": name, "password": key} for name, key in setting.users.items()]
        local, server = _dialect(setting, folder, more, {"users": users or None})
        return (
            (sys.executable, "-m", "sslocal", "-c", local),
            (sys.executable, "-m", "ssserver", "-c", server),
        )


class Libev(Contestant):
    def version(self) -> str | None:
        if not (shutil.which("ss-local") and shutil.which("ss-server")):
            return None
        found = re.search(r"shadowsocks-libev [\d.]+", _output("ss-local", "-h"))
        return found[0] if found else "shadowsocks-libev"

    def fit(self, case: Case) -> Case | None:
        if case.method == "none":
            return None
        return replace(
            case,
            method=USUAL if case.method.startswith("2022-") else case.method,
            front="socks5",
            users=0,
            workers=1,
        )

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        local, server = _dialect(setting, folder, {}, {})
        return ("ss-local", "-c", local), ("ss-server", "-c", server)


class Floor(Contestant):
    def version(self) -> str:
        return "a bare loop with the system calls and the cryptography that cannot be left out"

    def fit(self, case: Case) -> Case | None:
        known = case.kind in ("connections", "datagrams", "exchanges", "latency") and case.method == USUAL
        return case if known and case.front == "socks5" and not case.users and case.workers == 1 else None

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        local, server = _dialect(setting, folder, {}, {})
        words = (sys.executable, "-m", "bench.floor")
        return (*words, "local", local), (*words, "server", server)


class Further(Contestant):
    """A peer of the interop tests."""

    def __init__(self, peer: Peer, fronts: tuple[str, ...]) -> None:
        super().__init__(peer.name)
        self.peer, self.fronts = peer, fronts

    def version(self) -> str | None:
        words = self.peer.words("local")
        if words is None or self.peer.words("server") is None:
            return None
        said = [_output(*words[:1], flag).splitlines() for flag in ("--version", "version", "-version")]
        return next((lines[0] for lines in said if lines and re.search(r"\d\.\d", lines[0])), self.name)

    def fit(self, case: Case) -> Case | None:
        known = self.peer.identified if case.users else self.peer.methods
        return case if case.method in known and case.front in self.fronts and case.workers == 1 else None

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        port, method = setting.server_port, setting.case.method
        local = Half("local", port, method, setting.client_password, setting.local_port)
        server = Half("server", port, method, setting.password, users=setting.users)
        return self.peer.command(local, folder), self.peer.command(server, folder)


class ByFlags(Contestant):
    """A peer whose command line says all."""

    program: str
    methods = ("aes-128-gcm", "aes-256-gcm", "chacha20-ietf-poly1305")

    @property
    def path(self) -> str:
        return os.environ.get(f"SHADOWRELAY_PEER_{self.name.upper()}") or shutil.which(self.program) or ""

    def version(self) -> str | None:
        return self.program if self.path else None

    def fit(self, case: Case) -> Case | None:
        return case if case.method in self.methods and not case.users and case.workers == 1 else None


class GoShadowsocks2(ByFlags):
    program = "go-shadowsocks2"

    def fit(self, case: Case) -> Case | None:
        return super().fit(case) if case.front == "socks5" else None

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        cipher = "AEAD_" + setting.case.method.replace("-ietf", "").replace("-", "_").upper()
        link = f"ss://{cipher}:{setting.password}@{LOOPBACK}:{setting.server_port}"
        entrance = f"{LOOPBACK}:{setting.local_port}"
        return (self.path, "-c", link, "-socks", entrance, "-u"), (self.path, "-s", link, "-udp")


class Pproxy(ByFlags):
    program = "pproxy"
    pace = 0.1

    def version(self) -> str | None:
        return (_output(self.path, "--version") or self.program) if self.path else None

    def fit(self, case: Case) -> Case | None:
        return super().fit(case) if case.kind != "datagrams" else None

    def commands(self, setting: Setting, folder: Path) -> tuple[Sequence[str], Sequence[str]]:
        link = f"ss://{setting.case.method}:{setting.password}@{LOOPBACK}:{setting.server_port}"
        entrance = f"http+socks5://{LOOPBACK}:{setting.local_port}"
        return (self.path, "-l", entrance, "-r", link), (self.path, "-l", link)


def everybody(base: Path | None) -> list[Contestant]:
    """Return every contestant that could be here, the reference first."""
    fronts = {"rust": ("socks5", "http")}
    return [
        Direct("direct"),
        Libev("libev"),
        Ours("ours", ROOT),
        *([Ours("base", base.resolve())] if base else []),
        Floor("floor"),
        *(Further(peer, fronts.get(peer.name, ("socks5",))) for peer in PEERS),
        GoShadowsocks2("go2"),
        Pproxy("pproxy"),
    ]


def free_ports() -> tuple[int, int]:
    """Return two different ports of ``PORTS`` that nobody listens on."""
    found: list[int] = []
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.socket() as sock:
            sock.bind((LOOPBACK, port))
            found.append(port)
        if len(found) == 2:
            return found[0], found[1]
    raise OSError("no port is free")


def _dialect(setting: Setting, folder: Path, both: dict[str, Any], server: dict[str, Any]) -> tuple[str, str]:
    """Write the files of local and server in the JSON that we and libev read."""
    common = {
        "server": LOOPBACK,
        "server_port": setting.server_port,
        "method": setting.case.method,
        "mode": "tcp_and_udp",
        "timeout": 60,
        **both,
    }
    local = {**common, "password": setting.client_password}
    entrance = {"local_address": LOOPBACK, "local_port": setting.local_port}
    return (
        str(write_config(folder / "local.json", {**local, **entrance})),
        str(write_config(folder / "server.json", {**common, "password": setting.password, **server})),
    )


def _output(*command: str, cwd: Path | None = None) -> str:
    """Return what a program says of itself, wherever it says it; nothing when it does not run."""
    try:
        done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return (done.stdout or done.stderr).strip()
