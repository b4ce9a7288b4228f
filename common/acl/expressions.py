r"""Regular expressions of access rules, from text to tree: what PCRE and Rust's ``regex`` have in common.

    a \. \x2d . [a-z] [^.] \d \w \s [[:alpha:]]     one character
    ^ $ \A \z \b \B                                 a place
    ( ) (?: ) (?<name> ) | * + ? {n,m} and lazy *?  a structure

Host names are all that is matched, so upper and lower case are one, flags such as ``(?i)`` change
nothing, and a set of characters is a mask of 128 bits. What no automaton can do in one pass is refused
with a sentence: look-around, back-references, possessive and atomic groups.

The surprise: Python's ``re`` is not used. Lists in the wild hold ``^([^/]+\.)*google\.(com|net)$``, on
which it needs time exponential in the dots of a name that a stranger chose.
"""

from __future__ import annotations

import re
from typing import NamedTuple, NoReturn

MAX_DEPTH = 50  # groups within groups
MAX_EXPANSION = 2000  # places of an expression with its repeats written out

ALL = (1 << 128) - 1


class Chars(NamedTuple):
    """One character out of a set: bit n of ``mask`` stands for character n."""

    mask: int


class Place(NamedTuple):
    """No character, but a place: ``^``, ``$``, ``b`` (between a word and no word) or ``B`` (elsewhere)."""

    kind: str


class Sequence(NamedTuple):
    """One after the other."""

    items: tuple[Node, ...]


class Choice(NamedTuple):
    """Any one of them."""

    branches: tuple[Node, ...]


class Repeat(NamedTuple):
    """At least ``low`` times, at most ``high`` times where that is not None."""

    body: Node
    low: int
    high: int | None


Node = Chars | Place | Sequence | Choice | Repeat


def mask_of(characters: str) -> int:
    """Return the set of some ASCII characters."""
    return sum(1 << ord(character) for character in set(characters))


def _span(first: int, last: int) -> int:
    return (1 << last + 1) - (1 << first)


_DIGITS = mask_of("0123456789")
_LOWER, _UPPER = _span(97, 122), _span(65, 90)
WORD = _DIGITS | _LOWER | _UPPER | mask_of("_")
NAME = _DIGITS | _LOWER | mask_of("-_.")  # all that a host name holds
_SPACE = mask_of(" \t\n\r\f\v")
_CLASSES = {"d": _DIGITS, "w": WORD, "s": _SPACE, "D": ALL ^ _DIGITS, "W": ALL ^ WORD, "S": ALL ^ _SPACE}
_PLACES = {"A": "^", "z": "$", "Z": "$", "b": "b", "B": "B"}
_CONTROLS = {"t": "\t", "n": "\n", "r": "\r", "f": "\f", "v": "\v", "a": "\a", "e": "\x1b"}
_PUNCTUATION = ALL ^ _span(0, 32) ^ _span(127, 127) ^ WORD
_POSIX = {
    "alnum": _DIGITS | _LOWER | _UPPER,
    "alpha": _LOWER | _UPPER,
    "ascii": ALL,
    "blank": mask_of(" \t"),
    "cntrl": _span(0, 31) | _span(127, 127),
    "digit": _DIGITS,
    "graph": _span(33, 126),
    "lower": _LOWER,
    "print": _span(32, 126),
    "punct": _PUNCTUATION | mask_of("_"),
    "space": _SPACE,
    "upper": _UPPER,
    "word": WORD,
    "xdigit": _DIGITS | mask_of("abcdefABCDEF"),
}

