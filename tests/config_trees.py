"""Texts read into trees, for the tests of the readers."""

from __future__ import annotations

import pytest

from common.config.source import read_tree
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
