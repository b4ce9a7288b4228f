"""No core dumps. Each case in a process of its own: the limit cannot be taken back."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import subprocess
import sys

import pytest

from common.run import cores
from tests.echo_program import PASSWORD, Place
from tests.processes import ROOT

LIMITS = """
import json, resource
from common.run.cores import forbid_core_dumps
resource.setrlimit(resource.RLIMIT_CORE, (resource.getrlimit(resource.RLIMIT_CORE)[1],) * 2)
forbid_core_dumps()
forbid_core_dumps()
print(json.dumps(resource.getrlimit(resource.RLIMIT_CORE)))
"""

FILTER = """
import subprocess
from common.run.cores import forbid_core_dumps
open("/proc/self/coredump_filter", "w").write("0x33")
forbid_core_dumps()
subprocess.run(["cat", "/proc/self/coredump_filter"])
"""


@pytest.fixture
def place(tmp_path):
    place = Place(tmp_path)
    yield place
    place.close()


def allow_core_dumps() -> None:
    hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
    resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))


def test_both_limits_are_zero_and_twice_does_no_harm():
    shown = subprocess.run(
        [sys.executable, "-c", LIMITS], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    assert json.loads(shown) == [0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="other systems ask nobody what a dump holds")
def test_a_dump_that_is_made_all_the_same_leaves_memory_out():
    """Of this process, and of those made from it. A pipe in ``core_pattern`` gets one whatever the limit."""
    shown = subprocess.check_output([sys.executable, "-c", FILTER], cwd=ROOT)
    assert int(shown, 16) == 0


def test_a_system_without_such_limits_goes_on(monkeypatch):
    monkeypatch.setitem(sys.modules, "resource", None)
    cores.forbid_core_dumps()


def test_a_system_that_refuses_goes_on(monkeypatch):
    asked = []

    def refuse(which: int, limits: tuple[int, int]) -> None:
        asked.append((which, limits))
        raise OSError

    monkeypatch.setattr(resource, "setrlimit", refuse)
    cores.forbid_core_dumps()
    assert asked == [(resource.RLIMIT_CORE, (0, 0))]


def test_a_command_forbids_them_before_it_reads_a_password(monkeypatch):
    from common.run import command

    order = []
    monkeypatch.setattr(command, "forbid_core_dumps", lambda: order.append("cores"))
    monkeypatch.setattr(command, "parse_options", lambda role, argv: order.append("options"))
    with contextlib.suppress(AttributeError):
        command.main("sslocal", lambda config, loop: None, [])
    assert order == ["cores", "options"]


def test_a_running_program_leaves_no_core_when_it_crashes(place):
    """Started where cores are allowed, ended by SIGABRT: the kernel reports that it dumped none."""
    process = subprocess.Popen(
        place.argv(),
        cwd=ROOT,
        env=place.environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=allow_core_dumps,
    )
    try:
        place.wait_listening(process)
        process.send_signal(signal.SIGABRT)
        ended = os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert ended is not None
        assert (ended.si_status, ended.si_code) == (signal.SIGABRT, os.CLD_KILLED)
    finally:
        process.kill()
        out, err = process.communicate()
    assert PASSWORD not in out + err
