"""Places in messages, and what never gets into one."""

from __future__ import annotations

import pytest

from common.config.schema import Secret
from common.config.tree import Node, Report, item, member, node_from
from common.errors import ConfigError


def node(value=None, line=3, path="a.b"):
    return Node(value, "" if value is None else str(value), "c.yaml", line, path)


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (node(), "c.yaml: line 3: a.b"),
        (node(line=0, path=""), "c.yaml"),
        (node_from("x", "", "flag -m"), "flag -m"),
    ],
)
def test_place_names_what_is_known(place, expected):
    assert place.place == expected


@pytest.mark.parametrize(
    ("path", "key", "expected"),
    [
        ("", "server", "server"),
        ("a", "pid-file", "a.pid-file"),
        ("port_password", "8388", "port_password.8388"),
        ("", "password:hunter2", "password…"),
        ("", "://hunter2", "…"),
        ("password", "hunter2", "password.…"),
        ("a.port_password", "hunter2", "a.port_password.…"),
        ("", "x" * 99, "x" * 40 + "…"),
    ],
)
def test_a_path_shows_only_plain_keys(path, key, expected):
    assert member(path, key) == expected


def test_item_path():
    assert item("servers", 1) == "servers[1]"


@pytest.mark.parametrize(
    ("value", "kind"),
    [
        (None, "nothing"),
        (True, "true or false"),
        (12, "12"),
        (1.5, "1.5"),
        ("hunter2", "text"),
        (Secret("hunter2"), "text"),
        ([], "a list"),
        ({}, "a mapping"),
    ],
)
def test_kind_shows_numbers_and_never_texts(value, kind):
    assert node_from(value, "", "x").kind == kind


def test_node_from_nested_values_has_paths():
    root = node_from({"servers": [{"port": 1}], "n": None}, "", "flag")
    assert root.value["servers"].value[0].value["port"].place == "flag.servers[0].port"
    assert root.value["n"].value is None


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (False, False),
        (0, False),
        ("", False),
        (None, False),
        ([], False),
        ("false", False),
        ("0", False),
        (True, True),
        (1, True),
        ("x", True),
        ([0], True),
        (Secret("x"), True),
    ],
)
def test_given(value, given):
    assert node_from(value, "", "x").given is given


def test_child_stands_where_its_parent_does():
    child = node("x").child("port", 1, "1")
    assert (child.value, child.text, child.place) == (1, "1", "c.yaml: line 3: a.b.port")


def test_repr_shows_no_value():
    assert repr(node("hunter2")) == "<Node c.yaml: line 3: a.b>"


def test_report_sorts_by_line_and_drops_repetitions():
    report = Report()
    for line in (9, 2, 9):
        report.problem(node(line=line), "bad")
        report.warn(node(line=line), "odd")
    assert report.warnings == ("c.yaml: line 2: a.b: odd", "c.yaml: line 9: a.b: odd")
    with pytest.raises(ConfigError) as caught:
        report.raise_problems()
    assert caught.value.problems == ("c.yaml: line 2: a.b: bad", "c.yaml: line 9: a.b: bad")


def test_report_without_problems_raises_nothing():
    report = Report()
    report.warn(node(), "odd")
    report.raise_problems()


def test_is_first():
    report = Report()
    assert [report.is_first(1, "a"), report.is_first(1, "a"), report.is_first(2, "a")] == [True, False, True]
