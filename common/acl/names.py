"""``NameSet``: is a host name one of many, under one of many, or matched by one of many expressions?

    exact        a set
    suffix       a set, asked for each end of the name that starts at a label:
                 www.example.com, example.com, com
    expression   (^|\\.)example\\.com$ and its like become the two above. Others are filed under six
                 characters that every match contains (three, when there are no six): a name looks its
                 own pieces up, and runs the expressions found there, as one automaton

So the cost of a lookup depends on the name's length and on how many expressions share a piece with it,
not on how many there are. Only expressions without a fixed text of three characters run every time.

A name is asked for in the form ``plain_name`` gives it: lower case, IDNA, without the root's dot.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from common.acl.automaton import Automaton
from common.acl.expressions import can_match, literals, parse_expression
from common.proto.address import parse_ip

MAX_HOST_SIZE = 253  # characters of a name (RFC 1035 section 2.3.4, written with dots)
KEY_SIZES = (6, 4, 3)  # characters; the longer, the fewer names meet an expression they do not match
MAX_AUTOMATA = 256  # kept of one set; the others are built again from their text when needed

_NAME = re.compile(r"[a-z0-9_-]+(?:\.[a-z0-9_-]+)*")
# What nearly all expressions of published lists are: a fixed text, free or at the start of a label or
# of the name, free or at the end. It needs no parser, and with an end it needs no automaton.
_FIXED = re.compile(
    r"(\((?:\?:)?(?:\^\|(?:\.\*)?\\\.|\\\.\|\^)\)|\^\((?:\?:)?\.\*\\\.\)\?)?"  # (^|\.) or ^(.*\.)?
    r"(\^)?"
    r"((?:[A-Za-z0-9_-]|\\[.-])+)"
    r"(\$)?"
)


def plain_name(host: str) -> str:
    """Return ``host`` as rules know it; what IDNA refuses keeps its ASCII, with ``?`` for the rest."""
    if not host.isascii():
        try:
            host = host.encode("idna").decode("ascii")
        except UnicodeError:
            host = host.encode("ascii", "replace").decode("ascii")
    return host.rstrip(".").lower()


def parse_rule_name(text: str) -> str:
    """Return the name of an exact or suffix rule in plain form; raises ValueError with a sentence."""
    name = plain_name(text)
    if parse_ip(name) is not None:
        raise ValueError("an address stands alone, without |")
    if len(name) > MAX_HOST_SIZE or not _NAME.fullmatch(name):
        raise ValueError("not a host name")
    return name


class NameSet:
    """Host names by rules; it only grows, and is false while empty."""

    __slots__ = ("_automata", "_exact", "_keyed", "_suffixes", "_unkeyed")

    def __init__(self) -> None:
        self._exact: set[str] = set()
        self._suffixes: set[str] = set()
        self._keyed: dict[int, dict[str, list[str]]] = {size: {} for size in KEY_SIZES}
        self._unkeyed: list[str] = []
        self._automata: dict[str, Automaton] = {}

    def __bool__(self) -> bool:
        return bool(self._exact or self._suffixes or self._unkeyed or any(self._keyed.values()))

    def add_exact(self, name: str) -> None:
        """Add one name, in plain form."""
        self._exact.add(name)

    def add_suffix(self, name: str) -> None:
        """Add a name in plain form, and all below it."""
        self._suffixes.add(name)

    def add_expression(self, text: str) -> bool:
        """Add all names in which ``text`` is found; False, and nothing added, when there can be none.

        Raises ValueError with a sentence that quotes none of it.
        """
        fixed = _FIXED.fullmatch(text)
        if fixed is None:
            tree = parse_expression(text)
            if not can_match(tree):
                return False
            self._file(text, literals(tree))
            return True
        label_start, start, escaped, end = fixed.groups()
        literal = escaped.replace("\\", "").lower()
        if end and start and not label_start:
            self._exact.add(literal)
        elif end and label_start and not start:
            self._suffixes.add(literal)
        else:
            self._file(text, [literal])
        return True

    def __contains__(self, name: str) -> bool:
        """True when a rule holds for ``name``, in plain form."""
        if name in self._exact:
            return True
        tail = name
        while tail:
            if tail in self._suffixes:
                return True
            tail = tail.partition(".")[2]
        return self._is_expressed(name)

    def _file(self, text: str, found: Sequence[str]) -> None:
        """Keep an expression under the piece of ``found`` that the fewest others are under."""
        for size, filed in self._keyed.items():
            keys = [run[at : at + size] for run in found for at in range(len(run) - size + 1)]
            if keys:
                key = min(keys, key=lambda key: len(filed.get(key, ())))
                filed.setdefault(key, []).append(text)
                self._automata.pop(key, None)
                return
        self._unkeyed.append(text)
        self._automata.pop("", None)

    def _is_expressed(self, name: str) -> bool:
        for size, filed in self._keyed.items():
            if filed:
                pieces = {name[at : at + size] for at in range(len(name) - size + 1)}
                for key in filed.keys() & pieces:
                    if self._automaton(key, filed[key]).matches(name):
                        return True
        return bool(self._unkeyed) and self._automaton("", self._unkeyed).matches(name)

    def _automaton(self, key: str, texts: Sequence[str]) -> Automaton:
        automaton = self._automata.get(key)
        if automaton is None:
            if len(self._automata) >= MAX_AUTOMATA:
                del self._automata[next(iter(self._automata))]
            automaton = self._automata[key] = Automaton(map(parse_expression, texts))
        return automaton
