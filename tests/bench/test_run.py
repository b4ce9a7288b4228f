"""What a run makes of its processes and of what the generator says; ``make bench-smoke`` does real ones."""

from __future__ import annotations

import subprocess
import sys

import pytest

from bench import run
from bench.run import Broken, Process
from tests.processes import free_port
from tests.waiting import wait_until

FOUND = {"count": 2000.0, "failed": 0.0, "seconds": 0.5, "cpu": 0.1, "p50": 0.002, "p99": 0.004}
LISTENER = """
import socket
{line}
with socket.create_server(("127.0.0.1", PORT)) as listener:
    while True:
        listener.accept()[0].close()
"""


@pytest.fixture
def start(tmp_path):
    """A function that starts a line of Python as one end of a pair."""
    started = []

    def start(line):
        port = free_port()
        command = (sys.executable, "-c", line.replace("PORT", str(port)))
        started.append(Process(command, port, tmp_path / "log", tmp_path))
        return started[-1]

    yield start
    for process in started:
        process.end()


def test_rates_are_per_second_and_costs_per_operation():
    figures = run.rates({**FOUND, "local": 0.02, "server": 0.04})
    assert figures["rate"] == 4000
    assert figures["local cpu"] == pytest.approx(10)
    assert figures["server cpu"] == pytest.approx(20)
    assert (figures["p50"], figures["p99"]) == (2000, 4000)
    assert figures["lost"] == 0


def test_a_run_without_a_relay_has_no_costs():
    assert not {"local cpu", "server cpu"} & run.rates(FOUND).keys()


def test_lost_datagrams_are_a_share_of_all():
    assert run.rates({**FOUND, "failed": 500.0})["lost"] == 20


def test_an_end_that_dies_breaks_the_run_and_is_quoted(start):
    with pytest.raises(Broken, match=r"ended with 3(.|\n)*no such luck"):
        start("print('no such luck'); raise SystemExit(3)").wait_listening()


def test_an_end_that_logs_a_fault_breaks_the_run(start):
    """It goes on listening, and that is not enough."""
    process = start(LISTENER.format(line="print('Traceback (most recent call last):', flush=True)"))
    wait_until(lambda: "Traceback" in process.log.read_text())
    with pytest.raises(Broken, match="a fault in the log"):
        process.check()


def test_an_end_that_listens_is_timed_and_has_costs(start):
    process = start(LISTENER.format(line=""))
    assert 0 < process.wait_listening() < run.PATIENCE
    process.check()
    assert process.cpu() > 0
    assert process.memory("Rss") >= process.memory("Pss") > 1e6


def test_costs_include_children():
    """A shell with a child of its own."""
    with subprocess.Popen(["sh", "-c", "sleep 60 & wait"]) as shell:
        try:
            wait_until(lambda: len(list(run.family(shell.pid))) == 2)
            assert next(iter(run.family(shell.pid))) == shell.pid
        finally:
            for pid in reversed(list(run.family(shell.pid))):
                subprocess.run(["kill", str(pid)], check=True)
