"""Other implementations, when they are here: how each is started as a local or as a server.

    peer                 found on PATH as      or where this variable says
    shadowsocks-rust     ssservice             SHADOWRELAY_PEER_RUST_LOCAL, SHADOWRELAY_PEER_RUST_SERVER
    shadowsocks-go       shadowsocks-go        SHADOWRELAY_PEER_GO
    sing-box             sing-box              SHADOWRELAY_PEER_SING_BOX

shadowsocks-rust's own ``sslocal`` and ``ssserver`` have our names, which is why they are not looked for.
Each peer gets a configuration of one entrance and one way out, all on loopback, so that none has a
reason to talk to anybody else.

What is known of them, and is so whatever the other half is: sing-box closes both connections when
one side ends its sending, so an answer behind the client's end is lost. As a server it has, for all
targets of one UDP client, a socket of the first one's family, and drops what is for the other.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

LOOPBACK = "127.0.0.1"


@dataclass(frozen=True)
class Half:
    """What one half is to be. ``port`` is where a local listens; a server listens on ``server_port``.

    ``password`` is a chain for a local with identity headers; for a server with ``users`` it is its own key.
    """

    role: str
    server_port: int
    method: str
    password: str
    port: int = 0
    users: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Peer:
    """``words`` says how the command of a role begins, None when it is not here; ``write`` puts a
    configuration into a folder and says how the command ends. ``methods`` are those that it shares with
    us, ``identified`` those of them with identity headers. ``keeps_half_close`` says whether one
    direction goes on when the other has ended, ``mixes_families`` whether its server serves IPv4 and
    IPv6 targets of one UDP client.
    """

    name: str
    words: Callable[[str], Sequence[str] | None]
    write: Callable[[Half, Path], list[str]]
    methods: tuple[str, ...]
    identified: tuple[str, ...] = ("2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm")
    keeps_half_close: bool = True
    mixes_families: bool = True

    def command(self, half: Half, folder: Path) -> list[str]:
        words = self.words(half.role)
        assert words is not None
        return [*words, *self.write(half, folder)]


def _named(variable: str, *names: str) -> str | None:
    return os.environ.get(variable) or next(filter(None, map(shutil.which, names)), None)


def _rust_words(role: str) -> Sequence[str] | None:
    own = os.environ.get(f"SHADOWRELAY_PEER_RUST_{role.upper()}")
    service = shutil.which("ssservice")
    return (own,) if own else (service, role) if service else None


def _go_words(role: str) -> Sequence[str] | None:
    found = _named("SHADOWRELAY_PEER_GO", "shadowsocks-go")
    return (found,) if found else None


def _sing_box_words(role: str) -> Sequence[str] | None:
    found = _named("SHADOWRELAY_PEER_SING_BOX", "sing-box")
    return (found, "run") if found else None


def _write(half: Half, folder: Path, settings: Mapping[str, Any]) -> str:
    path = folder / f"peer-{half.role}-{half.port or half.server_port}.json"
    path.write_text(json.dumps(settings, indent=2))
    path.chmod(0o600)
    return str(path)


def _users(half: Half) -> list[dict[str, str]]:
    return [{"name": name, "password": password} for name, password in half.users.items()]


def _write_rust(half: Half, folder: Path) -> list[str]:
    server: dict[str, Any] = {
        "server": LOOPBACK,
        "server_port": half.server_port,
        "method": half.method,
        "password": half.password,
    }
    settings: dict[str, Any] = {"servers": [server], "mode": "tcp_and_udp"}
    if half.users:
        server["users"] = _users(half)
    if half.role == "local":
        entrance = {"local_address": LOOPBACK, "local_port": half.port}
        settings["locals"] = [{**entrance, "protocol": "socks", "mode": "tcp_and_udp"}]
    return ["-c", _write(half, folder, settings)]


def _write_go(half: Half, folder: Path) -> list[str]:
    def listener(port: int) -> dict[str, Any]:
        address = f"{LOOPBACK}:{port}"
        return {
            "tcpListeners": [{"network": "tcp", "address": address}],
            "udpListeners": [{"network": "udp", "address": address}],
            "mtu": 1500,
        }

    both = {"enableTCP": True, "enableUDP": True, "mtu": 1500}
    chain = half.password.split(":")
    if half.role == "local":
        entrance = {"name": "in", "protocol": "socks5", **listener(half.port)}
        endpoint = f"{LOOPBACK}:{half.server_port}"
        out = {"name": "out", "protocol": half.method, "endpoint": endpoint, **both, "psk": chain[-1]}
        if chain[:-1]:
            out["iPSKs"] = chain[:-1]
    else:
        entrance = {"name": "in", "protocol": half.method, **listener(half.server_port), "psk": half.password}
        if half.users:
            store = folder / f"peer-users-{half.server_port}.json"
            store.write_text(json.dumps(half.users))
            entrance["uPSKStorePath"] = str(store)
        out = {"name": "out", "protocol": "direct", **both}
    return ["-confPath", _write(half, folder, {"servers": [entrance], "clients": [out]})]


def _write_sing_box(half: Half, folder: Path) -> list[str]:
    own = {"method": half.method, "password": half.password}
    entrance: dict[str, Any] = {"listen": LOOPBACK, "tag": "in"}
    if half.role == "local":
        entrance |= {"type": "socks", "listen_port": half.port}
        out = {"type": "shadowsocks", "server": LOOPBACK, "server_port": half.server_port, **own}
    else:
        entrance |= {"type": "shadowsocks", "listen_port": half.server_port, **own}
        if half.users:
            entrance["users"] = _users(half)
        out = {"type": "direct"}
    settings = {"log": {"level": "warn"}, "inbounds": [entrance], "outbounds": [out]}
    return ["-c", _write(half, folder, settings)]


_AES = ("aes-128-gcm", "aes-256-gcm")
_OLD = (*_AES, "chacha20-ietf-poly1305")
_NEW = ("2022-blake3-aes-128-gcm", "2022-blake3-aes-256-gcm")
_CHACHA = "2022-blake3-chacha20-poly1305"

PEERS = (
    Peer("rust", _rust_words, _write_rust, (*_OLD, *_NEW, _CHACHA)),
    Peer("go", _go_words, _write_go, _NEW),
    Peer(
        "sing-box",
        _sing_box_words,
        _write_sing_box,
        (*_OLD, "aes-192-gcm", "xchacha20-ietf-poly1305", *_NEW, _CHACHA),
        keeps_half_close=False,
        mixes_families=False,
    ),
)
