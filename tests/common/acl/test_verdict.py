"""Verdicts stand apart from what reads rules, so that whoever has no rules does not load it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.acl import Verdict, load_rules
from common.acl.rules import AccessRules


@pytest.mark.parametrize("app", ["sslocal.app", "ssserver.app"])
def test_a_start_without_rules_does_not_load_what_reads_them(app):
    program = f"import sys, {app}; print([name for name in sys.modules if name.startswith('common.acl')])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = done.stdout
    assert "common.acl.verdict" in loaded or app == "ssserver.app"
    assert not any(f"common.acl.{part}'" in loaded for part in ("rules", "text", "names", "automaton"))


def test_rules_are_read_when_there_are_some(tmp_path):
    path = tmp_path / "rules.acl"
    path.write_text("[bypass_all]\n[proxy_list]\n192.0.2.0/24\n")
    rules = load_rules(str(path))
    assert isinstance(rules, AccessRules)
    assert rules.of_target("192.0.2.1") is Verdict.PROXY
    assert rules.of_target("198.51.100.1") is Verdict.BYPASS
