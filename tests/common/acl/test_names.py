"""Names: their plain form, and sets of exact names, suffixes and expressions."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.acl import names as module
from common.acl.names import MAX_AUTOMATA, NameSet, parse_rule_name, plain_name
from tests.patterns import names, patterns


def make(*expressions):
    rules = NameSet()
    for text in expressions:
        assert rules.add_expression(text)
    return rules


def has_automata(rules):
    """True when a rule of these is held as an expression, not as a name."""
    return bool(rules._unkeyed or any(rules._keyed.values()))


@pytest.fixture
def built(monkeypatch):
    """The numbers of expressions that automata were built of."""
    sizes = []

    class Recording(module.Automaton):
        def __init__(self, trees):
            trees = list(trees)
            sizes.append(len(trees))
            super().__init__(trees)

    monkeypatch.setattr(module, "Automaton", Recording)
    return sizes


@pytest.mark.parametrize(
    ("host", "plain"),
    [
        ("Example.COM", "example.com"),
        ("example.com.", "example.com"),
        ("example.com..", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("BÜCHER。example", "xn--bcher-kva.example"),
        ("１.2.3.4", "1.2.3.4"),
        ("é..b", "?..b"),  # IDNA refuses an empty label
        ("é" * 64, "?" * 64),
        (".", ""),
        ("", ""),
        ("_dmarc.example", "_dmarc.example"),
    ],
)
def test_plain_names(host, plain):
    assert plain_name(host) == plain


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Example.com.", "example.com"),
        ("bücher.example", "xn--bcher-kva.example"),
        ("com", "com"),
        ("a_b-1", "a_b-1"),
    ],
)
def test_names_of_rules(text, name):
    assert parse_rule_name(text) == name


@pytest.mark.parametrize(
    "text",
    [
        "",
        ".",
        ".a",
        "a..b",
        "*.a",
        "a.*",
        "a/",
        "a b",
        "|a",
        "a:80",
        "a^",
        "a.b%2f",
        "é..b",
        "a." * 127 + "b",
    ],
)
def test_what_is_no_name(text):
    with pytest.raises(ValueError, match=r"^not a host name$"):
        parse_rule_name(text)


@pytest.mark.parametrize("text", ["1.2.3.4", "1.2.3.4.", "::1", "::ffff:1.2.3.4"])
def test_an_address_is_no_name(text):
    with pytest.raises(ValueError, match=r"^an address stands alone, without \|$"):
        parse_rule_name(text)


def test_an_empty_set_is_false_and_holds_nothing():
    assert not NameSet()
    assert "" not in NameSet()
    assert "example.com" not in NameSet()


@pytest.mark.parametrize("add", ["add_exact", "add_suffix", "add_expression"])
def test_a_set_with_a_rule_is_true(add):
    rules = NameSet()
    getattr(rules, add)("a.b")
    assert rules


def test_exact_names():
    rules = NameSet()
    rules.add_exact("example.com")
    assert "example.com" in rules
    for name in ("www.example.com", "xample.com", "com", "example.com.net", ""):
        assert name not in rules


def test_suffixes():
    rules = NameSet()
    rules.add_suffix("example.com")
    for name in ("example.com", "www.example.com", "a.b.c.example.com"):
        assert name in rules
    for name in ("badexample.com", "com", "example.com.net", "", "example"):
        assert name not in rules


FIXED = [
    (r"(^|\.)example\.com$", True),
    (r"(?:^|\.)example\.com$", True),
    (r"(\.|^)Example\.COM$", True),
    (r"(^|.*\.)example\.com$", True),
    (r"^(.*\.)?example\.com$", True),
    (r"^(?:.*\.)?ex\-ample\.com$", True),
    (r"^example\.com$", True),
    (r"(^|\.)example\.com", False),
    (r"^example\.com", False),
    (r"^(.*\.)?example\.com", False),
    (r"example\.com$", False),
    (r"\.example\.com$", False),
    (r"example\.com", False),
    (r"(^|\.)^example\.com$", False),
    (r"(^|\.)example.com$", False),  # the dot is any character
    (r"(^|\.)www\.(example)\.com$", False),
    (r"(^\.)example\.com$", False),
    (r"(^|.\.)example\.com$", False),
    (r"^(.*\.)example\.com$", False),
    (r"^(.+\.)?example\.com$", False),
]


@pytest.mark.parametrize(("text", "is_name"), FIXED)
def test_expressions_for_names_become_names_and_mean_what_they_say(text, is_name):
    rules = make(text)
    assert has_automata(rules) != is_name
    for name in (
        *("example.com", "www.example.com", "a.b.example.com", "badexample.com", "example.com.evil"),
        *("www.example.com.evil", "examplexcom", "a.examplexcom", "ex-ample.com", "a.ex-ample.com"),
        *("com", ".example.com", "a..example.com", "xexample.comx", ""),
    ):
        assert (name in rules) == bool(re.search(text, name, re.IGNORECASE)), name


def test_an_expression_no_name_can_match_is_told_and_not_kept():
    rules = NameSet()
    assert not rules.add_expression("a/b")
    assert not rules


def test_a_bad_expression_raises():
    with pytest.raises(ValueError, match="character 1: "):
        NameSet().add_expression("*")


@given(st.lists(patterns, max_size=6), st.lists(names, min_size=1, max_size=4))
def test_as_re_sees_it(texts, several):
    rules = NameSet()
    for text in texts:
        rules.add_expression(text)
    for name in several:
        assert (name in rules) == any(re.search(text, name, re.IGNORECASE | re.ASCII) for text in texts)


def test_expressions_are_built_when_a_name_has_their_piece(built):
    rules = make(*(rf"^tracker{number}x\d+\.example\.com" for number in range(1000)))
    assert "www.unrelated.org" not in rules
    assert built == []
    assert "tracker77x5.example.com" in rules
    assert sum(built) <= 20
    assert "tracker77x.example.com" not in rules
    assert sum(built) <= 20


def test_short_texts_are_pieces_too(built):
    rules = make(*(rf"^ad{chr(97 + number)}\d+\.\d" for number in range(26)))
    assert "adq1.1" in rules
    assert built == [1]


def test_expressions_without_a_fixed_text_are_one_automaton(built):
    rules = make(*(rf"^[{chr(97 + number)}]{{5}}\.\d$" for number in range(26)))
    assert "bbbbb.5" in rules
    assert "bbbbx.5" not in rules
    assert built == [26]


def test_the_number_of_automata_is_bounded():
    rules = make(*(rf"^piece{number:03}\d" for number in range(300)))
    for _ in range(2):
        for number in range(300):
            assert f"piece{number:03}7" in rules
            assert f"piece{number:03}" not in rules
            assert len(rules._automata) <= MAX_AUTOMATA


def test_a_rule_added_later_counts():
    rules = make(r"first\d", r"\d\.\d")
    assert "first1" in rules
    assert "1.a" not in rules
    rules.add_expression(r"first[a-z]")
    rules.add_expression(r"\d\.[a-z]")
    assert "firsta" in rules
    assert "1.a" in rules
