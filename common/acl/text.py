"""The text of access rules: sections, each with a rule on a line.

    # a comment, on a line of its own or after a blank
    [bypass_all]                     a default; see ``DEFAULTS``
    [proxy_list]                     a list, open until the next one; see ``LISTS``
    192.0.2.1                        an address
    2001:db8::/32                    a network
    |www.example.com                 this name
    ||example.com                    this name and all below it
    (^|\\.)example\\.(com|net)$        names in which this expression is found

A line ends in LF, CRLF or CR; a byte order mark is skipped; section names have no case. Every bad line
is a problem of its own, and none is quoted: the file given may be quite another one.

The surprise: a bare ``example.com`` is an expression, and matches ``www.examplexcom.net`` as well.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from common.acl.names import NameSet, parse_rule_name
from common.acl.networks import Network, NetworkSet, parse_network
from common.errors import ConfigError

MAX_SIZE = 16 << 20  # bytes of a file, characters of a text
MAX_LINE = 1024  # characters of a rule
MAX_TOLD = 1000  # problems, and warnings, with a line of their own

# The clients' words and the servers' mean the same lists, as in libev and rust.
LISTS = {
    "bypass_list": "bypass",
    "black_list": "bypass",
    "proxy_list": "proxy",
    "white_list": "proxy",
    "outbound_block_list": "outbound_block",
    "outbound_allow_list": "outbound_allow",
}
# What becomes of those that no list holds: for targets of sslocal and clients of ssserver, and outbound.
DEFAULTS = {
    "proxy_all": ("proxy", True),
    "accept_all": ("proxy", True),
    "bypass_all": ("proxy", False),
    "reject_all": ("proxy", False),
    "outbound_allow_all": ("outbound", True),
    "outbound_block_all": ("outbound", False),
}

_SECTION = re.compile(r"\[([A-Za-z_][A-Za-z0-9_ -]*)\](\s.*)?")
_COMMENT = re.compile(r"(?:^|(?<=[\s\]]))#.*")
# What is meant as an address, well-formed or not, and so is never taken for an expression.
_ADDRESS = re.compile(r"[0-9-]*[./][0-9./-]*(?:\s.*)?|\[?(?:[0-9A-Fa-f.]*:){2}[0-9A-Fa-f.:/]*(?:[%\]\s].*)?")


@dataclass(slots=True)
class RuleList:
    """The rules of one list."""

    names: NameSet = field(default_factory=NameSet)
    networks: NetworkSet = field(default_factory=NetworkSet)


@dataclass(slots=True)
class RuleText:
    """What a text of rules says, unjudged; ``warnings`` has a line for each rule that cannot match."""

    lists: dict[str, RuleList]
    defaults: dict[str, bool]
    warnings: list[str]


def read_file(path: str) -> str:
    """Return the text of a file of at most 16 MiB; raises ConfigError.

    What is not UTF-8 is kept as surrogates: it may stand in comments, and in no rule.
    """
    try:
        with Path(path).open("rb") as file:
            data = file.read(MAX_SIZE + 1)
    except OSError as exc:
        raise ConfigError([f"{path}: {exc.strerror}"]) from None
    except ValueError:
        raise ConfigError([f"{path}: not a file name"]) from None
    if len(data) > MAX_SIZE:
        raise ConfigError([f"{path}: larger than {MAX_SIZE} bytes"])
    return data.decode("utf-8", "surrogateescape")


def read_rules(text: str, source: str) -> RuleText:
    """Read a whole text; ``source`` is its name in messages. Raises ConfigError with all its bad lines."""
    if len(text) > MAX_SIZE:
        raise ConfigError([f"{source}: larger than {MAX_SIZE} bytes"])
    reader = _Reader()
    problems: list[tuple[int, str]] = []
    for number, line in _lines(text):
        try:
            reader.read(line, number)
        except ValueError as exc:
            problems.append((number, str(exc)))
    if problems:
        raise ConfigError(_told(problems, source))
    return RuleText(reader.lists(), reader.defaults(), _told(reader.pointless, source))


def _lines(text: str) -> Iterator[tuple[int, str]]:
    """Yield what is not empty and no comment, with its line number from 1."""
    text = text.removeprefix("\ufeff").replace("\r\n", "\n").replace("\r", "\n")
    for number, line in enumerate(text.split("\n"), 1):
        stripped = (_COMMENT.sub("", line) if "#" in line else line).strip()
        if stripped:
            yield number, stripped


def _told(lines: list[tuple[int, str]], source: str) -> list[str]:
    told = [f"{source}: line {number}: {sentence}" for number, sentence in lines[:MAX_TOLD]]
    if len(lines) > MAX_TOLD:
        told.append(f"{source}: {len(lines) - MAX_TOLD} more lines like these")
    return told


class _Reader:
    """What was read so far, line by line."""

    def __init__(self) -> None:
        self.pointless: list[tuple[int, str]] = []
        self._names = {name: NameSet() for name in LISTS.values()}
        self._networks: dict[str, list[Network]] = {name: [] for name in LISTS.values()}
        self._defaults: dict[str, tuple[bool, int]] = {}
        self._open = ""

    def lists(self) -> dict[str, RuleList]:
        return {
            name: RuleList(names, NetworkSet(self._networks[name])) for name, names in self._names.items()
        }

    def defaults(self) -> dict[str, bool]:
        return {name: self._defaults.get(name, (True, 0))[0] for name in ("proxy", "outbound")}

    def read(self, line: str, number: int) -> None:
        """Take one line; raises ValueError with a sentence that quotes none of it."""
        section = _SECTION.fullmatch(line)
        if section:
            if section[2]:
                raise ValueError("a section stands alone on its line")
            self._section(section[1].lower(), number)
            return
        if not self._open:
            raise ValueError("a rule before any list, such as [bypass_list]")
        if len(line) > MAX_LINE:
            raise ValueError(f"longer than {MAX_LINE} characters")
        if not line.isprintable():
            raise ValueError("not printable text in UTF-8")
        names = self._names[self._open]
        if line.startswith("||"):
            names.add_suffix(parse_rule_name(line[2:]))
        elif line[0] == "|":
            names.add_exact(parse_rule_name(line[1:]))
        elif _ADDRESS.fullmatch(line):
            self._networks[self._open].append(parse_network(line))
        elif not names.add_expression(line):
            self.pointless.append((number, "no host name can match this"))

    def _section(self, name: str, number: int) -> None:
        if name in LISTS:
            self._open = LISTS[name]
        elif name in DEFAULTS:
            subject, value = DEFAULTS[name]
            before, line = self._defaults.setdefault(subject, (value, number))
            if before != value:
                raise ValueError(f"contradicts line {line}")
        else:
            raise ValueError("unknown section")
