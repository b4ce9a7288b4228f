"""``Automaton``: several expressions at once, in one pass over a name, whatever they are and it is.

    trees ──► positions (Thompson's construction) ──► states (sets of positions), made when first met
                                                        state ──character──► state ──► …

A state is a dict from the next character to the next state, so a name met before costs one lookup for
each of its characters; ``__missing__`` makes what is not there yet. The time is at most the name's
length times the expressions' size, and for no expression exponential.

The rule: states are a cache. There are never more than ``MAX_MOVES`` entries in it; one more, and it
begins anew. The surprise: ``^``, ``$`` and ``\\b`` ask what is on both sides of a place, so they are
followed when the next character is known, not when the last one was.
"""

from __future__ import annotations

from collections.abc import Iterable

from common.acl.expressions import ALL, WORD, Chars, Choice, Node, Place, Repeat, Sequence

MAX_MOVES = 1024

_MATCH = 0  # the position behind every expression
_START, _WORD, _OTHER = range(3)  # what is before a place: nothing, a character of a word, another one


class _State(dict[str, "_State"]):
    """Where the automaton is after some characters."""

    __slots__ = ("automaton", "before", "matches", "positions")

    def __init__(self, automaton: Automaton, positions: frozenset[int], before: int) -> None:
        super().__init__()
        self.automaton = automaton
        self.positions = positions
        self.before = before
        self.matches: bool | None = None  # if the name ends here; None: not asked yet

    def __missing__(self, character: str) -> _State:
        return self.automaton.move(self, character)


class Automaton:
    """Tells whether any of some expressions matches somewhere in a name of lower case ASCII."""

    def __init__(self, trees: Iterable[Node]) -> None:
        # By position: the characters that lead on (none for a fork or a place), where to, and the place.
        self._masks = [0]
        self._targets: list[tuple[int, ...]] = [()]
        self._places = [""]
        self._entries = frozenset(self._build(tree, _MATCH) for tree in trees)
        self._begun: dict[tuple[int, int], frozenset[int] | None] = {}
        self._found = _State(self, frozenset(), _OTHER)
        self._found.matches = True
        self._forget()

    def matches(self, name: str) -> bool:
        """True when one of the expressions is found in ``name``, which must be ASCII."""
        state = self._first
        for character in name:
            state = state[character]
        if state.matches is None:
            state.matches = self._follow(self._entries | state.positions, state.before, None) is None
        return state.matches

    def move(self, state: _State, character: str) -> _State:
        """Return the state after ``state`` and a character, and keep it there for the next time."""
        if state is self._found:
            return state
        if self._moves >= MAX_MOVES:
            self._forget()
        number = ord(character)
        begun = self._begin(state.before, number)
        target = self._found
        if begun is not None:
            going_on = self._advance(state.positions, state.before, number)
            if going_on is not None:
                target = self._state(begun | going_on, _WORD if WORD >> number & 1 else _OTHER)
        state[character] = target
        self._moves += 1
        return target

    def _forget(self) -> None:
        self._moves = 0
        self._states: dict[tuple[frozenset[int], int], _State] = {}
        self._first = self._state(frozenset(), _START)

    def _state(self, positions: frozenset[int], before: int) -> _State:
        key = (positions, before)
        state = self._states.get(key)
        if state is None:
            state = self._states[key] = _State(self, positions, before)
        return state

    def _begin(self, before: int, number: int) -> frozenset[int] | None:
        """``_advance`` for all expressions at once: a match may begin anywhere."""
        key = (before, number)
        if key not in self._begun:
            self._begun[key] = self._advance(self._entries, before, number)
        return self._begun[key]

    def _advance(self, positions: frozenset[int], before: int, number: int) -> frozenset[int] | None:
        """Return the positions behind the character ``number``; None for a match in front of it."""
        reached = self._follow(positions, before, number)
        if reached is None:
            return None
        return frozenset(self._targets[at][0] for at in reached if self._masks[at] >> number & 1)

    def _follow(self, positions: frozenset[int], before: int, number: int | None) -> set[int] | None:
        """Return all positions that forks and places lead to; None for a match.

        ``number`` is the next character, None at the end of the name.
        """
        reached: set[int] = set()
        waiting = list(positions)
        while waiting:
            at = waiting.pop()
            if at == _MATCH:
                return None
            if at not in reached:
                reached.add(at)
                if not self._masks[at] and _holds(self._places[at], before, number):
                    waiting += self._targets[at]
        return reached

    # -- construction: each part is built in front of what follows it --------------------------------

    def _build(self, tree: Node, after: int) -> int:
        match tree:
            case Chars(mask):
                # An empty set leads nowhere; it must not look like a fork.
                return self._add(mask, (after,)) if mask else self._add(0, ())
            case Place(kind):
                return self._add(0, (after,), kind)
            case Sequence(items):
                for each in reversed(items):
                    after = self._build(each, after)
                return after
            case Choice(branches):
                return self._add(0, tuple(self._build(each, after) for each in branches))
            case Repeat(body, low, high):
                return self._build_repeat(body, low, high, after)

    def _build_repeat(self, body: Node, low: int, high: int | None, after: int) -> int:
        entry = after
        if high is None:
            entry = self._add(0, ())
            self._targets[entry] = (self._build(body, entry), after)
        else:
            for _ in range(high - low):
                entry = self._add(0, (self._build(body, entry), after))
        for _ in range(low):
            entry = self._build(body, entry)
        return entry

    def _add(self, mask: int, targets: tuple[int, ...], place: str = "") -> int:
        self._masks.append(mask & ALL)
        self._targets.append(targets)
        self._places.append(place)
        return len(self._masks) - 1


def _holds(place: str, before: int, number: int | None) -> bool:
    if place == "^":
        return before == _START
    if place == "$":
        return number is None
    if place:
        after_word = number is not None and WORD >> number & 1 == 1
        return (place == "b") == ((before == _WORD) != after_word)
    return True
