"""A short run of every fuzz target, the driver, and the command; ``make fuzz`` is the long run."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from common.errors import ProtocolError
from tests.fuzz import driver
from tests.fuzz.driver import Run
from tests.fuzz.mutate import mutated
from tests.fuzz.registry import Target
from tests.fuzz.targets import TARGETS
from tests.wire import damaged

ROOT = Path(__file__).parents[2]
EXAMPLES = 150  # of each target

each_target = pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())


@each_target
def test_valid_inputs(target):
    for data in (b"", *target.seeds):
        target.run(data)


@each_target
def test_strange_inputs(target):
    seeds = st.sampled_from(target.seeds)
    steps = st.integers(0, 2**32).map(random.Random)
    mutants = st.builds(
        lambda data, rng: mutated(data, rng, target.words, target.seeds, target.max_size), seeds, steps
    )

    @settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
    @given(mutants | damaged(damaged(seeds)) | st.binary(max_size=100))
    def run(data):
        target.run(data)

    run()


# -- the driver ----------------------------------------------------------------------------------------


def _planted(data: bytes) -> None:
    if data[:1] == b"A" and data[1:2] == b"\xff":
        raise ProtocolError("planted")
    if len(data) > 30:
        raise ValueError("planted")


def test_the_driver_finds_what_was_planted_once_each():
    run = Run(Target(_planted, (b"Ab",), (b"x" * 40,), 100), seed=1)
    for _ in range(3000):
        run.step()
    assert run.executions == 3002
    assert sorted(report.splitlines()[-1] for report in run.findings.reports) == [
        "ValueError: planted",
        "common.errors.ProtocolError: planted",
    ]


def test_the_driver_keeps_what_reaches_new_lines():
    target = TARGETS["address"]
    run = Run(target._replace(seeds=(b"\x01",), words=()), seed=1)
    before = run.lines.reached
    for _ in range(3000):
        run.step()
    assert not run.findings.reports
    assert run.lines.reached > before > 0
    assert len(run.corpus) > 2


def test_an_endless_loop_is_a_finding(monkeypatch):
    def endless(data: bytes) -> None:
        while data:
            pass

    monkeypatch.setattr(driver, "MAX_CPU", 0.05)
    run = Run(Target(endless, (b"x",), (), 1), seed=1)
    assert "TookTooLong" in run.findings.reports[0]


def test_the_command_runs_and_replays(tmp_path):
    def command(*arguments: str) -> subprocess.CompletedProcess[str]:
        program = [sys.executable, "-m", "tests.fuzz", *arguments]
        return subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=False)

    ran = command("dns", "address", "--own", "--seconds", "0.1", "--seed", "1")
    assert ran.returncode == 0, ran.stderr
    assert [line.split()[1] for line in ran.stdout.splitlines()[-2:]] == ["dns", "address"]
    path = tmp_path / "input"
    path.write_bytes(b"\x01")
    assert command("address", str(path)).stdout == "nothing wrong\n"
