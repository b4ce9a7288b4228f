"""``ssserver`` and ``python -m ssserver`` reach the command with the right role and app."""

from __future__ import annotations

import subprocess
import sys

import pytest

from common.acl import load_rules
from ssserver import ServerApp
from ssserver import __main__ as program
from tests.processes import ROOT


def test_main_runs_the_command_of_this_program(monkeypatch):
    calls = []
    monkeypatch.setattr(program, "run_command", lambda *args, **kwargs: calls.append((args, kwargs)) or 7)
    assert program.main(["-v"]) == 7
    assert calls == [(("ssserver", ServerApp, ["-v"]), {"share": ServerApp.share, "check_rules": load_rules})]


@pytest.mark.parametrize(("argv", "code"), [(["--version"], 0), (["--chek"], 2)])
def test_the_exit_code_is_the_commands(argv, code):
    done = subprocess.run(
        [sys.executable, "-m", "ssserver", *argv], cwd=ROOT, capture_output=True, timeout=30
    )
    assert done.returncode == code
    assert (done.stdout + done.stderr).startswith(b"ssserver")
