"""Bars, as SVG: for each case a group, in it a bar for each contestant, all to one scale from zero.

The page is white whatever surrounds it, so that the plot reads the same in a dark theme.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape

from bench.table import shown

WIDTH, LEFT, RIGHT = 800, 290, 90  # of the page; for names before the bars; for figures behind the longest
BAR, GAP, TOP = 16, 12, 64  # height of a bar, space between groups, room for title and legend
COLOURS = {
    "ours": "#1f6fb4",
    "libev": "#9a9a9a",
    "base": "#8fb8dc",
    "rust": "#c8643c",
    "go": "#5aa9a0",
    "sing-box": "#a58ac4",
    "go2": "#d3a83b",
    "pproxy": "#7d8f4e",
}

Groups = Sequence[tuple[str, Mapping[str, float]]]  # what it is about, and everybody's figure


def bars(title: str, axis: str, groups: Groups) -> str:
    """Return the plot as an SVG document; contestants without a colour are left out."""
    groups = [(name, {who: value for who, value in row.items() if who in COLOURS}) for name, row in groups]
    longest = max((value for _, row in groups for value in row.values()), default=0) or 1
    names = [who for who in COLOURS if any(who in row for _, row in groups)]
    parts = [_text(16, 24, title, weight="bold"), _text(WIDTH - 16, 24, axis, anchor="end")]
    place = LEFT
    for who in names:
        parts += [_bar(place, 36, 12, 12, COLOURS[who]), _text(place + 17, 46, who)]
        place += 17 + 8 * len(who) + 16
    y = TOP
    for name, row in groups:
        parts.append(_text(LEFT - 10, y + len(row) * BAR / 2 + 4, name, anchor="end"))
        for who in (who for who in names if who in row):
            length = max(0.0, row[who]) / longest * (WIDTH - LEFT - RIGHT)
            parts.append(_bar(LEFT, y, length, BAR - 2, COLOURS[who]))
            parts.append(_text(LEFT + length + 6, y + BAR - 5, shown(row[who])))
            y += BAR
        y += GAP
    size = f'width="{WIDTH}" height="{y}" viewBox="0 0 {WIDTH} {y}"'
    return "\n".join(
        (
            f'<svg xmlns="http://www.w3.org/2000/svg" {size} font-family="sans-serif" font-size="12">',
            f'<rect width="{WIDTH}" height="{y}" fill="#ffffff"/>',
            *parts,
            "</svg>\n",
        )
    )


def _bar(x: float, y: float, width: float, height: float, colour: str) -> str:
    return f'<rect x="{x:g}" y="{y:g}" width="{width:.1f}" height="{height:g}" fill="{colour}"/>'


def _text(x: float, y: float, words: str, *, anchor: str = "start", weight: str = "normal") -> str:
    style = f'text-anchor="{anchor}" font-weight="{weight}" fill="#222222"'
    return f'<text x="{x:.1f}" y="{y:.1f}" {style}>{escape(words)}</text>'
