"""Hypothesis strategies for expressions that Python's ``re`` reads the same way, and names for them."""

from __future__ import annotations

from hypothesis import strategies as st

names = st.text("ab.-1_", max_size=12)

_atoms = st.sampled_from(
    [
        *("a", "b", "1", "_", "A", "ab", r"a\.b", r"\.", r"\-", ".", "[ab]", "[^a]", "[a-b1]"),
        *(r"\d", r"\w", r"\W", r"\S", "^", "$", r"\b", r"(^|\.)"),
    ]
)
_repeats = st.sampled_from(["*", "+", "?", "*?", "{2}", "{1,2}", "{0,1}", "{1,}"])


def _grown(inner):
    grouped = inner.map(lambda text: f"({text})")
    return st.one_of(
        st.lists(inner, min_size=1, max_size=4).map("".join),
        st.lists(inner, min_size=1, max_size=3).map(lambda parts: "(?:" + "|".join(parts) + ")"),
        st.builds(str.__add__, grouped, _repeats),
    )


patterns = st.recursive(_atoms, _grown, max_leaves=6)
