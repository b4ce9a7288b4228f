"""Medians, ratios, and the table they stand in.

The surprise: a ratio is the median of the ratios of each round, not the ratio of the medians. A round
runs everybody within seconds, so that whatever else the machine does falls on all alike.
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.cases import FIGURES, Case, Figure

Column = list[float | None]

REFERENCE = "libev"


@dataclass(frozen=True)
class Outcome:
    """What each round of a case gave, by contestant; None is a run that broke.

    ``nearest`` are those who ran something like the case, for want of what it takes.
    """

    case: Case
    rounds: Mapping[str, Sequence[Mapping[str, float] | None]]
    nearest: frozenset[str] = field(default_factory=frozenset)

    def column(self, contestant: str, figure: Figure) -> Column:
        """Return one figure of each round."""
        values = self._values(contestant, figure.key)
        if not figure.over_direct:
            return values
        if contestant == "direct":
            return []
        direct = self._values("direct", figure.key)
        return [
            None if value is None or bare is None else value - bare
            for value, bare in zip(values, direct, strict=False)
        ]

    def broken(self, contestant: str) -> bool:
        return None in self.rounds.get(contestant, ())

    def _values(self, contestant: str, key: str) -> Column:
        return [figures.get(key) if figures else None for figures in self.rounds.get(contestant, ())]


def median(values: Iterable[float | None]) -> float | None:
    """Return the median of what is known."""
    known = [value for value in values if value is not None]
    return statistics.median(known) if known else None


def ratio(mine: Column, theirs: Column) -> float | None:
    """Return the median of the ratios of each round that has both."""
    rounds = zip(mine, theirs, strict=False)
    return median(one / other if one is not None and other else None for one, other in rounds)


def compared(contestants: Sequence[str]) -> list[tuple[str, str]]:
    """Return whose figures are divided by whose."""
    pairs = [("ours", REFERENCE), ("base", REFERENCE), ("ours", "base")]
    return [pair for pair in pairs if set(pair) <= set(contestants)]


def head(contestants: Sequence[str]) -> list[str]:
    return ["", *contestants, *(f"{mine} ÷ {theirs}" for mine, theirs in compared(contestants))]


def title(words: str, contestants: Sequence[str]) -> list[str]:
    """Return a line that only says what the next ones are about."""
    return [f"**{words}**", *("" for _ in head(contestants)[1:])]


def lines(outcome: Outcome, contestants: Sequence[str], *, details: bool) -> list[list[str]]:
    """Return the cells of a case: a line for each figure that somebody has."""
    found = []
    for figure in FIGURES[outcome.case.kind]:
        columns = {name: outcome.column(name, figure) for name in contestants}
        medians = {name: median(column) for name, column in columns.items()}
        if (details or not figure.detail) and any(value is not None for value in medians.values()):
            values = [
                shown(value) + ("*" if name in outcome.nearest and value is not None else "")
                for name, value in medians.items()
            ]
            ratios = [ratio(columns[mine], columns[theirs]) for mine, theirs in compared(contestants)]
            found.append([f"{outcome.case.label}: {figure.label}", *values, *map(shown, ratios)])
    return found


def shown(value: float | None) -> str:
    """Return three digits, which is all that a measurement like this has to say."""
    if value is None:
        return "–"
    size = abs(value)
    return f"{value:,.0f}" if size >= 100 else f"{value:.1f}" if size >= 10 else f"{value:.2f}"


def markdown(rows: Sequence[Sequence[str]]) -> str:
    """Set cells as a table that reads well unrendered, too; the first row is its head."""
    widths = [max(map(len, cells)) for cells in zip(*rows, strict=True)]
    rule = ["-" * widths[0], *("-" * (width - 1) + ":" for width in widths[1:])]
    return "\n".join(
        f"| {' | '.join([cells[0].ljust(widths[0]), *map(str.rjust, cells[1:], widths[1:])])} |"
        for cells in (rows[0], rule, *rows[1:])
    )
