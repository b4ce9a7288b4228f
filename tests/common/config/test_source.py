"""Text → tree: formats, and files."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.config.source import MAX_SIZE, read_text
from common.errors import ConfigError
from tests.config_trees import plain, problems, read

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
