"""Text → tree: formats, YAML's traps, bounds, and errors that quote nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.source import MAX_SIZE, read_text, read_tree
from common.config.tree import Report
from common.errors import ConfigError


def plain(node):
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def read(text, source="c.yaml"):
    report = Report()
    root = read_tree(text, source, report)
    report.raise_problems()
    return root


def problems(text, source="c.yaml"):
    with pytest.raises(ConfigError) as caught:
        read(text, source)
    assert caught.value.__suppress_context__ or caught.value.__context__ is None  # a cause quotes the text
    return list(caught.value.problems)


# ---- which format ----


@pytest.mark.parametrize(
    ("text", "source", "expected"),
    [
        ('{"a": "\\ud83d\\ude00"}', "c.json", {"a": "😀"}),
        ("a: b", "c.yaml", {"a": "b"}),
        ("a: b", "c.YML", {"a": "b"}),
        ("{a: b}", "c.yaml", {"a": "b"}),
        ('\n {"a": 1,} // x', "c.conf", {"a": 1}),
        ('// x\n{"a": 1}', "configuration", {"a": 1}),
        ("# x\na: 1", "c.conf", {"a": 1}),
        ("ss://x@h:1", "c.json", {"servers": ["ss://x@h:1"]}),
        ("\n SS://x\n\n ss://y\n", "c.txt", {"servers": ["SS://x", "ss://y"]}),
        ("", "c.yaml", {}),
        ("# nothing\n", "c.yaml", {}),
    ],
)
def test_format(text, source, expected):
    assert plain(read(text, source)) == expected


def test_links_have_the_lines_they_stand_on():
    root = read("\nss://x\n\nss://y", "c.txt")
    assert [node.place for node in root.value["servers"].value] == [
        "c.txt: line 2: servers[0]",
        "c.txt: line 4: servers[1]",
    ]


def test_json_suffix_means_json():
    assert problems("a: b", "c.json") == ["c.json: line 1: column 1: a text needs double quotes"]


# ---- YAML ----


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


@given(
    st.text(alphabet="abc:-?[]{}*&!|>'\"%@`# \n\t,.0<=~/\\\x00é", max_size=40),
    st.sampled_from(["c.yaml", "c", "c.json"]),
)
def test_any_text_is_read_or_refused(text, source):
    said = ()
    try:
        read(text, source)
    except ConfigError as exc:
        said = exc.problems
    assert all(problem.startswith(source) and "\n" not in problem for problem in said)


# ---- files ----


def test_read_text_takes_a_byte_order_mark(tmp_path):
    path = tmp_path / "c.json"
    path.write_bytes(b"\xef\xbb\xbf{}")
    assert read_text(str(path)) == "{}"


def test_read_text_problems(tmp_path):
    (tmp_path / "latin").write_bytes(b"password: \xff")
    (tmp_path / "large").write_bytes(b" " * (MAX_SIZE + 1))
    (tmp_path / "full").write_bytes(b" " * MAX_SIZE)
    for name, expected in [
        ("latin", "not UTF-8 text"),
        ("large", "larger than 1048576 bytes"),
        ("missing", "No such file or directory"),
        ("", "Is a directory"),
    ]:
        path = str(tmp_path / name)
        with pytest.raises(ConfigError) as caught:
            read_text(path)
        assert caught.value.problems == (f"{path}: {expected}",)
    assert len(read_text(str(tmp_path / "full"))) == MAX_SIZE
