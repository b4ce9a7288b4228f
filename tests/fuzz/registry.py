"""The targets by name. Each is a function of bytes that raises when one of its promises is broken:

    parse, or the one error of the contract; nothing else
    output and held bytes bounded by the input
    the same outcome whole, byte by byte and at any cut

``target`` registers one, with valid inputs to begin from and words worth putting in. Its name is the
function's, with dashes. What all of them share to state their promises is in ``ways``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import NamedTuple

MAX_SIZE = 2048  # bytes of an input, unless a target says otherwise


class Target(NamedTuple):
    """What is fed, with what to begin, and how large it may grow."""

    run: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    words: tuple[bytes, ...]
    max_size: int


TARGETS: dict[str, Target] = {}


def target(
    seeds: Iterable[bytes], words: Iterable[bytes] = (), max_size: int = MAX_SIZE
) -> Callable[[Callable[[bytes], None]], Callable[[bytes], None]]:
    """Register the function below; ``seeds`` are valid inputs, ``words`` a dictionary."""

    def register(run: Callable[[bytes], None]) -> Callable[[bytes], None]:
        name = run.__name__.replace("_", "-")
        assert name not in TARGETS, name
        TARGETS[name] = Target(run, tuple(dict.fromkeys(seeds)), tuple(dict.fromkeys(words)), max_size)
        return run

    return register
