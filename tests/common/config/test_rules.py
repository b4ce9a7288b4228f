"""Files of access rules: found, readable, and checked on demand."""

from __future__ import annotations

import pytest

from common.config.rules import RuleFiles
from common.config.tree import Report, node_from
from common.errors import ConfigError


def find(folder, *values, check=None, source="c"):
    """Return paths and problems of several ``acl`` keys."""
    report = Report()
    files = RuleFiles(report, folder, check)
    found = [
        files.find({"acl": node_from(value, source, f"acl{number}")}) for number, value in enumerate(values)
    ]
    try:
        report.raise_problems()
    except ConfigError as exc:
        return found, list(exc.problems)
    return found, []


@pytest.fixture
def rules(tmp_path):
    path = tmp_path / "rules.acl"
    path.write_bytes(b"# \xff\n")
    return path


def test_a_path_counts_from_the_file_or_for_a_flag_from_here(rules, tmp_path, monkeypatch):
    assert find(tmp_path, "rules.acl", str(rules)) == ([str(rules)] * 2, [])
    monkeypatch.chdir(tmp_path)
    assert find(tmp_path / "elsewhere", "rules.acl", source="") == ([str(rules)], [])


def test_nothing_given_is_nothing(tmp_path):
    assert find(tmp_path, "", False) == ([None, None], [])
    assert RuleFiles(Report(), tmp_path, None).find({}) is None


def test_what_cannot_be_read(tmp_path):
    found, problems = find(tmp_path, "missing", ".", ["x"], True, "\ud800")
    assert found[2:4] == [None, None]
    assert problems == [
        f"c: acl0: {tmp_path}/missing: No such file or directory",
        f"c: acl1: {tmp_path}: Is a directory",
        "c: acl2: expected text, got a list; put it in quotes",
        "c: acl3: expected text, got true or false; put it in quotes",
        f"c: acl4: {tmp_path}/\ud800: not a file name",
    ]


def test_each_file_is_checked_once(rules, tmp_path):
    checked = []
    assert find(tmp_path, "rules.acl", "./rules.acl", "missing", check=checked.append)[1] == []
    assert checked == [str(rules), f"{tmp_path}/missing"]


def test_problems_of_the_rules_are_problems_of_the_key(rules, tmp_path):
    def check(path):
        raise ConfigError([f"{path}: line 3: bad", f"{path}: line 7: worse"])

    assert find(tmp_path, "rules.acl", check=check)[1] == [
        f"c: acl0: {rules}: line 3: bad",
        f"c: acl0: {rules}: line 7: worse",
    ]
