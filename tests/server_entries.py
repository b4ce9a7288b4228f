"""Servers, for the tests of their configuration: read from a mapping, and as they should come out."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from common.config.keys import TOP, read_section
from common.config.passwords import Passwords
from common.config.rules import RuleFiles
from common.config.schema import Role, Secret, Server
from common.config.servers import ServerReader
from common.config.ss_url import ServerLink, build_ss_url
from common.config.tree import Report, node_from
from common.errors import ConfigError
from common.proto.address import Address

GCM = "aes-256-gcm"
KEYED = "2022-blake3-aes-256-gcm"
KEY = base64.b64encode(bytes(range(32))).decode()
PW = "not a secret"


def link(
    host: str = "l.example",
    port: int = 99,
    method: str = GCM,
    password: str = PW,
    plugin: str = "",
    tag: str = "tag",
) -> str:
    return build_ss_url(ServerLink(Address(host, port), method, Secret(password), plugin, tag=tag))


def load(
    content: object,
    role: Role = "sslocal",
    flags: dict[str, object] | None = None,
    *,
    unencrypted: bool = False,
    folder: Path = Path(),
) -> tuple[list[Server], list[str]]:
    """Return servers, warnings; raises ConfigError."""
    report = Report()
    root = node_from(content, "c", "")
    section = read_section(root, TOP, role, report)
    forced = {key: node_from(value, "", f"flag {key}") for key, value in (flags or {}).items()}
    passwords = Passwords(role, report, {}, folder)
    rules = RuleFiles(report, folder, None)
    reader = ServerReader(role, report, passwords, rules, forced=forced, unencrypted=unencrypted)
    found = reader.read({**section, **forced}, root)
    report.raise_problems()
    return list(found), [warning.removeprefix("c: ") for warning in report.warnings]


def servers(content: object, *args: Any, **options: Any) -> list[Server]:
    """Return the servers of a configuration without warnings."""
    found, warnings = load(content, *args, **options)
    assert warnings == []
    return found


def problems(content: object, *args: Any, **options: Any) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(content, *args, **options)
    return [problem.removeprefix("c: ") for problem in caught.value.problems]


def top(**content: object) -> dict[str, object]:
    return {"server": "h", "server_port": 1, "method": GCM, "password": PW, **content}


def server(
    host: str = "h", port: int = 1, method: str = GCM, password: str = PW, name: str = "", **fields: Any
) -> Server:
    return Server(Address(host, port), method, Secret(password), name, **fields)
