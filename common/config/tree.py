"""``Node`` and ``Report``: a value with the place it came from, and what is wrong with it.

Every reader in this package takes nodes, so that each sentence can say where:

    config.yaml: line 14: servers[1].method: unknown method …
    flag -m: unknown method …

The surprise: a node never prints its value, and its path shows no key that could be a mistyped
password, because a message about a configuration ends up in a log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import NamedTuple

from common.config.schema import Secret
from common.errors import ConfigError

Scalar = str | int | float | bool | None

_PLAIN_KEY = re.compile(r"[A-Za-z_$][A-Za-z0-9_-]{0,39}|[0-9]{1,5}")


class Node(NamedTuple):
    """One value of a configuration.

    ``text`` is a scalar as it was written (``012`` stays ``012``), empty for lists and mappings.
    ``line`` counts from 1; 0 means that the source has no lines, and ``path`` then names the flag.
    A Secret as value is a final text: nothing is expanded in it.
    """

    value: Scalar | Secret | list[Node] | dict[str, Node]
    text: str
    source: str
    line: int
    path: str

    @property
    def place(self) -> str:
        """The printable place: source, line and path, as far as they are known."""
        line = f"line {self.line}" if self.line else ""
        return ": ".join(part for part in (self.source, line, self.path) if part)

    @property
    def kind(self) -> str:
        """What the value is, in words; a number is shown, a text never is."""
        match self.value:
            case None:
                return "nothing"
            case bool():
                return "true or false"
            case int() | float():
                return self.text[:20]
            case dict():
                return "a mapping"
            case list():
                return "a list"
        return "text"

    @property
    def given(self) -> bool:
        """Whether the value asks for anything: not false, zero, null or empty."""
        return bool(self.value) and self.text not in ("false", "0")

    def child(self, key: str, value: Scalar | Secret | list[Node] | dict[str, Node], text: str = "") -> Node:
        """Return a node made from a part of this one's text, such as one field of an ``ss://`` link."""
        return Node(value, text, self.source, self.line, member(self.path, key))

    def __repr__(self) -> str:
        return f"<Node {self.place}>"


def member(path: str, key: str) -> str:
    """Return the path of a key below ``path``. A key that is no plain word is cut short or hidden.

    ``{password:x}`` without the blank is a key in YAML, and ``password: {x}`` has the key ``x``.
    """
    match = _PLAIN_KEY.match(key)
    shown = match.group() if match else ""
    if shown != key or not key:
        shown += "…"
    parent = path.rpartition(".")[2]
    if "password" in parent.lower() and not key.isdecimal():
        shown = "…"
    return f"{path}.{shown}" if path else shown


def item(path: str, index: int) -> str:
    """Return the path of a list item below ``path``."""
    return f"{path}[{index}]"


def node_from(value: object, source: str, path: str) -> Node:
    """Return the node of a value that comes from code, such as a command-line flag."""
    if isinstance(value, Mapping):
        entries = {str(key): node_from(part, source, member(path, str(key))) for key, part in value.items()}
        return Node(entries, "", source, 0, path)
    if isinstance(value, list | tuple):
        parts = [node_from(part, source, item(path, index)) for index, part in enumerate(value)]
        return Node(parts, "", source, 0, path)
    if value is None or isinstance(value, bool | Secret):
        return Node(value, "", source, 0, path)
    if isinstance(value, int | float):
        return Node(value, str(value), source, 0, path)
    return Node(str(value), str(value), source, 0, path)


class Report:
    """Collects every problem and warning of one configuration; equal sentences are kept once."""

    def __init__(self) -> None:
        self._problems: dict[str, int] = {}
        self._warnings: dict[str, int] = {}
        self._seen: set[object] = set()

    def problem(self, node: Node, sentence: str) -> None:
        """Note what makes the configuration unusable. ``sentence`` holds no secret."""
        self._problems.setdefault(f"{node.place}: {sentence}", node.line)

    def warn(self, node: Node, sentence: str) -> None:
        """Note what the operator should know and the program can live with."""
        self._warnings.setdefault(f"{node.place}: {sentence}", node.line)

    def is_first(self, *subject: object) -> bool:
        """Whether this subject is new; for what should be said once however often it occurs."""
        new = subject not in self._seen
        self._seen.add(subject)
        return new

    @property
    def warnings(self) -> tuple[str, ...]:
        """All warnings, in the order of their lines."""
        return tuple(sorted(self._warnings, key=self._warnings.__getitem__))

    def raise_problems(self) -> None:
        """Raise ConfigError with all problems and warnings, each in the order of their lines, if there is a
        problem.
        """
        if self._problems:
            problems = sorted(self._problems, key=self._problems.__getitem__)
            raise ConfigError(problems, self.warnings) from None
