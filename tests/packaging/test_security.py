"""SECURITY.md names tests for what it claims: each of them exists."""

from __future__ import annotations

import re

import pytest

from tests.processes import ROOT

TEXT = (ROOT / "SECURITY.md").read_text()
NAMES = sorted(set(re.findall(r"`(test_\w+)(?:…)?`", TEXT)))
FILES = sorted(set(re.findall(r"tests/[\w/]+\.py", TEXT)))
LINKS = sorted(set(re.findall(r"\]\(([^)#]+)", TEXT)))
TESTS = "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


@pytest.mark.parametrize("name", NAMES)
def test_a_named_test_exists(name):
    assert re.search(rf"^def {name}" + ("" if f"`{name}…`" in TEXT else r"\("), TESTS, re.MULTILINE)


@pytest.mark.parametrize("path", [*FILES, *LINKS])
def test_a_named_file_exists(path):
    assert (ROOT / path).is_file()


def test_some_are_named():
    assert len(NAMES) > 20
    assert len(FILES) > 10