_PLAIN = re.compile(r"(?:[A-Za-z0-9_-]|\\[.-])+(?![*+?{])")  # most of most expressions, for speed
_QUANTIFIER = re.compile(r"[*+?]|\{([0-9]{1,4})(,)?([0-9]{1,4})?\}")
_GROUP = re.compile(r"\(\?(?:[imsuU]*(?:-[imsuU]+)?:|P?<[A-Za-z_]\w{0,31}>|'[A-Za-z_]\w{0,31}')", re.ASCII)
_FLAGS = re.compile(r"\(\?[imsuU]*(?:-[imsuU]+)?\)")
_HEX = re.compile(r"x(?:([0-9A-Fa-f]{2})|\{([0-9A-Fa-f]{1,6})\})")
_POSIX_CLASS = re.compile(r"\[:(\^)?([a-z]+):\]")
_LOOKING = ("(?=", "(?!", "(?<=", "(?<!")


def parse_expression(text: str) -> Node:
    """Return the tree of an expression; raises ValueError with a sentence that quotes none of it."""
    parser = _Parser(text)
    tree = parser.choice(0)
    if parser.at < len(text):
        parser.fail("a parenthesis that was not opened")
    if _expansion(tree) > MAX_EXPANSION:
        raise ValueError(f"repeats come to more than {MAX_EXPANSION} characters")
    return tree


def can_match(tree: Node) -> bool:
    """False for an expression that asks for a character no host name has, such as a slash."""
    match tree:
        case Chars(mask):
            return mask & NAME != 0
        case Sequence(items):
            return all(map(can_match, items))
        case Choice(branches):
            return any(map(can_match, branches))
        case Repeat(body, low, _):
            return low == 0 or can_match(body)
    return True


def literals(tree: Node) -> list[str]:
    """Return texts that every match contains, each as long as it can be seen to be."""
    match tree:
        case Chars(mask):
            return [chr(mask.bit_length() - 1)] if mask.bit_count() == 1 else []
        case Repeat(body, low, _):
            return literals(body) if low else []
        case Sequence(items):
            found, run = [], ""
            for each in items:
                if isinstance(each, Chars) and each.mask.bit_count() == 1:
                    run += chr(each.mask.bit_length() - 1)
                elif not isinstance(each, Place):
                    found += [run, *literals(each)]
                    run = ""
            return [text for text in (*found, run) if text]
    return []


def _expansion(tree: Node) -> int:
    match tree:
        case Sequence(items):
            return sum(map(_expansion, items))
        case Choice(branches):
            return len(branches) + sum(map(_expansion, branches))
        case Repeat(body, low, high):
            return _expansion(body) * max(low + 1, high or 0) + 1
    return 1


def _folded(mask: int) -> int:
    """Add to upper case letters the lower case that names are matched in."""
    return mask | (mask & _UPPER) << 32


