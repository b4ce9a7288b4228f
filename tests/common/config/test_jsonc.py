"""JSON with comments: the same values as the standard library, lines, and where errors are."""

from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.jsonc import MAX_DEPTH, read_json
from common.config.tree import Report
from common.errors import ConfigError


def plain(node):
    if isinstance(node.value, dict):
        return {key: plain(child) for key, child in node.value.items()}
    if isinstance(node.value, list):
        return [plain(child) for child in node.value]
    return node.value


def read(text):
    report = Report()
    root = read_json(text, "c.json", report)
    report.raise_problems()
    return root


def problem(text):
    with pytest.raises(ConfigError) as caught:
        read(text)
    (line,) = caught.value.problems
    return line


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False, allow_infinity=False)
    # every character JSON text can hold: controls, U+2028, U+0085, DEL, astral ones
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


@given(VALUES, st.sampled_from([None, 2, "\t"]), st.booleans())
def test_reads_what_the_standard_library_writes(value, indent, ascii_only):
    text = json.dumps(value, indent=indent, ensure_ascii=ascii_only)
    assert plain(read(text)) == value


COMMENTED = """\
// first line
{ /* one
     more */ "a": 1, // "b": 2,
  "c" : "// no comment /* nor this */",
\t"d": [1, 2.5, [], {}, /* , */ ],
  "e": "\\u00e9\\ud83d\\ude00\\/\\n",
  "f": -1.5e3, "g": true, "h": null,
}
"""


def test_comments_and_trailing_commas():
    root = read(COMMENTED)
    assert plain(root) == {
        "a": 1,
        "c": "// no comment /* nor this */",
        "d": [1, 2.5, [], {}],
        "e": "é😀/\n",
        "f": -1500.0,
        "g": True,
        "h": None,
    }


def test_every_value_knows_its_line_and_path():
    root = read(COMMENTED)
    assert root.line == 2
    assert {key: child.line for key, child in root.value.items()} == {
        "a": 3, "c": 4, "d": 5, "e": 6, "f": 7, "g": 7, "h": 7
    }  # fmt: skip
    assert root.value["d"].value[1].place == "c.json: line 5: d[1]"


def test_a_number_keeps_its_text():
    assert read("[1.50]").value[0].text == "1.50"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "line 1: column 1: expected a value"),
        ("// only", "line 1: column 8: expected a value"),
        ("{", 'line 1: column 2: expected a key in double quotes or "}"'),
        ('{"a"', 'line 1: column 5: expected ":" after a key'),
        ('{"a":', "line 1: column 6: expected a value"),
        ('{"a":1', 'line 1: column 7: expected "," or "}"'),
        ('{"a":1\n"b":2}', 'line 2: column 1: expected "," or "}"'),
        ('{"a":1,,}', 'line 1: column 8: expected a key in double quotes or "}"'),
        ("{,}", 'line 1: column 2: expected a key in double quotes or "}"'),
        ("[1 2]", 'line 1: column 4: expected "," or "]"'),
        ("[,]", "line 1: column 2: expected a value"),
        ("[1,,2]", "line 1: column 4: expected a value"),
        ("[", "line 1: column 2: expected a value"),
        ("[1", 'line 1: column 3: expected "," or "]"'),
        ("1 2", "line 1: column 3: expected the end of the file"),
        ("[1}", 'line 1: column 3: expected "," or "]"'),
        ("{1:2}", 'line 1: column 2: expected a key in double quotes or "}"'),
        ("[01]", "line 1: column 2: a malformed number; a text needs double quotes"),
        ("[1.]", "line 1: column 2: a malformed number; a text needs double quotes"),
        ("[127.0.0.1]", "line 1: column 2: a malformed number; a text needs double quotes"),
        ("[+1]", "line 1: column 2: a malformed number; a text needs double quotes"),
        ("[nullx]", "line 1: column 2: a text needs double quotes"),
        ("[NaN]", "line 1: column 2: a text needs double quotes"),
        ("['a']", "line 1: column 2: a string needs double quotes"),
        ("# a", "line 1: column 1: a comment starts with // in JSON"),
        ("/* a", "line 1: column 1: a comment is not closed"),
        ('["a\nb"]', "line 1: column 2: a string is not closed on its line"),
        ('["a', "line 1: column 2: a string is not closed on its line"),
        ('["\\x"]', "line 1: column 2: bad escape in a string"),
        ('["\\ud83d", "\\u12"]', "line 1: column 12: bad escape in a string"),
        (f"[{'9' * 50}]", "line 1: column 2: a number is too long"),
        ("[" * 99, f"line 1: column {MAX_DEPTH + 2}: nested deeper than {MAX_DEPTH} levels"),
        ("[" * 100_000, f"line 1: column {MAX_DEPTH + 2}: nested deeper than {MAX_DEPTH} levels"),
    ],
)
def test_syntax_errors_have_line_and_column(text, expected):
    assert problem(text) == f"c.json: {expected}"


def test_a_key_given_twice_is_a_problem():
    assert problem('{"a": 1,\n\n"a": 2}') == "c.json: line 3: a: given twice, first on line 1"


@given(st.text(alphabet='{}[],:"\\/*-.01eE truefalsn\n\t#', max_size=30))
def test_any_text_is_read_or_refused_and_json_is_never_refused(text):
    pairs = []
    try:
        expected = json.loads(text, object_pairs_hook=lambda found: pairs.append(found) or dict(found))
    except ValueError:
        with contextlib.suppress(ConfigError):
            read(text)
        return
    if all(len(found) == len(dict(found)) for found in pairs):
        assert plain(read(text)) == expected
