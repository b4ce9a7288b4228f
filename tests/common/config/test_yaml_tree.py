"""YAML's traps, its bounds, and errors that quote nothing."""

from __future__ import annotations

import pytest

from tests.config_trees import plain, problems, read


@pytest.mark.parametrize(
    ("text", "value", "written"),
    [
        ("12", 12, "12"),
        ("-3", -3, "-3"),
        ("0", 0, "0"),
        ("012", "012", "012"),  # octal in YAML 1.1
        ("0x1f", "0x1f", "0x1f"),
        ("0b11", "0b11", "0b11"),
        ("1_000", "1_000", "1_000"),
        ("12:30", "12:30", "12:30"),  # sexagesimal in YAML 1.1
        ("1:30.5", "1:30.5", "1:30.5"),
        ("1.50", 1.5, "1.50"),
        (".inf", ".inf", ".inf"),
        (".nan", ".nan", ".nan"),
        ("9" * 5000, "9" * 5000, "9" * 5000),
        ("2026-01-01", "2026-01-01", "2026-01-01"),
        ("=", "=", "="),
        ("yes", True, "yes"),
        ("Off", False, "Off"),
        ("null", None, "null"),
        ("~", None, "~"),
        ("", None, ""),
        ("'yes'", "yes", "yes"),
        ('"12"', "12", "12"),
        ("!!str 12", "12", "12"),
        ("127.0.0.1", "127.0.0.1", "127.0.0.1"),
        ("::1", "::1", "::1"),
        ("|\n  two\n  lines\n", "two\nlines\n", "two\nlines\n"),
    ],
)
def test_scalars(text, value, written):
    node = read(f"a: {text}").value["a"]
    assert (node.value, type(node.value), node.text) == (value, type(value), written)


def test_lines_and_paths():
    root = read("a: 1\n\nb:\n  - c: 2\n  - [3, 4]\n")
    assert root.value["a"].place == "c.yaml: line 1: a"
    assert root.value["b"].value[0].value["c"].place == "c.yaml: line 4: b[0].c"
    assert root.value["b"].value[1].value[1].place == "c.yaml: line 5: b[1][1]"


def test_keys_are_the_text_that_was_written():
    assert plain(read("8388: a\nyes: b\n012: c")) == {"8388": "a", "yes": "b", "012": "c"}


def test_a_key_given_twice():
    assert problems("a: 1\nb: 1\na: 2\n") == ["c.yaml: line 3: a: given twice, first on line 1"]


def test_a_key_that_is_no_text():
    assert problems("? [a, b]\n: c\n") == ["c.yaml: line 2: …: a key must be text"]


def test_aliases_and_merge_keys():
    text = "x: &x {method: m, port: 1}\nservers:\n- {<<: *x, port: 2}\n- *x\n"
    text += "- {<<: [{a: 1}, {a: 2, b: 3}], c: 4}\n"
    assert plain(read(text).value["servers"]) == [
        {"method": "m", "port": 2},
        {"method": "m", "port": 1},
        {"a": 1, "b": 3, "c": 4},
    ]


def test_merging_something_else_adds_nothing():
    assert plain(read("{<<: 3, a: 1}")) == {"a": 1}


def test_a_tag_is_a_problem():
    expected = "a YAML tag (!…) is not supported; put the text in quotes"
    assert problems("a: !hunter2 x\nb: !!python/name:os.system\n") == [
        f"c.yaml: line 1: a: {expected}",
        f"c.yaml: line 2: b: {expected}",
    ]


def test_aliases_cannot_expand_without_bound():
    levels = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    levels += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 10)}]" for n in range(1, 9)]
    (problem,) = problems("\n".join(levels))
    assert problem.endswith("more than 200000 values, aliases counted")


@pytest.mark.parametrize("text", ["a: &a [*a]", "[" * 60 + "]" * 60])
def test_depth_is_bounded(text):
    assert problems(text) == ["c.yaml: line 1: nested deeper than 32 levels"]


def test_recursion_in_the_yaml_reader_is_a_problem():
    assert problems("[" * 20_000) == ["c.yaml: nested deeper than 32 levels"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            "a: 1\nb: [1, 2",
            "line 2: while parsing a flow sequence: expected ',' or ']', but got '<stream end>'",
        ),
        ("a: b: hunter2", "line 1: mapping values are not allowed here"),
        ("\nserver: ::\n", "line 2: mapping values are not allowed here (an IPv6 address needs quotes)"),
        (
            "server: [::1]:8388",
            "line 1: while parsing a flow node: expected the node content, but found ':' "
            "(an IPv6 address needs quotes)",
        ),
        ("password: *hunter2", "line 1: found undefined alias …"),
        (
            "a: &h 1\nb: &h 2\npassword: @x",
            "line 2: found duplicate anchor 'h'; first occurrence: second occurrence",
        ),
        ("password: !a!hunter2 x", "line 1: while parsing a node: found undefined tag handle …"),
        (
            "password: hunter2\n\thunter3: x",
            "line 2: while scanning for the next token: found character '\\t' that cannot start any token",
        ),
        ('password: "hunter2\\x"', None),
        ("a: 1\n---\nb: 2", "line 2: expected a single document in the stream: but found another document"),
        ("a: 1\nb: \x00", "line 2: a control character"),
        ("password:hunter2\nserver: x", None),
    ],
)
def test_syntax_errors_have_a_line_and_quote_nothing(text, expected):
    (problem,) = problems(text)
    assert "hunter" not in problem
    assert problem.startswith("c.yaml: line ")
    if expected:
        assert problem == f"c.yaml: {expected}"