class _Parser:
    """Recursive descent, one character at a time; ``at`` is the next one."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.at = 0

    def fail(self, sentence: str) -> NoReturn:
        raise ValueError(f"character {self.at + 1}: {sentence}")

    def take(self, mark: str) -> bool:
        if not self.text.startswith(mark, self.at):
            return False
        self.at += len(mark)
        return True

    def next(self, missing: str) -> str:
        if self.at == len(self.text):
            self.fail(missing)
        self.at += 1
        return self.text[self.at - 1]

    def choice(self, depth: int) -> Node:
        branches = [self.sequence(depth)]
        while self.take("|"):
            branches.append(self.sequence(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self, depth: int) -> Node:
        items: list[Node] = []
        while self.at < len(self.text) and self.text[self.at] not in "|)":
            if plain := _PLAIN.match(self.text, self.at):
                items += [Chars(1 << ord(each)) for each in plain[0].replace("\\", "").lower()]
                self.at = plain.end()
            elif flags := _FLAGS.match(self.text, self.at):
                self.at = flags.end()
            else:
                items.append(self.repeated(self.atom(depth)))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def repeated(self, body: Node) -> Node:
        quantifier = _QUANTIFIER.match(self.text, self.at)
        if quantifier is None:
            return body
        self.at = quantifier.end()
        lowest, comma, highest = quantifier.groups()
        low: int
        high: int | None
        if lowest is None:
            low, high = {"*": (0, None), "+": (1, None), "?": (0, 1)}[quantifier[0]]
        else:
            low = int(lowest)
            high = int(highest) if highest else None if comma else low
        if high is not None and high < low:
            self.fail("a repeat whose least is more than its most")
        self.take("?")  # lazy: which match is found is no matter here
        if _QUANTIFIER.match(self.text, self.at):
            self.fail("a repeat of a repeat is not supported")
        return Repeat(body, low, high)

    def atom(self, depth: int) -> Node:
        if _QUANTIFIER.match(self.text, self.at):
            self.fail("nothing to repeat; all names under a domain are written ||example.com")
        character = self.next("")
        match character:
            case "(":
                self.at -= 1
                return self.group(depth + 1)
            case "[":
                return Chars(self.set())
            case "\\":
                return self.escape()
            case ".":
                return Chars(ALL)
            case "^" | "$":
                return Place(character)
        return Chars(self.mask(character))

    def mask(self, character: str) -> int:
        """One character as a set; it is empty beyond ASCII, where host names do not go."""
        return _folded(1 << ord(character)) & ~_UPPER if character.isascii() else 0

    def group(self, depth: int) -> Node:
        if depth > MAX_DEPTH:
            self.fail(f"groups nested deeper than {MAX_DEPTH}")
        opening = _GROUP.match(self.text, self.at)
        if opening:
            self.at = opening.end()
        elif self.text.startswith(_LOOKING, self.at):
            self.fail("look-ahead and look-behind are not supported")
        elif self.text.startswith("(?", self.at):
            self.fail("this kind of group is not supported")
        else:
            self.at += 1
        tree = self.choice(depth)
        if not self.take(")"):
            self.fail("a parenthesis is not closed")
        return tree

    def escape(self) -> Node:
        character = self.next("a backslash at the end")
        if character in _PLACES:
            return Place(_PLACES[character])
        if character in _CLASSES:
            return Chars(_CLASSES[character])
        return Chars(self.mask(self.escaped(character)))

    def escaped(self, character: str) -> str:
        """Return the character that an escape stands for."""
        number = _HEX.match(self.text, self.at - 1)
        if number:
            self.at = number.end()
            code = int(number[1] or number[2], 16)
            return chr(code) if code < 128 else "\x80"
        if character in _CONTROLS:
            return _CONTROLS[character]
        if character.isalnum():
            self.at -= 2
            self.fail("a back-reference" if character.isdigit() else "this escape is not supported")
        return character

    def set(self) -> int:
        negated = self.take("^")
        mask = 0
        first = True
        while first or not self.take("]"):
            first = False
            mask |= self.member()
        mask = _folded(mask)
        return ALL ^ mask if negated else mask

    def member(self) -> int:
        """Read one class, character or range of a set."""
        posix = _POSIX_CLASS.match(self.text, self.at)
        if posix:
            if posix[2] not in _POSIX:
                self.fail("this class is not known")
            self.at = posix.end()
            return ALL ^ _POSIX[posix[2]] if posix[1] else _POSIX[posix[2]]
        first = self.bound()
        if isinstance(first, int):
            return first
        if not self.text.startswith("-", self.at) or self.text.startswith("-]", self.at):
            return 1 << ord(first) if first.isascii() else 0
        self.at += 1
        last = self.bound()
        if isinstance(last, int) or last < first:
            self.fail("a range with no end after its start")
        return _span(ord(first), min(ord(last), 127)) if first.isascii() else 0

    def bound(self) -> str | int:
        """Read one end of a range; a class such as ``\\d`` is none, and comes as its set."""
        character = self.next("a bracket is not closed")
        if character != "\\":
            return character
        character = self.next("a bracket is not closed")
        if character in _CLASSES:
            return _CLASSES[character]
        return "\b" if character == "b" else self.escaped(character)
