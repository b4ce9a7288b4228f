"""Medians and ratios of rounds, and the cells they become."""

from __future__ import annotations

from bench import table
from bench.cases import Case, Figure
from bench.table import Outcome

RATE = Figure("rate", "per second")
ADDED = Figure("p50", "p50, added", over_direct=True)


def rounds_of(key, **columns):
    return {name: [value and {key: value} for value in values] for name, values in columns.items()}


def test_a_ratio_is_taken_within_each_round():
    """Here the machine was slow in the second round, for both alike."""
    outcome = Outcome(Case("exchanges", "x"), rounds_of("rate", ours=[10, 2, 30], libev=[20, 4, 15]))
    assert table.ratio(outcome.column("ours", RATE), outcome.column("libev", RATE)) == 0.5


def test_a_broken_run_leaves_its_round_out():
    outcome = Outcome(Case("exchanges", "x"), rounds_of("rate", ours=[10, None, 30], libev=[20, 4, 15]))
    mine = outcome.column("ours", RATE)
    assert mine == [10, None, 30]
    assert table.median(mine) == 20
    assert table.ratio(mine, outcome.column("libev", RATE)) == (0.5 + 2) / 2


def test_nothing_known_is_no_figure():
    outcome = Outcome(Case("exchanges", "x"), rounds_of("rate", ours=[None]))
    assert table.median(outcome.column("ours", RATE)) is None
    assert outcome.column("libev", RATE) == []
    assert table.ratio([1.0], []) is None
    assert table.ratio([1.0], [0.0]) is None


def test_what_direct_takes_is_taken_off_round_by_round():
    outcome = Outcome(Case("latency", "x"), rounds_of("p50", direct=[10, 30, None], ours=[25, 35, 50]))
    assert outcome.column("ours", ADDED) == [15, 5, None]
    assert outcome.column("direct", ADDED) == []


def test_lines_leave_out_details_and_figures_that_nobody_has():
    figures = {"rate": 1234.5, "local cpu": 9.876, "p50": 7.0}
    outcome = Outcome(
        Case("connections", "SOCKS5"), {"libev": [figures], "ours": [figures]}, frozenset({"libev"})
    )
    names = ["libev", "ours"]
    assert table.lines(outcome, names, details=False) == [
        ["SOCKS5: per second", "1,234*", "1,234", "1.00"],
        ["SOCKS5: CPU, µs each, local", "9.88*", "9.88", "1.00"],
    ]
    detailed = table.lines(outcome, names, details=True)
    assert detailed[2:] == [["SOCKS5: p50, µs", "7.00*", "7.00", "1.00"]]


def test_ours_is_compared_with_libev_and_with_its_base():
    assert table.head(["direct", "libev", "ours"]) == ["", "direct", "libev", "ours", "ours ÷ libev"]
    assert table.compared(["ours", "base"]) == [("ours", "base")]
    assert table.compared(["libev", "rust"]) == []


def test_a_figure_has_three_digits():
    shown = [table.shown(value) for value in (None, 0.0, 1.234, 12.34, 123.4, 1234567.0, -123.4)]
    assert shown == ["–", "0.00", "1.23", "12.3", "123", "1,234,567", "-123"]


def test_the_table_reads_well_unrendered():
    assert table.markdown([["", "ours"], ["rate", "1.0"], ["**Title**", ""]]) == (
        "|           | ours |\n| --------- | ---: |\n| rate      |  1.0 |\n| **Title** |      |"
    )
