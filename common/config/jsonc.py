"""JSON with ``//`` and ``/* */`` comments and trailing commas, read into nodes with line numbers.

    text ─► tokens (blanks and comments dropped) ─► object | array | scalar

One pass over one regular expression; each string and number token is then decoded by ``json.loads``
itself, so escapes and surrogate pairs are the standard library's. Why not a library: ``json`` and
``json5`` give values without lines, and YAML's reader, which does give lines, reads JSON text
differently in a few places (surrogate pairs, U+2028 in a string, tabs, keys past 1024 characters).
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple, NoReturn

from common.config.tree import Node, Report, Scalar, item, member
from common.errors import ConfigError

MAX_DEPTH = 32
_MAX_NUMBER = 40  # characters; a longer one is some text without its quotes

_TOKEN = re.compile(
    r"""(?P<blank>[ \t\r\n]+|//[^\n]*|/\*.*?\*/)
      | (?P<mark>[{}\[\],:])
      | (?P<string>"(?:[^"\\\x00-\x1f]|\\.)*")
      | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![\w.+-]))
      | (?P<word>(?:true|false|null)(?!\w))""",
    re.VERBOSE | re.DOTALL,
)


class _Token(NamedTuple):
    kind: str  # a mark itself, "string", "number", "word", or "end"
    text: str
    offset: int


def read_json(text: str, source: str, report: Report) -> Node:
    """Return the root node. A key given twice is noted in ``report``.

    Raises ConfigError at the first syntax error, with line and column.
    """
    return _Reader(text, source, report).document()


class _Reader:
    def __init__(self, text: str, source: str, report: Report) -> None:
        self._text = text
        self._source = source
        self._report = report
        self._line, self._counted = 1, 0
        self._tokens = self._scan()
        self._next = next(self._tokens)

    def document(self) -> Node:
        root = self._value("", 0)
        if self._next.kind != "end":
            self._fail("expected the end of the file", self._next.offset)
        return root

    def _scan(self) -> Iterator[_Token]:
        position = 0
        while position < len(self._text):
            match = _TOKEN.match(self._text, position)
            if match is None:
                self._fail(_explain(self._text, position), position)
            kind = match.lastgroup or ""
            if kind != "blank":
                yield _Token(match.group() if kind == "mark" else kind, match.group(), position)
            position = match.end()
        yield _Token("end", "", position)

    def _take(self) -> _Token:
        token = self._next
        self._next = next(self._tokens, token)
        return token

    def _value(self, path: str, depth: int) -> Node:
        token = self._take()
        line = self._line_of(token.offset)
        if depth > MAX_DEPTH:
            self._fail(f"nested deeper than {MAX_DEPTH} levels", token.offset)
        if token.kind == "{":
            return Node(self._object(path, depth), "", self._source, line, path)
        if token.kind == "[":
            return Node(self._array(path, depth), "", self._source, line, path)
        if token.kind in ("string", "number", "word"):
            value = self._scalar(token)
            shown = value if isinstance(value, str) else token.text
            return Node(value, shown, self._source, line, path)
        self._fail("expected a value", token.offset)

    def _object(self, path: str, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        while self._next.kind != "}":
            token = self._take()
            if token.kind != "string":
                self._fail('expected a key in double quotes or "}"', token.offset)
            key = str(self._scalar(token))
            self._expect(":", 'expected ":" after a key')
            node = self._value(member(path, key), depth + 1)
            if key in entries:
                self._report.problem(node, f"given twice, first on line {entries[key].line}")
            entries[key] = node
            if self._next.kind != "}":
                self._expect(",", 'expected "," or "}"')
        self._take()
        return entries

    def _array(self, path: str, depth: int) -> list[Node]:
        parts: list[Node] = []
        while self._next.kind != "]":
            parts.append(self._value(item(path, len(parts)), depth + 1))
            if self._next.kind != "]":
                self._expect(",", 'expected "," or "]"')
        self._take()
        return parts

    def _expect(self, mark: str, sentence: str) -> None:
        token = self._take()
        if token.kind != mark:
            self._fail(sentence, token.offset)

    def _scalar(self, token: _Token) -> Scalar:
        if token.kind == "number" and len(token.text) > _MAX_NUMBER:
            self._fail("a number is too long", token.offset)
        try:
            value: Scalar = json.loads(token.text)
        except ValueError:
            self._fail("bad escape in a string", token.offset)
        return value

    def _line_of(self, offset: int) -> int:
        # Tokens are asked for in order, so that each newline is counted once.
        self._line += self._text.count("\n", self._counted, offset)
        self._counted = offset
        return self._line

    def _fail(self, sentence: str, offset: int) -> NoReturn:
        line = self._text.count("\n", 0, offset) + 1
        column = offset - self._text.rfind("\n", 0, offset)
        raise ConfigError([f"{self._source}: line {line}: column {column}: {sentence}"]) from None


def _explain(text: str, offset: int) -> str:
    """Say what is wrong with text that is no token, without showing any of it."""
    if text.startswith("/*", offset):
        return "a comment is not closed"
    if text[offset] == '"':
        return "a string is not closed on its line"
    if text[offset] == "'":
        return "a string needs double quotes"
    if text[offset] == "#":
        return "a comment starts with // in JSON"
    if text[offset] in "-+.0123456789":
        return "a malformed number; a text needs double quotes"
    return "a text needs double quotes"
