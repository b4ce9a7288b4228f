"""What was found, as text for a terminal and as Markdown with several runs side by side.

Runs travel between the two as JSON (``--json FILE``), so that a table of many pairs needs no run of all.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

PASS, FAIL, NOT_APPLICABLE = "pass", "FAIL", "n/a"
KNOWN, UNEXPECTED = "known", "pass (listed)"


@dataclass(frozen=True)
class Result:
    """One row of one run; ``note`` is the reason of a known failure."""

    id: str
    group: str
    sentence: str
    outcome: str
    seen: str
    seconds: float
    note: str = ""


@dataclass(frozen=True)
class Run:
    """All rows of one pair under one method."""

    name: str
    method: str
    results: list[Result]


def line(result: Result) -> str:
    """Return one row for a terminal."""
    told = f"{result.seen} [{result.note}]" if result.note else result.seen
    return f"{result.outcome:<13} {result.id:<24} {result.sentence}\n{'':13} {'':24} → {told}"


def known_failures(path: Path) -> dict[str, str]:
    """Return row ids and reasons; a line is ``id  reason``, and # begins a comment."""
    found = {}
    for text in path.read_text().splitlines():
        if text.strip() and not text.startswith("#"):
            id, _, reason = text.partition(" ")
            found[id] = reason.strip()
    return found


def save(run: Run, path: Path) -> None:
    path.write_text(json.dumps(asdict(run), indent=1, ensure_ascii=False) + "\n")


def load(path: Path) -> Run:
    data = json.loads(path.read_text())
    return Run(data["name"], data["method"], [Result(**result) for result in data["results"]])


def markdown(runs: Sequence[Run]) -> str:
    """Return a table of the rows that apply to some run, and below it what was seen where one failed."""
    names = [f"{run.name}<br>`{run.method}`" for run in runs]
    lines = ["| row | what | " + " | ".join(names) + " |", "|---|---|" + "---|" * len(runs)]
    outcomes = [{result.id: result for result in run.results} for run in runs]
    rows: dict[str, Result] = {result.id: result for run in runs for result in run.results}
    for id, sample in rows.items():
        found_there = [found[id] for found in outcomes if id in found]
        if all(result.outcome == NOT_APPLICABLE for result in found_there):
            continue
        marks = [_mark(found.get(id)) for found in outcomes]
        lines.append(f"| `{id}` | {sample.sentence} | " + " | ".join(marks) + " |")
    totals = [
        f"{sum(result.outcome in (PASS, UNEXPECTED) for result in run.results)} of "
        f"{sum(result.outcome != NOT_APPLICABLE for result in run.results)}"
        for run in runs
    ]
    lines.append("| | **passed, of those that apply** | " + " | ".join(totals) + " |")
    for run in runs:
        failed = [result for result in run.results if result.outcome in (FAIL, KNOWN)]
        if failed:
            lines += ["", f"{run.name}, `{run.method}`:", ""]
            lines += [f"* `{result.id}`: {result.seen}" for result in failed]
    return "\n".join(lines) + "\n"


def _mark(result: Result | None) -> str:
    if result is None:
        return ""
    return {PASS: "✓", UNEXPECTED: "✓", FAIL: "**✗**", KNOWN: "**✗**"}.get(result.outcome, "–")
