"""``bench.steps``: it moves real bytes through both pairs, and says what each part took."""

from __future__ import annotations

import re
import subprocess
import sys

from tests.processes import ROOT


def test_every_part_has_its_figures():
    done = subprocess.run(
        [sys.executable, "-m", "bench.steps", "1"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.returncode == 0, done.stderr
    head, *lines = done.stdout.splitlines()
    assert head.split()[-2:] == ["shadowrelay", "floor"]
    parts = [re.split(r"\s{2,}", line) for line in lines]
    assert [part[0] for part in parts] == [
        f"{what} {end}" for what in ("connection", "exchange") for end in ("local", "server")
    ]
    assert all(float(figure) > 0 for part in parts for figure in part[1:])
    assert {len(part) for part in parts} == {5}
