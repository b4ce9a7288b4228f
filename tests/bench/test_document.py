"""What a run writes: the page between its markers, plots, and the file of medians."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest

from bench import document, plot
from bench.cases import ROWS, Choice
from bench.table import Outcome

NAMES = ("direct", "libev", "ours")
PAGE = f"# Title\n\n{document.BEGIN}\nstale\n{document.END}\n\nMore.\n"


def outcomes():
    """The row of exchanges with its two cases, two rounds each."""
    row = next(row for row in ROWS if row.name == "exchanges")
    rounds = {
        name: [{"rate": rate, "p50": 1e6 / rate}, {"rate": 2 * rate, "p50": 5e5 / rate}]
        for name, rate in zip(NAMES, (100_000, 1_000, 500), strict=True)
    }
    return {"exchanges": [Outcome(case, rounds) for case in row.cases(Choice())]}


def test_only_what_is_between_the_markers_is_replaced():
    made = document.put_between_markers(PAGE, "new")
    assert made == PAGE.replace("\nstale\n", "\n\nnew\n\n")
    assert document.put_between_markers(made, "new") == made


@pytest.mark.parametrize("lost", [document.BEGIN, document.END])
def test_a_page_without_markers_is_refused(lost):
    with pytest.raises(ValueError, match="lacks"):
        document.put_between_markers(PAGE.replace(lost, ""), "new")


def test_a_run_is_stored_as_table_plots_and_medians(tmp_path):
    (tmp_path / "benchmarks.md").write_text(PAGE)
    (tmp_path / "benchmarks").mkdir()
    (tmp_path / "benchmarks/gone.svg").write_text("of an earlier run")
    document.store(ROWS, outcomes(), NAMES, {"date": "2001-02-03"}, tmp_path)
    page = (tmp_path / "benchmarks.md").read_text()
    assert "* date: 2001-02-03" in page
    table = [[cell.strip() for cell in line.split("|")[1:-1]] for line in page.splitlines()]
    assert ["SOCKS5: per second", "150,000", "1,500", "750", "0.50"] in table
    assert "(benchmarks/exchanges.svg)" in page
    assert "stale" not in page
    assert [path.name for path in (tmp_path / "benchmarks").glob("*.svg")] == ["exchanges.svg"]
    written = json.loads((tmp_path / "benchmarks/figures.json").read_text())
    assert written["facts"] == {"date": "2001-02-03"}
    rate = written["rows"]["exchanges"]["HTTP CONNECT"]["per second"]
    assert rate == {"direct": 150_000, "libev": 1_500, "ours": 750, "ours/libev": 0.5}


def test_the_page_of_this_project_has_its_markers():
    page = (document.ROOT / "docs/benchmarks.md").read_text()
    assert document.BEGIN in document.put_between_markers(page, "new")


def test_facts_say_where_and_when():
    facts = document.facts({"libev": "3.3.5"}, "5 rounds")
    assert facts["libev"] == "3.3.5"
    assert all(facts[name] for name in ("date", "machine", "system", "python", "settings"))


def test_bars_are_to_one_scale_and_the_page_is_valid():
    drawn = plot.bars("A & B", "per second", [("one", {"ours": 50.0, "libev": 100.0, "direct": 1e9})])
    root = ElementTree.fromstring(drawn)
    space = "{http://www.w3.org/2000/svg}"
    bars = [rect for rect in root.iter(f"{space}rect") if rect.get("height") == f"{plot.BAR - 2}"]
    widths = {rect.get("fill"): float(rect.get("width")) for rect in bars}
    assert widths[plot.COLOURS["libev"]] == 2 * widths[plot.COLOURS["ours"]]
    assert len(widths) == 2, "what has no colour is not drawn"
    assert "A & B" in [text.text for text in root.iter(f"{space}text")]


def test_every_row_gives_cases_of_a_known_kind_with_labels_of_their_own():
    for row in ROWS:
        cases = list(row.cases(Choice()))
        labels = [case.label for case in cases]
        assert cases, row.name
        assert len(set(labels)) == len(labels), row.name
        assert all(case.kind in document.FIGURES for case in cases)
