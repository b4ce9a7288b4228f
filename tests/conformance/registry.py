"""What a row is: a small function with an id, a sentence and the group it belongs to.

A row gets the ``Kit`` and returns a sentence of what it saw. It fails by ``expect`` or by any exception, and
raises ``NotApplicable`` when the pair or the method has nothing that the row is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tests.conformance.kit import Kit

RowFunction = Callable[["Kit"], str]


class Failed(Exception):
    """The pair did not do what the row asks for."""


class NotApplicable(Exception):
    """The row does not concern this pair or method."""


@dataclass(frozen=True)
class Row:
    """``exclusive`` rows measure: they run while no other does."""

    id: str
    sentence: str
    group: str
    run: RowFunction
    exclusive: bool


ROWS: list[Row] = []


def row(id: str, sentence: str, *, exclusive: bool = False) -> Callable[[RowFunction], RowFunction]:
    """Register a function as a row of the group that its module is named after."""

    def register(function: RowFunction) -> RowFunction:
        group = function.__module__.rpartition("rows_")[2]
        ROWS.append(Row(id, sentence, group, function, exclusive))
        return function

    return register


def expect(holds: object, what: str) -> None:
    """Fail the row with ``what`` unless ``holds``."""
    if not holds:
        raise Failed(what)
