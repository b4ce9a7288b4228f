"""What a run leaves behind: the table in docs/benchmarks.md, plots and a file of medians beside it.

docs/benchmarks.md              between two markers: what was measured where and when, and the table
docs/benchmarks/<row>.svg       a plot for each row that has one
docs/benchmarks/figures.json    every median and every ratio, for whoever wants to draw other plots
"""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path

from bench import plot, table
from bench.cases import FIGURES, Figure, Row
from bench.contestants import ROOT
from bench.table import Outcome

BEGIN, END = "<!-- made by make bench -->", "<!-- end of what make bench made -->"
NEAREST = (
    "\\* the nearest it has: aes-256-gcm for a 2022 method, SOCKS5 for HTTP, one key for many users, "
    "one process for workers."
)

Outcomes = Mapping[str, Sequence[Outcome]]  # by the name of a row


def facts(versions: Mapping[str, str], settings: str) -> dict[str, str]:
    """Return what a figure means nothing without."""
    model = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    memory = re.search(r"MemTotal: *(\d+)", Path("/proc/meminfo").read_text())
    parts = [
        f"{os.cpu_count()} × {model[1].strip() if model else platform.machine()}",
        f"{int(memory[1]) / 1e6:.0f} GB" if memory else "",
    ]
    python = f"{platform.python_implementation()} {platform.python_version()}"
    return {
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "machine": ", ".join(filter(None, parts)),
        "system": f"{platform.system()} {platform.release()}",
        "python": f"{python}, cryptography {version('cryptography')}",
        "settings": settings,
        **versions,
    }


def cells(rows: Sequence[Row], outcomes: Outcomes, contestants: Sequence[str]) -> list[list[str]]:
    """Return the whole table, with a title line for each row that has been measured."""
    found = [table.head(contestants)]
    for row in rows:
        lines = [
            line
            for outcome in outcomes.get(row.name, ())
            for line in table.lines(outcome, contestants, details=False)
        ]
        if lines:
            found += [table.title(row.title, contestants), *lines]
    return found


def figures(outcome: Outcome, contestants: Sequence[str]) -> dict[str, object]:
    """Return the medians and ratios of a case, as the JSON file has them."""
    found: dict[str, object] = {}
    for figure in FIGURES[outcome.case.kind]:
        columns = {name: outcome.column(name, figure) for name in contestants}
        medians = {name: table.median(column) for name, column in columns.items()}
        ratios = {
            f"{mine}/{theirs}": table.ratio(columns[mine], columns[theirs])
            for mine, theirs in table.compared(contestants)
        }
        found[figure.label] = {
            name: float(f"{value:.4g}") for name, value in (medians | ratios).items() if value is not None
        }
    return found


def plotted(row: Row, outcomes: Sequence[Outcome], contestants: Sequence[str]) -> str | None:
    """Return the plot of a row, or None when it has none. Who ran only something like a case is not in it."""
    if row.plotted is None or not outcomes:
        return None
    key, axis = row.plotted
    groups = []
    for outcome in outcomes:
        figure = _figure(outcome, key)
        medians = {name: table.median(outcome.column(name, figure)) for name in contestants}
        shown = {
            name: value
            for name, value in medians.items()
            if value is not None and name not in outcome.nearest
        }
        groups.append((outcome.case.label, shown))
    return plot.bars(row.title, axis, groups)


def _figure(outcome: Outcome, key: str) -> Figure:
    """Return the figure of that key which the document shows."""
    return next(one for one in FIGURES[outcome.case.kind] if one.key == key and not one.detail)


def put_between_markers(text: str, made: str) -> str:
    """Return ``text`` with ``made`` in place of what stood between the markers."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise ValueError(f"the document lacks {BEGIN} or {END}")
    return f"{before}{BEGIN}\n\n{made}\n\n{END}{after}"


def store(
    rows: Sequence[Row],
    outcomes: Outcomes,
    contestants: Sequence[str],
    known: Mapping[str, str],
    docs: Path = ROOT / "docs",
) -> None:
    """Write everything; plots and figures of earlier runs go."""
    folder = docs / "benchmarks"
    folder.mkdir(exist_ok=True)
    for old in folder.glob("*.svg"):
        old.unlink()
    links = []
    for row in rows:
        drawn = plotted(row, outcomes.get(row.name, ()), contestants)
        if drawn:
            (folder / f"{row.name}.svg").write_text(drawn)
            links.append(f"![{row.title}](benchmarks/{row.name}.svg)")
    medians = {
        row.name: {outcome.case.label: figures(outcome, contestants) for outcome in outcomes[row.name]}
        for row in rows
        if row.name in outcomes
    }
    written = json.dumps({"facts": known, "rows": medians}, indent=1, ensure_ascii=False)
    (folder / "figures.json").write_text(written + "\n")
    about = "\n".join(f"* {name}: {what}" for name, what in known.items())
    made = "\n\n".join((about, table.markdown(cells(rows, outcomes, contestants)), NEAREST, *links))
    page = docs / "benchmarks.md"
    page.write_text(put_between_markers(page.read_text(), made))
