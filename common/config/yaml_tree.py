"""YAML, read into nodes with line numbers.

``yaml.compose`` stops before any Python object is made and keeps the marks. Aliases make a tree from a
graph, so what they expand to is counted.

The surprise: YAML 1.1 reads ``012`` as ten, ``12:30`` as 750 and ``2026-01-01`` as a date. Here only
a plain decimal is a number; everything else stays the text that was written.
"""

from __future__ import annotations

import re

import yaml

from common.config.jsonc import MAX_DEPTH
from common.config.tree import Node, Report, Scalar, item, member
from common.errors import ConfigError

MAX_NODES = 200_000  # of one tree, aliases expanded

_TAG = "tag:yaml.org,2002:"
_PLAIN_TAGS = ("str", "int", "float", "bool", "null", "timestamp", "value")
_INTEGER = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,19})")
_DECIMAL = re.compile(r"[-+]?(?:0|[1-9][0-9]{0,19})\.[0-9]{1,20}")
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")
_GRAMMAR = re.compile(r"\\?.|<[a-z ]+>")  # what a YAML error may quote: one character or a token's name


def read_yaml(text: str, source: str, report: Report) -> Node:
    """Return the root node. A key given twice and a tag are noted in ``report``.

    Raises ConfigError for a syntax error, with the line.
    """
    try:
        root = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.MarkedYAMLError as exc:
        raise ConfigError([f"{source}: {_explain(exc, text)}"]) from None
    except yaml.reader.ReaderError as exc:
        line = text.count("\n", 0, exc.position) + 1
        raise ConfigError([f"{source}: line {line}: a control character"]) from None
    except RecursionError:
        raise ConfigError([f"{source}: nested deeper than {MAX_DEPTH} levels"]) from None
    if root is None:
        return Node({}, "", source, 0, "")
    return _Reader(source, report).node(root, "", 0)


def _explain(error: yaml.MarkedYAMLError, text: str) -> str:
    """Return line and cause of a YAML error. It quotes what it found, which may be half a password."""
    number = error.problem_mark.line if error.problem_mark else 0
    causes = [cause for cause in (error.context, error.problem) if cause]
    sentence = _QUOTED.sub(
        lambda match: match.group() if _GRAMMAR.fullmatch(match.group()[1:-1]) else "…", ": ".join(causes)
    )
    line = "".join(text.splitlines()[number : number + 1])
    hint = " (an IPv6 address needs quotes)" if "::" in line else ""
    return f"line {number + 1}: {sentence}{hint}"


class _Reader:
    """Turns composed YAML nodes into ours."""

    def __init__(self, source: str, report: Report) -> None:
        self._source = source
        self._report = report
        self._count = 0

    def node(self, node: yaml.Node, path: str, depth: int) -> Node:
        line = node.start_mark.line + 1
        self._count += 1
        if depth > MAX_DEPTH:
            raise ConfigError([f"{self._source}: line {line}: nested deeper than {MAX_DEPTH} levels"])
        if self._count > MAX_NODES:
            raise ConfigError([f"{self._source}: line {line}: more than {MAX_NODES} values, aliases counted"])
        if isinstance(node, yaml.MappingNode):
            return Node(self._mapping(node, path, depth), "", self._source, line, path)
        if isinstance(node, yaml.SequenceNode):
            parts = [self.node(part, item(path, index), depth + 1) for index, part in enumerate(node.value)]
            return Node(parts, "", self._source, line, path)
        found = Node(_scalar(node), node.value, self._source, line, path)
        if node.tag.removeprefix(_TAG) not in _PLAIN_TAGS:
            self._report.problem(found, "a YAML tag (!…) is not supported; put the text in quotes")
        return found

    def _mapping(self, mapping: yaml.MappingNode, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        merged: dict[str, Node] = {}
        for key, value in mapping.value:
            if key.tag == _TAG + "merge":
                for source in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                    part = self.node(source, path, depth + 1)
                    merged = (part.value if isinstance(part.value, dict) else {}) | merged
                continue
            name = key.value if isinstance(key, yaml.ScalarNode) else ""
            node = self.node(value, member(path, name), depth + 1)
            if not isinstance(key, yaml.ScalarNode):
                self._report.problem(node, "a key must be text")
            elif name in entries:
                self._report.problem(node, f"given twice, first on line {entries[name].line}")
            entries[name] = node
        return merged | entries


def _scalar(node: yaml.Node) -> Scalar:
    text: str = node.value
    match node.tag.removeprefix(_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on")
        case "int" if _INTEGER.fullmatch(text):
            return int(text)
        case "float" if _DECIMAL.fullmatch(text):
            return float(text)
    return text
