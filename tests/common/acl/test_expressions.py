"""Expressions as trees: what is read, what is refused and where, and what can be told without a name."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.acl.automaton import Automaton
from common.acl.expressions import MAX_DEPTH, MAX_EXPANSION, can_match, literals, parse_expression
from tests.patterns import names, patterns


def found(pattern, name):
    return Automaton([parse_expression(pattern)]).matches(name)


@pytest.mark.parametrize(
    ("pattern", "inside", "outside"),
    [
        ("", "a -", ""),
        ("abc", "abc xabcx", "ab acb"),
        ("a.c", "abc a.c", "ac"),
        (r"a\.c", "a.c", "abc"),
        (r"a\-c", "a-c", "abc"),
        (r"a\x2ec", "a.c", "abc"),
        (r"a\x{2e}c", "a.c", "abc"),
        ("(^|\\.)b", "b a.b b.a", "ab"),
        ("(?:^|\\.)b$", "b a.b", "b.a ab"),
        (r"\Aab\z", "ab", "xab abx"),
        (r"^ab\Z", "ab", "xab abx"),
        ("ab?c", "ac abc", "abbc"),
        ("ab*?c", "ac abbbc", "adc"),
        ("ab+c", "abc abbc", "ac"),
        ("^a{2}$", "aa", "a aaa"),
        ("^a{2,}$", "aa aaaaa", "a"),
        ("^a{1,3}?$", "a aaa", "aaaa"),
        ("^a{0}b$", "b", "ab"),
        ("^(ab|c)*d$", "d ababd cabd", "abad"),
        ("^(a|b|)c$", "ac bc c", "abc"),
        ("^(|a)+b$", "b aab", "xb"),
        ("[a-c]x", "ax cx", "dx"),
        ("[^a-c.]x", "dx -x", "ax .x"),
        ("[]a]x", "ax", "bx"),
        ("[^]a]x", "bx", "ax"),
        ("[a-]x", "ax -x", "bx"),
        (r"[\w-]x", "ax _x -x", ".x"),
        (r"[a\-c]x", "ax -x cx", "bx"),
        (r"[^\d\s]x", "ax", "1x"),
        ("[[:digit:]a]x", "1x ax", "bx"),
        ("[[:^alpha:]]x", "1x .x", "ax"),
        ("[[:xdigit:]]x", "fx 0x", "gx"),
        (r"\d\D", "1a 1-", "11 a1"),
        (r"^\w\W$", "a. _-", "ab -a"),
        (r"^\S+$", "a.b-c", ""),
        (r"\bad\b", "ad ad.x x-ad", "bad ads"),
        (r"\Bad", "bad", "ad x.ad"),
        (r"ad\b.", "ad.", "ads ad"),
        ("ABC", "abc", ""),
        ("[A-C]X", "ax bx", "dx"),
        ("^[^A-C]$", "d", "a"),
        (r"\x41", "a", "b"),
        ("(?i)Abc", "abc", ""),
        ("(?i:A)(?-i:b)(?s).", "abc", "ab"),
        ("(?P<one>a)(?<two>b)(?'three'c)", "abc", "ab"),
        ("a{x}|b", "b", "ax"),
        ("a|^$", "a", "b"),
        ("(^|\\.)*b$", "b ab", "ba"),
        ("((a*)*)*b", "b aab", "aa"),
        ("$^", "", "a"),
    ],
)
def test_what_is_read(pattern, inside, outside):
    for name in inside.split(" "):
        assert found(pattern, name), name
    for name in outside.split():
        assert not found(pattern, name), name


@pytest.mark.parametrize(
    ("pattern", "problem"),
    [
        (
            "*.example.com",
            "character 1: nothing to repeat; all names under a domain are written ||example.com",
        ),
        ("a|*", "character 3: nothing to repeat; all names under a domain are written ||example.com"),
        ("(+)", "character 2: nothing to repeat; all names under a domain are written ||example.com"),
        ("a**", "character 3: a repeat of a repeat is not supported"),
        ("a++", "character 3: a repeat of a repeat is not supported"),
        ("a{1}{2}", "character 5: a repeat of a repeat is not supported"),
        ("a{3,2}", "character 7: a repeat whose least is more than its most"),
        ("(a", "character 3: a parenthesis is not closed"),
        ("a)", "character 2: a parenthesis that was not opened"),
        ("[a", "character 3: a bracket is not closed"),
        ("[", "character 2: a bracket is not closed"),
        ("[]", "character 3: a bracket is not closed"),
        ("[a\\", "character 4: a bracket is not closed"),
        ("a\\", "character 3: a backslash at the end"),
        ("[c-a]", "character 5: a range with no end after its start"),
        (r"[a-\d]", "character 6: a range with no end after its start"),
        ("[[:name:]]", "character 2: this class is not known"),
        ("(?=a)", "character 1: look-ahead and look-behind are not supported"),
        ("(?<!a)b", "character 1: look-ahead and look-behind are not supported"),
        ("a(?>b)", "character 2: this kind of group is not supported"),
        ("(?#a)", "character 1: this kind of group is not supported"),
        ("(?x)a", "character 1: this kind of group is not supported"),
        (r"(a)\1", "character 4: a back-reference"),
        (r"\pL", "character 1: this escape is not supported"),
        (r"[\q]", "character 2: this escape is not supported"),
        (r"\x4", "character 1: this escape is not supported"),
    ],
)
def test_what_is_refused(pattern, problem):
    with pytest.raises(ValueError, match="^" + re.escape(problem) + "$"):
        parse_expression(pattern)


def test_depth_and_size_are_bounded():
    parse_expression("(" * MAX_DEPTH + "a" + ")" * MAX_DEPTH)
    with pytest.raises(ValueError, match=f"character 51: groups nested deeper than {MAX_DEPTH}"):
        parse_expression("(" * 500 + "a" + ")" * 500)
    parse_expression("a{1,1000}")
    for pattern in ("a{9999}", "((a{50}){50}){50}", "(a{0,999}){3}", "((a{99,}){99,}){99,}"):
        with pytest.raises(ValueError, match=f"repeats come to more than {MAX_EXPANSION} characters"):
            parse_expression(pattern)


@pytest.mark.parametrize(
    "pattern", ["a/b", "a b", "# note", "a%2f", "é", r"a\x80", "(/|:)", "(/)+", r"a\tb", "[é/]", '"a": 1']
)
def test_what_no_host_name_can_match(pattern):
    assert not can_match(parse_expression(pattern))


@pytest.mark.parametrize("pattern", ["", "a", "(/|a)", "/*a", "/?", "[/a]", "[^/]", r"\W", "^$", "."])
def test_what_a_host_name_can_match(pattern):
    assert can_match(parse_expression(pattern))


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        (r"(^|\.)example\.com$", ["example.com"]),
        (r"^([^/]+\.)*google\.(com|net)$", ["google."]),
        (r"foo[0-9]+bar.baz", ["foo", "bar", "baz"]),
        (r"fo(o|a)b", ["fo", "b"]),
        (r"a(bc)d", ["a", "bc", "d"]),
        (r"(ab)+c*d{2}", ["ab", "d"]),
        (r"EXAMPLE[.]com", ["example.com"]),
        (r"^ex\bam$", ["exam"]),
        ("a|b", []),
        (".*", []),
        ("", []),
    ],
)
def test_literals(pattern, expected):
    assert literals(parse_expression(pattern)) == expected


@given(patterns, names)
def test_every_match_contains_every_literal(pattern, name):
    tree = parse_expression(pattern)
    if Automaton([tree]).matches(name):
        assert all(text in name for text in literals(tree))
        assert can_match(tree)


@given(st.text(r"ab.\-|()[]{}*+?^$:=!<>PQdwbx019,/é ", max_size=30))
def test_any_text_is_an_expression_or_a_value_error(text):
    problem = "character "
    try:
        Automaton([parse_expression(text)]).matches("ab.a-b")
    except ValueError as exc:
        problem = str(exc)
    assert problem.startswith(("character ", "repeats come to "))
