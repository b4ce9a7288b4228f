"""Locals, for the tests of their configuration: read from a mapping, and as they should come out."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from common.config.keys import TOP, read_section
from common.config.locals import LocalReader
from common.config.passwords import Passwords
from common.config.rules import RuleFiles
from common.config.schema import Credential, Local, Secret
from common.config.tree import Report, node_from
from common.errors import ConfigError
from common.proto.address import Address

USERS = (Credential("u", Secret("p")),)


class WaysIn:
    """Reads configurations that lie in ``folder``; flags are keyword arguments."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, content: object, **flags: object) -> tuple[list[Local], list[str]]:
        """Return locals and warnings; raises ConfigError."""
        report = Report()
        root = node_from(content, "c", "")
        file = read_section(root, TOP, "sslocal", report)
        forced = {key: node_from(value, "", f"flag {key}") for key, value in flags.items()}
        passwords = Passwords("sslocal", report, {}, self.folder)
        rules = RuleFiles(report, self.folder, None)
        reader = LocalReader(report, passwords, rules, self.folder, forced)
        found = reader.read(file, {**file, **forced}, root)
        report.raise_problems()
        return list(found), [warning.removeprefix("c: ") for warning in report.warnings]

    def __call__(self, content: object, **flags: object) -> list[Local]:
        """Return the locals of a configuration without warnings."""
        found, warnings = self.load(content, **flags)
        assert warnings == []
        return found

    def warnings(self, content: object) -> list[str]:
        return self.load(content)[1]

    def problems(self, content: object) -> list[str]:
        with pytest.raises(ConfigError) as caught:
            self.load(content)
        assert "hunter" not in str(caught.value)
        return [problem.removeprefix("c: ") for problem in caught.value.problems]


def local(
    where: str = "127.0.0.1:1080", protocol: str = "mixed", mode: str = "tcp_and_udp", **fields: Any
) -> Local:
    host, _, port = where.rpartition(":")
    return Local(Address(host.strip("[]"), int(port)), protocol, mode, **fields)


def tunnel(
    where: str = "127.0.0.1:53", target: str = "192.0.2.9:53", mode: str = "tcp_and_udp", **fields: Any
) -> Local:
    host, _, port = target.rpartition(":")
    return local(where, "tunnel", mode, target=Address(host, int(port)), **fields)
